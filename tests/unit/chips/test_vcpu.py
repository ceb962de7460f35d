import pytest

from support.machines import MODES, init_pics, kernel_texts, program, ready, texts
from userspace_chip.errors import VectorRangeError
from userspace_chip.lapic_registers import LVT0, TPR
from userspace_chip.profile import profile, tune
from userspace_chip.vcpu import Exit, IntrType, MpState, intr_info

EDGE = 0xFEE00000
LAPIC = 0xFEE00000
VALID = 1 << 31
KVM = ["on", "split"]


# --- the interruption-information field


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ((0x31, IntrType.EXTERNAL_INTERRUPT, False), 0x80000031),
        ((2, IntrType.NMI, False), 0x80000202),
        ((13, IntrType.HARDWARE_EXCEPTION, True), 0x80000B0D),
        ((6, IntrType.HARDWARE_EXCEPTION, False), 0x80000306),
        ((0x80, IntrType.SOFTWARE_INTERRUPT, False), 0x80000480),
    ],
)
def test_intr_info_is_valid_type_error_code_and_vector(arguments, value):
    vector, kind, error_code = arguments
    assert intr_info(vector, kind, error_code=error_code) == value


# --- injection


@pytest.mark.parametrize("mode", MODES)
def test_entry_injects_the_highest_vector(mode):
    machine = ready(mode)
    for vector in (0x31, 0x61, 0x45):
        machine.signal_msi(EDGE, vector)
    entry = machine.enter(0)
    assert (entry.vector, entry.info) == (0x61, VALID | 0x61)


@pytest.mark.parametrize("mode", MODES)
def test_entry_with_nothing_pending_injects_nothing(mode):
    entry = ready(mode).enter(0)
    assert (entry.vector, entry.info, entry.exit, entry.halted) == (None, None, None, False)


@pytest.mark.parametrize("mode", KVM)
def test_entry_of_a_quiet_cpu_changes_nothing(mode):
    machine = ready(mode)
    machine.enter(0)
    machine.enter(0)
    vcpu = machine.vcpus[0]
    assert vcpu.is_quiet()
    before = machine.save()
    for interruptible in (True, False):
        assert machine.enter(0, interruptible).vector is None
        assert machine.save() == before


@pytest.mark.parametrize("mode", MODES)
def test_cpu_that_has_something_to_take_or_to_end_is_not_quiet(mode):
    machine = ready(mode)
    machine.enter(0)
    machine.signal_msi(EDGE, 0x31)
    assert not machine.vcpus[0].is_quiet()
    machine.enter(0)  # the injection ends with the next exit
    assert not machine.vcpus[0].is_quiet()


@pytest.mark.parametrize("mode", MODES)
def test_entry_that_cannot_inject_asks_for_a_window(mode):
    machine = ready(mode)
    machine.signal_msi(EDGE, 0x31)
    entry = machine.enter(0, interruptible=False)
    assert (entry.vector, entry.irq_window) == (None, True)
    assert machine.enter(0).vector == 0x31


def test_kvm_injection_is_traced():
    machine = ready("on")
    machine.signal_msi(EDGE, 0x31)
    machine.enter(0)
    assert kernel_texts(machine)[-1] == "kvm_inj_virq: IRQ 0x31"


def test_kvm_injection_that_did_not_reach_the_guest_is_repeated():
    machine = ready("on")
    machine.signal_msi(EDGE, 0x31)
    machine.enter(0)
    machine.exit(0, reinject=True)
    machine.signal_msi(EDGE, 0x61)
    machine.log.take()
    entry = machine.enter(0)
    assert (entry.vector, entry.irq_window) == (0x31, True)
    assert kernel_texts(machine) == ["kvm_inj_virq: IRQ 0x31 [reinjected]"]
    assert machine.enter(0).vector == 0x61


def test_off_injects_through_kvm_interrupt_so_it_looks_reinjected():
    machine = ready("off")
    machine.signal_msi(EDGE, 0x31)
    machine.enter(0)
    assert kernel_texts(machine) == ["kvm_inj_virq: IRQ 0x31 [reinjected]"]


