"""What is written in a tracer's words is read back: every event, any values, any damage."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.counters import CounterKey, CounterSet
from harness.record.collectors.ftrace import FtraceReader
from harness.record.collectors.merge import merge
from harness.record.collectors.qemu_log import QemuLogReader
from harness.record.eventlog import EventLogReader, dump_events
from userspace_chip.events import KVM_EVENTS, QEMU_EVENTS, Event

WORDS = st.text(string.ascii_letters + string.digits + "_-/", min_size=1, max_size=12)


def values(printer):
    """Values for one field, by how it is printed: a flag's text, or a format."""
    kind, spec = printer
    if kind == "flag":
        return st.booleans()
    if spec in ("w", "s"):
        return WORDS
    if spec == "d":
        return st.integers(-(2**31), 2**64 - 1)
    return st.integers(0, 2**64 - 1)


def events(types, source):
    def with_args(kind):
        printers = [printer for printer in kind._printers if isinstance(printer, tuple)]
        return st.tuples(*map(values, printers)).map(
            lambda args: Event(17_000, source, kind.name, 3, args)
        )

    return st.sampled_from(sorted(types)).flatmap(lambda name: with_args(types[name]))


def ftrace_line(event):
    return f"       CPU 3/KVM-6911    [000] d..1.     0.000017: {event.name}: {event.text}\n"


def qemu_line(event):
    return f"6911@0.000017:{event.name} {event.text}\n"


@given(st.lists(events(KVM_EVENTS, "kvm"), max_size=5))
def test_kernel_events_are_read_back(written):
    reader = FtraceReader()

    assert list(reader.events(map(ftrace_line, written))) == written
    assert reader.report.complete


@given(st.lists(events(QEMU_EVENTS, "qemu"), max_size=5))
def test_qemu_events_are_read_back(written):
    reader = QemuLogReader(vcpu_of_thread={6911: 3})

    assert list(reader.events(map(qemu_line, written))) == written
    assert reader.report.complete


@given(st.lists(events({**KVM_EVENTS, **QEMU_EVENTS}, "kvm"), max_size=5))
def test_event_log_is_read_back(written):
    assert list(EventLogReader().events(dump_events(written))) == written


@pytest.mark.parametrize("reader_type", [FtraceReader, QemuLogReader])
@given(lines=st.lists(st.text(max_size=120)))
def test_any_text_is_reported_never_fatal(reader_type, lines):
    reader = reader_type()
    given_lines = [line.replace("\n", "") + "\n" for line in lines]

    assert len(list(reader.events(given_lines))) == reader.report.events
    assert reader.report.lines == len(given_lines)


@given(events(KVM_EVENTS, "kvm"), st.integers(0, 200), st.characters())
def test_one_wrong_character_never_gives_two_events(event, at, wrong):
    line = ftrace_line(event)
    at = at % len(line)
    damaged = line[:at] + wrong + line[at + 1 :]

    assert len(list(FtraceReader().events([damaged, ftrace_line(event)]))) in (1, 2)


TIMES = st.lists(st.integers(0, 20)).map(sorted)


@given(st.lists(TIMES, max_size=4))
def test_merge_is_a_stable_sort(streams):
    made = [
        [Event(time, "harness", "mark", None, (f"{s}.{i}",)) for i, time in enumerate(times)]
        for s, times in enumerate(streams)
    ]
    everything = [event for stream in made for event in stream]

    assert list(merge(*made)) == sorted(everything, key=lambda event: event.time_ns)


KEYS = st.builds(
    CounterKey,
    stage=st.sampled_from(["raised", "handled", "exit"]),
    controller=WORDS,
    source=st.sampled_from(["kvm", "guest", "qmp"]),
    number=st.none() | st.integers(0, 255),
    name=WORDS,
    cpu=st.none() | st.integers(0, 3),
)
COUNTS = st.dictionaries(KEYS, st.integers(0, 2**64), max_size=8)
SOURCES = frozenset({"kvm", "guest", "qmp"})


@given(COUNTS, COUNTS)
def test_counters_since_undoes_merged(before, growth):
    earlier = CounterSet(before, SOURCES)
    later = earlier.merged(CounterSet(growth, SOURCES))

    delta = later.since(earlier)

    assert all(delta.values[key] == growth.get(key, 0) for key in later.values)


@given(COUNTS)
def test_counters_survive_their_file(values):
    counters = CounterSet(values, SOURCES)

    assert CounterSet.loads(counters.dumps()) == counters
