"""From a recording to what it says: events, counters, ledger, of one type whatever the source.

Counters are kept for each workload, between the marks that the harness set.  Nothing is written,
and nothing asked of the machine that this runs on: the same recording gives the same anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from harness.analyse.case_evidence import (
    WHOLE,
    CaseEvidence,
    Sources,
    damage_of,
    ioapics_of,
)
from harness.analyse.motion import Tail
from harness.analyse.results.table import results_of
from harness.analyse.storm import OnsetTracker
from harness.analyse.traces import Traces, traces_of
from harness.backends.qemu_argv import QEMU_TRACE_EVENTS
from harness.base.errors import CollectError
from harness.ledger.bookkeeper import Bookkeeper
from harness.model import counters
from harness.model.case import Host
from harness.model.counters import CounterSet
from harness.model.manifest import CaseFile
from harness.model.marks import Mark, MarkKind, mark_of
from harness.record.collectors.monitor import (
    count_irq_statistics,
    count_stats,
    parse_controllers,
    parse_irq_statistics,
)
from harness.record.collectors.procfs import count_guest
from harness.record.collectors.qmp import MonitorSnapshot
from harness.record.collectors.table import COLLECTORS
from harness.record.recording import Recording, WorkloadRecord
from harness.replay.snapshots import Look
from userspace_chip.events import Event


def _pass_over(events: Iterable[Event]) -> None:
    deque(events, maxlen=0)


def analyse(
    recording: Recording,
    described: CaseFile,
    take: Callable[[Iterable[Event]], None] = _pass_over,
) -> CaseEvidence:
    """What the files of ``recording`` say of the case that is ``described``.

    ``take`` gets all events of the case as they go by, in the order of their times, and has to take
    all of them.  :class:`CollectError` and :class:`StoreError` where a file cannot be read.
    """
    traces = traces_of(recording)
    books = Bookkeeper(described.irqchip, smp=described.smp, ioapics=ioapics_of(described))
    seen = _Windows()
    # A lab's trace has its own clock; KVM's own counts do there.
    tail = Tail(recording.last_looks if recording.case.backend.host is Host.LOCAL else ())
    take(_shown_to((seen, tail, books), traces.events()))
    windows = seen.by_name
    missing = dict(recording.missing)
    blind = _blind_spots(recording, traces)
    sets: dict[str, CounterSet] = {
        name: CounterSet.of(window.tally.counters(), traces.sources, blind)
        for name, window in windows.items()
    }
    for record in recording.workloads:
        own = _count_workload(record, missing)
        before = sets.get(record.name, CounterSet.of((), traces.sources, blind))
        sets[record.name] = before.merged(CounterSet.of(own, own.sources, blind))
    scenarios = list(results_of(recording).compared(described))
    onsets = {name: window.onset.onset_s for name, window in windows.items()}
    reports = traces.reports
    return CaseEvidence(
        described=described,
        counters=sets,
        missing=missing,
        ledger=books.close(damage=damage_of(reports), handled=sets),
        looks=tuple(_looks(recording)),
        moving=traces.moving,
        scenarios={name: log for name, log, _ in scenarios},
        sources=Sources(
            traces.sources,
            reports,
            onsets,
            _observations(recording),
            {name: ruling for name, _, ruling in scenarios},
            tail.counts(),
        ),
        tail=tail.counts(),
    )


class _Consumer(Protocol):
    """Learns something from the events as they go by."""

    def add(self, event: Event) -> None:
        """Take ``event`` into account."""


class _Window:
    """The events of one workload."""

    def __init__(self) -> None:
        self.tally = counters.EventTally()
        self.onset = OnsetTracker()

    def add(self, event: Event) -> None:
        """Take ``event`` into account."""
        self.tally.add(event)
        self.onset.add(event)


class _Windows:
    """The events of each workload, between its marks, and of the whole case."""

    def __init__(self) -> None:
        self.by_name: dict[str, _Window] = {WHOLE: _Window()}
        self._whole = self.by_name[WHOLE].tally
        self._current: _Window | None = None

    def add(self, event: Event) -> None:
        """Count ``event`` in the window that it is in."""
        self._whole.add(event)
        if event.name == "mark":
            self._enter(mark_of(event))
        elif self._current is not None:
            self._current.add(event)

    def _enter(self, mark: Mark | None) -> None:
        if mark is None or mark.kind not in (MarkKind.BEGIN, MarkKind.END):
            return
        begins = mark.kind is MarkKind.BEGIN
        self._current = self.by_name.setdefault(mark.subject, _Window()) if begins else None


def _shown_to(consumers: Sequence[_Consumer], events: Iterable[Event]) -> Iterator[Event]:
    """``events``, after every one of ``consumers`` has seen them."""
    adding = [consumer.add for consumer in consumers]
    for event in events:
        for add in adding:
            add(event)
        yield event


def _blind_spots(recording: Recording, traces: Traces) -> tuple[counters.BlindSpot, ...]:
    """What cannot be known of this case: by its mode, by what was traced, by what was lost."""
    irqchip = recording.case.backend.irqchip
    spots = [
        *counters.blind_spots(irqchip),
        *counters.untraced("qemu", QEMU_TRACE_EVENTS[irqchip]),
    ]
    reports = traces.reports
    for collector in COLLECTORS:
        report = reports.get(collector.title)
        if report is not None and report.lost:
            spots.append(
                counters.BlindSpot(collector.source, "*", f"{report.lost} of its events were lost")
            )
        if report is not None and (why := recording.missing.get(collector.title)) is not None:
            spots.append(counters.BlindSpot(collector.source, "*", why))
    for record in recording.workloads:
        for snapshot in (record.monitor_before, record.monitor_after):
            if snapshot is not None:
                spots += _missing_spots(snapshot.missing)
    return tuple(dict.fromkeys(spots))


_MONITOR_COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "x-query-irq": ("raised/*",),
    "query-stats": ("injected/*", "exit/*", "activity/*"),
}
"""What each query would have reported, as globs for the counters' paths."""


def _missing_spots(missing: Mapping[str, str]) -> list[counters.BlindSpot]:
    return [
        counters.BlindSpot("qmp", glob, f"{query}: {why}")
        for query, why in missing.items()
        for glob in _MONITOR_COUNTERS.get(query, ())
    ]


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
    """The monitor's looks at the chips, each between two marks of its workload."""
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
