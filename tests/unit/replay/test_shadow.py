"""``on`` with the live chips: what KVM showed of its chips after each exit, and the model's."""

from __future__ import annotations

import json
from unittest.mock import patch

import pytest

from harness.base.errors import CollectError, ReplayRefused
from harness.replay.replay import Replay, ReplayOutcome
from support.recorded_boot import FIRST_LINE, log
from support.shadowed import LEVEL, PIN, SUBJECT, VECTOR, Recording, eoi_clears_tmr, level_taken
from userspace_chip.architecture import IOAPIC_BASES, IOREDTBL
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_registers import TPR
from userspace_chip.pic import Pic
from userspace_chip.profile import tune

NMI_ENTRY = 4 << 8 | VECTOR


@pytest.fixture
def recording():
    return level_taken()


def run(events, subject=SUBJECT):
    return Replay(subject, 1, live=True).run(log(events))


def lines_shown(recording):
    return [
        index + FIRST_LINE
        for index, event in enumerate(recording.events)
        if event.name == "kvm_chips"
    ]


def test_chips_that_were_shown_as_the_model_has_them_agree(recording):
    replayed = run(recording.events)

    assert (replayed.outcome, replayed.snapshots) == (ReplayOutcome.AGREED, 4)


_set_irq = Pic.set_irq


def level_of_the_line_is_forgotten(self, irq, level, source=0):
    result = _set_irq(self, irq, level, source)
    self.state.chips[0].last_irr = 0
    return result


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "chip", "register", "shown_as", "exit_"),
    [
        (Lapic, "eoi", eoi_clears_tmr, "lapic0", "TMR", 1 << VECTOR, 3),
        (Pic, "set_irq", level_of_the_line_is_forgotten, "pic0", "last_irr", 1 << PIN, 2),
    ],
)
def test_wrong_rule_of_the_chips_that_no_tracepoint_shows_diverges_at_the_next_exit(
    recording, owner, name, wrong, chip, register, shown_as, exit_
):
    with patch.object(owner, name, wrong):
        replayed = run(recording.events)

    found = replayed.divergence
    assert (replayed.outcome, found.source) == (ReplayOutcome.DIVERGED, "kvm")
    assert found.recorded.number == lines_shown(recording)[exit_]
    assert json.loads(found.states[chip]) == {register: "0x0"}
    assert json.loads(found.shown[chip]) == {register: hex(shown_as)}
    assert found.why == f"KVM showed other registers: {chip}"


def test_chip_that_is_as_it_was_shown_before_its_cpu_goes_on_agrees(recording):
    """Another thread raised the line, and the trace has it after the begin of the snapshot."""
    before = len(recording.events)
    recording.line(1, cpu=None)
    recording.exit()
    *events, snapshot = recording.events
    events.insert(before, snapshot)

    replayed = run([event._replace(time_ns=time_ns) for time_ns, event in enumerate(events)])

    assert (replayed.outcome, replayed.snapshots) == (ReplayOutcome.AGREED, 5)


def test_nmi_of_which_nothing_is_traced_came_before_the_next_interrupt():
    made = Recording()
    made.write_ioapic(IOREDTBL + 2 * PIN, NMI_ENTRY)
    made.line(1)
    made.take_nmi()
    made.line(0)
    made.write_ioapic(IOREDTBL + 2 * PIN, VECTOR)
    made.line(1)
    made.enter()
    made.exit()

    replayed = run(made.events)

    assert (replayed.outcome, replayed.snapshots) == (ReplayOutcome.AGREED, 1)


def test_pics_automatic_eoi_is_traced_before_the_injection_that_it_belongs_to():
    made = Recording()
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 3), (0x21, 0)):
        made.write_pic(port, value)
    made.line(1)
    made.enter()
    made.exit()

    replayed = run(made.events)

    traced = [event.name for event in made.events]
    assert traced.index("kvm_ack_irq") < traced.index("kvm_inj_virq")
    assert (replayed.outcome, replayed.snapshots) == (ReplayOutcome.AGREED, 1)