def test_off_waits_for_the_window_and_then_exits_to_user_space():
    machine = ready("off")
    machine.signal_msi(EDGE, 0x31)
    assert machine.enter(0, interruptible=False).irq_window
    machine.log.take()
    assert machine.enter(0).vector == 0x31
    assert kernel_texts(machine) == [
        "kvm_userspace_exit: reason KVM_EXIT_IRQ_WINDOW_OPEN (7)",
        "kvm_inj_virq: IRQ 0x31 [reinjected]",
    ]


def test_off_injects_the_interrupt_that_kvm_was_given_before_an_nmi():
    machine = ready("off")
    machine.signal_msi(EDGE, 0x31)
    machine.nmi(0)
    assert [machine.enter(0).vector for _ in range(2)] == [0x31, 2]


@pytest.mark.parametrize(("mode", "nmis"), [("off", 2), ("tcg", 1)])
def test_nmi_that_comes_while_one_waits_in_kvm_is_a_second_one_in_off_only(mode, nmis):
    machine = ready(mode)
    machine.nmi(0)
    machine.enter(0, nmi_allowed=False)
    machine.nmi(0)
    vectors = [machine.enter(0).vector for _ in range(4)]
    assert vectors.count(2) == nmis


def test_off_takes_one_nmi_of_those_that_come_in_the_handler_of_another():
    machine = ready("off")
    for _ in range(3):
        machine.nmi(0)
        machine.enter(0, nmi_allowed=False)
    assert [machine.enter(0).vector for _ in range(3)] == [2, None, None]


@pytest.mark.parametrize(("counted", "nmis"), [(False, 1), (True, 2)], ids=["bit", "count"])
def test_off_nmis_that_come_before_an_exit_are_one_unless_they_are_counted(counted, nmis):
    machine = ready(tune(profile("off"), cpu__nmi_counted=counted))
    for _ in range(3):
        machine.nmi(0)
    vectors = [machine.enter(0).vector for _ in range(4)]
    assert vectors.count(2) == nmis


def test_off_nmi_comes_with_the_entry_to_which_intr_brings_no_vector():
    machine = ready("off")
    machine.vcpus[0].state.hard = True
    machine.nmi(0)
    assert machine.enter(0).vector == 2


def test_off_nmi_wakes_a_halted_cpu_before_kvm_has_it():
    machine = ready("off")
    machine.halt(0)
    machine.nmi(0)
    assert machine.enter(0, interruptible=False).vector == 2


def test_tcg_injection_is_not_traced():
    machine = ready("tcg")
    machine.signal_msi(EDGE, 0x31)
    machine.log.take()
    machine.enter(0)
    assert texts(machine) == []


@pytest.mark.parametrize("mode", MODES)
def test_lower_class_waits_for_the_eoi(mode):
    machine = ready(mode)
    machine.signal_msi(EDGE, 0x61)
    machine.signal_msi(EDGE, 0x31)
    assert machine.enter(0).vector == 0x61
    assert machine.enter(0).vector is None
    machine.eoi(0)
    assert machine.enter(0).vector == 0x31


def test_kvm_order_is_exception_nmi_extint_lapic():
    machine = ready("on")
    init_pics(machine)
    machine.set_gsi(4, 1)
    machine.signal_msi(EDGE, 0x61)
    machine.nmi(0)
    machine.vcpus[0].queue_exception(13, error_code=True)
    infos = [machine.enter(0).info for _ in range(4)]
    assert infos == [0x80000B0D, 0x80000202, VALID | 0x24, VALID | 0x61]


def test_tcg_order_is_nmi_pic_lapic():
    machine = ready("tcg")
    init_pics(machine)
    machine.set_gsi(4, 1)
    machine.signal_msi(EDGE, 0x61)
    machine.nmi(0)
    assert [machine.enter(0).vector for _ in range(3)] == [2, 0x24, 0x61]


def test_kvm_nmi_queue_holds_two_and_one_while_blocked():
    machine = ready("on")
    for _ in range(3):
        machine.nmi(0)
    infos = [machine.enter(0).info for _ in range(3)]
    assert infos == [0x80000202, 0x80000202, None]
    for _ in range(3):
        machine.nmi(0)
    assert machine.enter(0, nmi_allowed=False).nmi_window
    assert [machine.enter(0).info for _ in range(2)] == [0x80000202, None]


