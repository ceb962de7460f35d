import errno

import pytest

from support.machines import (
    MODES,
    SUBJECTS,
    init_pics,
    kernel_texts,
    name_of,
    program,
    ready,
    scanned,
    texts,
)
from userspace_chip.errors import AccessError, PinRangeError, RouteError, StateError
from userspace_chip.irqchip import Machine
from userspace_chip.lapic_registers import LVT0, LVT_LINT0
from userspace_chip.messages import MsiMessage
from userspace_chip.ports import Irqchip
from userspace_chip.profile import profile, tune
from userspace_chip.routing import IrqchipRoute, MsiRoute, kernel_default

LEVEL = 0x8000
MASKED = 0x10000
IOAPIC = 0xFEC00000
LAPIC = 0xFEE00000
TO_CPU_1 = 1 << 24

EVERY = pytest.mark.parametrize("subject", SUBJECTS, ids=name_of)


def write_rte_low(machine, pin, value):
    machine.mmio_write(0, IOAPIC, 4, 0x10 + 2 * pin)
    machine.mmio_write(0, IOAPIC + 0x10, 4, value)


def rte(machine, pin, ioapic=0):
    return machine.ioapics[ioapic].state.rte[pin]


def remote_irr(machine, pin):
    return bool(rte(machine, pin) >> 14 & 1)


# --- one interrupt from line to EOI, in every profile


@EVERY
def test_edge_interrupt_is_raised_taken_and_ended(subject):
    machine = ready(subject)
    program(machine, 10, 0x31)
    machine.set_gsi(10, 1)
    assert machine.enter(0).vector == 0x31
    machine.set_gsi(10, 0)
    machine.eoi(0)
    assert machine.enter(0).vector is None
    assert machine.lapics[0].state.isr == 0


@EVERY
def test_level_interrupt_comes_again_until_the_line_falls(subject):
    machine = ready(subject)
    program(machine, 10, LEVEL | 0x41)
    scanned(machine)
    machine.set_gsi(10, 1)
    assert machine.enter(0).vector == 0x41
    assert remote_irr(machine, 10)
    machine.eoi(0)
    assert machine.enter(0).vector == 0x41
    machine.set_gsi(10, 0)
    machine.eoi(0)
    assert machine.enter(0).vector is None
    assert not remote_irr(machine, 10)


@EVERY
def test_masked_level_interrupt_comes_when_it_is_unmasked(subject):
    machine = ready(subject)
    program(machine, 10, MASKED | LEVEL | 0x41)
    machine.set_gsi(10, 1)
    assert machine.enter(0).vector is None
    write_rte_low(machine, 10, LEVEL | 0x41)
    stale = subject.mode == "split" and subject.qemu == "7.2"
    # QEMU 7.2 services the pin before it has told KVM the new route.
    assert machine.enter(0).vector == (None if stale else 0x41)


@EVERY
def test_isa_line_reaches_pic_and_ioapic(subject):
    machine = ready(subject)
    init_pics(machine)
    program(machine, 4, 0x34)
    machine.set_gsi(4, 1)
    assert {machine.enter(0).vector, machine.enter(0).vector} == {0x24, 0x34}


@EVERY
def test_timer_line_arrives_at_ioapic_pin_2(subject):
    machine = ready(subject)
    program(machine, 0, 0x30)
    program(machine, 2, 0x32)
    machine.set_gsi(0, 0)
    machine.set_gsi(0, 1)
    assert machine.enter(0).vector == 0x32
    assert machine.enter(0).vector is None


@EVERY
def test_ipi_reaches_the_other_cpu(subject):
    machine = ready(subject, 2)
    machine.mmio_write(0, LAPIC + 0x310, 4, TO_CPU_1)
    machine.mmio_write(0, LAPIC + 0x300, 4, 0x4031)
    assert machine.enter(0).vector is None
    assert machine.enter(1).vector == 0x31


@EVERY
def test_apic_timer_expires_when_time_passes(subject):
    machine = ready(subject)
    machine.mmio_write(0, LAPIC + 0x320, 4, 0x31)
    machine.mmio_write(0, LAPIC + 0x3E0, 4, 0xB)
    machine.mmio_write(0, LAPIC + 0x380, 4, 1_000_000)
    machine.advance(machine.now_ns + 999_999)
    assert machine.enter(0).vector is None
    machine.advance(machine.now_ns + 10)
    assert machine.enter(0).vector == 0x31


@EVERY
def test_apic_timer_can_expire_by_name(subject):
    machine = ready(subject)
    machine.mmio_write(0, LAPIC + 0x320, 4, 0x31)
    machine.mmio_write(0, LAPIC + 0x380, 4, 1_000_000)
    machine.expire("lapic0")
    assert machine.enter(0).vector == 0x31


# --- traces: the kernel's own order


