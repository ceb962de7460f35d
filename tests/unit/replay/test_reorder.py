"""Orders of a trace whose threads were stopped between an event and its effect."""

import pytest

from harness.model import manifest
from harness.model.case import LinuxGuest
from harness.replay.lookahead import NumberedEvent
from harness.replay.reorder import Move, candidates, moved
from harness.replay.replay import ReplayOutcome, replay_log
from support import cases
from support.recorded_boot import log, recorded
from userspace_chip.events import Event, event_type

BOOT = recorded("on-smp1-qemu7.2-linux6.1")


def replayed(folder, events, linux="7.3.4"):
    path = folder / "events.jsonl"
    path.write_text("".join(log([e._replace(time_ns=n * 1000) for n, e in enumerate(events)])))
    case = cases.case(LinuxGuest(("idle",)), cases.ON)
    return replay_log(path, manifest.describe(case, qemu="7.2.22", linux=linux), ())


def stopped_before_the_effect():
    """A write that unmasks a pin is traced before another thread sees it masked."""
    write = next(
        i
        for i, e in enumerate(BOOT)
        if e.name == "kvm_pio" and e.args[1:5:3] == (0x21, 0xFE) and BOOT[i - 1].vcpu is None
    )
    before = next(i for i in range(write - 1, 0, -1) if BOOT[i].vcpu == 0) + 1
    return [*BOOT[:before], BOOT[write], *BOOT[before:write], *BOOT[write + 1 :]]


def stopped_in_a_message():
    """A tick's line is traced, and the CPU ends the interrupt before it is accepted."""
    taken = next(i for i, e in enumerate(BOOT) if i > 3000 and e.name == "kvm_inj_virq")
    start = next(i for i in range(taken, len(BOOT)) if BOOT[i].vcpu is None)
    return [*BOOT[:taken], BOOT[start], *BOOT[taken:start], *BOOT[start + 1 :]]


def traced_after_the_effect():
    """A CPU has taken an interrupt, and the next one of the vector is traced before that."""
    taken = next(i for i, e in enumerate(BOOT) if i > 3000 and e.name == "kvm_inj_virq")
    start = next(i for i in range(taken, len(BOOT)) if BOOT[i].vcpu is None)
    end = next(i for i in range(start, len(BOOT)) if BOOT[i].vcpu is not None)
    return [*BOOT[:taken], *BOOT[start:end], *BOOT[taken:start], *BOOT[end:]]


@pytest.mark.parametrize(
    "order", [stopped_before_the_effect, traced_after_the_effect], ids=lambda f: f.__name__
)
def test_order_of_one_preemption_is_found_where_the_kernel_preempts_itself(tmp_path, order):
    found, refused = replayed(tmp_path, order()), replayed(tmp_path, order(), "6.1.192")

    assert (found.outcome, found.reordered) == (ReplayOutcome.AGREED, 1)
    assert (refused.outcome, refused.reordered) == (ReplayOutcome.DIVERGED, 0)


def test_message_that_is_traced_too_early_makes_no_other_order_than_it_needs(tmp_path):
    found = replayed(tmp_path, stopped_in_a_message())

    assert found.outcome is ReplayOutcome.AGREED


def test_what_no_order_explains_is_a_divergence(tmp_path):
    read = next(i for i, e in enumerate(BOOT) if i > 2500 and e.args[:2] == ("read", "APIC_TDCR"))
    wrong = BOOT[read]._replace(args=("read", "APIC_TDCR", 0x3))

    found = replayed(tmp_path, [*BOOT[:read], wrong, *BOOT[read + 1 :]])

    assert (found.outcome, found.reordered) == (ReplayOutcome.DIVERGED, 0)
    assert found.divergence.recorded.event == wrong._replace(time_ns=read * 1000)


def test_order_of_a_whole_recording_needs_no_move(tmp_path):
    found = replayed(tmp_path, BOOT)

    assert (found.outcome, found.reordered) == (ReplayOutcome.AGREED, 0)


EOI = event_type("kvm_eoi").args(apicid=0, vector=1)


def line(number, name="kvm_eoi", vcpu=0, args=EOI):
    return NumberedEvent(number, Event(number, "kvm", name, vcpu, args))


@pytest.mark.parametrize(
    ("moves", "order"),
    [
        ([], [1, 2, 3, 4, 5]),
        ([Move(frozenset({2}), 4)], [1, 3, 2, 4, 5]),
        ([Move(frozenset({1, 2}), 5)], [3, 4, 1, 2, 5]),
        ([Move(frozenset({1}), 3), Move(frozenset({2}), 5)], [1, 3, 4, 2, 5]),
        ([Move(frozenset({4}), 9)], [1, 2, 3, 5, 4]),
    ],
)
def test_moved_lines_come_before_the_one_that_they_waited_for(moves, order):
    assert [each.number for each in moved(map(line, range(1, 6)), moves)] == order


def test_thread_that_was_stopped_in_an_eoi_may_have_been_so_since_it_wrote_the_register():
    """The line rises again between the write and the acknowledgement at the IOAPIC."""
    trace = [
        line(1, "kvm_apic"),
        line(2, "kvm_eoi"),
        line(3, "kvm_set_irq", vcpu=None),
        line(4, "kvm_ioapic_set_irq", vcpu=None),
        line(5, "kvm_ack_irq"),
    ]

    found = list(candidates(trace, 4))

    assert Move(frozenset({2}), 5) in found
    assert Move(frozenset({1, 2}), 5) in found


def test_thread_that_was_stopped_in_an_msrs_write_may_have_been_so_before_its_end_was_traced():
    """In x2APIC mode the write is traced last; a line fell before the pin was looked at."""
    trace = [
        line(1, "kvm_apic"),
        line(2, "kvm_eoi"),
        line(3, "kvm_ack_irq"),
        line(4, "kvm_set_irq", vcpu=None),
        line(5, "kvm_msr"),
        line(6, "kvm_apic_accept_irq"),
    ]

    assert Move(frozenset({1, 2, 3, 5}), 6) in list(candidates(trace, 6))


def test_thread_that_was_stopped_within_a_message_had_gone_on_when_a_cpu_took_it():
    trace = [
        line(1, "kvm_msi_set_irq", vcpu=None),
        line(2, "kvm_apic_accept_irq", vcpu=None, args=(0, 39, "Fixed", "edge")),
        line(3, "kvm_eoi"),
        line(4, "kvm_inj_virq", args=("IRQ", 236, False)),
        line(5, "kvm_inj_virq", args=("IRQ", 39, False)),
        line(6, "kvm_msi_set_irq", vcpu=None),
    ]

    found = list(candidates(trace, 3))

    assert Move(frozenset({1, 2}), 6) in found
    assert Move(frozenset({1, 2}), 5) in found
