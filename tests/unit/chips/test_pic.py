"""The 8259 pair: initialisation, operation words, priority, cascade, INTA; KVM's and QEMU's."""

import pytest

from support.chip_ports import PicRecorder
from userspace_chip.errors import AccessError, PinRangeError, StateError
from userspace_chip.pic import ELCR_MASKS, Pic, PicChipState, PicState
from userspace_chip.ports import Irqchip
from userspace_chip.profile import Profile, profile

ON = profile("on")
ON_6_1 = profile("on", linux="6.1")
Q7 = profile("tcg", qemu="7.2")
Q10 = profile("tcg", qemu="10.0")
ALL = (ON, Q7, Q10)

EOI = 0x20
POLL = 0x0C
READ_IRR, READ_ISR = 0x0A, 0x0B
SPECIAL_MASK, NORMAL_MASK = 0x68, 0x48


def make(profile: Profile) -> tuple[Pic, PicRecorder]:
    port = PicRecorder()
    pic = Pic(profile, port, port.emit)
    for base, icw2, icw3 in ((0x20, 0x30, 0x04), (0xA0, 0x70, 0x02)):
        initialise(pic, base, icw2, icw3)
    port.clear()
    return pic, port


def initialise(pic: Pic, base: int, icw2: int, icw3: int = 4, icw4: int = 1) -> None:
    pic.write(base, 0x11)
    for word in (icw2, icw3, icw4):
        pic.write(base + 1, word)


def pulse(pic: Pic, pin: int) -> None:
    pic.set_irq(pin, 1)
    pic.set_irq(pin, 0)


def ids(profile: Profile) -> str:
    return f"{profile.mode}-{profile.qemu}"


each = pytest.mark.parametrize("which", ALL, ids=ids)
each_qemu = pytest.mark.parametrize("which", [Q7, Q10], ids=ids)


# --- requests, priority, INTA


@each
@pytest.mark.parametrize("pin", [pin for pin in range(16) if pin != 2])
def test_each_input_has_its_vector(which, pin):
    pic, _ = make(which)
    pic.set_irq(pin, 1)
    assert pic.output
    assert pic.intack() == (0x30 + pin if pin < 8 else 0x70 + pin - 8)


@each
def test_lowest_number_goes_first_and_blocks_the_others_until_eoi(which):
    pic, _ = make(which)
    for pin in (6, 3):
        pulse(pic, pin)
    assert pic.intack() == 0x33
    assert not pic.output
    pic.write(0x20, EOI)
    assert pic.intack() == 0x36


@each
def test_higher_priority_interrupts_the_one_in_service(which):
    pic, _ = make(which)
    pulse(pic, 6)
    pic.intack()
    pulse(pic, 3)
    assert pic.output
    assert pic.intack() == 0x33
    assert pic.state.chips[0].isr == 1 << 3 | 1 << 6


@each
def test_slave_input_is_in_service_in_both_chips(which):
    pic, _ = make(which)
    pulse(pic, 12)
    assert pic.intack() == 0x74
    assert (pic.state.chips[0].isr, pic.state.chips[1].isr) == (1 << 2, 1 << 4)


@each
def test_edge_is_latched_while_masked_and_after_the_line_fell(which):
    pic, _ = make(which)
    pic.write(0x21, 0xFF)
    pulse(pic, 3)
    assert not pic.output
    pic.write(0x21, 0)
    assert pic.output
    assert pic.intack() == 0x33


@each
def test_line_held_high_makes_one_request(which):
    pic, _ = make(which)
    pic.set_irq(3, 1)
    pic.intack()
    pic.write(0x20, EOI)
    pic.set_irq(3, 1)
    assert not pic.output


@each
def test_level_input_asks_again_after_eoi_until_the_line_is_low(which):
    pic, _ = make(which)
    pic.write(0x4D0, 1 << 5)
    pic.set_irq(5, 1)
    pic.intack()
    pic.write(0x20, EOI)
    assert pic.output
    pic.set_irq(5, 0)
    assert not pic.output