def test_tcg_nmi_is_one_line():
    machine = ready("tcg")
    machine.nmi(0)
    machine.nmi(0)
    assert [machine.enter(0).vector for _ in range(2)] == [2, None]


@pytest.mark.parametrize("mode", MODES)
def test_monitor_nmi_goes_through_lint1(mode):
    machine = ready(mode)
    machine.inject_nmi(0)
    assert machine.enter(0).vector is None
    machine.mmio_write(0, 0xFEE00360, 4, 0x400)
    machine.inject_nmi(0)
    assert machine.enter(0).vector == 2


def test_apicv_delivers_without_a_software_injection():
    machine = ready(tune(profile("on"), lapic__apicv=True))
    machine.signal_msi(EDGE, 0x31)
    entry = machine.enter(0)
    assert (entry.vector, entry.info) == (0x31, None)
    assert kernel_texts(machine)[1:] == [
        "kvm_apic_accept_irq: apicid 0 vec 49 (Fixed|edge)",
        "kvm_apicv_accept_irq: apicid 0 vec 49 (Fixed|edge)",
    ]


def test_apicv_still_injects_extint_by_software():
    machine = ready(tune(profile("on"), lapic__apicv=True))
    init_pics(machine)
    machine.set_gsi(4, 1)
    assert machine.enter(0).info == VALID | 0x24


def test_chain_shows_accept_request_kick_enter_and_injection_in_this_order():
    machine = ready("on", chain=True)
    machine.enter(0)
    machine.log.take()
    machine.signal_msi(EDGE, 0x31)
    machine.enter(0)
    assert [event.name for event in machine.log.take()] == [
        "kvm_msi_set_irq",
        "kvm_apic_accept_irq",
        "vcpu_request",
        "vcpu_kick",
        "kvm_inj_virq",
        "vcpu_enter",
    ]


# --- TCG's spurious vector


def test_tcg_gives_the_spurious_vector_when_the_pic_drops_its_line():
    machine = ready("tcg")
    machine.mmio_write(0, 0xFEE00080, 4, 0x70)
    machine.signal_msi(EDGE, 0x31)
    machine.enter(0)
    machine.vcpus[0].state.hard = True
    entry = machine.enter(0)
    assert entry.vector == 0xFF
    assert machine.lapics[0].state.isr == 0


# --- ExtINT


@pytest.mark.parametrize("mode", MODES)
def test_pic_interrupt_reaches_the_cpu_through_lint0(mode):
    machine = ready(mode)
    init_pics(machine)
    machine.set_gsi(4, 1)
    assert machine.enter(0).vector == 0x24
    assert machine.pic.state.chips[0].isr == 1 << 4


@pytest.mark.parametrize("mode", MODES)
def test_pic_interrupt_stays_out_while_lint0_is_masked(mode):
    machine = ready(mode)
    init_pics(machine)
    machine.mmio_write(0, 0xFEE00000 + LVT0, 4, 0x10700)
    machine.set_gsi(4, 1)
    assert machine.enter(0).vector is None


# --- exits at TPR


def with_late_lint0(mode, **options):
    """A request of the PIC that waited for LINT0, in a machine that is up."""
    machine = ready(mode, **options)
    machine.run_vapic_rom()
    init_pics(machine)
    machine.mmio_write(0, LAPIC + LVT0, 4, 0x10700)
    machine.set_gsi(4, 1)
    machine.enter(0)
    machine.mmio_write(0, LAPIC + LVT0, 4, 0x700)
    return machine


@pytest.mark.parametrize(("mode", "vector"), [("on", None), ("split", 0x24), ("tcg", 0x24)])
def test_lint0_opened_late_in_on_does_not_look_at_the_pic_again(mode, vector):
    machine = with_late_lint0(mode)

    assert machine.enter(0).vector == vector


