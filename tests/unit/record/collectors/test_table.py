"""The collectors' seam: one more, and its events are recorded, kept, read, merged and counted."""

import asyncio
import contextlib

import pytest

from harness.analyse.analyse import analyse
from harness.guests.plan import GuestPlan
from harness.model import manifest
from harness.record import recording_file
from harness.record.case_runner import conduct
from harness.record.collectors.table import COLLECTORS
from harness.record.eventlog import EventLogReader, dump_events
from support import cases
from support.toy_session import ToySession
from userspace_chip.events import EVENT_TYPES, Event, event_type

MSI = Event(2_000, "kvm", "kvm_eoi", 0, event_type("kvm_eoi").args(apicid=0, vector=0x31))


class ToyRun:
    """Knows what happened without looking."""

    clock_offset_ns = 0

    def __init__(self):
        self.calls = []

    async def mark(self, text):
        self.calls.append(text)

    async def follow(self, pids):
        self.calls.append(tuple(pids))

    async def stop(self):
        self.calls.append("stop")

    async def save(self, destination):
        self.calls.append("save")
        destination.write_text("".join(dump_events([MSI])))


class Toy:
    """A collector of one event."""

    key = "toy"
    title = "toy trace"
    source = "kvm"
    event_types = ("kvm_eoi",)
    has_marks = False
    is_ordered = True

    def __init__(self, reason=None):
        self.reason = reason
        self.run = ToyRun()

    def file(self, folder):
        return folder.path / "toy.trace"

    def why_not(self, session, case):
        return self.reason

    @contextlib.asynccontextmanager
    async def collecting(self, session, case):
        self.run.calls.append("start")
        yield self.run

    def reader(self, recording):
        return EventLogReader()


def recorded(folder):
    case = cases.case(backend=cases.LOCAL_ON)
    manifest.write(folder, manifest.describe(case, qemu="7.2.22", linux="6.1.192"))
    plan = GuestPlan(case, folder, None, trace_log=False, paused=False)
    asyncio.run(conduct(ToySession(), plan, folder, lambda text: None))
    return recording_file.load(folder)


def test_collector_that_is_put_into_the_table_is_recorded_kept_and_read(tmp_path):
    toy = Toy()
    COLLECTORS.append(toy)
    try:
        recording = recorded(tmp_path)
        described = manifest.describe(recording.case, qemu="7.2.22", linux="6.1.192")
        events = []
        found = analyse(recording, described, events.extend)
    finally:
        COLLECTORS.remove(toy)

    assert toy.run.calls == ["start", "stop", "save"]
    assert recording.traces["toy"].name == "toy.trace.zst"
    assert events == [MSI]
    assert found.sources.sources == {"kvm"}
    assert found.sources.reports["toy trace"].events == 1


def test_collector_that_cannot_collect_says_why_in_the_recording(tmp_path):
    toy = Toy("it is but a toy")
    COLLECTORS.append(toy)
    try:
        recording = recorded(tmp_path)
    finally:
        COLLECTORS.remove(toy)

    assert recording.missing["toy trace"] == "it is but a toy"
    assert "toy" not in recording.traces
    assert toy.run.calls == []


@pytest.mark.parametrize("collector", COLLECTORS, ids=lambda collector: collector.key)
def test_events_of_a_collector_are_known_types(collector):
    assert set(collector.event_types) <= set(EVENT_TYPES)
