"""QEMU's own trace, replayed: an altered recording diverges at the altered event."""

from dataclasses import replace
from itertools import accumulate, pairwise

import pytest

from harness.base.errors import ReplayRefused
from harness.model.case import Irqchip, Machine
from harness.replay.lookahead import LOOKAHEAD
from harness.replay.profiles import profile_of
from harness.replay.replay import Replay, ReplayOutcome
from support.recorded_boot import FIRST_LINE, log, recorded_case
from userspace_chip.events import Event, event_type
from userspace_chip.profile import profile

EOI = "0xb0 = 0x00000000"


def find(name, label, text="", after=0, vcpu=None):
    """Where the first such event is, behind ``after``."""
    return next(
        index
        for index, event in enumerate(recorded_case(name).events)
        if index > after
        and event.name == label
        and text in event.text
        and vcpu in (None, event.vcpu)
    )


def last_before(name, label, index):
    events = recorded_case(name).events
    return next(at for at in range(index - 1, 0, -1) if events[at].name == label)


def altered(name, index, *texts):
    """The recording with events of these texts in the place of that one."""
    events = recorded_case(name).events
    event = events[index]
    new = [event._replace(args=event_type(event.name).parse(text)) for text in texts]
    return recorded_case(name).replay([*events[:index], *new, *events[index + 1 :]])


def diverged_at(replayed):
    """The place among the events where it did."""
    assert (replayed.outcome, replayed.warnings) == (ReplayOutcome.DIVERGED, ())
    return replayed.divergence.recorded.number - FIRST_LINE


# --- a CPU takes an interrupt


TCG_TAKEN = find("tcg-smp1", "hardware_int", "INT=0xec", after=5000)
OFF_TAKEN = find("off-smp1", "kvm_inj_virq", "IRQ 0xec", after=12_000)


@pytest.mark.parametrize(
    ("name", "index", "text"),
    [
        ("tcg-smp1", TCG_TAKEN, "INT=0x31 TR=fffffe0000003000"),
        ("off-smp1", OFF_TAKEN, "IRQ 0x31 [reinjected]"),
    ],
)
def test_vector_taken_that_no_apic_offers_diverges(name, index, text):
    replayed = altered(name, index, text)

    assert diverged_at(replayed) == index
    recorded = recorded_case(name).events[index]
    if name == "off-smp1":
        assert replayed.divergence.predicted == (f"kvm_inj_virq: {recorded.text}",)
    else:
        assert replayed.divergence.predicted == (f"hardware_int: {recorded.text}",)
    assert '"irr"' in replayed.divergence.states["lapic0"]


@pytest.mark.parametrize(("name", "index"), [("tcg-smp1", TCG_TAKEN), ("off-smp1", OFF_TAKEN)])
def test_interrupt_that_is_not_seen_taken_diverges_at_its_eoi(name, index):
    replayed = altered(name, index)

    eoi = find(name, "apic_mem_writel", EOI, after=index)
    assert diverged_at(replayed) == eoi - 1
    assert "not seen taken" in replayed.divergence.why


def test_interrupt_taken_twice_diverges_under_tcg():
    text = recorded_case("tcg-smp1").events[TCG_TAKEN].text

    assert diverged_at(altered("tcg-smp1", TCG_TAKEN, text, text)) == TCG_TAKEN + 1


def test_interrupt_taken_twice_in_off_is_an_injection_that_failed_once():
    text = recorded_case("off-smp1").events[OFF_TAKEN].text

    assert altered("off-smp1", OFF_TAKEN, text, text).outcome is ReplayOutcome.AGREED


def expired_twice():
    """Where the timer in off expires a second time before KVM injects its interrupt."""
    events = recorded_case("off-smp1").events
    names = ["apic_local_deliver", "apic_local_deliver", "kvm_userspace_exit", "kvm_inj_virq"]
    return next(
        at + 1
        for at in range(len(events) - 6)
        if [event.name for event in events[at : at + 4]] == names
        and (events[at + 4].name, events[at + 4].text) == ("apic_mem_writel", EOI)
    )