def test_interrupt_that_the_ioapic_sends_after_a_storm_comes_from_its_timer():
    subject = tune(SUBJECT, ioapic__storm_limit=3)
    made = Recording(subject)
    made.write_ioapic(IOREDTBL + 2 * PIN, VECTOR | LEVEL)
    made.line(1)
    for _ in range(3):
        made.enter()
        made.eoi()
    made.exit()
    made.go_on_after_a_storm()
    made.enter()
    made.exit()

    replayed = run(made.events, subject)

    assert "kvm_ioapic_delayed_eoi_inj" in [event.name for event in made.events]
    assert [event.name for event in made.events if event.vcpu is None] == ["kvm_apic_accept_irq"]
    assert (replayed.outcome, replayed.snapshots) == (ReplayOutcome.AGREED, 2)


def test_poll_of_a_pic_is_traced_after_the_acknowledgement_that_it_brings_about():
    made = Recording()
    made.write_pic(0x21, 0xEF)
    made.line(1)
    made.write_pic(0x20, 0x0C)
    value = made.read_pic(0x20)
    made.exit()

    replayed = run(made.events)

    assert (value, made.events[-2].name, made.events[-3].name) == (4, "kvm_pio", "kvm_ack_irq")
    assert (replayed.outcome, replayed.snapshots) == (ReplayOutcome.AGREED, 1)


def test_tpr_keeps_its_lower_bits_until_user_space_has_answered_the_exit():
    made = Recording()
    made.write_lapic(TPR, 0x2F)
    made.exit()
    made.answer_tpr_access()
    value = made.read_lapic(TPR)
    made.exit()

    replayed = run(made.events)

    assert value == 0x20
    assert (replayed.outcome, replayed.snapshots) == (ReplayOutcome.AGREED, 2)


def test_access_where_another_machine_has_a_second_ioapic_is_none_of_the_chips(recording):
    recording.touch(IOAPIC_BASES[1])
    recording.exit()

    assert run(recording.events).outcome is ReplayOutcome.AGREED


@pytest.mark.parametrize(
    ("tpr", "outcome"),
    [(0xF0, ReplayOutcome.AGREED), (0x31, ReplayOutcome.DIVERGED)],
    ids=["cr8", "lower bits"],
)
def test_tpr_that_changed_untraced_was_written_as_cr8_unless_it_has_lower_bits(
    recording, tpr, outcome
):
    recording.machine.lapics[0].set_tpr(tpr)
    recording.exit()
    recording.line(1)
    recording.exit()

    assert run(recording.events).outcome is outcome


def test_other_register_than_tpr_is_not_taken_over_with_it(recording):
    recording.machine.lapics[0].set_tpr(0xF0)
    recording.machine.lapics[0].state.tmr = 1 << 0x60
    recording.exit()

    found = run(recording.events)

    assert found.outcome is ReplayOutcome.DIVERGED
    assert json.loads(found.divergence.states["lapic0"])["TPR"] == "0x0"


def test_other_registers_at_the_last_exit_diverge(recording):
    last = recording.events[-1]
    recording.events[-1] = last._replace(args=(0, f"{last.args[1]} pic0.IMR=0xff"))

    replayed = run(recording.events)

    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert replayed.divergence.recorded.event.text.endswith("pic0.IMR=0xff")
    assert json.loads(replayed.divergence.states["pic0"]) == {"IMR": "0xb8"}


def test_snapshots_without_a_trace_of_kvm_are_not_compared(recording):
    untraced = [event for event in recording.events if event.name == "kvm_chips"]

    with pytest.raises(ReplayRefused, match="no CPU's events were traced"):
        run(untraced)


def test_snapshot_that_cannot_be_read_is_named_by_its_line(recording):
    recording.events[0] = recording.events[0]._replace(args=(0, "lapic0.TPR=far"))

    with pytest.raises(CollectError, match=f"line {FIRST_LINE} cannot be read"):
        run(recording.events)
