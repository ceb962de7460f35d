"""The timeline for Perfetto, read back with the classes of Perfetto's own package."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import replace

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from harness.base.errors import StoreError
from harness.ledger.timeline import timeline
from harness.model.case import Irqchip
from harness.report import files
from harness.report.export import perfetto
from harness.report.run_view import RunView
from support import recorded_cases, runs

MODES = recorded_cases.MODES
EVENTS = 10_000
"""Number of events of each recording: the kernel's start, and some of its work."""


@pytest.fixture(scope="module")
def timelines():
    events = {mode: recorded_cases.events_of(mode)[:EVENTS] for mode in MODES}
    return {mode: timeline(own, Irqchip(mode)) for mode, own in events.items()}


@pytest.fixture(scope="module")
def written(timelines):
    return perfetto.render(timelines)


@pytest.fixture(scope="module")
def sequences(written):
    """The packets of the file by their sequence: one for each case, in their order."""
    found = defaultdict(list)
    for packet in Trace.FromString(written).packet:
        found[packet.trusted_packet_sequence_id].append(packet)
    return dict(zip(MODES, found.values(), strict=True))


def events_of(packets):
    return [packet.track_event for packet in packets if packet.HasField("track_event")]


def ends_of(timeline):
    """The ledger's EOIs."""
    rows = timeline.ledger.rows
    return sum(row.counts.get("eoi", 0) for row in rows if row.kind == "vector")


@pytest.mark.parametrize("mode", MODES)
def test_perfetto_has_as_many_eois_as_the_ledger(sequences, timelines, mode):
    eois = [event for event in events_of(sequences[mode]) if "eoi" in event.categories]
    assert len(eois) == ends_of(timelines[mode]) > 300


@pytest.mark.parametrize("mode", MODES)
def test_perfetto_slices_are_closed_in_the_order_of_a_stack(sequences, mode):
    depth = defaultdict(int)
    for event in events_of(sequences[mode]):
        depth[event.track_uuid] += event.type == TrackEvent.TYPE_SLICE_BEGIN
        depth[event.track_uuid] -= event.type == TrackEvent.TYPE_SLICE_END
        assert depth[event.track_uuid] >= 0
    assert set(depth.values()) == {0}


@pytest.mark.parametrize("mode", MODES)
def test_perfetto_flows_have_both_ends(sequences, mode):
    begun, ended = defaultdict(int), defaultdict(int)
    for event in events_of(sequences[mode]):
        for flow in event.flow_ids:
            assert flow not in ended
            begun[flow] += 1
        for flow in event.terminating_flow_ids:
            ended[flow] += 1
    assert begun.keys() == ended.keys()
    assert set(ended.values()) == {1}
    assert len(begun) > 300


@pytest.mark.parametrize("mode", MODES)
def test_perfetto_times_are_sorted_and_begin_with_the_case(sequences, mode):
    times = [packet.timestamp for packet in sequences[mode]]
    assert times == sorted(times)
    assert times[0] == 0


@pytest.mark.parametrize("mode", MODES)
def test_perfetto_events_are_on_tracks_that_are_described_before(sequences, mode):
    known = set()
    for packet in sequences[mode]:
        if packet.HasField("track_descriptor"):
            descriptor = packet.track_descriptor
            assert not descriptor.parent_uuid or descriptor.parent_uuid in known
            known.add(descriptor.uuid)
        elif packet.HasField("track_event"):
            assert packet.track_event.track_uuid in known


def tracks_of(packets):
    """The names of the tracks, and how many slices each has."""
    described = [p.track_descriptor for p in packets if p.HasField("track_descriptor")]
    names = {each.uuid: each.name or each.process.process_name for each in described}
    counts = dict.fromkeys(names.values(), 0)
    for event in events_of(packets):
        counts[names[event.track_uuid]] += event.type == TrackEvent.TYPE_SLICE_BEGIN
    return counts


