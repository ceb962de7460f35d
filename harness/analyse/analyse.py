"""From a recording's raw files to events and counters, of one type whatever the source.

``events.jsonl`` gets all events of the case in the order of their times; counters are kept for
each workload, between the marks that the harness set.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.analyse.storm import OnsetTracker
from harness.backends.qemu_argv import QEMU_TRACE_EVENTS
from harness.base import limits
from harness.base.errors import CollectError
from harness.base.files import read_json, read_text, write_json, write_text
from harness.ledger import ledger
from harness.ledger.bookkeeper import Bookkeeper
from harness.ledger.ledger import Ledger
from harness.model import counters
from harness.model.case import Host, Machine
from harness.model.counters import CounterSet, CounterSource
from harness.model.marks import Mark, MarkKind, history, mark_of
from harness.record.collectors.ftrace import FtraceReader
from harness.record.collectors.merge import in_order, merge
from harness.record.collectors.monitor import (
    count_irq_statistics,
    count_stats,
    parse_controllers,
    parse_irq_statistics,
)
from harness.record.collectors.procfs import count_guest
from harness.record.collectors.qemu_log import QemuLogReader
from harness.record.collectors.qmp import MonitorSnapshot
from harness.record.eventlog import LogReport, dump_events
from harness.record.recording import MarkRecord, Recording, WorkloadRecord
from harness.replay import snapshots
from harness.replay.snapshots import Look
from userspace_chip.events import Event, event_type

WHOLE: Final = "*"
"""The name of the counters of the whole case, from power-on to power-off."""


MOVING_FILE: Final = "moving.jsonl"
"""What a QEMU that a guest moved to did with its own chips, before they became the guest's."""


@dataclass(frozen=True)
class Evidence:
    """What a case's sources said.

    ``counters`` by workload, and under :data:`WHOLE` those of the whole case.  ``reports`` say by
    source how complete its events are; ``missing`` why a source said nothing.
    """

    counters: Mapping[str, CounterSet]
    observations: Mapping[str, str]
    """What the monitor told of the chips themselves, by id."""
    onsets_s: Mapping[str, Mapping[int, float]]
    """By workload and pin: when a storm began, in seconds."""
    reports: Mapping[str, LogReport]
    missing: Mapping[str, str]
    ledger: Ledger
    """The account of every interrupt that the events show."""

    @property
    def damage(self) -> str | None:
        """What is missing from the events themselves, or None where they are complete."""
        return _damage(self.reports)


def _damage(reports: Mapping[str, LogReport]) -> str | None:
    parts = [
        f"{source}: {report.lost} lost, {report.damaged} damaged"
        + (", cut off" if report.truncated else "")
        for source, report in reports.items()
        if not report.complete
    ]
    return "; ".join(parts) or None


def gather(recording: Recording) -> Evidence:
    """Read the raw files of ``recording``; write ``events.jsonl``, counters and ledger.

    The raw traces are removed: the events hold all that is in them.
    """
    missing = dict(recording.missing)
    traced = _Traced(recording)
    windows = traced.count(recording.directory / "events.jsonl")
    blind = _blind_spots(recording, traced)
    sets: dict[str, CounterSet] = {
        name: CounterSet.of(window.tally.counters(), traced.sources, blind)
        for name, window in windows.items()
    }
    for record in recording.workloads:
        own = _count_workload(record, missing)
        before = sets.get(record.name, CounterSet.of((), traced.sources, blind))
        sets[record.name] = before.merged(CounterSet.of(own, own.sources, blind))
    write_json(
        recording.directory / "counters.json",
        {name: found.to_json() for name, found in sets.items()} | {"missing": missing},
    )
    snapshots.write(recording.directory, _looks(recording))
    account = traced.books.close(damage=_damage(traced.reports), handled=sets)
    write_text(recording.directory / "ledger.json", ledger.dump(account))
    for path in (recording.kernel_trace, recording.qemu_trace):
        if path is not None:
            path.unlink(missing_ok=True)
    onsets = {name: window.onset.onset_s for name, window in windows.items()}
    return Evidence(sets, _observations(recording), onsets, traced.reports, missing, account)


