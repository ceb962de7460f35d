"""Tables of counts: ``perf kvm stat report|live``, ``perf stat -e kvm:*``, ``kvm_stat -c``, bcc.

Formats: Linux ``tools/perf/builtin-kvm.c`` (print_result), ``tools/perf/util/stat-display.c``,
``tools/kvm/kvm_stat/kvm_stat`` (CSVFormat), bcc ``tools/kvmexit.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from typing import Final

from harness.base.errors import CollectError
from harness.base.text import LONG_NUMBER
from harness.record.collectors.foreign import exits
from harness.record.collectors.foreign.model import EventCounts, Evidence, ExitTable, FileKind

KVM_HEADING: Final = re.compile(
    r"\s*(VM-EXIT|IO Port Access|MMIO Access)\s+Samples\s+Samples%\s+Time%.*", re.IGNORECASE
)
BCC_HEADING: Final = re.compile(r"(?:.*\s)?KVM_EXIT_REASON\s+COUNT.*")
_KVM_ROW: Final = re.compile(
    r"\s*(?P<name>\S.*?)\s+(?P<count>\d+)\s+\d+(?:\.\d+)?%\s+\d+(?:\.\d+)?%.*"
)
_TOTAL: Final = re.compile(
    r"Total Samples:\s*(\d+), Total events handled time:\s*(\d+(?:\.\d+)?)us\."
)
_BCC_ROW: Final = re.compile(r".*?\b(?P<name>[A-Z][A-Z0-9_]{2,})\s+(?P<count>\d+)\s*")
STAT_ROW: Final = re.compile(
    r"\s*(?P<count>\d[\d,.'\u202f\u00a0 ]*|<not \w+>)\s+(?:kvm:)?(?P<name>kvm_\w+)\b.*"
)
_ELAPSED: Final = re.compile(r"\s*(\d+)[.,](\d+)\s+seconds time elapsed.*")
CSV_HEADING: Final = re.compile(r"timestamp(?:,[\w()-]+)+")
_CLOCK: Final = re.compile(r"(\d\d):(\d\d):(\d\d\.\d{6})", re.ASCII)
"""What ``perf kvm stat live`` prints above each table (``print_result``)."""
_CLEARED: Final = "\x1b[H\x1b[2J"
"""What it clears a terminal with before."""
_UNITS: Final = {"vm-exit": "exit", "io port access": "port", "mmio access": "mmio"}
_MOST_LINES: Final = 1_000_000


def read_exits(name: str, lines: Iterable[str], seconds: float | None = None) -> list[Evidence]:
    """Each table of ``perf kvm stat`` or bcc's ``kvmexit``, by its unit.

    Tables of one unit are added up.  ``live`` prints one a second below the time of day; another
    table says no duration, and ``seconds`` is what the user knows of it.  :class:`CollectError`
    where there is no table.
    """
    counts: dict[str, Counter[str]] = {}
    handled: dict[str, float] = {}
    notes: list[str] = []
    unit: str | None = None
    times_s: list[float] = []
    for raw in islice(lines, _MOST_LINES):
        line = raw.rstrip("\r\n")
        if (clock := _CLOCK.fullmatch(line.removeprefix(_CLEARED))) is not None:
            times_s.append(int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3]))
        elif LONG_NUMBER.search(line) is not None:
            notes.append(f"not understood: {line[:60]!r}")
        elif (heading := KVM_HEADING.fullmatch(line)) is not None:
            unit = _UNITS[heading[1].lower()]
            counts.setdefault(unit, Counter())
        elif BCC_HEADING.fullmatch(line) is not None:
            unit = "exit"
            counts.setdefault(unit, Counter())
        elif unit is not None and (total := _TOTAL.search(line)) is not None:
            handled[unit] = handled.get(unit, 0.0) + float(total[2])
        elif unit is not None and (row := _KVM_ROW.fullmatch(line)) is not None:
            key = exits.canonical(row["name"]) if unit == "exit" else row["name"]
            counts[unit][key] += int(row["count"])
        elif unit is not None and (row := _BCC_ROW.fullmatch(line)) is not None:
            counts[unit][exits.canonical(row["name"])] += int(row["count"])
    if not any(counts.values()):
        raise CollectError(f"{name}: no table of exits with a row", None, _HINT)
    duration_s = seconds if seconds is not None else _live_s(times_s)
    return [
        Evidence(
            name,
            FileKind.EXITS,
            ExitTable(key, dict(found), duration_s, handled.get(key) or None),
            tuple(notes[:5]),
        )
        for key, found in counts.items()
        if found
    ]


def _live_s(times_s: list[float]) -> float | None:
    """Over how long the tables of ``live`` count.

    The first is of as long a time before it as is between it and the second; the last, which it
    prints when it ends, is of less.
    """
    if len(times_s) < 2 or times_s != sorted(times_s):  # of a day that passed midnight: not known
        return None
    return times_s[1] - times_s[0] + times_s[-1] - times_s[0] or None


_HINT: Final = "the table has to be there with its heading, VM-EXIT  Samples  Samples% ..."


def read_counts(name: str, lines: Iterable[str]) -> Evidence:
    """The text of ``perf stat -e 'kvm:*'``; :class:`CollectError` where it counts no event."""
    counts: Counter[str] = Counter()
    missing = 0
    duration_s = None
    for raw in islice(lines, _MOST_LINES):
        line = raw.rstrip("\r\n")
        if LONG_NUMBER.search(line) is not None:
            continue
        if (elapsed := _ELAPSED.fullmatch(line)) is not None:
            duration_s = float(f"{elapsed[1]}.{elapsed[2]}") or None
        elif (row := STAT_ROW.fullmatch(line)) is not None:
            if row["count"].startswith("<"):
                missing += 1
            else:
                counts[row["name"]] += int(re.sub(r"\D", "", row["count"]))
    if not counts:
        raise CollectError(f"{name}: perf stat counted no event of kvm")
    notes = [f"{missing} events were not counted"] if missing else []
    if duration_s is None:
        notes.append("no line says how long it counted")
    return Evidence(name, FileKind.COUNTS, EventCounts(dict(counts), duration_s), tuple(notes))


def read_kvm_stat(name: str, lines: Iterable[str]) -> Evidence:
    """The CSV of ``kvm_stat -c``: each row is what was counted since the row before.

    The times have whole seconds, so that a rate of a few rows is out by as much.
    :class:`CollectError` where there is no row.
    """
    names: list[str] = []
    counts: Counter[str] = Counter()
    stamps: list[datetime] = []
    bad = 0
    for raw in islice(lines, _MOST_LINES):
        line = raw.strip()
        if CSV_HEADING.fullmatch(line):
            names = line.split(",")[1:]
            continue
        stamp, *values = line.split(",")
        if not line:
            continue
        try:
            if len(values) != len(names) or not names or LONG_NUMBER.search(line):
                raise ValueError
            time = datetime.fromisoformat(stamp)
            if time.tzinfo is not None:
                raise ValueError
            row = [int(value) for value in values]
        except ValueError:
            bad += 1
            continue
        stamps.append(time)
        for key, value in zip(names, row, strict=True):
            counts[key] += value
    if not stamps:
        raise CollectError(f"{name}: kvm_stat's CSV has no row that can be read")
    first, last = min(stamps), max(stamps)
    rows = len(stamps)
    duration_s = (last - first).total_seconds() * rows / (rows - 1) if rows > 1 else 0
    notes = [f"{bad} lines are no row"] if bad else []
    if not duration_s:
        notes.append("one row does not say over how long it counted")
    return Evidence(
        name, FileKind.KVM_STAT, EventCounts(dict(counts), duration_s or None), tuple(notes)
    )