def in_off(kinds, like, now_ns):
    """``kinds`` of what happens, as events like four recorded ones."""
    expiry, restart, injected, eoi = like

    def other(name, text):
        return Event(now_ns, "kvm", name, 0, event_type(name).parse(text))

    events = {
        "expiry": expiry,
        "restart": restart,
        "injected": injected,
        "eoi": eoi,
        "window": other("kvm_userspace_exit", "reason KVM_EXIT_IRQ_WINDOW_OPEN (7)"),
        "mmio": other("kvm_mmio", "mmio read len 4 gpa 0xb0000100 val 0x0"),
        "pio": other("kvm_pio", "pio_read at 0x510 size 1 count 1 val 0x0 "),
    }
    return [events[kind]._replace(time_ns=now_ns) for kind in kinds.split()]


def replayed_in_off(before, after):
    """With what happens before KVM's exit for a signal, and after the handler's EOI."""
    index = expired_twice()
    events = recorded_case("off-smp1").events
    like = events[index : index + 4]
    changed = [
        *events[: index + 1],
        *in_off(before, like, like[0].time_ns),
        *like[1:],
        *in_off(after, like, like[-1].time_ns),
        *events[index + 4 :],
    ]
    return recorded_case("off-smp1").replay(changed)


@pytest.mark.parametrize("completed", ["", "mmio", "pio"])
def test_timer_that_expires_while_qemu_has_its_interrupt_may_come_twice_in_off(completed):
    """QEMU took the first one before it entered KVM, where a read was completed."""
    replayed = replayed_in_off(completed, "window injected eoi")

    assert (replayed.outcome, replayed.divergence) == (ReplayOutcome.AGREED, None)


def test_timer_that_expires_each_time_qemu_has_its_interrupt_is_behind_by_one_in_off():
    late = "window expiry restart injected eoi"
    replayed = replayed_in_off("", f"{late} {late} window injected eoi")

    assert (replayed.outcome, replayed.divergence) == (ReplayOutcome.AGREED, None)


@pytest.mark.parametrize("expiries", [0, 1, 2])
def test_interrupt_more_than_the_timer_expired_diverges_in_off(expiries):
    late = " ".join(["window expiry restart injected eoi"] * expiries)
    replayed = replayed_in_off("mmio", f"{late} window injected eoi window injected eoi")

    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert "pending" in replayed.divergence.why


@pytest.mark.parametrize("name", ["tcg-smp1", "off-smp1"])
def test_pic_vector_that_the_pic_does_not_give_diverges(name):
    index = find(name, "pic_interrupt")
    irq, vector = recorded_case(name).events[index].args

    assert diverged_at(altered(name, index, f"irq {irq} intno {vector + 1}")) == index


def test_pic_looked_at_through_lint0_is_the_cpu_that_acknowledges_it():
    """QEMU's apic_check_pic; the vector that LINT0 has brought is taken after the PIC's."""
    name = "tcg-virtual-wire"
    index = find(name, "apic_local_deliver", "vector 3 delivery mode 0", after=1700, vcpu=0) + 1
    events = recorded_case(name).events
    wire, acknowledged, *taken = [events[index + at].name for at in range(6)]

    assert (wire, acknowledged) == ("apic_local_deliver", "pic_interrupt")
    assert taken == ["hardware_int", "apic_mem_writel"] * 2
    assert diverged_at(altered(name, index + 1, "irq 1 intno 49")) == index + 1
    assert diverged_at(altered(name, index)) == index


def test_eoi_that_ends_the_pics_interrupt_excuses_no_second_one():
    name = "tcg-virtual-wire"
    wire = find(name, "apic_local_deliver", "vector 3 delivery mode 0", after=1700, vcpu=0) + 1
    eoi = find(name, "apic_mem_writel", EOI, after=wire)

    assert diverged_at(altered(name, eoi, EOI, EOI)) == eoi + 1