@each
def test_elcr_takes_only_the_inputs_that_may_be_level(which):
    pic, _ = make(which)
    pic.write(0x4D0, 0xFF)
    pic.write(0x4D1, 0xFF)
    assert (pic.read(0x4D0), pic.read(0x4D1)) == ELCR_MASKS


@each
def test_nothing_requested_gives_the_masters_spurious_vector(which):
    pic, _ = make(which)
    assert pic.intack() == 0x37
    assert pic.state.chips[0].isr == 0


@each
def test_slave_request_that_vanished_gives_the_slaves_spurious_vector(which):
    pic, _ = make(which)
    pulse(pic, 12)
    pic.write(0xA1, 0xFF)
    if which is not ON:  # QEMU's cascade is a wire, but its fall does not clear the latch
        assert pic.state.chips[0].irr == 1 << 2
    assert pic.intack() == 0x77
    assert pic.state.chips[0].isr == 1 << 2


# --- results, sources, statistics


def test_kvm_result_is_masked_before_coalesced():
    pic, _ = make(ON)
    assert pic.set_irq(3, 1) == 1
    assert pic.set_irq(3, 1) == 1  # no new edge
    assert pic.set_irq(3, 0) == 1
    assert pic.set_irq(3, 1) == 0  # the request is still there
    pic.write(0x21, 1 << 3)
    assert pic.set_irq(3, 0) == -1
    assert pic.set_irq(3, 1) == -1


def test_kvm_line_is_high_while_any_source_holds_it():
    pic, _ = make(ON)
    pic.write(0x4D0, 1 << 5)
    pic.set_irq(5, 1, source=0)
    pic.set_irq(5, 1, source=2)
    pic.set_irq(5, 0, source=2)
    assert pic.output
    pic.clear_source(0)
    assert pic.state.lines[5] == 0


@each_qemu
def test_qemu_counts_the_cascade_as_input_2(which):
    pic, _ = make(which)
    pulse(pic, 12)
    pulse(pic, 3)
    assert [pin for pin, count in enumerate(pic.state.raised) if count] == [2, 3, 12]


# --- end of interrupt, rotation


@each
def test_specific_eoi_ends_the_named_one(which):
    pic, _ = make(which)
    for pin in (6, 3):
        pulse(pic, pin)
        pic.intack()
    pic.write(0x20, 0x66)
    assert pic.state.chips[0].isr == 1 << 3


@each
def test_nonspecific_eoi_ends_the_best_in_service(which):
    pic, _ = make(which)
    for pin in (6, 3):
        pulse(pic, pin)
        pic.intack()
    pic.write(0x20, EOI)
    assert pic.state.chips[0].isr == 1 << 6


@each
def test_nonspecific_eoi_with_nothing_in_service_does_nothing(which):
    pic, port = make(which)
    before = pic.save()
    pic.write(0x20, EOI)
    pic.write(0x20, 0xA0)
    assert pic.save() == before
    assert not port.named("ack", "intr")


@each
@pytest.mark.parametrize("command", [0xA0, 0xE4], ids=["nonspecific", "specific"])
def test_rotating_eoi_makes_the_served_one_the_last(which, command):
    pic, _ = make(which)
    pulse(pic, 4)
    pic.intack()
    pic.write(0x20, command)
    assert pic.state.chips[0].priority_add == 5
    for pin in (4, 5):
        pulse(pic, pin)
    assert pic.intack() == 0x35


@each
def test_set_priority_makes_the_named_one_the_last(which):
    pic, _ = make(which)
    pic.write(0x20, 0xC4)
    for pin in (3, 4, 7):
        pulse(pic, pin)
    assert pic.intack() == 0x37


@each
def test_no_operation_does_nothing(which):
    pic, _ = make(which)
    before = pic.save()
    pic.write(0x20, 0x40)
    assert pic.save() == before


def test_kvm_specific_eoi_notifies_even_without_service_and_names_slave_pins_8_to_15():
    pic, port = make(ON)
    pic.write(0x20, 0x65)
    pic.write(0xA0, 0x63)
    assert port.named("ack") == [("ack", Irqchip.PIC_MASTER, 5), ("ack", Irqchip.PIC_SLAVE, 11)]