def test_on_edge_of_an_isa_line_is_traced_twice_and_the_second_is_coalesced():
    machine = ready("on")
    init_pics(machine)
    machine.mmio_write(0, LAPIC + LVT0, 4, 0x10700)
    program(machine, 4, 0x34)
    scanned(machine)
    machine.set_gsi(4, 1)
    machine.set_gsi(4, 0)
    once = ["kvm_set_irq: gsi 4 level 1 source 0", "kvm_pic_set_irq: chip 0 pin 4 (edge)"]
    low = [
        "kvm_set_irq: gsi 4 level 0 source 0",
        "kvm_pic_set_irq: chip 0 pin 4 (edge)",
        "kvm_ioapic_set_irq: pin 4 dst 0 vec 52 (Fixed|physical|edge)",
    ]
    assert kernel_texts(machine) == [
        *once,
        "kvm_apic_accept_irq: apicid 0 vec 52 (Fixed|edge)",
        "kvm_ioapic_set_irq: pin 4 dst 0 vec 52 (Fixed|physical|edge)",
        *once,
        "kvm_ioapic_set_irq: pin 4 dst 0 vec 52 (Fixed|physical|edge) (coalesced)",
        *low,
        *low,
    ]


def test_on_with_the_kernels_own_table_calls_the_ioapic_first():
    machine = ready("on", routes=kernel_default())
    program(machine, 9, 0x39)
    scanned(machine)
    machine.irq_line(9, 1)
    assert kernel_texts(machine) == [
        "kvm_set_irq: gsi 9 level 1 source 0",
        "kvm_apic_accept_irq: apicid 0 vec 57 (Fixed|edge)",
        "kvm_ioapic_set_irq: pin 9 dst 0 vec 57 (Fixed|physical|edge)",
        "kvm_pic_set_irq: chip 1 pin 1 (edge)",
    ]


@pytest.mark.parametrize(
    ("pic_masked", "steps", "results"),
    [
        (False, (1, 1, 0, 1), [1, 1, 2, 0]),
        (True, (1, 0), [-1, 1]),
    ],
)
def test_on_results_are_summed_as_the_kernel_does(pic_masked, steps, results):
    machine = ready("on", routes=kernel_default())
    for port in (0x21, 0xA1):
        machine.pio_write(0, port, 0xFF if pic_masked else 0)
    program(machine, 9, MASKED | 0x39)
    assert [machine.irq_line(9, level) for level in steps] == results


def test_on_level_eoi_with_the_line_high_acks_and_delivers_again():
    machine = ready("on")
    program(machine, 20, LEVEL | 0x41)
    scanned(machine)
    machine.set_gsi(20, 1)
    machine.enter(0)
    machine.log.take()
    machine.eoi(0)
    assert kernel_texts(machine) == [
        "kvm_eoi: apicid 0 vector 65",
        "kvm_ack_irq: irqchip IOAPIC pin 20",
        "kvm_apic_accept_irq: apicid 0 vec 65 (Fixed|level)",
    ]


def test_on_edge_eoi_is_traced_without_an_ack():
    machine = ready("on")
    program(machine, 20, 0x41)
    scanned(machine)
    machine.set_gsi(20, 1)
    machine.enter(0)
    machine.log.take()
    machine.eoi(0)
    assert kernel_texts(machine) == ["kvm_eoi: apicid 0 vector 65"]


def test_split_edge_goes_through_the_route_up_and_down():
    machine = ready("split")
    program(machine, 5, 0x31)
    scanned(machine)
    machine.set_gsi(5, 1)
    assert kernel_texts(machine) == [
        "kvm_set_irq: gsi 5 level 1 source 0",
        "kvm_msi_set_irq: dst 0 vec 49 (Fixed|physical|edge)",
        "kvm_apic_accept_irq: apicid 0 vec 49 (Fixed|edge)",
        "kvm_set_irq: gsi 5 level 0 source 0",
    ]


def test_split_level_exits_to_user_space_at_its_eoi():
    machine = ready("split")
    program(machine, 20, LEVEL | 0x41)
    scanned(machine)
    machine.set_gsi(20, 1)
    machine.enter(0)
    machine.eoi(0)
    machine.set_gsi(20, 0)
    machine.enter(0)
    assert kernel_texts(machine) == [
        "kvm_set_irq: gsi 20 level 1 source 0",
        "kvm_msi_set_irq: dst 0 vec 65 (Fixed|physical|level)",
        "kvm_apic_accept_irq: apicid 0 vec 65 (Fixed|level)",
        "kvm_inj_virq: IRQ 0x41",
        "kvm_eoi: apicid 0 vector 65",
        "kvm_userspace_exit: reason KVM_EXIT_IOAPIC_EOI (26)",
    ]


@pytest.mark.parametrize("mode", ["on", "split"])
def test_device_message_is_decoded_and_accepted(mode):
    machine = ready(mode)
    assert machine.signal_msi(LAPIC, 0x31) == 1
    assert kernel_texts(machine) == [
        "kvm_msi_set_irq: dst 0 vec 49 (Fixed|physical|edge)",
        "kvm_apic_accept_irq: apicid 0 vec 49 (Fixed|edge)",
    ]


@pytest.mark.parametrize("mode", ["off", "tcg"])
def test_qemu_message_is_traced_by_qemu_only(mode):
    machine = ready(mode)
    machine.signal_msi(LAPIC, 0x31)
    assert texts(machine) == [
        "apic_deliver_irq: dest 0 dest_mode 0 delivery_mode 0 vector 49 trigger_mode 0"
    ]