@pytest.mark.parametrize(
    "access",
    [
        lambda machine: machine.mmio_read(0, LAPIC + TPR, 4),
        lambda machine: machine.mmio_write(0, LAPIC + TPR, 4, 0xF0),
    ],
    ids=["read", "write"],
)
def test_access_of_tpr_is_an_exit_after_which_the_pic_is_looked_at(access):
    machine = with_late_lint0("on")
    machine.enter(0)
    access(machine)
    machine.log.take()

    assert machine.enter(0).vector == 0x24
    assert kernel_texts(machine) == [
        "kvm_userspace_exit: reason KVM_EXIT_TPR_ACCESS (12)",
        "kvm_inj_virq: IRQ 0x24",
    ]


def test_access_of_tpr_without_the_vapic_is_no_exit():
    machine = with_late_lint0(tune(profile("on"), lapic__tpr_access_exits=False))
    machine.mmio_write(0, LAPIC + TPR, 4, 0xF0)

    assert machine.enter(0).vector is None


@pytest.mark.parametrize("mode", KVM)
def test_cr8_is_no_access_of_tpr(mode):
    machine = ready(mode)
    machine.run_vapic_rom()
    machine.set_cr8(0, 4)

    assert machine.step(0).exit is None


@pytest.mark.parametrize(
    ("mode", "tpr"), [("on", 0x20), ("split", 0x20), ("off", 0x20), ("tcg", 0x25)]
)
def test_way_back_from_a_tpr_exit_leaves_bits_7_to_4(mode, tpr):
    machine = ready(mode)
    machine.run_vapic_rom()
    machine.mmio_write(0, LAPIC + TPR, 4, 0x25)
    machine.enter(0)

    assert machine.lapics[0].state.tpr == tpr


@pytest.mark.parametrize("mode", KVM)
def test_exits_at_tpr_outlive_an_init(mode):
    machine = ready(mode, cpus=2)
    machine.run_vapic_rom()
    machine.vcpus[1].queue_init()
    machine.vcpus[1].queue_sipi()
    machine.enter(1)
    machine.mmio_read(1, LAPIC + TPR, 4)

    assert machine.step(1).exit is Exit.TPR_ACCESS


# --- the PIC in split


def test_split_waits_for_the_window_and_then_exits_to_user_space():
    machine = ready("split")
    init_pics(machine)
    machine.set_gsi(4, 1)
    machine.enter(0, interruptible=False)
    assert machine.pic.state.chips[0].isr == 0
    machine.log.take()
    assert machine.enter(0).vector == 0x24
    assert kernel_texts(machine) == [
        "kvm_userspace_exit: reason KVM_EXIT_IRQ_WINDOW_OPEN (7)",
        "kvm_inj_virq: IRQ 0x24",
    ]


def test_kvm_interrupt_in_split_is_parked_while_lint0_is_masked():
    machine = ready("split")
    assert machine.interrupt(0, 0x24) == 0
    assert machine.interrupt(0, 0x25) == -17
    assert machine.enter(0).vector is None
    machine.mmio_write(0, 0xFEE00000 + LVT0, 4, 0x700)
    machine.vcpus[0].request()
    assert machine.enter(0).vector == 0x24


def test_kvm_interrupt_in_on_is_refused():
    assert ready("on").interrupt(0, 0x24) == -6


@pytest.mark.parametrize("mode", MODES)
def test_kvm_interrupt_above_255_raises(mode):
    with pytest.raises(VectorRangeError, match=r"0\.\.255"):
        ready(mode).interrupt(0, 256)


def test_off_pic_interrupt_reaches_every_cpu_with_an_unmasked_lint0():
    machine = ready("off", 2)
    init_pics(machine)
    machine.mmio_write(1, 0xFEE00000 + LVT0, 4, 0x700)
    machine.set_gsi(4, 1)
    assert [vcpu.state.hard for vcpu in machine.vcpus] == [True, True]


def test_on_pic_wakes_the_first_cpu_that_accepts_it():
    machine = ready("on", 2)
    init_pics(machine)
    machine.mmio_write(0, 0xFEE00000 + LVT0, 4, 0x10700)
    machine.mmio_write(1, 0xFEE00000 + LVT0, 4, 0x700)
    machine.set_gsi(4, 1)
    assert machine.enter(0).vector is None
    assert machine.enter(1).vector == 0x24