def test_cpu_of_two_that_takes_an_interrupt_is_known_by_its_task_segment():
    case = recorded_case("tcg-smp2")
    taken = [event.args for event in case.events if event.name == "hardware_int"]

    assert len({task for _, task in taken} - {"?"}) == 2
    assert case.replay().warnings == ()


def test_cpu_of_two_that_cannot_be_known_is_guessed_and_proves_nothing():
    case = recorded_case("tcg-smp2")
    events = [
        event._replace(args=(event.args[0], "?")) if event.name == "hardware_int" else event
        for event in case.events
    ]
    replayed = case.replay(events)

    assert replayed.outcome is not ReplayOutcome.DIVERGED
    assert "a guess which CPU took an interrupt" in replayed.warnings[0]


# --- EOI, IOAPIC, messages, lines

NAMES = ["tcg-smp1", "tcg-smp2", "off-smp1"]


@pytest.mark.parametrize("name", NAMES)
def test_eoi_of_a_level_interrupt_removed_diverges_at_its_broadcast(name):
    broadcast = find(name, "ioapic_eoi_broadcast")
    eoi = last_before(name, "apic_mem_writel", broadcast)

    replayed = altered(name, eoi)

    assert diverged_at(replayed) == broadcast - 1
    assert replayed.divergence.why == "the model did not predict it"


@pytest.mark.parametrize(("name", "index"), [("tcg-smp1", TCG_TAKEN), ("off-smp1", OFF_TAKEN)])
def test_eoi_of_an_edge_interrupt_removed_diverges_when_the_next_is_taken(name, index):
    eoi = find(name, "apic_mem_writel", EOI, after=index)
    label = recorded_case(name).events[index].name
    following = find(name, label, after=eoi)

    assert diverged_at(altered(name, eoi)) == following - 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "label", ["ioapic_eoi_broadcast", "ioapic_set_remote_irr", "ioapic_clear_remote_irr"]
)
def test_predicted_event_removed_diverges_at_the_next_of_qemus(name, label):
    index = find(name, label)

    replayed = altered(name, index)

    events = recorded_case(name).events
    following = next(at for at in range(index + 1, len(events)) if events[at].source == "qemu")
    assert diverged_at(replayed) == following - 1
    assert replayed.divergence.predicted[0] == f"{label}: {events[index].text}"


@pytest.mark.parametrize("name", NAMES)
def test_message_of_the_ioapic_with_another_vector_diverges(name):
    index = find(name, "ioapic_set_remote_irr") + 1
    event = recorded_case(name).events[index]
    assert event.name == "apic_deliver_irq"

    replayed = altered(name, index, event.text.replace("vector ", "vector 1"))

    assert diverged_at(replayed) == index
    assert any(
        "QEMU hw/intc/ioapic.c: ioapic_set_irq" in rule for rule in replayed.divergence.rules
    )


@pytest.mark.parametrize("name", NAMES)
def test_register_that_reads_otherwise_diverges(name):
    index = find(name, "ioapic_mem_read", "addr 0x10", after=1500)
    text = recorded_case(name).events[index].text

    assert diverged_at(altered(name, index, f"{text}1")) == index


@pytest.mark.parametrize("name", ["tcg-smp1", "off-smp1"])
def test_one_shot_timer_that_expires_twice_diverges(name):
    index = find(name, "apic_local_deliver", after=6000 if name == "tcg-smp1" else 12_000)
    text = recorded_case(name).events[index].text

    replayed = altered(name, index, text, text)

    assert diverged_at(replayed) == index + 1
    assert replayed.divergence.why == "no timer was armed"


@pytest.mark.parametrize("name", NAMES)
def test_line_that_only_the_ioapic_sees_diverges(name):
    index = find(name, "pic_set_irq", "irq 4", after=1500)

    replayed = altered(name, index)

    assert diverged_at(replayed) == index
    assert replayed.divergence.why == "the PIC has not seen this line"