@each_qemu
def test_qemu_never_notifies_of_acknowledgements_or_masks(which):
    pic, port = make(which)
    pulse(pic, 4)
    pic.intack()
    pic.write(0x20, EOI)
    pic.write(0x21, 0xFF)
    assert not port.named("ack", "mask_changed")


def test_kvm_notifies_of_every_changed_mask_bit():
    pic, port = make(ON)
    pic.write(0x21, 0x81)
    pic.write(0x21, 0x80)
    pic.write(0xA1, 0x02)
    assert port.named("mask_changed") == [
        ("mask_changed", Irqchip.PIC_MASTER, 0, True),
        ("mask_changed", Irqchip.PIC_MASTER, 7, True),
        ("mask_changed", Irqchip.PIC_MASTER, 0, False),
        ("mask_changed", Irqchip.PIC_SLAVE, 1, True),
    ]


# --- automatic EOI, special fully nested mode, special mask mode


@each
def test_auto_eoi_leaves_nothing_in_service(which):
    pic, port = make(which)
    initialise(pic, 0x20, 0x30, icw4=3)
    pulse(pic, 4)
    port.clear()
    assert pic.intack() == 0x34
    assert pic.state.chips[0].isr == 0
    assert port.named("ack") == ([("ack", Irqchip.PIC_MASTER, 4)] if which is ON else [])


@each
def test_rotation_on_auto_eoi_is_switched_by_ocw2(which):
    pic, _ = make(which)
    initialise(pic, 0x20, 0x30, icw4=3)
    pic.write(0x20, 0x80)
    pulse(pic, 4)
    pic.intack()
    assert pic.state.chips[0].priority_add == 5
    pic.write(0x20, 0x00)
    pulse(pic, 6)
    pic.intack()
    assert pic.state.chips[0].priority_add == 5


@each
@pytest.mark.parametrize(("icw4", "nested"), [(0x01, False), (0x11, True)])
def test_slave_interrupts_its_own_service_in_special_fully_nested_mode(which, icw4, nested):
    pic, _ = make(which)
    initialise(pic, 0x20, 0x30, icw4=icw4)
    pulse(pic, 12)
    pic.intack()
    pulse(pic, 9)
    assert pic.output == nested


@pytest.mark.parametrize(("which", "through"), [(ON, False), (Q7, True), (Q10, True)])
def test_special_mask_mode_is_kept_by_kvm_and_used_by_qemu(which, through):
    pic, _ = make(which)
    pulse(pic, 3)
    pic.intack()
    pic.write(0x21, 1 << 3)
    pic.write(0x20, SPECIAL_MASK)
    pulse(pic, 6)
    assert pic.state.chips[0].special_mask == 1
    assert pic.output == through
    pic.write(0x20, NORMAL_MASK)
    assert not pic.output or which is ON


@each_qemu
def test_qemu_wire_lags_behind_what_ocw3_made_true(which):
    pic, port = make(which)
    pulse(pic, 3)
    pic.intack()
    pic.write(0x21, 1 << 3)
    pulse(pic, 6)
    port.clear()
    pic.write(0x20, SPECIAL_MASK)
    assert pic.output
    assert not port.named("intr")
    assert pic.state.output == 0


# --- reads, poll


@each
def test_command_port_reads_irr_or_isr_as_selected(which):
    pic, _ = make(which)
    pulse(pic, 3)
    pic.intack()
    pulse(pic, 6)
    assert pic.read(0x20) == 1 << 6
    pic.write(0x20, READ_ISR)
    assert pic.read(0x20) == 1 << 3
    pic.write(0x20, READ_IRR)
    assert pic.read(0x20) == 1 << 6
    pic.write(0x21, 0x5A)
    assert pic.read(0x21) == 0x5A


