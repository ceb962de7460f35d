"""What QEMU's monitor said, pasted by a user: ``info pic``, ``lapic``, ``irq``, ``query-stats``.

A prompt, an echo of the command and the line ends of a terminal may be around it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from harness.base import files
from harness.base.errors import CollectError
from harness.record.collectors import monitor
from harness.record.collectors.foreign.model import (
    Evidence,
    FileKind,
    IrqTexts,
    LapicTexts,
    NamedVersions,
    Registers,
    Statistics,
)
from harness.record.collectors.foreign.versions import dotted
from userspace_chip.errors import IrqmatrixError
from userspace_chip.info_pic import parse_info_pic

_PROMPT: Final = re.compile(r"^\(qemu\).*$", re.MULTILINE)
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LAPIC: Final = "dumping local APIC state"
_LINT0: Final = re.compile(r"^LVT0\t .*\bmasked\b", re.MULTILINE)
_MOST_CPUS: Final = 4096
_STAMP: Final = re.compile(r"(\d{1,12}\.\d{1,9})\n", re.ASCII)


def _json(text: str) -> Any:
    """The document, or that line of a QMP session that has statistics."""
    try:
        return files.parse_json(text)
    except ValueError:
        lines = [line for line in text.splitlines() if '"stats"' in line]
        return files.parse_json(lines[-1] if lines else "")


def cleaned(text: str) -> str:
    """Without prompts, echoes and the line ends of a terminal."""
    return _PROMPT.sub("", _ESCAPES.sub("", text.replace("\r", ""))).strip() + "\n"


def read_pic(name: str, text: str) -> Evidence:
    """``info pic``; :class:`CollectError` where it is none."""
    plain = cleaned(text)
    pending = monitor.parse_controllers(plain)
    notes: tuple[str, ...] = ()
    chips = None
    try:
        chips = parse_info_pic(plain)
    except IrqmatrixError as error:
        notes = (f"only what is pending was understood: {error}",)
    return Evidence(name, FileKind.INFO_PIC, Registers(pending, chips), notes)


def read_lapic(name: str, text: str) -> Evidence:
    """``info lapic`` of one CPU or of several; :class:`CollectError` where there is none."""
    parts = cleaned(text).split(_LAPIC)[1:][:_MOST_CPUS]
    lapics, masked, notes = [], [], []
    for part in parts:
        try:
            lapic = monitor.parse_lapic(_LAPIC + part)
        except CollectError as error:
            notes.append(str(error))
            continue
        lapics.append(lapic)
        if _LINT0.search(part) is not None:
            masked.append(lapic.cpu)
    if not lapics:
        raise CollectError(f"{name}: no local APIC can be read", notes[0] if notes else None)
    return Evidence(
        name, FileKind.INFO_LAPIC, LapicTexts(tuple(lapics), tuple(masked)), tuple(notes[:3])
    )


def read_irq(name: str, text: str) -> Evidence:
    """``info irq``, below a time in seconds or not; :class:`CollectError` where it is none."""
    stamp = _STAMP.match(text)
    time_s = None if stamp is None else float(stamp[1])
    found = monitor.parse_irq_statistics(cleaned(text if stamp is None else text[stamp.end() :]))
    if not found:
        raise CollectError(f"{name}: no statistics of an interrupt controller")
    return Evidence(name, FileKind.INFO_IRQ, IrqTexts(found, time_s))


_SESSION: Final[tuple[tuple[str, str], ...]] = (
    ("pic", r"^(?:ioapic\d+: ver=|pic\d: irr=)"),
    ("lapic", r"^dumping local APIC state"),
    ("irq", r"^IRQ statistics"),
    ("version", r"^\d+\.\d+\.\d+"),
)


def read_session(name: str, text: str) -> list[Evidence]:
    """What a whole session of the monitor shows, command by command.

    :class:`CollectError` where it shows nothing of interrupts.
    """
    readers = {"pic": read_pic, "lapic": read_lapic, "irq": read_irq}
    found: list[Evidence] = []
    notes: list[str] = []
    for part in _PROMPT.split(_ESCAPES.sub("", text.replace("\r", "")))[:_MOST_CPUS]:
        for what, pattern in _SESSION:
            if re.search(pattern, part.strip(), re.MULTILINE) is None:
                continue
            if what == "version":
                version = dotted(part.strip())
                found.append(Evidence(name, FileKind.VERSIONS, NamedVersions(qemu=version)))
                break
            try:
                found.append(readers[what](name, part))
            except CollectError as error:
                notes.append(str(error))
            break
    if not found:
        raise CollectError(f"{name}: the monitor shows no interrupt controller", "; ".join(notes))
    return found


def read_statistics(name: str, text: str) -> Evidence:
    """``query-stats`` of vCPUs as QMP gives it, with or without ``return`` around it."""
    try:
        data: Any = _json(text)
    except (ValueError, RecursionError) as error:
        raise CollectError(f"{name}: not JSON", str(error)[:100]) from None
    time_s = _time_of(data)
    found = data.get("return", data) if isinstance(data, dict) else data
    if not isinstance(found, list):
        raise CollectError(f"{name}: query-stats cannot be read", f"found {str(found)[:80]}")
    vcpus = [each for each in found if "cpu" in json.dumps(each)[:2000]]
    stats = monitor.vcpu_stats(vcpus or found)
    return Evidence(name, FileKind.STATISTICS, Statistics(tuple(stats), time_s))


def _time_of(data: Any) -> float | None:
    """``timestamp``, as QMP gives it to events and ``irqmatrix collect`` to this answer."""
    stamp = data.get("timestamp") if isinstance(data, dict) else None
    if not isinstance(stamp, dict):
        return None
    seconds, microseconds = stamp.get("seconds"), stamp.get("microseconds")
    if not isinstance(seconds, int) or not isinstance(microseconds, int):
        return None
    return seconds + microseconds / 1e6 if 0 <= seconds < 10**12 else None