@pytest.mark.parametrize("name", NAMES)
def test_consequence_in_another_thread_diverges(name):
    case = recorded_case(name)
    index = find(name, "ioapic_set_irq", "vector: 4", after=1500)
    event = case.events[index]
    events = list(case.events)
    events[index] = event._replace(vcpu=None if event.vcpu == 0 else 0)

    replayed = case.replay(events)

    assert diverged_at(replayed) == index
    assert replayed.divergence.why == "it comes in another thread"


# --- split: QEMU's half


@pytest.mark.parametrize(
    "label", ["kvm_irqchip_update_msi_route", "ioapic_set_remote_irr", "ioapic_clear_remote_irr"]
)
def test_predicted_event_of_splits_ioapic_removed_diverges(label):
    events = recorded_case("split-smp1").events
    first_cpu = next(i for i, e in enumerate(events) if e.source == "qemu" and e.vcpu is not None)
    index = find("split-smp1", label, after=first_cpu)

    replayed = altered("split-smp1", index)

    following = next(at for at in range(index + 1, len(events)) if events[at].source == "qemu")
    assert diverged_at(replayed) == following - 1
    assert replayed.divergence.source == "qemu"
    assert replayed.divergence.predicted[0] == f"{label}: {events[index].text}"


def test_eoi_broadcast_of_splits_ioapic_with_another_vector_diverges():
    index = find("split-smp1", "ioapic_eoi_broadcast")
    vector = recorded_case("split-smp1").events[index].args[0]

    replayed = altered("split-smp1", index, f"EOI broadcast for vector {vector + 1}")

    assert diverged_at(replayed) == index + 1
    assert replayed.divergence.why == "the model did not predict it"


@pytest.mark.parametrize("order", ["BLlC", "BLCl", "BCLl", "LBlC", "LBCl"])
def test_line_that_changes_while_splits_eoi_is_on_its_way_agrees(order):
    """An EOI's exit is handled without QEMU's lock: L and l are a line's, B and C the EOI's."""
    case = recorded_case("split-smp1")
    clear = find("split-smp1", "ioapic_clear_remote_irr")
    broadcast = last_before("split-smp1", "ioapic_eoi_broadcast", clear)
    there = case.events[clear]
    events = {"B": case.events[broadcast], "C": there}
    for letter, name, text in (
        ("L", "pic_set_irq", "master 1 irq 0 level 0"),
        ("l", "ioapic_set_irq", "vector: 0 level: 0"),
    ):
        args = event_type(name).parse(text)
        events[letter] = Event(there.time_ns, "qemu", name, None, args)
    new = [events[letter]._replace(time_ns=there.time_ns) for letter in order]

    replayed = case.replay([*case.events[:broadcast], *new, *case.events[clear + 1 :]])

    assert (replayed.outcome, replayed.divergence) == (ReplayOutcome.AGREED, None)


def test_line_that_goes_low_before_splits_eoi_looks_at_it_agrees():
    """It is traced behind the EOI's event: QEMU clears remote IRR first, and then looks."""
    case = recorded_case("split-smp1")
    clear = find("split-smp1", "ioapic_clear_remote_irr")
    pin = case.events[clear].args[0]
    taken = last_before("split-smp1", "kvm_inj_virq", clear)
    lowered = find("split-smp1", "ioapic_set_irq", f"vector: {pin} level: 0", after=taken)
    event = case.events[lowered]
    assert lowered < clear
    events = [*case.events[:lowered], *case.events[lowered + 1 : clear + 1]]

    replayed = case.replay([*events, event._replace(vcpu=None), *case.events[clear + 1 :]])

    assert (replayed.outcome, replayed.divergence) == (ReplayOutcome.AGREED, None)