@pytest.mark.parametrize(
    ("which", "value", "isr"), [(ON, 0x86, 0), (ON_6_1, 0x06, 0), (Q7, 0x86, 0x40)]
)
@pytest.mark.parametrize("port", [0x20, 0x21])
def test_poll_takes_the_request(which, value, isr, port):
    pic, _ = make(which)
    pulse(pic, 6)
    pic.write(0x20, POLL)
    assert pic.read(port) == value
    assert (pic.state.chips[0].irr, pic.state.chips[0].isr) == (0, isr)
    assert pic.read(0x21) == 0  # the poll flag is gone


@pytest.mark.parametrize(("which", "value"), [(ON, 0x07), (Q7, 0x00), (Q10, 0x00)])
def test_poll_with_nothing_requested(which, value):
    pic, _ = make(which)
    pic.write(0x20, POLL)
    assert pic.read(0x20) == value


@pytest.mark.parametrize(("which", "cascade"), [(ON, 0), (Q7, 1 << 2)])
def test_poll_of_the_slave_clears_the_masters_cascade_request_in_kvm_only(which, cascade):
    pic, _ = make(which)
    pulse(pic, 12)
    pic.write(0xA0, POLL)
    assert pic.read(0xA0) == 0x84
    assert pic.state.chips[0].irr == cascade


@pytest.mark.parametrize(("which", "irr"), [(ON, 0), (Q7, 1 << 5)])
def test_poll_of_a_level_input_clears_its_request_in_kvm_only(which, irr):
    pic, _ = make(which)
    pic.write(0x4D0, 1 << 5)
    pic.set_irq(5, 1)
    pic.write(0x20, POLL)
    pic.read(0x20)
    assert pic.state.chips[0].irr == irr


# --- initialisation


@pytest.mark.parametrize(("which", "kept"), [(ON, True), (Q7, False), (Q10, False)])
def test_icw1_keeps_service_base_and_rotation_in_kvm_only(which, kept):
    pic, _ = make(which)
    pic.write(0x20, 0x80)
    pulse(pic, 3)
    pic.intack()
    pic.write(0x20, 0x11)
    chip = pic.state.chips[0]
    assert (chip.isr, chip.irq_base, chip.rotate_on_auto_eoi) == (
        (1 << 3, 0x30, 1) if kept else (0, 0, 0)
    )


@each
def test_icw1_clears_mask_priority_select_and_edge_requests_but_not_level_ones(which):
    pic, _ = make(which)
    pic.write(0x4D0, 1 << 5)
    pic.set_irq(5, 1)
    pic.set_irq(3, 1)
    for value in (READ_ISR, SPECIAL_MASK, 0xC3):
        pic.write(0x20, value)
    pic.write(0x21, 0xF0)
    pic.write(0x20, 0x11)
    chip = pic.state.chips[0]
    assert chip.irr == 1 << 5
    assert (chip.imr, chip.priority_add, chip.special_mask, chip.read_reg_select) == (0, 0, 0, 0)
    assert chip.last_irr == 0


@pytest.mark.parametrize(("icw1", "kept"), [(0x11, 1), (0x10, 0)])
def test_kvm_icw1_clears_icw4s_modes_only_where_no_icw4_follows(icw1, kept):
    pic, _ = make(ON)
    initialise(pic, 0x20, 0x30, icw4=0x13)
    pic.write(0x20, icw1)
    chip = pic.state.chips[0]
    assert (chip.auto_eoi, chip.special_fully_nested_mode) == (kept, kept)


@pytest.mark.parametrize("accepts", [True, False])
def test_kvm_icw1_acknowledges_dropped_edges_where_a_cpu_listens(accepts):
    pic, port = make(ON)
    pulse(pic, 3)
    pic.intack()
    pulse(pic, 3)
    pulse(pic, 6)
    port.accepts = accepts
    port.clear()
    pic.write(0x20, 0x11)
    pins = [call[2] for call in port.named("ack")]
    assert pins == ([3, 6] if accepts else [])
    # The service of an input whose next request was dropped ends with it.
    assert pic.state.chips[0].isr == (0 if accepts else 1 << 3)
    assert not port.named("intr")