# --- halt, INIT and SIPI


@pytest.mark.parametrize("mode", MODES)
def test_halted_cpu_sleeps_until_an_interrupt(mode):
    machine = ready(mode)
    machine.halt(0)
    assert machine.enter(0).halted
    machine.signal_msi(EDGE, 0x31)
    entry = machine.enter(0)
    assert (entry.vector, entry.halted) == (0x31, False)


@pytest.mark.parametrize("mode", MODES)
def test_halted_cpu_with_interrupts_off_sleeps_on(mode):
    machine = ready(mode)
    machine.halt(0)
    machine.signal_msi(EDGE, 0x31)
    assert machine.enter(0, interruptible=False).halted
    machine.nmi(0)
    assert machine.enter(0, interruptible=False).vector == 2


def test_kvm_unhalt_wakes_without_an_interrupt():
    machine = ready("on")
    machine.halt(0)
    machine.signal_msi(EDGE, 0x0300)
    entry = machine.enter(0)
    assert (entry.vector, entry.halted) == (None, False)


@pytest.mark.parametrize(("linux", "sleeps"), [("6.12", False), ("7.3", True)])
def test_kick_before_init_wakes_an_ap_later_until_linux_6_15(linux, sleeps):
    machine = ready(profile("on", linux=linux), 2)
    for icr in (0x4300, 0x4500, 0x4608):  # delivery mode 3, INIT, SIPI
        machine.mmio_write(0, 0xFEE00310, 4, 1 << 24)
        machine.mmio_write(0, 0xFEE00300, 4, icr)
    machine.enter(1)
    machine.halt(1)
    assert machine.enter(1).halted == sleeps


@pytest.mark.parametrize("mode", MODES)
def test_init_then_sipi_starts_an_ap(mode):
    machine = ready(mode, 2)
    for icr in (0x4500, 0x4608):
        machine.mmio_write(0, 0xFEE00310, 4, 1 << 24)
        machine.mmio_write(0, 0xFEE00300, 4, icr)
        machine.enter(1)
    assert machine.vcpus[1].state.mp_state is MpState.RUNNABLE
    assert machine.lapics[1].state.sipi_vector == 8
    assert not machine.lapics[1].sw_enabled


@pytest.mark.parametrize("mode", KVM)
def test_kvm_sipi_to_a_running_cpu_is_dropped(mode):
    machine = ready(mode, 2)
    machine.mmio_write(0, 0xFEE00310, 4, 1 << 24)
    machine.mmio_write(0, 0xFEE00300, 4, 0x4608)
    machine.enter(1)
    assert machine.lapics[1].sw_enabled
    assert not machine.vcpus[1].state.sipi_pending


@pytest.mark.parametrize("mode", MODES)
def test_init_leaves_an_ap_waiting_and_the_first_cpu_running(mode):
    machine = ready(mode, 2)
    machine.mmio_write(1, 0xFEE00300, 4, 0x84500)
    assert not machine.enter(0).halted
    machine.mmio_write(0, 0xFEE00300, 4, 0xC4500)
    assert machine.enter(1).halted
    assert machine.vcpus[1].state.mp_state is MpState.INIT_RECEIVED


# --- PV EOI


def test_pv_eoi_ends_the_interrupt_at_the_exit():
    machine = ready("on")
    machine.msr_write(0, 0x4B564D04, 1)
    machine.signal_msi(EDGE, 0x31)
    machine.enter(0)
    assert machine.vcpus[0].state.pv_eoi_pending
    machine.log.take()
    machine.exit(0, pv_eoi=True)
    assert kernel_texts(machine) == [
        "kvm_eoi: apicid 0 vector 49",
        "kvm_pv_eoi: apicid 0 vector 49",
    ]


def test_pv_eoi_is_not_armed_while_another_interrupt_waits():
    machine = ready("on")
    machine.msr_write(0, 0x4B564D04, 1)
    machine.signal_msi(EDGE, 0x61)
    machine.signal_msi(EDGE, 0x31)
    machine.enter(0)
    assert not machine.vcpus[0].state.pv_eoi_pending


