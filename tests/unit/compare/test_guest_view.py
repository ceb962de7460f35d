"""What a guest did and got, from the events of each irqchip mode."""

import pytest

from harness.compare.guest_view import LONGEST_LOOP, GuestStep, shape
from harness.model.case import Irqchip
from support.books import observe
from userspace_chip.events import Event, event_type

ENTRY_20 = 0x10 + 2 * 20
LEVEL_38 = 38 | 1 << 15


def event(name, vcpu=0, **fields):
    kind = event_type(name)
    source = "kvm" if name.startswith("kvm") else "qemu"
    return Event(0, source, name, vcpu, kind.args(**fields))


def ioapic_write(mode, select, value):
    """A register of the IOAPIC, written as that mode traces it."""
    if mode is not Irqchip.ON:
        return [event("ioapic_mem_write", addr=0xFEC00010, regsel=select, size=4, value=value)]
    return [
        event("kvm_mmio", access="write", length=4, gpa=0xFEC00000, value=select),
        event("kvm_mmio", access="write", length=4, gpa=0xFEC00010, value=value),
    ]


def lapic_write(mode, register, value, vcpu=0):
    names = {0xF0: "APIC_SPIV", 0x300: "APIC_ICR", 0x380: "APIC_TMICT", 0xB0: "APIC_EOI"}
    if mode in (Irqchip.ON, Irqchip.SPLIT):
        return [event("kvm_apic", vcpu, access="write", register=names[register], value=value)]
    return [event("apic_mem_writel", vcpu, addr=register, value=value)]


def pic_write(mode, value, address=0):
    if mode is Irqchip.ON:
        fields = {"access": "write", "size": 1, "count": 1, "more": False}
        return [event("kvm_pio", port=0x20 + address, value=value, **fields)]
    return [event("pic_ioport_write", master=1, addr=address, value=value)]


def steps(events, mode=Irqchip.ON):
    return {
        name: [step.what for step in stream.steps]
        for name, stream in observe(events, mode).streams.items()
    }


# --- Set-up -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", Irqchip)
def test_entry_is_the_same_stream_in_every_mode(mode):
    masked = LEVEL_38 | 1 << 16
    events = [
        *ioapic_write(mode, ENTRY_20 + 1, 1 << 24),
        *ioapic_write(mode, ENTRY_20, masked),
        *ioapic_write(mode, ENTRY_20, LEVEL_38),
    ]

    assert steps(events, mode) == {
        "ioapic/pin20/entry": [
            "vector 38, Fixed, high, level, masked",
            "vector 38, Fixed, high, level",
        ],
        "ioapic/pin20/destination": ["physical 0x1"],
    }


@pytest.mark.parametrize("mode", Irqchip)
def test_lapic_register_is_the_same_stream_in_every_mode(mode):
    assert steps(lapic_write(mode, 0xF0, 0x1FF, vcpu=1), mode) == {"lapic1/SPIV": ["0x1ff"]}


@pytest.mark.parametrize("mode", Irqchip)
def test_timer_counts_and_fixed_ipis_are_no_steps(mode):
    events = [
        *lapic_write(mode, 0x380, 1000),
        *lapic_write(mode, 0x300, 0x40FD),
        *lapic_write(mode, 0x300, 0x4500),
    ]

    assert steps(events, mode) == {"lapic0/ICR": ["INIT, assert"]}


@pytest.mark.parametrize("mode", Irqchip)
def test_pic_set_up_is_a_stream_and_its_eois_are_not(mode):
    events = [*pic_write(mode, 0x11), *pic_write(mode, 0x20), *pic_write(mode, 0x64)]

    assert steps(events, mode) == {"pic/master/command": ["0x11"]}


@pytest.mark.parametrize("mode", Irqchip)
def test_pic_initialisation_words_are_steps_and_masks_are_not(mode):
    events = [*pic_write(mode, 0xFB, 1), *pic_write(mode, 0x11)]
    for value in (0x30, 0x04, 0x01, 0xFE, 0xFF):
        events += pic_write(mode, value, 1)

    assert steps(events, mode) == {
        "pic/master/command": ["0x11"],
        "pic/master/data": ["0x30", "0x04", "0x01"],
    }


def test_version_read_again_and_again_stands_once():
    read = event("kvm_apic", access="read", register="APIC_LVR", value=0x50014)
    view = observe([read, read], Irqchip.ON)

    assert view.streams["lapic/LVR"].steps == (GuestStep(0, "0x50014"),)
    assert view.streams["lapic/LVR"].counts is None