@each
def test_icw4_is_awaited_only_where_icw1_announced_it(which):
    pic, _ = make(which)
    pic.write(0x20, 0x10)
    pic.write(0x21, 0x47)
    pic.write(0x21, 0x04)
    pic.write(0x21, 0x5A)
    chip = pic.state.chips[0]
    assert (chip.irq_base, chip.imr, chip.init_state) == (0x40, 0x5A, 0)


@pytest.mark.parametrize(("which", "mask"), [(ON, 0), (Q7, 0x5A), (Q10, 0x5A)])
def test_single_mode_has_no_icw3_in_qemu_only(which, mask):
    pic, _ = make(which)
    for port, value in ((0x20, 0x12), (0x21, 0x40), (0x21, 0x5A)):
        pic.write(port, value)
    assert pic.state.chips[0].imr == mask


def test_single_mode_with_icw4_takes_it_second_in_qemu():
    pic, _ = make(Q7)
    for port, value in ((0x20, 0x13), (0x21, 0x40), (0x21, 0x02)):
        pic.write(port, value)
    assert (pic.state.chips[0].auto_eoi, pic.state.chips[0].init_state) == (1, 0)


@pytest.mark.parametrize(("which", "level"), [(ON, False), (Q7, False), (Q10, True)])
def test_ltim_makes_every_input_level_in_qemu_10_only(which, level):
    pic, _ = make(which)
    pic.write(0x20, 0x19)
    for word in (0x30, 4, 1):
        pic.write(0x21, word)
    pulse(pic, 3)
    assert pic.output == (not level)
    pic.set_irq(3, 1)
    pic.intack()
    pic.write(0x20, EOI)
    assert pic.output == level


# --- the wires


def test_kvm_cascade_is_a_pulse_at_every_update():
    pic, _ = make(ON)
    pulse(pic, 12)
    pic.state.chips[0].irr = 0
    pic.set_irq(1, 0)
    assert pic.state.chips[0].irr == 1 << 2
    assert pic.state.chips[0].last_irr == 0


@each_qemu
def test_qemu_cascade_is_a_level_wire(which):
    pic, _ = make(which)
    pulse(pic, 12)
    assert pic.state.chips[0].last_irr == 1 << 2
    pic.write(0xA1, 0xFF)
    assert pic.state.chips[0].last_irr == 0


def test_kvm_inta_drops_the_output_before_it_looks():
    pic, port = make(ON)
    pulse(pic, 3)
    levels = []
    port.intr = lambda level: levels.append((pic.state.output, level))
    pic.intack()
    assert levels == [(0, False)]


@each
def test_output_still_shows_the_old_level_while_the_machine_is_told(which):
    pic, port = make(which)
    levels = []
    port.intr = lambda level: levels.append((pic.state.output, level))
    pic.set_irq(3, 1)
    assert levels == [(0, True)]
    assert pic.state.output == 1


# --- access sizes


@pytest.mark.parametrize(
    ("port", "size", "value"),
    [(0x20, 2, 0), (0x4D1, 2, 0), (0xA1, 2, 0xFF00), (0x21, 4, 0xFFFFFF00), (0x20, 4, 0)],
)
def test_kvm_ignores_anything_but_a_byte(port, size, value):
    pic, _ = make(ON)
    before = pic.save()
    pic.write(port, 0x11, size)
    assert pic.save() == before
    assert pic.read(port, size) == value


@each_qemu
def test_qemu_gives_the_bytes_behind_the_command_port_to_the_data_port(which):
    pic, _ = make(which)
    pulse(pic, 3)
    pic.write(0x20, 0x5A0B, 2)
    assert pic.state.chips[0].imr == 0x5A
    assert pic.read(0x20, 4) == 0x5A5A5A00
    assert pic.read(0x21, 2) == 0xFF5A
    pic.write(0x4D0, 0x2008, 2)
    assert (pic.read(0x4D0, 2), pic.read(0x4D1)) == (0x2020, 0)


# --- events