def test_events_tell_the_cpu_in_whose_thread_they_happen():
    machine = ready("on", 2)
    machine.signal_msi(LAPIC | 1 << 12, 0x31)
    machine.enter(1)
    assert [event.vcpu for event in machine.log.take()] == [None, None, 1]


def test_events_carry_guest_time_and_the_model_as_their_source():
    machine = ready("on")
    machine.advance(5_000_000)
    machine.signal_msi(LAPIC, 0x31)
    assert {(e.time_ns, e.source) for e in machine.log.take()} == {(5_000_000, "model")}


def test_log_switched_off_collects_nothing_and_changes_nothing():
    machines = [ready("on"), ready("on", log=False)]
    for machine in machines:
        machine.signal_msi(LAPIC, 0x31)
        machine.enter(0)
    assert machines[1].log.take() == []
    assert machines[0].save() == machines[1].save()


# --- split: routes


def test_split_writes_of_qemu_7_commit_the_routes_at_every_access():
    machine = ready(profile("split", qemu="7.2"))
    write_rte_low(machine, 5, MASKED | 0x31)
    seen = [t for t in texts(machine) if t.startswith("kvm_irqchip")]
    assert seen == ["kvm_irqchip_commit_routes: ", "kvm_irqchip_commit_routes: "]


def test_split_writes_of_qemu_10_commit_the_routes_at_entries_only():
    machine = ready("split")
    write_rte_low(machine, 5, 0x31)
    seen = [t for t in texts(machine) if t.startswith("kvm_irqchip")]
    assert seen == [
        "kvm_irqchip_update_msi_route: Updating MSI route virq=5",
        "kvm_irqchip_commit_routes: ",
    ]


def test_split_qemu_7_sends_a_pending_level_through_the_stale_route():
    machine = ready(profile("split", qemu="7.2"))
    program(machine, 6, MASKED | LEVEL | 0x41)
    machine.set_gsi(6, 1)
    scanned(machine)
    write_rte_low(machine, 6, LEVEL | 0x41)
    assert "kvm_msi_set_irq: dst 0 vec 0 (Fixed|physical|edge)" in kernel_texts(machine)
    assert remote_irr(machine, 6)
    # An explicit EOI with the line still high goes through the new route.
    machine.mmio_write(0, IOAPIC + 0x40, 4, 0x41)
    assert "kvm_msi_set_irq: dst 0 vec 65 (Fixed|physical|level)" in kernel_texts(machine)


def test_split_masked_pin_keeps_its_route():
    machine = ready("split")
    program(machine, 5, 0x31)
    before = machine.router.table
    write_rte_low(machine, 5, MASKED | 0x55)
    assert machine.router.table == before


def test_split_reset_keeps_the_routes():
    machine = ready("split")
    program(machine, 5, 0x31)
    before = machine.router.table
    machine.reset()
    assert machine.router.table == before


def test_split_rescan_decodes_all_24_routes():
    machine = ready("split", 2)
    program(machine, 5, LEVEL | 0x31, TO_CPU_1)
    scanned(machine)
    machine.request_scan()
    machine.enter(1)
    assert sorted(kernel_texts(machine)) == [
        *["kvm_msi_set_irq: dst 0 vec 0 (Fixed|physical|edge)"] * 23,
        "kvm_msi_set_irq: dst 1 vec 49 (Fixed|physical|level)",
    ]
    assert [vcpu.state.handled_vectors for vcpu in machine.vcpus] == [0, 1 << 0x31]


def test_split_device_routes_start_at_gsi_24():
    machine = ready("split")
    assert machine.add_msi_route(MsiMessage(LAPIC, 0x31)) == 24
    assert machine.add_msi_route(MsiMessage(LAPIC, 0x32)) == 25
    assert texts(machine)[:2] == [
        "kvm_irqchip_add_msi_route: dev N/A vector 0 virq 24",
        "kvm_irqchip_commit_routes: ",
    ]


# --- split: the EOI exit bitmap


def in_service(subject, *, high=0, cpus=2):
    machine = ready(subject, cpus)
    program(machine, 20, LEVEL | 0x41, high)
    scanned(machine)
    machine.set_gsi(20, 1)
    assert machine.enter(0).vector == 0x41
    return machine


@pytest.mark.parametrize("linux", ["6.1", "6.12", "6.18"])
def test_split_vector_changed_in_service_never_sees_its_eoi(linux):
    machine = in_service(profile("split", linux=linux))
    write_rte_low(machine, 20, LEVEL | 0x51)
    machine.enter(0)
    machine.eoi(0)
    assert machine.step(0).exit is None
    assert remote_irr(machine, 20)


@pytest.mark.parametrize(("linux", "freed"), [("6.1", False), ("6.12", True), ("6.18", True)])
def test_split_destination_changed_in_service_keeps_its_eoi_since_6_12(linux, freed):
    machine = in_service(profile("split", linux=linux))
    machine.set_gsi(20, 0)
    program(machine, 20, LEVEL | 0x41, TO_CPU_1)
    machine.enter(0)
    machine.eoi(0)
    machine.enter(0)
    assert remote_irr(machine, 20) is not freed


