"""The interrupts of a run's cases for Perfetto (ui.perfetto.dev): native TrackEvents.

A case is a process, whose time begins with its first event, and a packet sequence of its own.  Its
tracks are the lines, the IOAPIC's pins, the local APICs with one for each vector, and the vCPUs;
counters have the number of vectors in IRR and in ISR.  A flow goes with an interrupt from track to
track, up to its EOI (``protos/perfetto/trace/track_event/track_event.proto``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    CounterDescriptor,
    TracePacket,
    TrackDescriptor,
    TrackEvent,
)
from perfetto.trace_builder.proto_builder import TraceProtoBuilder

from harness.base.text import plain
from harness.ledger.timeline import Slice, Timeline, Track, TrackKind

CATEGORY: Final = "irq"
EOI: Final = "eoi"
OPEN: Final = "open"
"""The category of what the recording ended before."""
_RANKS: Final = {kind: rank for rank, kind in enumerate(TrackKind)}
_NAMES: Final[Mapping[TrackKind, str]] = {
    TrackKind.LINE: "line",
    TrackKind.PIN: "IOAPIC pin",
    TrackKind.LAPIC: "LAPIC",
    TrackKind.VCPU: "vCPU",
}


def render(timelines: Mapping[str, Timeline]) -> bytes:
    """The trace of ``timelines``, which are by the case's name."""
    builder = TraceProtoBuilder()
    uuids = count(1)
    for number, (name, timeline) in enumerate(timelines.items(), 1):
        for packet in _Case(number, name, timeline, uuids).packets():
            packet.trusted_packet_sequence_id = number
            builder.trace.packet.append(packet)
    found: bytes = builder.serialize()
    return found


@dataclass(frozen=True)
class _Moment:
    """What goes into one packet, and the order of those of the same time."""

    time_ns: int
    order: int
    event: TrackEvent = field(compare=False)

    @property
    def key(self) -> tuple[int, int]:
        return self.time_ns, self.order


class _Case:
    """A case as a process with its tracks."""

    def __init__(self, number: int, name: str, timeline: Timeline, uuids: Iterator[int]) -> None:
        self._number = number
        self._timeline = timeline
        self._uuids = uuids
        self._process = next(uuids)
        self._descriptors: list[TrackDescriptor] = []
        self._tracks: dict[Track, int] = {}
        self._counters: dict[tuple[str, int], int] = {}
        self._names: dict[str, int] = {}
        process = TrackDescriptor(uuid=self._process)
        process.process.pid = number
        process.process.process_name = plain(name)
        process.child_ordering = TrackDescriptor.EXPLICIT
        self._descriptors.append(process)

    def packets(self) -> Iterator[TracePacket]:
        """The tracks, and then what happened on them, by time."""
        moments = sorted(self._moments(), key=lambda moment: moment.key)
        first = TracePacket(sequence_flags=TracePacket.SEQ_INCREMENTAL_STATE_CLEARED)
        for name, iid in self._names.items():
            first.interned_data.event_names.add(iid=iid, name=plain(name))
        first.timestamp = 0
        yield first
        for descriptor in self._descriptors:
            yield TracePacket(track_descriptor=descriptor, timestamp=0)
        origin = moments[0].time_ns if moments else 0
        for moment in moments:
            packet = TracePacket(timestamp=moment.time_ns - origin, track_event=moment.event)
            packet.sequence_flags = TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
            yield packet

    # --- Tracks ---------------------------------------------------------------------------------

    def _track(self, track: Track) -> int:
        """The id of ``track``, which is described where it comes for the first time."""
        found = self._tracks.get(track)
        if found is None:
            name = f"{_NAMES[track.kind]} {track.number}"
            parent, rank = self._process, _RANKS[track.kind] * 1000 + track.number
            if track.vector is not None:
                parent = self._track(Track(track.kind, track.number))
                name, rank = f"{name} vector {track.vector:#x}", track.vector
            found = self._tracks[track] = self._describe(name, parent, rank).uuid
        return found

    def _describe(self, name: str, parent: int, rank: int) -> TrackDescriptor:
        descriptor = TrackDescriptor(uuid=next(self._uuids), parent_uuid=parent, name=name)
        descriptor.sibling_order_rank = rank
        descriptor.child_ordering = TrackDescriptor.EXPLICIT
        self._descriptors.append(descriptor)
        return descriptor

    def _counter(self, register: str, cpu: int) -> int:
        key = register, cpu
        if key not in self._counters:
            parent = self._track(Track(TrackKind.LAPIC, cpu))
            descriptor = self._describe(f"{register} depth of LAPIC {cpu}", parent, -1)
            descriptor.counter.unit = CounterDescriptor.UNIT_COUNT
            self._counters[key] = descriptor.uuid
        return self._counters[key]

    # --- Events ---------------------------------------------------------------------------------

    def _moments(self) -> Iterator[_Moment]:
        timeline = self._timeline
        last = _last_of_flows((*timeline.slices, *timeline.ended, *timeline.merged))
        for each in timeline.slices:
            category = OPEN if each.is_open else CATEGORY
            begin = self._event(TrackEvent.TYPE_SLICE_BEGIN, each, category, last)
            yield _Moment(each.begin_ns, each.begins, begin)
            end = TrackEvent(type=TrackEvent.TYPE_SLICE_END, track_uuid=begin.track_uuid)
            yield _Moment(each.end_ns, each.ends, end)
        for moments, category in ((timeline.ended, EOI), (timeline.merged, CATEGORY)):
            for each in moments:
                event = self._event(TrackEvent.TYPE_INSTANT, each, category, last)
                yield _Moment(each.begin_ns, each.begins, event)
        for depth in timeline.depths:
            for register, value in (("IRR", depth.irr), ("ISR", depth.isr)):
                event = TrackEvent(type=TrackEvent.TYPE_COUNTER, counter_value=value)
                event.track_uuid = self._counter(register, depth.cpu)
                yield _Moment(depth.time_ns, 0, event)
        if timeline.cut:
            yield self._cut(timeline)

    def _event(
        self, kind: TrackEvent.Type, each: Slice, category: str, last: Mapping[int, int]
    ) -> TrackEvent:
        event = TrackEvent(type=kind, track_uuid=self._track(each.track), categories=[category])
        event.name_iid = self._names.setdefault(each.name, len(self._names) + 1)
        if each.flow is not None and each.flow in last:
            flow = self._number << 40 | each.flow
            ends = last[each.flow] == each.begins
            (event.terminating_flow_ids if ends else event.flow_ids).append(flow)
        return event

    def _cut(self, timeline: Timeline) -> _Moment:
        """Says at the end what is not there."""
        event = TrackEvent(type=TrackEvent.TYPE_INSTANT, track_uuid=self._process)
        event.name = f"cut: {timeline.cut} interrupts after the first ones are not in this file"
        end_ns = max((each.end_ns for each in timeline.slices), default=0)
        return _Moment(end_ns, 1 << 62, event)


def _last_of_flows(slices: Iterable[Slice]) -> dict[int, int]:
    """The order of the last slice of each flow that connects two or more."""
    found: dict[int, list[tuple[int, int]]] = {}
    for each in slices:
        if each.flow is not None:
            found.setdefault(each.flow, []).append((each.begin_ns, each.begins))
    return {flow: max(places)[1] for flow, places in found.items() if len(places) > 1}