def test_line_that_goes_low_after_splits_eoi_has_looked_at_it_agrees():
    """It is traced before the EOI's events and done after them: the interrupt comes again."""
    case = recorded_case("split-smp1")
    events = case.events
    clear = find("split-smp1", "ioapic_clear_remote_irr")
    pin = events[clear].args[0]
    served = last_before("split-smp1", "ioapic_set_remote_irr", clear)
    taken = last_before("split-smp1", "kvm_inj_virq", clear)
    lowered = find("split-smp1", "ioapic_set_irq", f"vector: {pin} level: 0", after=taken)
    ended = next(at for at in range(clear, len(events)) if events[at].name == "kvm_pv_eoi")
    again = [event._replace(vcpu=0) for event in events[served : served + 4]]
    assert again[-1].name == "kvm_apic_accept_irq"
    eoi = last_before("split-smp1", "kvm_apic", clear)
    assert eoi > lowered
    new = [
        *events[:lowered],  # as it was; then without the line
        *events[lowered + 1 : eoi],
        events[lowered]._replace(vcpu=None),
        *events[eoi : clear + 1],
        *again,
        events[clear + 1],  # the timer's; it is ended by a write now, since more is pending
        events[eoi],
        *events[clear + 2 : ended],
        events[taken],
        *events[eoi : clear + 1],
        *events[ended + 1 :],
    ]

    times = accumulate((event.time_ns for event in new), max)
    replayed = case.replay(e._replace(time_ns=ns) for e, ns in zip(new, times, strict=True))

    assert (replayed.outcome, replayed.divergence) == (ReplayOutcome.AGREED, None)


# --- bad input


def test_end_within_a_stimulus_is_incomplete():
    case = recorded_case("tcg-smp1")
    index = find("tcg-smp1", "ioapic_set_remote_irr")

    replayed = case.replay(case.events[:index])

    assert replayed.outcome is ReplayOutcome.INCOMPLETE
    assert "the recording ends where more was to come" in replayed.warnings[-1]


def test_divergence_behind_a_loss_is_incomplete():
    case = recorded_case("off-smp1")
    lost = Event(case.events[OFF_TAKEN].time_ns, "harness", "lost", None, (7, 0))

    replayed = case.replay([*case.events[:OFF_TAKEN], lost, *case.events[OFF_TAKEN + 1 :]])

    assert replayed.outcome is ReplayOutcome.INCOMPLETE


def test_divergence_behind_a_clock_jump_is_incomplete():
    case = recorded_case("tcg-smp1")
    late = [event._replace(time_ns=event.time_ns + 10**12) for event in case.events[:TCG_TAKEN]]

    replayed = case.replay([*late, *case.events[TCG_TAKEN + 1 :]])

    assert replayed.outcome is ReplayOutcome.INCOMPLETE
    assert "the times go back" in replayed.warnings[-1]


@pytest.mark.parametrize(
    ("name", "label"), [("tcg-smp1", "hardware_int"), ("off-smp1", "kvm_inj_virq")]
)
def test_recording_without_what_cpus_take_is_refused(name, label):
    case = recorded_case(name)

    with pytest.raises(ReplayRefused, match=f"it has no {label}"):
        case.replay(event for event in case.events if event.name != label)


@pytest.mark.parametrize("mode", ["off", "tcg"])
def test_microvm_is_refused(mode):
    with pytest.raises(ReplayRefused, match="two IOAPICs"):
        Replay(profile(mode, qemu="7.2"), 1, microvm=True)


def test_microvm_in_split_is_replayed_without_qemus_chips():
    case = replace(recorded_case("off-smp1").case, irqchip=Irqchip.SPLIT, machine=Machine.MICROVM)
    replay = Replay(profile_of(case)[0], 1, microvm=True)
    line = Event(0, "qemu", "ioapic_set_irq", 0, (4, 1))
    apic = Event(1, "kvm", "kvm_apic", 0, ("write", "APIC_SPIV", 0x1FF))

    replayed = replay.run(log([line, apic]))

    assert (replayed.compared, replayed.not_compared) == (1, 1)


def test_times_of_a_recording_do_not_go_back():
    """Or a fixture would prove nothing."""
    for name in NAMES:
        events = recorded_case(name).events
        assert all(a.time_ns <= b.time_ns for a, b in pairwise(events))
        assert len(events) > LOOKAHEAD
