"""Differences by what they are: the same one is known again in another scenario."""

import pytest

from harness.scenario.finding import What, findings
from harness.scenario.log import Log, LogEvent


def log(*lines, complete=True):
    """Events as the probe writes them: ``3 0 irq 51 - 51 -``."""
    events = []
    for line in lines:
        step, cpu, kind, *args = line.split()
        events.append(LogEvent(int(step, 16), int(cpu), kind, tuple(args)))
    return Log(tuple(events), complete=complete)


def names(expected, found, **more):
    return [str(one) for one in findings(expected, found, **more)]


def test_findings_of_equal_logs_is_none():
    one = log("0 0 irq 51 - 51 51", "1 0 read 8051")

    assert findings(one, one) == ()


@pytest.mark.parametrize(
    ("expected", "found", "name"),
    [
        ("0 0 irq 51 - 51 -", None, "irq 0x51 missing"),
        (None, "0 0 irq 51 - 51 -", "irq 0x51 extra"),
        (None, "0 0 timeout 0", "timeout extra"),
        ("0 0 read c051", "0 0 read 8051", "read differs bits 0x4000"),
        (
            "0 0 irq 51 - 51 - e=8051",
            "0 0 irq 51 40 51 - e=c051",
            "irq 0x51 differs IRR, redir[14]",
        ),
        ("0 0 count 51 4", "0 0 count 51 20", "count 0x51 differs more"),
        ("0 0 cut 51 21", "0 0 cut 51 20", "cut 0x51 differs fewer"),
    ],
)
def test_finding_of_one_difference_has_kind_vector_and_detail(expected, found, name):
    logs = [log() if line is None else log(line) for line in (expected, found)]

    assert names(*logs) == [name]


def test_findings_of_a_fault_leave_out_where_it_struck_which_only_the_probe_knows():
    predicted = log("5 0 fault d fffffffa")

    assert findings(predicted, log("5 0 fault d fffffffa 103572 8 10206 0")) == ()
    assert names(predicted, log("5 0 fault d 0 103572 8 10206 0")) == ["fault differs"]


def test_finding_of_a_lost_interrupt_is_the_same_though_other_events_follow_in_its_step():
    expected = log("0 0 irq 51 - 51 -", "0 0 read 1")

    assert names(expected, log("0 0 read 1")) == ["irq 0x51 missing"]


def test_finding_of_an_interrupt_on_another_cpu_is_moved():
    (found,) = findings(log("2 0 irq 51 - 51 -"), log("2 1 irq 51 - 51 -"))

    assert (found.what, found.event, found.step) == (What.MOVED, "irq 0x51", 2)
    assert found.text == "step 2: irq 0x51 on CPU 1 instead of CPU 0"


def test_finding_of_the_same_events_in_another_order_is_order_unless_the_step_has_none():
    expected = log("0 0 irq 51", "0 0 irq 41")
    found = log("0 0 irq 41", "0 0 irq 51")

    assert names(expected, found) == ["irq 0x51, irq 0x41 order"]
    assert names(expected, found, unordered={0}) == []


def test_findings_come_in_the_order_of_steps_and_name_them_as_written():
    expected = log("0 0 read 1", "1 0 irq 51 - 51 -")
    found = findings(expected, log("0 0 read 3"), steps=["read: lapic.id", "line: {14: high}"])

    assert [one.text for one in found] == [
        "step 0 (read: lapic.id), CPU 0: expected read 0x1, got read 0x3",
        "step 1 (line: {14: high}), CPU 0: irq 0x51 is missing",
    ]


def test_finding_of_a_log_that_breaks_off_is_that_and_not_what_was_never_reached():
    expected = log("0 0 read 1", "1 0 read 1", "2 0 read 1")
    found = log("0 0 read 1", "1 0 irq 51", complete=False)

    assert names(expected, found) == ["the log breaks off"]


def test_finding_is_equal_at_another_step_and_unequal_with_another_vector_or_bits():
    first = findings(log("7 0 irq 51", "9 0 read c051"), log("9 0 read 8051"))
    same = findings(log("1 1 irq 51", "2 1 read 4000"), log("2 1 read 0"))
    other = findings(log("1 0 irq 52", "2 0 read 1"), log("2 0 read 0"))

    assert first == same
    assert not set(first) & set(other)