@pytest.mark.parametrize(("linux", "handled"), [("6.12", True), ("6.18", False)])
def test_split_6_18_rescans_after_the_eoi_of_a_stale_vector(linux, handled):
    machine = in_service(profile("split", linux=linux))
    machine.set_gsi(20, 0)
    program(machine, 20, LEVEL | 0x41, TO_CPU_1)
    machine.enter(0)
    machine.eoi(0)
    machine.enter(0)
    assert bool(machine.vcpus[0].state.handled_vectors >> 0x41 & 1) is handled


def test_split_eoi_exit_ignores_the_trigger_mode():
    machine = ready("split")
    program(machine, 20, LEVEL | 0x41)
    scanned(machine)
    machine.signal_msi(LAPIC, 0x41)
    machine.enter(0)
    machine.eoi(0)
    assert machine.step(0).exit is not None


def test_split_edge_eoi_does_not_exit():
    machine = ready("split")
    program(machine, 20, 0x41)
    scanned(machine)
    machine.set_gsi(20, 1)
    machine.enter(0)
    machine.eoi(0)
    assert machine.step(0).exit is None


def test_split_suppressed_broadcast_still_exits():
    machine = ready("split")
    machine.mmio_write(0, LAPIC + 0xF0, 4, 0x11FF)
    program(machine, 20, LEVEL | 0x41)
    scanned(machine)
    machine.set_gsi(20, 1)
    machine.enter(0)
    machine.eoi(0)
    assert machine.step(0).exit is not None


def test_split_has_one_slot_for_a_pending_eoi():
    machine = ready("split")
    program(machine, 20, LEVEL | 0x41)
    program(machine, 21, LEVEL | 0x51)
    scanned(machine)
    machine.set_gsi(20, 1)
    machine.enter(0)
    machine.set_gsi(21, 1)
    machine.enter(0)
    machine.eoi(0)
    machine.eoi(0)
    machine.set_gsi(20, 0)
    machine.set_gsi(21, 0)
    machine.enter(0)
    assert (remote_irr(machine, 20), remote_irr(machine, 21)) == (False, True)


def test_on_vector_changed_in_service_leaves_remote_irr_set():
    machine = in_service("on")
    write_rte_low(machine, 20, LEVEL | 0x51)
    machine.enter(0)
    machine.eoi(0)
    assert remote_irr(machine, 20)
    write_rte_low(machine, 20, 0x51)
    assert not remote_irr(machine, 20)


def test_on_rewrite_of_an_entry_rescans_only_the_cpus_it_addresses():
    machine = ready("on", 3)
    program(machine, 20, LEVEL | 0x41, 0)
    scanned(machine)
    program(machine, 20, LEVEL | 0x42, TO_CPU_1)
    assert [bool(vcpu.state.requests & 2) for vcpu in machine.vcpus] == [True, True, False]


# --- ExtINT entries


def test_split_extint_entry_takes_the_pics_vector_when_it_is_looked_at():
    machine = ready("split")
    init_pics(machine)
    machine.mmio_write(0, LAPIC + LVT0, 4, 0x10700)
    machine.set_gsi(4, 1)
    program(machine, 20, 0x700)
    assert machine.pic.state.chips[0].isr == 1 << 4
    assert machine.router.table.of(20) == [MsiRoute(20, MsiMessage(LAPIC, 0x724))]


def test_on_extint_entry_is_dropped_at_the_local_apic():
    machine = ready("on")
    program(machine, 20, 0x731)
    assert machine.irq_line(20, 1) == 0


# --- off and tcg: the MSI window


@pytest.mark.parametrize("mode", ["off", "tcg"])
def test_qemu_store_to_the_first_16_bytes_is_a_message(mode):
    machine = ready(mode)
    machine.mmio_write(0, LAPIC, 4, 0x31)
    assert machine.enter(0).vector == 0x31


def test_kvm_store_to_the_first_16_bytes_is_ignored():
    machine = ready("on")
    machine.mmio_write(0, LAPIC, 4, 0x31)
    assert machine.enter(0).vector is None


@EVERY
def test_store_into_the_message_window_is_a_message(subject):
    machine = ready(subject, 2)
    machine.mmio_write(0, LAPIC | 1 << 12, 4, 0x31)
    assert machine.enter(1).vector == 0x31


# --- microvm


@pytest.mark.parametrize("mode", ["off", "tcg"])
def test_microvm_has_two_independent_ioapics(mode):
    machine = ready(mode, board="microvm")
    program(machine, 5, 0x31)
    program(machine, 5, 0x32, ioapic=1)
    machine.set_gsi(29, 1)
    assert machine.enter(0).vector == 0x32
    machine.set_gsi(5, 1)
    machine.eoi(0)
    assert machine.enter(0).vector == 0x31


def test_microvm_in_split_lets_the_last_written_ioapic_own_the_route():
    machine = ready("split", board="microvm")
    program(machine, 5, 0x31)
    program(machine, 5, 0x32, ioapic=1)
    machine.set_gsi(5, 1)
    assert machine.enter(0).vector == 0x32