def read_counters(path: Path) -> dict[str, CounterSet]:
    """The counters of a case by workload; :class:`CollectError` for a file of another kind."""
    try:
        document = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CollectError(f"cannot read {path}", str(error)) from None
    if not isinstance(document, dict):
        raise CollectError(f"{path} has no counters", "it is no JSON object", "run the case again")
    try:
        return {
            name: CounterSet.from_json(data) for name, data in document.items() if name != "missing"
        }
    except CollectError as error:
        raise CollectError(f"{path}: {error}", None, "run the case again") from None


def read_ledger(path: Path) -> Ledger | None:
    """The ledger of a case; None where there is none, :class:`CollectError` for another kind."""
    try:
        return ledger.load(read_text(path, limits.current().json_mib * limits.MIB, "json_mib"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CollectError(f"cannot read {path}", str(error)) from None
    except CollectError as error:
        raise CollectError(f"{path}: {error}") from None


def _blind_spots(recording: Recording, traced: _Traced) -> tuple[counters.BlindSpot, ...]:
    """What cannot be known of this case: by its mode, by what was traced, by what was lost."""
    irqchip = recording.case.backend.irqchip
    spots = [
        *counters.blind_spots(irqchip),
        *counters.untraced("qemu", QEMU_TRACE_EVENTS[irqchip]),
    ]
    traces: tuple[tuple[CounterSource, str], ...] = (
        ("kvm", "kernel trace"),
        ("qemu", "QEMU trace"),
    )
    for source, name in traces:
        report = traced.reports.get(name)
        if report is not None and report.lost:
            spots.append(counters.BlindSpot(source, "*", f"{report.lost} of its events were lost"))
    for record in recording.workloads:
        for snapshot in (record.monitor_before, record.monitor_after):
            if snapshot is not None:
                spots += _missing_spots(snapshot.missing)
    return tuple(dict.fromkeys(spots))


_MONITOR_COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "x-query-irq": ("raised/*",),
    "query-stats": ("injected/*", "exit/*", "activity/*"),
}
"""What each query would have told, as globs for the counters' paths."""


def _missing_spots(missing: Mapping[str, str]) -> list[counters.BlindSpot]:
    return [
        counters.BlindSpot("qmp", glob, f"{query}: {why}")
        for query, why in missing.items()
        for glob in _MONITOR_COUNTERS.get(query, ())
    ]


class _Window:
    """The events of one workload as they go by."""

    def __init__(self) -> None:
        self.tally = counters.EventTally()
        self.onset = OnsetTracker()

    def add(self, event: Event) -> None:
        """Take ``event`` into account."""
        self.tally.add(event)
        self.onset.add(event)


class _Traced:
    """The merged events of the traces, and the harness's marks among them."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        case = recording.case
        ioapics = 2 if case.machine is Machine.MICROVM else 1
        self.books = Bookkeeper(case.backend.irqchip, smp=case.smp, ioapics=ioapics)
        self._kernel = FtraceReader(offset_ns=-_trace_clock_offset_ns(recording))
        self._qemu = QemuLogReader(vcpu_of_thread=recording.vcpu_of_thread)
        files: tuple[tuple[CounterSource, Path | None], ...] = (
            ("kvm", recording.kernel_trace),
            ("qemu", recording.qemu_trace),
        )
        self.sources = frozenset(
            source for source, path in files if path is not None and path.stat().st_size
        )

    @property
    def reports(self) -> dict[str, LogReport]:
        """How complete the events are, by source."""
        found: dict[str, LogReport] = {}
        if self._recording.kernel_trace is not None:
            found["kernel trace"] = self._kernel.report
        if self._recording.qemu_trace is not None:
            found["QEMU trace"] = self._qemu.report
        return found

    def count(self, path: Path) -> dict[str, _Window]:
        """Write the events to ``path``, and count them by workload."""
        windows: dict[str, _Window] = {WHOLE: _Window()}

        def counted(events: Iterable[Event]) -> Iterator[Event]:
            window: _Window | None = None
            whole = windows[WHOLE].tally
            for event in events:
                whole.add(event)
                self.books.add(event)
                if event.name == "mark":
                    window = _window(mark_of(event), windows, window)
                elif window is not None:
                    window.add(event)
                yield event

        aside: list[Event] = []
        with ExitStack() as stack:
            out = stack.enter_context(path.open("w", encoding="utf-8"))
            lived = history(self._events(stack), aside)
            out.writelines(dump_events(counted(lived)))
        if aside:
            path.with_name(MOVING_FILE).write_text("".join(dump_events(aside)), encoding="utf-8")
        return windows

    def _events(self, stack: ExitStack) -> Iterator[Event]:
        recording = self._recording
        streams: list[Iterable[Event]] = []
        if recording.kernel_trace is not None:
            file = stack.enter_context(recording.kernel_trace.open(encoding="utf-8"))
            streams.append(self._kernel.events(file))
        else:
            streams.append(_marks(recording.marks))
        if recording.qemu_trace is not None:
            file = stack.enter_context(
                recording.qemu_trace.open(encoding="utf-8", errors="replace")
            )
            streams.append(in_order(self._qemu.events(file)))
        return merge(*streams)


def _marks(marks: Iterable[MarkRecord]) -> Iterator[Event]:
    """Without a kernel trace the marks are on this machine's clock, as QEMU's trace is."""
    kind = event_type("mark")
    for mark in marks:
        yield Event(mark.time_ns, "harness", "mark", None, kind.args(text=mark.text))


def _window(
    mark: Mark | None, windows: dict[str, _Window], current: _Window | None
) -> _Window | None:
    """The window that events are in after ``mark``."""
    if mark is None or mark.kind not in (MarkKind.BEGIN, MarkKind.END):
        return current
    return windows.setdefault(mark.subject, _Window()) if mark.kind is MarkKind.BEGIN else None


def _trace_clock_offset_ns(recording: Recording) -> int:
    """From wall-clock time to the trace's clock: this machine's TAI offset; a lab has none."""
    if recording.case.backend.host is Host.LAB:
        return 0
    offset_s = time.clock_gettime(time.CLOCK_TAI) - time.clock_gettime(time.CLOCK_REALTIME)
    return round(offset_s) * 10**9


def _count_workload(record: WorkloadRecord, missing: dict[str, str]) -> CounterSet:
    """What guest and monitor counted during the workload."""
    transcript = record.transcript
    guest = CounterSet.of([])
    if transcript is not None and transcript.before is not None and transcript.after is not None:
        before = count_guest(transcript.before.interrupts, transcript.before.stat)
        after = count_guest(transcript.after.interrupts, transcript.after.stat)
        guest = after.since(before)
    try:
        qmp = _count_monitor(record.monitor_after).since(_count_monitor(record.monitor_before))
    except CollectError as error:
        missing[f"monitor of {record.name}"] = str(error)
        return guest
    return guest.merged(qmp)


def _looks(recording: Recording) -> Iterator[Look]:
    """The monitor's looks at the chips, between the marks of :mod:`harness.record.driver`."""
    for record in recording.workloads:
        seen = record.monitor_after
        if seen is not None:
            begin, end = Mark(MarkKind.END, record.name), Mark(MarkKind.SEEN, record.name)
            yield Look(str(begin), str(end), seen.controllers_text, seen.lapic_texts)


def _observations(recording: Recording) -> dict[str, str]:
    for record in recording.workloads:
        snapshot = record.monitor_after or record.monitor_before
        if snapshot is not None and snapshot.controllers_text is not None:
            return parse_controllers(snapshot.controllers_text).observations
    return {}


def _count_monitor(snapshot: MonitorSnapshot | None) -> CounterSet:
    if snapshot is None:
        return CounterSet.of([])
    irq = (
        count_irq_statistics(parse_irq_statistics(snapshot.irq_text))
        if snapshot.irq_text is not None
        else []
    )
    return CounterSet.of([*irq, *count_stats(snapshot.stats)], ["qmp"])