@pytest.mark.parametrize("mode", MODES)
def test_perfetto_has_tracks_of_lines_pins_local_apics_and_vcpus(sequences, mode):
    tracks = tracks_of(sequences[mode])
    for kind in ("line ", "IOAPIC pin ", "vCPU 0", "LAPIC 0 vector 0x"):
        assert sum(count for name, count in tracks.items() if name.startswith(kind)) > 5
    assert {"IRR depth of LAPIC 0", "ISR depth of LAPIC 0"} <= tracks.keys()


def test_perfetto_flow_goes_from_a_line_to_the_eoi(sequences):
    described = [p.track_descriptor for p in sequences["on"] if p.HasField("track_descriptor")]
    names = {each.uuid: each.name for each in described}
    ways = defaultdict(list)
    for event in events_of(sequences["on"]):
        for flow in (*event.flow_ids, *event.terminating_flow_ids):
            track = names[event.track_uuid].split(" vector")[0]
            ways[flow].append((re.sub(r"(line|pin) \d+", r"\1", track), event.type))

    begin, moment = TrackEvent.TYPE_SLICE_BEGIN, TrackEvent.TYPE_INSTANT
    wanted = [("IOAPIC pin", begin), ("LAPIC 0", begin), ("vCPU 0", begin), ("LAPIC 0", moment)]
    assert [("line", begin), *wanted] in ways.values()


@pytest.mark.parametrize("mode", ["on", "split", "off"])
def test_perfetto_depth_of_isr_is_that_of_nested_handlers(timelines, mode):
    assert {depth.isr for depth in timelines[mode].depths} >= {0, 1}
    assert all(0 <= depth.isr <= 16 for depth in timelines[mode].depths)


def test_timeline_beyond_its_limit_says_how_much_is_cut(timelines):
    events = recorded_cases.events_of("tcg")
    short = timeline(events, Irqchip.TCG, limit=100)

    whole = timelines["tcg"]
    assert len(short.ended) < 110 < len(whole.ended)
    assert short.cut > 1000
    assert whole.cut == 0
    assert short.ledger == whole.ledger
    texts = [
        e.name
        for p in Trace.FromString(perfetto.render({"a": short})).packet
        for e in [p.track_event]
        if e.name.startswith("cut: ")
    ]
    assert texts == [f"cut: {short.cut} interrupts after the first ones are not in this file"]


def test_perfetto_of_a_run_has_its_recorded_cases(tmp_path):
    folder = recorded_cases.case_folder(tmp_path, "tcg")
    ran = replace(runs.GOOD, id="ran\x1b", dir=folder.name)
    run = runs.run_of(ran, runs.SKIPPED)
    files.write(RunView.of(run), tmp_path, {"perfetto": tmp_path / "trace"})

    packets = Trace.FromString((tmp_path / "trace").read_bytes()).packet
    names = [p.track_descriptor.process.process_name for p in packets]
    assert [name for name in names if name] == ["ran\\x1b"]


def test_perfetto_of_a_run_without_events_is_refused_with_what_makes_them(tmp_path):
    run = runs.run_of(runs.GOOD, runs.SKIPPED)
    with pytest.raises(StoreError, match=r"none of its cases has its events.*judge .* --write"):
        files.write(RunView.of(run), tmp_path, {"perfetto": tmp_path / "trace"})
    assert not (tmp_path / "trace").exists()


def test_perfetto_trace_processor_counts_as_many_eois_as_the_ledger(tmp_path, written, timelines):
    program = os.environ.get("TRACE_PROCESSOR")
    if not program:
        pytest.skip("TRACE_PROCESSOR names no trace_processor_shell (its binary is not on PyPI)")
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    (tmp_path / "trace").write_bytes(written)
    config = TraceProcessorConfig(bin_path=program)
    with TraceProcessor(trace=str(tmp_path / "trace"), config=config) as processor:
        (row,) = processor.query("select count(*) as n from slice where category = 'eoi'")
        assert row.n == sum(map(ends_of, timelines.values()))
