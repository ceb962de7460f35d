"""Snapshots of ``/proc/interrupts`` in one text: pasted, watched, or written by a loop.

A snapshot begins at its heading of CPUs.  What stands before it may say when: a time as ``date``,
``date +%s.%N``, ``/proc/uptime`` or ISO 8601 print it, or the log's ``[seconds]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from itertools import pairwise
from typing import Final

from harness.base.errors import CollectError
from harness.base.text import LONG_NUMBER
from harness.record.collectors import procfs
from harness.record.collectors.foreign.model import Evidence, FileKind, InterruptSnapshot, Snapshots

HEADING: Final = re.compile(r"\s*(?:CPU\d+\s+)*CPU\d+\s*")
_LINE: Final = re.compile(r"\s*[\w-]{1,12}:\s")
_SECONDS: Final = re.compile(r"[^\d]*(?P<s>\d{1,12}(?:\.\d{1,9})?)(?:\s+\d+\.\d+)?[^\d]*")
_ISO: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?")
_CLOCK: Final = re.compile(r"\b(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?\b")
_MOST: Final = 10_000
"""Snapshots of one file."""
_BEFORE: Final = 3
"""Lines before a heading that may say the time."""


def read(name: str, lines: Iterable[str], kind: FileKind = FileKind.INTERRUPTS) -> Evidence:
    """The snapshots of ``lines``; :class:`CollectError` where there is none."""
    snapshots: list[InterruptSnapshot] = []
    notes: dict[str, int] = {}
    before: list[str] = []
    heading: str | None = None
    time_s: float | None = None
    rows: list[procfs.InterruptLine] = []

    def close() -> None:
        if heading is not None and rows and len(snapshots) < _MOST:
            snapshots.append(InterruptSnapshot(time_s, tuple(rows)))

    for line in (raw.rstrip("\r\n") for raw in lines):
        if HEADING.fullmatch(line):
            close()
            heading, rows, time_s = line, [], time_of(before)
            before = []
        elif heading is not None and _LINE.match(line):
            try:
                rows += procfs.parse_interrupts(f"{heading}\n{line}\n")
            except CollectError as error:
                notes[f"not understood: {error.why or error.what}"] = 1
        elif line.strip():
            if heading is not None:
                close()
                heading = None
            before = [*before, line][-_BEFORE:]
    close()
    if not snapshots:
        raise CollectError(
            f"{name}: no snapshot of /proc/interrupts", "no heading of CPUs with lines below it"
        )
    shown = list(notes)[:5]
    if len(notes) > len(shown):
        shown.append(f"and {len(notes) - len(shown)} lines more")
    return Evidence(
        name, kind, Snapshots(_ordered(snapshots), kind is FileKind.HOST_INTERRUPTS), tuple(shown)
    )


def _ordered(snapshots: list[InterruptSnapshot]) -> tuple[InterruptSnapshot, ...]:
    """Clocks of a day pass midnight; anything else that goes back says no time at all."""
    times = [each.time_s for each in snapshots]
    if any(b is not None and a is not None and b <= a for a, b in pairwise(times)):
        return tuple(InterruptSnapshot(None, each.lines) for each in snapshots)
    return tuple(snapshots)


def time_of(lines: Iterable[str]) -> float | None:
    """The time in seconds that the last of ``lines`` says which says one."""
    for line in reversed(list(lines)):
        if LONG_NUMBER.search(line) is not None:
            continue
        if (iso := _ISO.search(line)) is not None:
            try:
                return datetime.fromisoformat(iso[0].replace(",", ".")).timestamp()
            except (ValueError, OverflowError):
                continue
        if (clock := _CLOCK.search(line)) is not None:
            hours, minutes, seconds, fraction = clock.groups()
            whole = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
            return whole + float(f"0.{fraction or 0}")
        if (plain := _SECONDS.fullmatch(line)) is not None:
            return float(plain["s"])
    return None
