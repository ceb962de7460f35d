"""How a lab ended, from what its QEMU (L0) and its kernel (L1) have left: pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.model.lab_faults import LabFault, of_death

MAX_WORDS: Final = 300
"""Of what is quoted; all of it is in the lab's files."""
_CRASHES: Final = frozenset(
    {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}
)
"""The signals that a program brings on itself."""
_ASSERTION: Final = re.compile(r"^(?:ERROR:|qemu\S*: ).*\bassert.*$", re.IGNORECASE | re.MULTILINE)
"""As GLib writes it (``ERROR:file:line:function: assertion failed: (...)``), or libc."""
_TERMINATED: Final = re.compile(r"terminating on signal (\d+)(?: from pid (\d+) \((.*)\))?")
"""QEMU ends in order, with status 0, by a signal that asks it to (``system/runstate.c``)."""
_PANIC: Final = re.compile(r"^.*Kernel panic - not syncing.*$", re.MULTILINE)


class LabEndKind(StrEnum):
    """Which of the two it was."""

    L0_ABORTED = "the QEMU that runs the lab crashed"
    L0_KILLED = "the QEMU that runs the lab was killed from outside"
    L0_ENDED = "the QEMU that runs the lab gave up"
    L0_STOPPED = "the QEMU that runs the lab is stopped"
    L1_PANICKED = "the lab's kernel panicked"
    L1_LEFT = "the lab reset or powered off"
    L1_STILL = "the lab stands still"


@dataclass(frozen=True)
class LabEnd:
    """How it ended; ``words`` say it in detail, as far as anything is known."""

    kind: LabEndKind
    words: str = ""
    fault: LabFault | None = None

    def __str__(self) -> str:
        known = "" if self.fault is None else str(self.fault)
        first = f"{self.kind.value}: {self.words}" if self.words else self.kind.value
        return "; ".join(filter(None, (first, known)))


def diagnose(
    status: int | None,
    stderr: str,
    console: str,
    faults: Iterable[LabFault] = (),
    *,
    stopped: bool = False,
) -> LabEnd:
    """What became of a lab.

    ``status`` is that of its QEMU, negative for a signal and None while it runs; ``stderr`` what
    that said, ``console`` the lab's; ``faults`` those that its QEMU may have.  ``stopped``: it is
    there and does not run, by SIGSTOP or a debugger.
    """
    if status is None:
        return LabEnd(LabEndKind.L0_STOPPED if stopped else LabEndKind.L1_STILL, _last(console))
    if (asked := _TERMINATED.search(stderr)) is not None:
        by = f", by process {asked[2]} ({asked[3]})" if asked[2] else ""
        return LabEnd(LabEndKind.L0_KILLED, f"{_name(int(asked[1]))}{by}")
    if status < 0:
        return _by_signal(_name(-status), stderr, faults)
    if status > 0:
        words = f"status {status}: {_last(stderr)}" if stderr.strip() else f"status {status}"
        return LabEnd(LabEndKind.L0_ENDED, words, of_death(faults, stderr))
    if (panic := _PANIC.search(console)) is not None:
        return LabEnd(LabEndKind.L1_PANICKED, _shortened(panic[0]))
    return LabEnd(LabEndKind.L1_LEFT, _last(console))


def _by_signal(name: str, stderr: str, faults: Iterable[LabFault]) -> LabEnd:
    if name not in _CRASHES:
        return LabEnd(LabEndKind.L0_KILLED, f"{name}, by a person or because memory ran out")
    assertion = _ASSERTION.search(stderr)
    said = _shortened(assertion[0]) if assertion is not None else _last(stderr)
    words = f"{name}: {said}" if said else name
    return LabEnd(LabEndKind.L0_ABORTED, words, of_death(faults, stderr))


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last(text: str) -> str:
    """The last line that says anything."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _shortened(lines[-1]) if lines else ""


def _shortened(line: str) -> str:
    line = line.strip()
    return line if len(line) <= MAX_WORDS else f"{line[:MAX_WORDS]}..."