def test_microvm_in_on_sends_messages_from_the_second_ioapic():
    machine = ready("on", board="microvm")
    program(machine, 5, LEVEL | 0x32, ioapic=1)
    machine.set_gsi(29, 1)
    assert machine.enter(0).vector == 0x32
    machine.eoi(0)
    machine.enter(0)
    assert rte(machine, 5, ioapic=1) >> 14 & 1


@pytest.mark.parametrize("mode", ["split", "off", "tcg"])
def test_microvm_gives_an_eoi_to_both_ioapics(mode):
    machine = ready(mode, board="microvm")
    program(machine, 5, LEVEL | 0x32)
    program(machine, 6, LEVEL | 0x32, ioapic=1)
    machine.set_gsi(5, 1)
    machine.set_gsi(30, 1)
    assert machine.enter(0).vector == 0x32
    machine.set_gsi(5, 0)
    machine.set_gsi(30, 0)
    machine.eoi(0)
    machine.enter(0)
    assert [rte(machine, 5) >> 14 & 1, rte(machine, 6, ioapic=1) >> 14 & 1] == [0, 0]


def test_microvm_in_split_loses_the_eoi_of_a_pin_whose_route_is_the_others_edge():
    machine = ready("split", board="microvm")
    program(machine, 5, LEVEL | 0x32, ioapic=1)
    program(machine, 5, 0x31)
    machine.set_gsi(29, 1)
    assert machine.enter(0).vector == 0x31
    machine.eoi(0)
    machine.enter(0)
    assert rte(machine, 5, ioapic=1) >> 14 & 1


@pytest.mark.parametrize("mode", ["on", "split", "off", "tcg"])
def test_microvm_has_gsi_24_at_pin_2_of_its_second_ioapic(mode):
    machine = ready(mode, board="microvm")
    program(machine, 0, 0x31, ioapic=1)
    program(machine, 2, 0x32, ioapic=1)
    machine.set_gsi(24, 1)
    assert machine.enter(0).vector == 0x32


def test_pc_has_no_second_ioapic():
    with pytest.raises(PinRangeError, match="GSI 24"):
        ready("on").set_gsi(24, 1)
    with pytest.raises(AccessError):
        ready("on").mmio_read(0, 0xFEC10000, 4)


# --- notifiers


def test_on_rtc_is_coalesced_until_its_eoi():
    machine = ready("on")
    program(machine, 8, 0x38)
    machine.pio_write(0, 0xA1, 0xFF)
    scanned(machine)
    assert machine.irq_line(8, 1) == 1
    machine.irq_line(8, 0)
    assert machine.irq_line(8, 1) == 0
    machine.irq_line(8, 0)
    machine.enter(0)
    machine.eoi(0)
    assert machine.irq_line(8, 1) == 1


def test_on_slave_pic_ack_names_pins_8_to_15():
    machine = ready("on")
    init_pics(machine)
    machine.set_gsi(9, 1)
    machine.enter(0)
    machine.log.take()
    machine.pio_write(0, 0xA0, 0x20)
    assert kernel_texts(machine) == ["kvm_ack_irq: irqchip PIC slave pin 9"]


def test_on_resampled_line_falls_and_is_asked_again_at_the_eoi():
    machine = ready("on")
    program(machine, 20, LEVEL | 0x41)
    machine.irqfd_resample(20)
    machine.request_scan()
    assert machine.enter(0).vector == 0x41
    machine.log.take()
    machine.eoi(0)
    assert kernel_texts(machine) == [
        "kvm_eoi: apicid 0 vector 65",
        "kvm_ack_irq: irqchip IOAPIC pin 20",
        "kvm_set_irq: gsi 20 level 0 source 1",
        "kvm_ioapic_set_irq: pin 20 dst 0 vec 65 (Fixed|physical|level)",
    ]
    assert machine.resampled == [20]
    assert not remote_irr(machine, 20)


@pytest.mark.parametrize(("linux", "injected"), [("6.1", True), ("6.12", False)])
def test_on_unmask_with_a_resampler_asks_the_device_since_6_12(linux, injected):
    machine = ready(profile("on", linux=linux))
    program(machine, 20, MASKED | LEVEL | 0x41)
    machine.irqfd_resample(20)
    write_rte_low(machine, 20, LEVEL | 0x41)
    assert (machine.enter(0).vector == 0x41) is injected
    assert (machine.resampled == [20]) is not injected


def test_irqfd_of_a_message_route_is_fast():
    machine = ready("on")
    gsi = machine.add_msi_route(MsiMessage(LAPIC, 0x31))
    machine.log.take()
    machine.irqfd(gsi)
    assert kernel_texts(machine) == [
        "kvm_msi_set_irq: dst 0 vec 49 (Fixed|physical|edge)",
        "kvm_apic_accept_irq: apicid 0 vec 49 (Fixed|edge)",
    ]