def test_ioapic_version_is_known_by_the_selected_register():
    select = [event("kvm_mmio", access="write", length=4, gpa=0xFEC00000, value=n) for n in (0, 1)]
    read = event("kvm_mmio", access="read", length=4, gpa=0xFEC00010, value=0x170011)

    assert steps([select[0], read, select[1], read])["ioapic/VER"] == ["0x170011"]


def test_entries_of_a_machine_with_two_ioapics_are_left_out():
    events = ioapic_write(Irqchip.SPLIT, ENTRY_20, LEVEL_38)

    assert observe(events, Irqchip.SPLIT, ioapics=2).streams == {}


# --- Handling -----------------------------------------------------------------------------------


def accepted(vector):
    fields = {"delivery_mode": "Fixed", "trigger": "level"}
    return event("kvm_apic_accept_irq", apicid=0, vector=vector, **fields)


def injected(vector):
    return event("kvm_inj_virq", kind="IRQ", vector=vector, reinjected=False)


def ended(vector):
    return event("kvm_eoi", apicid=0, vector=vector)


def test_interrupt_of_a_pin_is_named_by_the_pin_and_not_by_its_vector():
    events = [*ioapic_write(Irqchip.ON, ENTRY_20, LEVEL_38), accepted(38), injected(38), ended(38)]

    assert steps(events)["cpu0/ioapic pin20"] == ["taken, ended"]


def test_entry_masked_in_the_handler_is_another_way_of_handling():
    masked = ioapic_write(Irqchip.ON, ENTRY_20, LEVEL_38 | 1 << 16)
    set_up = ioapic_write(Irqchip.ON, ENTRY_20, LEVEL_38)
    events = [*set_up, accepted(38), injected(38), *masked, ended(38)]

    assert steps(events)["cpu0/ioapic pin20"] == ["taken, masked, ended"]


def test_end_of_interrupt_that_was_not_taken_is_said():
    events = [*ioapic_write(Irqchip.ON, ENTRY_20, LEVEL_38), accepted(38), ended(38)]

    assert steps(events)["cpu0/ioapic pin20"] == ["not taken, ended"]


def test_ways_of_handling_stand_once_with_their_counts():
    events = ioapic_write(Irqchip.ON, ENTRY_20, LEVEL_38)
    for _ in range(5):
        events += [accepted(38), injected(38), ended(38)]
    stream = observe(events, Irqchip.ON).streams["cpu0/ioapic pin20"]

    assert stream.counts == {"taken, ended": 5}


def test_timer_interrupt_is_named_by_its_lvt():
    lvt = event("kvm_apic", access="write", register="APIC_LVTT", value=0x200EC)

    assert "cpu0/LVTT" in steps([lvt, accepted(0xEC), injected(0xEC), ended(0xEC)])


def test_tcg_sees_ends_and_no_taking():
    message = {"dst": 0, "dest_mode": 0, "delivery_mode": 0, "trigger": 0}
    events = [event("apic_deliver_irq", vector=40, **message)]
    events += [*lapic_write(Irqchip.TCG, 0xB0, 0), *lapic_write(Irqchip.TCG, 0xF0, 0x1FF)]
    view = observe(events, Irqchip.TCG)

    assert not view.sees_taking
    assert [step.what for step in view.streams["cpu0/msi 40"].steps] == ["ended"]


# --- Loops --------------------------------------------------------------------------------------


def stood(text):
    return "".join(step.what for step in shape([GuestStep(n, what) for n, what in enumerate(text)]))


@pytest.mark.parametrize(
    ("text", "once"),
    [("", ""), ("abc", "abc"), ("aaa", "a"), ("xababab", "xab"), ("abab" * 9 + "c", "abc")],
)
def test_shape_has_each_loop_once(text, once):
    assert stood(text) == once


def test_shape_of_loops_that_ran_more_or_less_often_is_the_same():
    assert stood("s" + "mu" * 3 + "e") == stood("s" + "mu" * 40 + "e")


def test_shape_keeps_the_first_pass_of_a_loop():
    assert shape([GuestStep(3, "a"), GuestStep(7, "a")]) == (GuestStep(3, "a"),)


def test_shape_keeps_loops_that_are_too_long():
    body = "abcdefghijkl"[: LONGEST_LOOP + 1]

    assert stood(body * 2) == body * 2
