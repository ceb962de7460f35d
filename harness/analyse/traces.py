"""The events of a recording in one order: from its raw traces, or as they were analysed before.

Where the raw traces were not kept, ``events.jsonl`` has all that was in them, and
``evidence.json`` what their readers met.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from harness.analyse import case_evidence
from harness.base.errors import StoreError
from harness.model.counters import CounterSource
from harness.model.layout import CaseDir
from harness.model.marks import history
from harness.record import trace_files
from harness.record.collectors.merge import in_order, merge
from harness.record.collectors.table import COLLECTORS
from harness.record.eventlog import LogReport
from harness.record.recording import MarkRecord, Recording
from harness.record.recording_file import has_traces
from userspace_chip.events import Event, event_type


class Traces(Protocol):
    """Where the events of a case come from."""

    @property
    def sources(self) -> frozenset[CounterSource]:
        """Who was traced, and said anything."""

    @property
    def reports(self) -> Mapping[str, LogReport]:
        """How complete the events are that were read, by trace."""

    @property
    def moving(self) -> tuple[Event, ...]:
        """What a QEMU that a guest moved to did with its own chips, before they were the guest's.

        As far as was read.
        """

    def events(self) -> Iterator[Event]:
        """What happened to the guest, in the order of its times."""


def traces_of(recording: Recording) -> Traces:
    """The events of ``recording``; :class:`StoreError` where they were not kept in any form."""
    if has_traces(recording):
        return RawTraces(recording)
    return AnalysedTraces(recording.directory)


class RawTraces:
    """The merged events of the traces, and the harness's marks among them."""

    def __init__(self, recording: Recording) -> None:
        self._marks = recording.marks
        self._moving: list[Event] = []
        self._traces = [
            (one, recording.traces[one.key], one.reader(recording))
            for one in COLLECTORS
            if one.key in recording.traces
        ]
        self.sources = frozenset(
            one.source for one, path, _ in self._traces if trace_files.has_text(path)
        )

    @property
    def reports(self) -> Mapping[str, LogReport]:
        """How complete the events are that were read, by trace."""
        return {one.title: reader.report for one, _, reader in self._traces}

    @property
    def moving(self) -> tuple[Event, ...]:
        """See :class:`Traces`."""
        return tuple(self._moving)

    def events(self) -> Iterator[Event]:
        """What happened to the guest, in the order of its times."""
        with ExitStack() as stack:
            yield from history(merge(*self._streams(stack)), self._moving)

    def _streams(self, stack: ExitStack) -> Iterator[Iterable[Event]]:
        if not any(one.has_marks for one, _, _ in self._traces):
            yield _marks(self._marks)
        for one, path, reader in self._traces:
            events = reader.events(stack.enter_context(trace_files.lines_of(path)))
            yield events if one.is_ordered else in_order(events)


def _marks(marks: Iterable[MarkRecord]) -> Iterator[Event]:
    """Where no trace has the marks: they are on the recording machine's clock, as QEMU's is."""
    kind = event_type("mark")
    for mark in marks:
        yield Event(mark.time_ns, "harness", "mark", None, kind.args(text=mark.text))


class AnalysedTraces:
    """What an earlier analysis left of traces that were not kept.

    :class:`StoreError` where it left nothing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        found = case_evidence.read_sources(directory)
        if found is None:
            raise StoreError(
                f"{directory} has no traces",
                f"neither raw traces nor {CaseDir.evidence}",
                "run the case again",
            )
        self.sources = found.sources
        self.reports = found.reports

    @property
    def moving(self) -> tuple[Event, ...]:
        """See :class:`Traces`."""
        return case_evidence.read_moving(self._directory)

    def events(self) -> Iterator[Event]:
        """What happened to the guest, in the order of its times."""
        return case_evidence.read_events(self._directory, whole=True)