def test_irqfd_of_a_broadcast_is_queued():
    machine = ready("on")
    gsi = machine.add_msi_route(MsiMessage(LAPIC | 0xFF << 12, 0x31))
    machine.log.take()
    machine.irqfd(gsi)
    assert kernel_texts(machine) == [
        "kvm_msi_set_irq: dst ff vec 49 (Fixed|physical|edge)",
        f"kvm_set_irq: gsi {gsi} level 1 source 0",
        "kvm_msi_set_irq: dst ff vec 49 (Fixed|physical|edge)",
        "kvm_apic_accept_irq: apicid 0 vec 49 (Fixed|edge)",
        f"kvm_set_irq: gsi {gsi} level 0 source 0",
    ]


def test_irqfd_of_a_pin_is_a_pulse():
    machine = ready("on")
    program(machine, 20, 0x41)
    machine.log.take()
    machine.irqfd(20)
    assert [t for t in kernel_texts(machine) if t.startswith("kvm_set_irq")] == [
        "kvm_set_irq: gsi 20 level 1 source 0",
        "kvm_set_irq: gsi 20 level 0 source 0",
    ]


# --- KVM's hypercall, and Hyper-V's MSRs


def requests(machine):
    return [lapic.state.irr >> 0x31 & 1 for lapic in machine.lapics]


def test_hypercall_sends_to_the_cpus_of_its_bitmap_from_the_first_id_on():
    machine = ready("on", cpus=3)
    assert machine.pv_ipi(0, 0b101, 0, 0x31) == 2
    assert requests(machine) == [1, 0, 1]
    assert machine.pv_ipi(0, 0b1111, 1, 0x31) == 2
    assert requests(machine) == [1, 1, 1]


def test_hypercall_with_a_shorthand_is_refused():
    machine = ready("split", cpus=2)
    assert machine.pv_ipi(0, 1, 0, 0x4_0031) == -errno.EINVAL
    assert requests(machine) == [0, 0]


def test_hypercall_without_a_map_is_refused():
    machine = ready(profile("on", linux="6.12"), cpus=2)
    machine.mmio_write(1, LAPIC + 0x20, 4, 0)  # CPU 1 has CPU 0's ID as well
    assert machine.pv_ipi(0, 1, 0, 0x31) == -errno.EOPNOTSUPP


def test_hypercall_is_kvms_local_apics():
    with pytest.raises(StateError, match="the local APICs are QEMU's"):
        ready("off").pv_ipi(0, 1, 0, 0x31)


def test_msrs_of_hyperv_are_registers_in_xapic_mode_too():
    machine = ready("on", cpus=2)
    assert machine.msr_write(0, 0x40000072, 0x30)
    assert machine.mmio_read(0, LAPIC + 0x80, 4) == machine.msr_read(0, 0x40000072) == 0x30
    assert machine.msr_write(0, 0x40000071, 0x0100_0000_0000_0031)
    assert requests(machine) == [0, 1]
    assert machine.msr_read(0, 0x40000070) is None
    assert not ready("off").msr_write(0, 0x40000070, 0)


# --- PIT and storm throttle through the machine's time