def test_pv_eoi_is_not_armed_for_an_ioapic_handled_vector():
    machine = ready("on")
    machine.msr_write(0, 0x4B564D04, 1)
    program(machine, 10, 0x8031)
    machine.set_gsi(10, 1)
    assert machine.enter(0).vector == 0x31
    assert not machine.vcpus[0].state.pv_eoi_pending


def test_pv_eoi_flag_left_set_means_no_eoi():
    machine = ready("on")
    machine.msr_write(0, 0x4B564D04, 1)
    machine.signal_msi(EDGE, 0x31)
    machine.enter(0)
    machine.exit(0)
    assert machine.lapics[0].state.isr == 1 << 0x31


# --- exits


def test_step_shows_an_exit_that_enter_would_handle():
    machine = ready("split")
    program(machine, 10, 0x8031)
    machine.set_gsi(10, 1)
    machine.enter(0)
    machine.eoi(0)
    entry = machine.step(0)
    assert entry.exit is Exit.IOAPIC_EOI
    machine.handle_exit(0, entry.exit)
    assert machine.step(0).vector == 0x31


# --- SMI, and what remains


@pytest.mark.parametrize("mode", MODES)
def test_smi_is_taken_before_an_interrupt(mode):
    machine = ready(mode)
    machine.signal_msi(EDGE, 0x0200)
    machine.signal_msi(EDGE, 0x31)
    assert machine.enter(0).vector is None
    assert machine.enter(0).vector == 0x31


@pytest.mark.parametrize("mode", KVM)
def test_smi_without_smm_is_refused(mode):
    machine = ready(tune(profile(mode), lapic__smi_accepted=False))
    assert machine.signal_msi(EDGE, 0x0200) == 0


def test_kvm_nmi_that_did_not_reach_the_guest_is_repeated():
    machine = ready("on")
    machine.nmi(0)
    assert machine.enter(0).info == 0x80000202
    machine.exit(0, reinject=True)
    assert machine.enter(0).info == 0x80000202
    assert machine.enter(0).info is None


@pytest.mark.parametrize("mode", MODES)
def test_tpr_by_cr8_holds_interrupts_back(mode):
    machine = ready(mode)
    machine.signal_msi(EDGE, 0x31)
    machine.set_cr8(0, 3)
    assert machine.enter(0).vector is None
    machine.set_cr8(0, 2)
    assert machine.enter(0).vector == 0x31


@pytest.mark.parametrize(("mode", "fault"), [("tcg", (13, 0xFFFFFFFA)), ("off", (None, None))])
def test_qemu_pic_that_lint0_no_longer_takes_is_vector_minus_1_under_tcg(mode, fault):
    machine = ready(mode)
    init_pics(machine)
    machine.set_gsi(4, 1)
    machine.mmio_write(0, 0xFEE00000 + LVT0, 4, 0x10700)
    machine.vcpus[0].state.hard = True
    entry = machine.enter(0)
    assert (entry.vector, entry.error_code) == fault
    assert machine.pic.state.chips[0].isr == 0


def test_state_of_a_cpu_loads_into_another_machine():
    machine, other = ready("on"), ready("on")
    machine.nmi(0)
    machine.halt(0)
    other.vcpus[0].load(machine.vcpus[0].save())
    assert other.vcpus[0].state == machine.vcpus[0].state
    assert other.enter(0).info == 0x80000202


@pytest.mark.parametrize("mode", MODES)
def test_injections_are_counted(mode):
    machine = ready(mode)
    machine.signal_msi(EDGE, 0x31)
    machine.nmi(0)
    machine.enter(0)
    machine.enter(0)
    state = machine.vcpus[0].state
    assert (state.injections, state.nmi_injections) == (1, 1)


@pytest.mark.parametrize("mode", MODES)
def test_sipi_that_waits_with_an_init_keeps_its_page(mode):
    machine = ready(mode, 2)
    lapic = machine.lapics[1]
    machine.vcpus[1].queue_init()
    lapic.state.sipi_vector = 0x5A
    machine.vcpus[1].queue_sipi()

    machine.step(1)

    assert (machine.vcpus[1].state.mp_state, lapic.state.sipi_vector) == (MpState.RUNNABLE, 0x5A)
