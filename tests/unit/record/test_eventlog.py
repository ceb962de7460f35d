"""``events.jsonl``: what is written is read back, and damage is reported."""

import json

import pytest

from harness.base.errors import CollectError
from harness.record.collectors.ftrace import FtraceReader
from harness.record.eventlog import EventLogReader, dump_events
from support import golden
from userspace_chip.events import Event

EVENTS = [
    Event(17_000, "kvm", "kvm_eoi", 0, (0, 49)),
    Event(18_000, "harness", "mark", None, ('begin "idle" \\ ünïcode',)),
    Event(18_000, "harness", "lost", None, (3, 1)),
    Event(2**63, "qemu", "ioapic_set_irq", None, (4, 1)),
]


def read(lines):
    reader = EventLogReader()
    return list(reader.events(lines)), reader.report


def test_log_round_trip_keeps_events():
    events, report = read(dump_events(EVENTS))

    assert events == EVENTS
    assert report.events == 4
    assert report.lost == 3


def test_log_round_trip_keeps_a_recording():
    recorded = list(FtraceReader().events(golden.lines("ftrace-split-linux6.1.txt")))

    events, report = read(dump_events(recorded))

    assert events == recorded
    assert report.complete


def test_log_line_has_the_words_of_the_tracer():
    line = list(dump_events(EVENTS))[1]

    assert json.loads(line) == {
        "ns": 17_000,
        "source": "kvm",
        "name": "kvm_eoi",
        "vcpu": 0,
        "text": "apicid 0 vector 49",
    }


def test_log_truncated_last_line_is_reported_and_left_out():
    lines = list(dump_events(EVENTS))
    lines[-1] = lines[-1][:-3]

    events, report = read(lines)

    assert events == EVENTS[:-1]
    assert report.truncated


@pytest.mark.parametrize(
    "line",
    [
        "{}\n",
        "not json\n",
        "[1, 2]\n",
        '{"ns": 1, "source": "kvm", "name": "kvm_eoi", "vcpu": 0, "text": "apicid"}\n',
        '{"ns": "1", "source": "kvm", "name": "kvm_eoi", "vcpu": 0, "text": "apicid 0 vector 1"}\n',
        '{"ns": 1, "source": "me", "name": "kvm_eoi", "vcpu": 0, "text": "apicid 0 vector 1"}\n',
        '{"ns": 1, "source": "kvm", "name": "kvm_eoi", "vcpu": "0", "text": "apicid 0 vector 1"}\n',
    ],
)
def test_log_damaged_line_is_reported_and_the_next_one_read(line):
    lines = list(dump_events(EVENTS))
    lines.insert(2, line)

    events, report = read(lines)

    assert events == EVENTS
    assert report.damaged == 1
    assert report.examples[0].number == 3


def test_log_event_of_a_later_version_is_counted_not_fatal():
    lines = [*dump_events(EVENTS), '{"ns": 1, "source": "kvm", "name": "kvm_new", "text": ""}\n']

    events, report = read(lines)

    assert events == EVENTS
    assert dict(report.unknown) == {"kvm_new": 1}


@pytest.mark.parametrize(
    "header", ["", "hello\n", '{"schema": "other"}\n', '{"schema": "irqmatrix-events"}\n']
)
def test_log_of_another_form_is_refused(header):
    with pytest.raises(CollectError, match="log of events"):
        read([header])


def test_log_of_nothing_is_refused():
    with pytest.raises(CollectError, match="log of events"):
        read([])
