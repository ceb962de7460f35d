"""What ``irqmatrix collect`` reads of the host: QEMU's threads, and KVM's module parameters."""

from __future__ import annotations

import re
from typing import Final

from harness.base.errors import CollectError
from harness.record.collectors.foreign.model import (
    Evidence,
    FileKind,
    ModuleParameters,
    Threads,
    ThreadUse,
)

_PERCENT: Final = "percent of a CPU: user  system  thread"
_TICKS: Final = re.compile(
    r"clock ticks \(user, system\) of each thread in (\d{1,6}(?:\.\d{1,9})?) s", re.ASCII
)
"""As the shell script has it."""
_TICKS_A_SECOND: Final = 100
"""Linux' ``USER_HZ`` on x86 (``include/asm-generic/param.h``)."""
_PERCENT_ROW: Final = re.compile(r" *(\d{1,9}\.\d) +(\d{1,9}\.\d)  (.{1,64})", re.ASCII)
_TICKS_ROW: Final = re.compile(r"(\d{1,12}) (\d{1,12}) \d{1,10} (.{1,64})", re.ASCII)
_PARAMETER: Final = re.compile(r"(kvm\w*\.\w{1,80})=(.{0,200})", re.ASCII)
_MOST: Final = 10_000


def read_threads(name: str, text: str) -> Evidence:
    """CPU time of each thread; :class:`CollectError` where no thread is in it."""
    heading, *rows = text.splitlines()[:_MOST] or [""]
    ticks = _TICKS.fullmatch(heading)
    if ticks is None and heading != _PERCENT:
        raise CollectError(f"{name}: no table of threads", f"it begins with {heading[:60]!r}")
    row = _PERCENT_ROW if ticks is None else _TICKS_ROW
    share = 1.0
    if ticks is not None:
        share = 100 / _TICKS_A_SECOND / max(float(ticks[1]), 1e-3)
    found = [
        ThreadUse(match[3].strip(), float(match[1]) * share, float(match[2]) * share)
        for match in map(row.fullmatch, rows)
        if match is not None
    ]
    if not found:
        raise CollectError(f"{name}: no thread in it")
    return Evidence(name, FileKind.THREADS, Threads(tuple(found)))


def read_parameters(name: str, text: str) -> Evidence:
    """``module.parameter=value``, a line each; :class:`CollectError` where there is none."""
    lines = text.splitlines()[:_MOST]
    found = [match for match in map(_PARAMETER.fullmatch, lines) if match is not None]
    if not found:
        raise CollectError(f"{name}: no parameter of a module of KVM in it")
    values = {match[1]: match[2].strip() for match in found}
    return Evidence(name, FileKind.PARAMETERS, ModuleParameters(values))