@EVERY
def test_pit_ticks_arrive_through_the_ioapic(subject):
    machine = ready(subject)
    program(machine, 2, 0x32)
    scanned(machine)
    for port, value in ((0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
        machine.pio_write(0, port, value)
    taken = 0
    for _ in range(5):
        machine.advance(machine.now_ns + 1_001_000)
        taken += machine.enter(0).vector == 0x32
        machine.eoi(0)
    assert taken == 5


def test_on_pit_drives_gsi_0_with_its_own_source():
    machine = ready("on")
    for port, value in ((0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
        machine.pio_write(0, port, value)
    machine.log.take()
    machine.advance(machine.now_ns + 1_100_000)
    seen = [t for t in kernel_texts(machine) if t.startswith("kvm_set_irq")]
    assert seen == ["kvm_set_irq: gsi 0 level 1 source 2", "kvm_set_irq: gsi 0 level 0 source 2"]


@EVERY
def test_level_storm_is_delayed_by_10_ms(subject):
    machine = ready(subject, log=False)
    program(machine, 20, LEVEL | 0x41)
    scanned(machine)
    machine.set_gsi(20, 1)
    count = 0
    while machine.enter(0).vector == 0x41:
        machine.eoi(0)
        count += 1
    assert count == 10_000
    machine.advance(machine.now_ns + 9_999_999)
    assert machine.enter(0).vector is None
    machine.advance(machine.now_ns + 1)
    assert machine.enter(0).vector == 0x41


# --- reset, impossible inputs, MSRs


def test_creation_by_ioctls_alone_leaves_lint0_open_and_qemus_reset_masks_it():
    assert Machine(profile("on"), reset=False).lapics[0].state.lvt[LVT_LINT0] == 0x700
    assert Machine(profile("on")).lapics[0].state.lvt[LVT_LINT0] == MASKED


@EVERY
def test_reset_of_a_used_machine_leaves_nothing_pending(subject):
    machine = ready(subject, 2)
    init_pics(machine)
    program(machine, 10, LEVEL | 0x41)
    machine.set_gsi(10, 1)
    machine.signal_msi(LAPIC | 1 << 12, 0x31)
    machine.set_gsi(10, 0)
    machine.reset()
    assert machine.enter(0).vector is None
    assert [lapic.state.irr for lapic in machine.lapics] == [0, 0]
    assert rte(machine, 10) == MASKED


@EVERY
def test_impossible_inputs_raise(subject):
    machine = ready(subject)
    with pytest.raises(PinRangeError, match="GSI -1"):
        machine.set_gsi(-1, 1)
    with pytest.raises(AccessError):
        machine.mmio_read(0, 0xFEB00000, 4)
    with pytest.raises(AccessError, match="3 bytes"):
        machine.mmio_write(0, LAPIC + 0x80, 3, 0)
    with pytest.raises(AccessError):
        machine.pio_read(0, 0x72)
    with pytest.raises(AccessError):
        machine.msr_read(0, 0x10)
    with pytest.raises(StateError, match="uart0"):
        machine.expire("uart0")


def test_machine_without_cpus_raises():
    with pytest.raises(PinRangeError, match="0 CPUs"):
        Machine(profile("on"), 0)


def test_routes_that_split_refuses_raise():
    with pytest.raises(RouteError):
        ready("split").set_routes([IrqchipRoute(0, Irqchip.IOAPIC, 0)])


def test_msr_accesses_of_kvm_are_traced_with_their_faults():
    machine = ready("on")
    assert machine.msr_read(0, 0x1B) == 0xFEE00900
    assert not machine.msr_write(0, 0x808, 0)
    assert kernel_texts(machine) == [
        "kvm_msr: msr_read 1b = 0xfee00900",
        "kvm_msr: msr_write 808 = 0x0 (#GP)",
    ]


@pytest.mark.parametrize("mode", ["on", "split", "tcg"])
def test_x2apic_machine_sends_and_ends_through_msrs(mode):
    machine = ready(mode, 2)
    for cpu in range(2):
        assert machine.msr_write(cpu, 0x1B, machine.msr_read(cpu, 0x1B) | 0xC00)
    assert machine.msr_write(0, 0x830, 1 << 32 | 0x4031)
    assert machine.enter(1).vector == 0x31
    machine.eoi(1)
    assert machine.lapics[1].state.isr == 0


def test_off_has_no_x2apic():
    machine = ready("off")
    assert not machine.msr_write(0, 0x1B, 0xFEE00D00)
    assert machine.msr_read(0, 0x802) is None


def test_tsc_deadline_by_msr_expires():
    machine = ready(tune(profile("on")))
    machine.mmio_write(0, LAPIC + 0x320, 4, 0x40031)
    machine.msr_write(0, 0x6E0, 2_000_000)
    assert machine.msr_read(0, 0x6E0) == 2_000_000
    machine.advance(2_000_000)
    assert machine.enter(0).vector == 0x31


# --- state


def busy(subject):
    machine = ready(subject, 2)
    init_pics(machine)
    program(machine, 10, LEVEL | 0x41, TO_CPU_1)
    program(machine, 4, 0x34)
    machine.set_gsi(10, 1)
    machine.set_gsi(4, 1)
    machine.mmio_write(1, LAPIC + 0x320, 4, 0x20031)
    machine.mmio_write(1, LAPIC + 0x380, 4, 500_000)
    machine.enter(0)
    return machine


def go_on(machine):
    machine.log.take()
    machine.advance(machine.now_ns + 5_000_000)
    for cpu in (0, 1, 0, 1):
        machine.enter(cpu)
        machine.eoi(cpu)
    return texts(machine)


@EVERY
def test_state_loads_into_a_new_machine_that_goes_on_alike(subject):
    machine = busy(subject)
    other = Machine(subject, 2)
    other.load(machine.save())
    assert other.save() == machine.save()
    assert go_on(other) == go_on(machine)
    assert other.save() == machine.save()


@EVERY
def test_state_survives_json(subject):
    machine = busy(subject)
    other = Machine(subject, 2)
    other.from_json(machine.to_json())
    assert other.save() == machine.save()


def test_state_of_another_machine_is_refused():
    text = Machine(profile("on"), 2).to_json()
    with pytest.raises(StateError, match="this one is"):
        Machine(profile("split"), 2).from_json(text)
    with pytest.raises(StateError, match="2 CPUs"):
        Machine(profile("on"), 1).from_json(text)


@pytest.mark.parametrize("mode", MODES)
def test_machines_with_the_same_stimuli_have_the_same_log_and_state(mode):
    first, second = busy(profile(mode)), busy(profile(mode))
    assert go_on(first) == go_on(second)
    assert first.save() == second.save()


# --- odd corners of the address map


@pytest.mark.parametrize("mode", ["off", "tcg"])
def test_qemu_ioapic_entry_with_index_bits_writes_the_cpus_own_register(mode):
    machine = ready(mode)
    # RTE bits 55:48 become address bits 11:4: 0x08 is the TPR's offset.
    program(machine, 20, 0x31, 0x08 << 16)
    machine.log.vcpu = None
    machine.set_gsi(20, 1)
    assert machine.lapics[0].state.tpr == 0
    machine.set_gsi(20, 0)
    machine.set_gsi(20, 1, cpu=0)
    assert machine.lapics[0].state.tpr == 0x31


def test_kvm_message_window_reads_all_ones_and_qemus_reads_the_registers_again():
    assert ready("on").mmio_read(0, LAPIC + 0x1030, 4) == 0xFFFFFFFF
    assert ready("tcg").mmio_read(0, LAPIC + 0x1030, 4) == 0x50014


@pytest.mark.parametrize(("mode", "value"), [("on", 0), ("tcg", 0x170020)])
def test_ioapic_beyond_256_bytes_is_an_alias_in_qemu_only(mode, value):
    machine = ready(mode)
    machine.mmio_write(0, IOAPIC, 4, 1)
    machine.mmio_write(0, IOAPIC + 0x110, 4, 0)
    assert machine.mmio_read(0, IOAPIC + 0x110, 4) == value


def test_narrow_store_into_the_message_window_is_no_message():
    machine = ready("on", 2)
    machine.mmio_write(0, LAPIC | 1 << 12, 2, 0x31)
    assert machine.enter(1).vector is None


@EVERY
def test_ports_of_pic_and_pit_read_back(subject):
    machine = ready(subject)
    machine.pio_write(0, 0x21, 0x5A)
    assert machine.pio_read(0, 0x21) == 0x5A
    machine.pio_write(0, 0x4D1, 0xFF)
    assert machine.pio_read(0, 0x4D1) == 0xDE
    machine.pio_write(0, 0x43, 0x34)
    assert machine.pio_read(0, 0x40) in range(256)


def test_msrs_read_what_was_written():
    machine = ready("on")
    machine.msr_write(0, 0x4B564D04, 1)
    assert machine.msr_read(0, 0x4B564D04) == 1
    assert machine.msr_read(0, 0x6E0) == 0


def test_tcg_apic_base_reads_are_traced_by_qemu():
    machine = ready("tcg")
    machine.msr_read(0, 0x1B)
    assert texts(machine) == ["cpu_get_apic_base: 0x00000000fee00900"]


def test_tcg_has_no_pv_eoi():
    with pytest.raises(AccessError):
        ready("tcg").msr_write(0, 0x4B564D04, 1)


def test_on_nmi_watchdog_delivers_lint0_of_every_cpu_at_a_tick():
    machine = ready("on", 2)
    machine.mmio_write(1, LAPIC + LVT0, 4, 0x400)
    for port, value in ((0x43, 0x34), (0x40, 0xA9), (0x40, 0x04)):
        machine.pio_write(0, port, value)
    machine.advance(machine.now_ns + 1_100_000)
    assert machine.enter(1).vector == 2


def test_on_ioapic_without_any_resampler_reinjects_on_unmask():
    machine = ready("on")
    program(machine, 20, MASKED | LEVEL | 0x41)
    machine.set_gsi(20, 1)
    write_rte_low(machine, 20, LEVEL | 0x41)
    assert machine.resampled == []
    assert machine.enter(0).vector == 0x41


def test_eoi_register_of_a_value_above_255_ends_nothing():
    machine = ready("tcg")
    program(machine, 20, LEVEL | 0x41)
    machine.set_gsi(20, 1)
    machine.mmio_write(0, IOAPIC + 0x40, 4, 0x141)
    assert remote_irr(machine, 20)
    machine.mmio_write(0, IOAPIC + 0x40, 4, 0x41)
    assert texts(machine)[-3] == "ioapic_clear_remote_irr: clear remote irr for pin 20 vector 65"


@pytest.mark.parametrize(("mode", "value"), [("tcg", 0), ("off", 0xFFF1), ("split", 0xFFF1)])
def test_misaligned_port_access_is_split_for_kvm_and_answered_by_nobody_under_tcg(mode, value):
    machine = Machine(profile(mode), log=False)
    machine.pio_write(0, 0x21, 0xF1)
    assert machine.pio_read(0, 0x21, 2) == value
    machine.pio_write(0, 0x21, 0xABCD, 2)
    assert machine.pio_read(0, 0x21) == (0xF1 if mode == "tcg" else 0xCD)


def test_aligned_wide_port_access_under_tcg_is_of_bytes():
    machine = Machine(profile("tcg"), log=False)
    machine.pio_write(0, 0x21, 0xF1)
    assert machine.pio_read(0, 0x20, 2) == 0xF100


@pytest.mark.parametrize("mode", ["on", "split"])
def test_register_page_that_moved_away_is_qemus_window_which_reads_all_ones(mode):
    machine = Machine(profile(mode), 1)
    assert machine.msr_write(0, 0x1B, 0xFEE01900)
    assert machine.mmio_read(0, 0xFEE00030, 4) == 0xFFFFFFFF
    assert machine.mmio_read(0, 0xFEE01030, 4) & 0xFF == 0x14


@pytest.mark.parametrize(("mode", "tpr"), [("off", 0x40), ("tcg", 0x45)])
def test_off_every_exit_leaves_the_class_of_tpr_only(mode, tpr):
    machine = Machine(profile(mode, qemu="7.2"), 1)
    machine.mmio_write(0, 0xFEE00080, 4, 0x45)
    machine.enter(0)
    assert machine.mmio_read(0, 0xFEE00080, 4) == tpr
