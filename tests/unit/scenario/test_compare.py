"""Where two logs of a scenario part, and how that is said."""

import pytest

from harness.scenario.compare import describe, first_divergence, unordered_steps
from harness.scenario.log import Log, LogEvent
from harness.scenario.program import Op, Opcode
from support.scenario_programs import STI, program


def event(line):
    step, cpu, kind, *args = line.split()
    return LogEvent(int(step, 16), int(cpu, 16), kind, tuple(args))


def log(*lines, complete=True):
    return Log(tuple(map(event, lines)), complete)


def test_equal_logs_do_not_diverge():
    one = log("0 0 read 1", "1 1 nmi")
    assert first_divergence(one, log("0 0 read 1", "1 1 nmi")) is None


def test_order_between_cpus_is_no_divergence():
    assert first_divergence(log("0 0 nmi", "0 1 nmi"), log("0 1 nmi", "0 0 nmi")) is None


def test_order_on_one_cpu_is_a_divergence():
    found = first_divergence(log("0 0 irq 40", "0 0 irq 50"), log("0 0 irq 50", "0 0 irq 40"))
    assert (str(found.expected), str(found.found)) == ("0 0 irq 40", "0 0 irq 50")


def test_order_in_an_unordered_step_is_none():
    logs = log("0 0 irq 40", "0 0 irq 50"), log("0 0 irq 50", "0 0 irq 40")
    assert first_divergence(*logs, unordered={0}) is None


def test_number_of_events_in_an_unordered_step_counts():
    logs = log("0 0 irq 40", "0 0 irq 40"), log("0 0 irq 40")
    found = first_divergence(*logs, unordered={0})
    assert (str(found.expected), found.found) == ("0 0 irq 40", None)


def test_earliest_step_comes_first_whichever_cpu_has_it():
    expected = log("5 0 read 1", "2 1 read 1")
    found = first_divergence(expected, log("5 0 read 2", "2 1 read 2"))
    assert (found.step, found.cpu) == (2, 1)


def test_missing_and_additional_events_leave_the_other_side_empty():
    missing = first_divergence(log("0 0 nmi", "0 0 nmi"), log("0 0 nmi"))
    extra = first_divergence(log("0 0 nmi"), log("0 0 nmi", "0 0 nmi"))
    assert (str(missing.expected), missing.found) == ("0 0 nmi", None)
    assert (extra.expected, str(extra.found)) == (None, "0 0 nmi")


def test_dirty_reset_comes_before_everything_else():
    found = first_divergence(log("0 0 read 1"), log("0 0 read 2", "ff 0 dirty lapic.tpr 0 20"))
    assert found.found.kind == "dirty"


def test_log_that_breaks_off_says_so():
    found = first_divergence(log("0 0 nmi", "1 0 nmi"), log("0 0 nmi", complete=False))
    assert found.cut_off
    assert "nothing, where its log breaks off; after nmi" in found.describe()


def test_fault_is_the_same_wherever_the_probe_s_code_lay():
    assert first_divergence(log("0 0 fault d 8"), log("0 0 fault d 8 1000 8 2 0")) is None
    assert first_divergence(log("0 0 fault d 8"), log("0 0 fault d 0 1000 8 2 0")) is not None


def test_description_names_step_cpu_both_events_and_what_was_before():
    expected = log("0 0 read 1ff", "1 0 irq 51 40 51 51 e=c051")
    found = first_divergence(expected, log("0 0 read 1ff", "1 0 irq 40 - 40 -"))
    text = found.describe(("read: lapic.svr", "line: {14: high}"), names=("on", "split"))
    assert text == (
        "step 1 (line: {14: high}), CPU 0: on irq 0x51 (IRR 0x40, ISR 0x51, TMR 0x51,"
        " redir[14] 0xc051), split irq 0x40 (IRR none, ISR 0x40, TMR none); after read 0x1ff"
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("0 0 irq 51", "irq 0x51"),
        ("0 0 irq 24 ? ? ?", "irq 0x24 (IRR unknown, ISR unknown, TMR unknown)"),
        ("0 0 irq 51 51,40 51 -", "irq 0x51 (IRR 0x51 0x40, ISR 0x51, TMR none)"),
        ("0 0 woke", "woke"),
        ("0 0 cut 51 21", "cut 0x51 0x21"),
        ("0 0 skip x2apic", "skip x2apic"),
    ],
)
def test_event_in_words(line, text):
    assert describe(event(line)) == text


def test_parallel_steps_are_unordered():
    parallel = Op(Opcode.PARALLEL, 3, 2)
    assert unordered_steps(program(STI, parallel, cpus=2, blocks=[(), ()])) == {1}