def test_kvm_event_of_a_line():
    pic, port = make(ON)
    pic.write(0x4D1, 0x02)
    pic.write(0xA1, 0x02)
    pic.set_irq(9, 1)
    pic.set_irq(3, 1)
    pic.set_irq(3, 0)
    pic.set_irq(3, 1)
    assert port.events == [
        "kvm_pic_set_irq chip 1 pin 1 (level|masked)",
        "kvm_pic_set_irq chip 0 pin 3 (edge)",
        "kvm_pic_set_irq chip 0 pin 3 (edge)",
        "kvm_pic_set_irq chip 0 pin 3 (edge) (coalesced)",
    ]


def test_qemu_events_of_a_slave_interrupt():
    pic, port = make(Q7)
    pic.set_irq(12, 1)
    pic.intack()
    assert port.events == [
        "pic_set_irq master 0 irq 4 level 1",
        "pic_update_irq master 0 imr 0 irr 16 padd 0",
        "pic_set_irq master 1 irq 2 level 1",
        "pic_update_irq master 1 imr 0 irr 4 padd 0",
        "pic_set_irq master 1 irq 2 level 0",
        "pic_update_irq master 1 imr 0 irr 4 padd 0",
        "pic_interrupt irq 12 intno 116",
    ]


# --- state


@each
def test_saved_state_restores_and_is_independent(which):
    pic, _ = make(which)
    pulse(pic, 12)
    saved = pic.save()
    pic.intack()
    assert pic.save() != saved
    pic.load(saved)
    assert pic.save() == saved
    pic.intack()
    assert saved.chips[1].irr == 1 << 4


@each
def test_reset_clears_everything_but_the_lines(which):
    pic, port = make(which)
    pic.write(0x4D0, 0xFF)
    pic.set_irq(12, 1)
    pic.reset()
    assert pic.state.chips == [PicChipState(elcr_mask=mask) for mask in ELCR_MASKS]
    assert pic.state.lines[12] == 1
    assert not pic.output
    assert not port.level


def test_kvm_image_of_a_chip_goes_in_and_out():
    pic, port = make(ON)
    image = PicChipState(irr=1 << 4, irq_base=0x80, elcr_mask=0xDE)
    pic.set_irqchip(Irqchip.PIC_SLAVE, image)
    assert pic.get_irqchip(Irqchip.PIC_SLAVE) == image
    assert port.level
    assert pic.intack() == 0x84


@pytest.mark.parametrize(
    "state",
    [
        PicState(chips=[PicChipState()]),
        PicState(chips=[PicChipState(), PicChipState(irr=256)]),
        PicState(lines=[0]),
    ],
)
def test_state_of_no_pair_is_refused(state):
    pic, _ = make(ON)
    with pytest.raises(StateError):
        pic.load(state)


def test_image_for_another_chip_is_refused():
    pic, _ = make(ON)
    with pytest.raises(PinRangeError):
        pic.get_irqchip(Irqchip.IOAPIC)


# --- impossible inputs


@each
@pytest.mark.parametrize("pin", [-1, 16])
def test_input_that_is_not_there_is_refused(which, pin):
    pic, _ = make(which)
    with pytest.raises(PinRangeError, match=rf"input {pin}.*0\.\.15"):
        pic.set_irq(pin, 1)


def test_source_that_kvm_does_not_have_is_refused():
    pic, _ = make(ON)
    with pytest.raises(PinRangeError, match="source 64"):
        pic.set_irq(3, 1, source=64)


@each
@pytest.mark.parametrize("size", [0, 3, 8])
def test_access_size_that_no_bus_does_is_refused(which, size):
    pic, _ = make(which)
    with pytest.raises(AccessError, match=f"{size} bytes"):
        pic.read(0x20, size)


@each
@pytest.mark.parametrize("port", [0x22, 0x40, 0x4D2])
def test_port_of_another_chip_is_refused(which, port):
    pic, _ = make(which)
    with pytest.raises(AccessError, match=f"{port:#x}"):
        pic.write(port, 0)


@each
def test_value_wider_than_the_access_is_refused(which):
    pic, _ = make(which)
    with pytest.raises(AccessError, match="0x100"):
        pic.write(0x21, 0x100)
