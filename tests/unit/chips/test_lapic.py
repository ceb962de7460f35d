import pytest

from support.lapic_board import LapicBoard
from userspace_chip import lapic_registers as reg
from userspace_chip.errors import AccessError, StateError, VectorRangeError
from userspace_chip.lapic_registers import LVT_REGISTERS
from userspace_chip.lapic_state import LapicState
from userspace_chip.messages import DeliveryMode, DestMode, LapicMessage, Shorthand, Trigger
from userspace_chip.profile import profile, tune

KVM = ["on", "split"]
QEMU = ["off", "tcg"]
ALL = [*KVM, *QEMU]


# --- register file


@pytest.mark.parametrize(("which", "version"), [("on", 0x50014), ("split", 0x1050014)])
def test_version_tells_directed_eoi_in_split_only(which, version):
    assert LapicBoard(which).read(reg.VERSION) == version


@pytest.mark.parametrize("which", QEMU)
def test_version_of_qemu_has_six_lvts(which):
    assert LapicBoard(which).read(reg.VERSION) == 0x50014


def test_version_without_x2apic_cpuid_does_not_tell_directed_eoi():
    board = LapicBoard(tune(profile("split"), lapic__x2apic=False))
    assert board.read(reg.VERSION) == 0x50014


def test_version_with_cmci_has_seven_lvts():
    assert LapicBoard(tune(profile("on"), lapic__cmci=True)).read(reg.VERSION) == 0x60014


@pytest.mark.parametrize(
    ("which", "stored"), [("on", 0x3FF), ("split", 0x13FF), ("off", 0x1FF), ("tcg", 0x1FF)]
)
def test_spiv_stores_its_writable_bits(which, stored):
    board = LapicBoard(which)
    board.write(reg.SPIV, 0xFFFFFFFF)
    assert board.read(reg.SPIV) == stored


LVT_MASKS = {0x320: 0x710FF, 0x330: 0x117FF, 0x340: 0x117FF, 0x370: 0x110FF}
LVT_MASKS |= {0x350: 0x1F7FF, 0x360: 0x1F7FF}


@pytest.mark.parametrize(("register", "mask"), LVT_MASKS.items())
def test_kvm_lvt_stores_its_writable_bits(register, mask):
    board = LapicBoard("on")
    board.write(register, 0xFFFFFFFF)
    assert board.read(register) == mask


def test_kvm_lvt_timer_without_tsc_deadline_has_no_bit_18():
    board = LapicBoard(tune(profile("on"), lapic__tsc_deadline=False))
    board.write(reg.LVTT, 0xFFFFFFFF)
    assert board.read(reg.LVTT) == 0x310FF


@pytest.mark.parametrize("which", QEMU)
@pytest.mark.parametrize("register", LVT_MASKS)
def test_qemu_lvt_stores_all_bits(which, register):
    board = LapicBoard(which)
    board.write(register, 0xFFFFFFFF)
    assert board.read(register) == 0xFFFFFFFF


def test_lvt_table_has_seven_registers_that_reset_masked():
    assert [register.reset for register in LVT_REGISTERS] == [0x10000] * 7


@pytest.mark.parametrize(("which", "stored"), [("on", 0xAB000000), ("tcg", 0xABCDEF12)])
def test_icr2_stores_its_writable_bits(which, stored):
    board = LapicBoard(which)
    board.write(reg.ICR2, 0xABCDEF12)
    assert board.read(reg.ICR2) == stored


@pytest.mark.parametrize(("which", "stored"), [("on", 0x000C4031), ("tcg", 0x000C5031)])
def test_icr_busy_bit_is_cleared_by_kvm_and_stored_by_qemu(which, stored):
    board = LapicBoard(which)
    board.write(reg.ICR, 0x000C5031)
    assert board.read(reg.ICR) == stored


@pytest.mark.parametrize("which", ALL)
def test_xapic_id_is_writable(which):
    board = LapicBoard(which, 3)
    assert board.read(reg.ID) == 0x03000000
    board.write(reg.ID, 0x7FFFFFFF)
    assert board.read(reg.ID) == 0x7F000000


@pytest.mark.parametrize("which", ALL)
def test_ldr_and_dfr_keep_their_upper_bits(which):
    board = LapicBoard(which)
    board.write(reg.LDR, 0xFFFFFFFF)
    board.write(reg.DFR, 0x00000000)
    assert board.read(reg.LDR) == 0xFF000000
    assert board.read(reg.DFR) == 0x0FFFFFFF


@pytest.mark.parametrize("which", ALL)
def test_reset_values_are_those_of_the_manual(which):
    board = LapicBoard(which, 1, enabled=False)
    values = [board.read(r) for r in (reg.TPR, reg.SPIV, reg.LDR, reg.DFR, reg.LVTT, reg.ICR)]
    assert values == [0, 0xFF, 0, 0xFFFFFFFF, 0x10000, 0]


def test_kvm_reset_leaves_the_first_cpus_lint0_in_extint_mode():
    assert LapicBoard("on", 0, enabled=False).apic.state.lvt[reg.LVT_LINT0] == 0x700
    assert LapicBoard("on", 1, enabled=False).apic.state.lvt[reg.LVT_LINT0] == 0x10000


def test_qemu_reset_masks_lint0_everywhere():
    assert LapicBoard("tcg", 0, enabled=False).apic.state.lvt[reg.LVT_LINT0] == 0x10000


@pytest.mark.parametrize("which", ALL)
def test_bitmaps_are_read_only_and_read_in_32_bit_words(which):
    board = LapicBoard(which)
    board.apic.state.irr = 1 << 65
    board.write(reg.IRR + 0x20, 0xFFFFFFFF)
    assert board.read(reg.IRR + 0x20) == 2
    assert board.read(reg.IRR) == 0


def test_kvm_undefined_register_reads_zero_without_an_error():
    board = LapicBoard("on")
    assert board.read(0x40) == 0
    assert board.read(reg.ESR) == 0


def test_qemu_undefined_register_sets_the_sticky_esr_bit():
    board = LapicBoard("tcg")
    assert board.read(0x40) == 0
    board.write(reg.ESR, 0)
    assert board.read(reg.ESR) == 0x80


@pytest.mark.parametrize(("offset", "size", "value"), [(0x31, 1, 0x00), (0x30, 1, 0x14)])
def test_kvm_narrow_reads_within_a_register_work(offset, size, value):
    assert LapicBoard("on").apic.read_mmio(offset, size, 0) == value


def test_kvm_read_across_a_registers_end_is_zero():
    assert LapicBoard("on").apic.read_mmio(0x32, 4, 0) == 0


def test_qemu_narrow_read_is_zero():
    assert LapicBoard("tcg").apic.read_mmio(0x30, 2, 0) == 0


@pytest.mark.parametrize(("which", "size"), [("on", 2), ("on", 8), ("tcg", 2)])
def test_write_of_a_wrong_size_is_ignored_and_says_so(which, size):
    board = LapicBoard(which)
    board.apic.write_mmio(reg.TPR, size, 0x20, 0)
    assert board.apic.state.tpr == 0
    assert board.texts == [f"ignored: lapic {size}-byte write at 0x80"]


@pytest.mark.parametrize("which", ALL)
@pytest.mark.parametrize(("offset", "size"), [(0x80, 3), (0x1000, 4), (-4, 4)])
def test_impossible_access_raises(which, offset, size):
    board = LapicBoard(which)
    with pytest.raises(AccessError, match=f"{size} bytes"):
        board.apic.read_mmio(offset, size, 0)
    with pytest.raises(AccessError):
        board.apic.write_mmio(offset, size, 0, 0)


def test_kvm_mmio_of_a_disabled_apic_reads_ones_and_drops_writes():
    board = LapicBoard("on")
    assert board.apic.set_apic_base(0xFEE00100)
    board.write(reg.TPR, 0x50)
    assert board.read(reg.TPR) == 0xFFFFFFFF
    assert board.apic.state.tpr == 0


def test_qemu_mmio_of_a_disabled_apic_still_works():
    board = LapicBoard("tcg")
    assert board.apic.set_apic_base(0xFEE00100)
    board.write(reg.TPR, 0x50)
    assert board.read(reg.TPR) == 0x50


def test_kvm_register_accesses_are_traced_by_name_or_number():
    board = LapicBoard("on")
    board.write(reg.TPR, 0x20)
    board.read(reg.ISR + 0x10)
    assert board.texts == [
        "kvm_apic: apic_write APIC_TASKPRI = 0x20",
        "kvm_apic: apic_read 0x110 = 0x0",
    ]


def test_kvm_read_that_fails_is_not_traced():
    board = LapicBoard("on")
    board.read(reg.RRR)
    assert board.texts == []


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (profile("off"), "apic_mem_writel: 0x80 = 0x00000020"),
        (profile("tcg"), "apic_register_write: register 0x08 = 0x20"),
    ],
)
def test_qemu_register_accesses_are_traced_in_their_versions_words(subject, text):
    board = LapicBoard(subject)
    board.write(reg.TPR, 0x20)
    assert board.texts == [text]


# --- x2APIC


def test_x2apic_ids_come_from_the_cpu():
    board = LapicBoard("on", 0x25)
    board.x2apic()
    assert board.apic.read_msr(reg.ID, 0) == 0x25
    assert board.apic.read_msr(reg.LDR, 0) == 2 << 16 | 1 << 5


def test_x2apic_of_qemu_10_has_the_same_ids():
    board = LapicBoard("tcg", 0x25)
    board.x2apic()
    assert board.apic.read_msr(reg.ID, 0) == 0x25
    assert board.apic.read_msr(reg.LDR, 0) == 2 << 16 | 1 << 5


@pytest.mark.parametrize("register", [reg.ID, reg.LDR, reg.DFR, reg.VERSION, reg.ICR2, reg.TMCCT])
def test_kvm_x2apic_write_of_a_read_only_register_faults(register):
    board = LapicBoard("on")
    board.x2apic()
    assert not board.apic.write_msr(register, 0, 0)


@pytest.mark.parametrize("register", [reg.DFR, reg.ICR2, reg.APR, reg.EOI, reg.SELF_IPI])
def test_kvm_x2apic_read_of_a_missing_register_faults(register):
    board = LapicBoard("on")
    board.x2apic()
    assert board.apic.read_msr(register, 0) is None


def test_kvm_x2apic_write_above_32_bits_faults_but_for_icr():
    board = LapicBoard("on")
    board.x2apic()
    assert not board.apic.write_msr(reg.TPR, 1 << 32, 0)
    assert board.apic.write_msr(reg.ICR, 5 << 32 | 0x31, 0)
    assert board.port.ipis[-1].dest == 5
    assert board.apic.read_msr(reg.ICR, 0) == 5 << 32 | 0x31


@pytest.mark.parametrize("bit", [13, 16, 17, 20, 31])
def test_kvm_x2apic_icr_reserved_bit_faults(bit):
    board = LapicBoard("on")
    board.x2apic()
    assert not board.apic.write_msr(reg.ICR, 1 << bit | 0x31, 0)
    assert board.port.ipis == []


def test_kvm_x2apic_icr_is_traced_after_the_message():
    board = LapicBoard("on")
    board.x2apic()
    board.apic.write_msr(reg.ICR, 1 << 32 | 0x1031, 0)
    assert board.texts == [
        "kvm_apic_ipi: dst 1 vec 49 (Fixed|physical|de-assert|edge|dst)",
        "kvm_apic: apic_write APIC_ICR = 0x100000031",
    ]


def test_kvm_x2apic_esr_takes_only_zero():
    board = LapicBoard("on")
    board.x2apic()
    assert board.apic.write_msr(reg.ESR, 0, 0)
    assert not board.apic.write_msr(reg.ESR, 1, 0)


def test_kvm_self_ipi_needs_x2apic_and_a_vector():
    board = LapicBoard("on")
    board.write(reg.SELF_IPI, 0x31)
    assert board.port.ipis == []
    board.x2apic()
    assert not board.apic.write_msr(reg.SELF_IPI, 0x131, 0)
    assert board.apic.write_msr(reg.SELF_IPI, 0x31, 0)
    assert board.port.ipis[-1].shorthand is Shorthand.SELF


def test_qemu_10_self_ipi_uses_the_low_byte_only():
    board = LapicBoard("tcg")
    board.x2apic()
    assert board.apic.write_msr(reg.SELF_IPI, 0x131, 0)
    assert board.port.ipis[-1].vector == 0x31


def test_msr_access_outside_x2apic_mode_faults():
    board = LapicBoard("on")
    assert board.apic.read_msr(reg.TPR, 0) is None
    assert not board.apic.write_msr(reg.TPR, 0, 0)


# --- APIC base


@pytest.mark.parametrize("which", ["on", "tcg"])
@pytest.mark.parametrize(
    "value", [0xFEE00400, 0xFEE00A00, 0xFEE00801, 1 << 52 | 0xFEE00800], ids=hex
)
def test_apic_base_with_illegal_bits_faults(which, value):
    board = LapicBoard(which)
    before = board.apic.save()
    assert not board.apic.set_apic_base(value)
    assert board.apic.state.apic_base == before.apic_base


@pytest.mark.parametrize("which", ["on", "tcg"])
def test_apic_base_from_x2apic_to_xapic_faults(which):
    board = LapicBoard(which)
    board.x2apic()
    assert not board.apic.set_apic_base(0xFEE00900)


@pytest.mark.parametrize("which", ["on", "tcg"])
def test_apic_base_from_disabled_to_x2apic_faults(which):
    board = LapicBoard(which)
    assert board.apic.set_apic_base(0xFEE00100)
    assert not board.apic.set_apic_base(0xFEE00D00)
    assert board.apic.set_apic_base(0xFEE00900)
    assert board.apic.set_apic_base(0xFEE00D00)


def test_apic_base_by_the_host_may_leave_x2apic():
    board = LapicBoard("on", 3)
    board.x2apic()
    assert board.apic.set_apic_base(0xFEE00900, host=True)
    assert board.apic.xapic_id == 3


def test_apic_base_by_the_host_on_linux_6_1_keeps_the_x2apic_id():
    board = LapicBoard(profile("on", linux="6.1"), 3)
    board.x2apic()
    assert board.apic.set_apic_base(0xFEE00900, host=True)
    assert board.apic.state.id_reg == 3
    assert board.apic.xapic_id == 0


def test_apic_base_of_qemu_7_is_disabled_for_ever():
    board = LapicBoard("off")
    assert board.apic.set_apic_base(0xFEE00100)
    assert not board.apic.sw_enabled
    assert board.apic.set_apic_base(0xFEE00900)
    assert not board.apic.hw_enabled


def test_apic_base_of_qemu_10_resets_the_id_at_every_write():
    board = LapicBoard("tcg", 2)
    board.write(reg.ID, 0x07000000)
    assert board.apic.set_apic_base(board.apic.state.apic_base)
    assert board.apic.xapic_id == 2


def test_apic_base_without_x2apic_cpuid_refuses_extd():
    board = LapicBoard(tune(profile("on"), lapic__x2apic=False))
    assert not board.apic.set_apic_base(0xFEE00D00)


def test_apic_base_moves_the_register_page():
    board = LapicBoard("on")
    assert board.apic.set_apic_base(0xE0000900)
    assert board.apic.base_address == 0xE0000000


@pytest.mark.parametrize("linux", ["6.1", "6.12", "6.18"])
def test_apic_base_identical_rewrite_leaves_the_map(linux):
    board = LapicBoard(profile("on", linux=linux))

    board.apic.set_apic_base(board.apic.state.apic_base)

    assert board.port.calls == []


@pytest.mark.parametrize(("linux", "maps"), [("6.1", []), ("6.12", ["map"])])
def test_apic_base_out_of_x2apic_by_the_host_leaves_the_map_stale_on_6_1(linux, maps):
    board = LapicBoard(profile("on", linux=linux))
    board.apic.set_apic_base(0xFEE00D00)
    board.port.calls.clear()

    board.apic.set_apic_base(0xFEE00900, host=True)

    assert board.port.calls == maps


# --- acceptance


@pytest.mark.parametrize("which", KVM)
def test_accept_of_a_fixed_edge_sets_irr_and_requests(which):
    board = LapicBoard(which)
    assert board.accept(0x31) == 1
    assert board.apic.state.irr == 1 << 0x31
    assert board.port.calls == ["request"]
    assert board.texts == ["kvm_apic_accept_irq: apicid 0 vec 49 (Fixed|edge)"]


def test_accept_of_a_pending_vector_again_is_accepted_again():
    board = LapicBoard()
    assert [board.accept(0x31), board.accept(0x31)] == [1, 1]


def test_accept_sets_and_clears_tmr_by_trigger():
    board = LapicBoard()
    board.accept(0x41, trigger=Trigger.LEVEL)
    assert board.apic.state.tmr == 1 << 0x41
    board.accept(0x41)
    assert board.apic.state.tmr == 0


def test_accept_of_a_level_deassert_is_ignored():
    board = LapicBoard()
    assert board.accept(0x41, trigger=Trigger.LEVEL, level=False) == 0
    assert board.apic.state.irr == 0


def test_accept_while_software_disabled_drops_but_traces():
    board = LapicBoard()
    board.write(reg.SPIV, 0xFF)
    board.texts.clear()
    assert board.accept(0x31) == 0
    assert board.apic.state.irr == 0
    assert board.texts == ["kvm_apic_accept_irq: apicid 0 vec 49 (Fixed|edge)"]


@pytest.mark.parametrize(
    ("mode", "call"),
    [
        (DeliveryMode.NMI, "nmi"),
        (DeliveryMode.SMI, "smi"),
        (DeliveryMode.INIT, "init"),
        (DeliveryMode.SIPI, "sipi 49"),
        (DeliveryMode.RESERVED3, "unhalt"),
    ],
)
def test_accept_of_a_special_mode_while_software_disabled_is_taken(mode, call):
    board = LapicBoard(enabled=False)
    assert board.accept(0x31, delivery_mode=mode) == 1
    assert board.port.calls == [call]


def test_accept_of_extint_does_nothing():
    board = LapicBoard()
    assert board.accept(0x31, delivery_mode=DeliveryMode.EXTINT) == 0
    assert board.port.calls == []


def test_accept_of_smi_without_smm_is_refused():
    board = LapicBoard()
    board.port.smm = False
    assert board.accept(0, delivery_mode=DeliveryMode.SMI) == 0


def test_accept_of_init_deassert_is_ignored():
    board = LapicBoard()
    init = {"delivery_mode": DeliveryMode.INIT, "trigger": Trigger.LEVEL}
    assert board.accept(0, level=False, **init) == 0
    assert board.accept(0, level=True, **init) == 1


def test_accept_of_lowest_priority_counts_arbitration():
    board = LapicBoard()
    board.accept(0x31, delivery_mode=DeliveryMode.LOWEST)
    board.accept(0x32)
    assert board.apic.state.arbitration == 1


def test_accept_records_who_took_it():
    board = LapicBoard(vcpu=2)
    dest_map = {}
    board.apic.accept(LapicMessage(0x31), dest_map)
    assert dest_map == {2: 0x31}


def test_accept_with_apicv_is_seen_at_the_posted_event_too():
    board = LapicBoard(tune(profile("on"), lapic__apicv=True))
    board.accept(0x31)
    assert board.texts[1] == "kvm_apicv_accept_irq: apicid 0 vec 49 (Fixed|edge)"


# --- priority


@pytest.mark.parametrize("which", ALL)
def test_ppr_is_the_higher_class_of_tpr_and_isr(which):
    board = LapicBoard(which)
    board.apic.state.isr = 1 << 0x63
    board.write(reg.TPR, 0x57)
    assert board.read(reg.PPR) == 0x60
    board.write(reg.TPR, 0x65)
    assert board.read(reg.PPR) == 0x65


@pytest.mark.parametrize("which", ALL)
def test_pending_is_the_highest_vector_above_ppr(which):
    board = LapicBoard(which)
    board.apic.state.irr = 1 << 0x41 | 1 << 0x38
    assert board.apic.pending() == 0x41
    board.write(reg.TPR, 0x40)
    assert board.apic.pending() is None
    board.write(reg.TPR, 0x3F)
    assert board.apic.pending() == 0x41


def test_kvm_vectors_below_16_are_accepted_and_never_delivered():
    board = LapicBoard()
    assert board.accept(5) == 1
    assert board.apic.pending() is None


def test_qemu_vectors_1_to_15_are_delivered_and_0_is_not():
    board = LapicBoard("tcg")
    board.apic.set_irq(0, 0)
    assert board.apic.pending() is None
    board.apic.set_irq(5, 0)
    assert board.apic.pending() == 5


def test_qemu_interrupt_behind_ppr_is_blocked():
    board = LapicBoard("tcg")
    board.write(reg.TPR, 0x50)
    assert not board.apic.blocked()
    board.apic.set_irq(0x41, 0)
    assert board.apic.blocked()


def test_qemu_interrupt_while_software_disabled_waits_in_irr():
    board = LapicBoard("tcg")
    board.write(reg.SPIV, 0xFF)
    board.apic.set_irq(0x41, 0)
    assert board.apic.pending() is None
    board.write(reg.SPIV, 0x1FF)
    assert board.apic.pending() == 0x41


@pytest.mark.parametrize("which", ALL)
def test_ack_moves_the_vector_into_service_and_raises_ppr(which):
    board = LapicBoard(which)
    board.apic.state.irr = 1 << 0x41
    assert board.take() == 0x41
    state = board.apic.state
    assert (state.irr, state.isr, state.ppr) == (0, 1 << 0x41, 0x40)


def test_tpr_that_falls_below_a_pending_vector_requests():
    board = LapicBoard()
    board.write(reg.TPR, 0x50)
    board.accept(0x41)
    board.port.calls.clear()
    board.write(reg.TPR, 0x48)
    assert board.port.calls == []
    board.write(reg.TPR, 0x30)
    assert board.port.calls == ["request"]


def test_cr8_is_the_upper_half_of_tpr():
    board = LapicBoard()
    board.apic.set_cr8(5)
    assert board.read(reg.TPR) == 0x50
    assert board.apic.cr8() == 5


# --- EOI


def test_kvm_eoi_without_anything_in_service_is_traced_as_minus_one():
    board = LapicBoard()
    board.write(reg.EOI, 0)
    assert board.texts[-1] == "kvm_eoi: apicid 0 vector -1"
    assert board.port.eois == []


@pytest.mark.parametrize("which", ALL)
def test_eoi_ends_the_highest_vector_in_service(which):
    board = LapicBoard(which)
    board.apic.state.isr = 1 << 0x41 | 1 << 0x61
    board.write(reg.EOI, 0xDEAD)
    assert board.apic.state.isr == 1 << 0x41


def test_kvm_eoi_tells_the_trigger_mode():
    board = LapicBoard()
    board.accept(0x41, trigger=Trigger.LEVEL)
    board.accept(0x31)
    board.take()
    board.write(reg.EOI, 0)
    board.take()
    board.write(reg.EOI, 0)
    assert board.port.eois == [(0x41, True), (0x31, False)]


def test_qemu_eoi_of_an_edge_is_not_broadcast():
    board = LapicBoard("tcg")
    board.apic.set_irq(0x31, 0)
    board.take()
    board.write(reg.EOI, 0)
    assert board.port.eois == []


def test_eoi_with_apicv_is_seen_only_where_it_exits():
    board = LapicBoard(tune(profile("on"), lapic__apicv=True))
    for exits, eois in ((False, []), (True, [(0x41, True)])):
        board.port.exits = exits
        board.accept(0x41, trigger=Trigger.LEVEL)
        board.take()
        board.texts.clear()
        board.write(reg.EOI, 0)
        assert board.apic.state.isr == 0
        assert board.port.eois == eois
        assert board.texts == (["kvm_eoi: apicid 0 vector 65"] if exits else [])


# --- software disable


@pytest.mark.parametrize("which", KVM)
def test_kvm_software_disable_masks_every_lvt_and_keeps_it_so(which):
    board = LapicBoard(which)
    board.write(reg.LVT0, 0x700)
    board.write(reg.SPIV, 0xFF)
    assert all(board.apic.state.lvt[i] & 0x10000 for i in range(6))
    board.write(reg.LVT0, 0x700)
    assert board.read(reg.LVT0) == 0x10700


@pytest.mark.parametrize("which", QEMU)
def test_qemu_software_disable_leaves_lvts_alone(which):
    board = LapicBoard(which)
    board.write(reg.LVT0, 0x700)
    board.write(reg.SPIV, 0xFF)
    assert board.read(reg.LVT0) == 0x700


# --- LVT delivery


def test_kvm_local_delivery_of_perf_masks_itself():
    board = LapicBoard()
    board.write(0x340, 0x400)
    assert board.apic.local_deliver(reg.LVT_PERF) == 1
    assert board.port.calls == ["nmi"]
    assert board.read(0x340) == 0x10400


def test_kvm_local_delivery_of_a_masked_lvt_does_nothing():
    board = LapicBoard()
    assert board.apic.local_deliver(reg.LVT_THERMAL) == 0
    assert board.texts == []


@pytest.mark.parametrize(
    ("lvt", "call"), [(0x700, "extint"), (0x400, "nmi"), (0x200, "smi"), (0x31, "request")]
)
def test_qemu_pic_level_reaches_lint0_by_its_mode(lvt, call):
    board = LapicBoard("tcg")
    board.write(reg.LVT0, lvt)
    board.port.calls.clear()
    board.apic.pic_intr(True)
    assert board.port.calls == [call]
    assert board.texts[-1] == f"apic_local_deliver: vector 3 delivery mode {lvt >> 8 & 7}"


def test_qemu_pic_level_low_clears_a_level_triggered_fixed_lint0():
    board = LapicBoard("tcg")
    board.write(reg.LVT0, 0x8031)
    board.apic.pic_intr(True)
    assert board.apic.state.irr == 1 << 0x31
    board.apic.pic_intr(False)
    assert board.apic.state.irr == 0


def test_qemu_lvt0_write_with_the_pic_active_delivers_it():
    board = LapicBoard("tcg")
    board.port.pic = True
    board.write(reg.LVT0, 0x700)
    assert "extint" in board.port.calls


@pytest.mark.parametrize(
    ("which", "lvt0", "accepts"),
    [
        ("on", 0x700, True),
        ("on", 0x10700, False),
        ("on", 0x031, False),
        ("tcg", 0x700, True),
        ("tcg", 0x031, True),
        ("tcg", 0x10700, False),
    ],
)
def test_pic_interrupts_are_accepted_by_lint0(which, lvt0, accepts):
    board = LapicBoard(which)
    board.write(reg.LVT0, lvt0)
    assert board.apic.accepts_pic_intr() is accepts


def test_pic_interrupts_pass_a_globally_disabled_apic():
    board = LapicBoard()
    board.write(reg.LVT0, 0x10700)
    board.apic.set_apic_base(0xFEE00100)
    assert board.apic.accepts_pic_intr()


# --- IPIs


def test_xapic_icr_makes_the_message_of_its_fields():
    board = LapicBoard()
    board.write(reg.ICR2, 0x03000000)
    message = board.send(0x000CC931)
    assert message == LapicMessage(
        0x31,
        DeliveryMode.LOWEST,
        DestMode.LOGICAL,
        3,
        Trigger.LEVEL,
        True,
        Shorthand.ALL_BUT_SELF,
    )


def test_kvm_xapic_icr_is_traced_before_the_message():
    board = LapicBoard()
    board.write(reg.ICR2, 0x01000000)
    board.texts.clear()
    board.send(0x4431)
    assert board.texts == [
        "kvm_apic: apic_write APIC_ICR = 0x4431",
        "kvm_apic_ipi: dst 1 vec 49 (NMI|physical|assert|edge|dst)",
    ]


# --- state


@pytest.mark.parametrize("which", ALL)
def test_state_loads_into_a_chip_that_then_behaves_the_same(which):
    board = LapicBoard(which)
    board.write(reg.TPR, 0x20)
    board.apic.state.irr = 1 << 0x41
    saved = board.apic.save()
    other = LapicBoard(which, enabled=False)
    other.apic.load(saved)
    assert other.apic.state == board.apic.state
    assert other.take() == board.take() == 0x41


def test_saved_state_is_independent_of_the_chip():
    board = LapicBoard()
    saved = board.apic.save()
    board.write(reg.LVT0, 0x31)
    board.write(reg.TMICT, 10_000_000)
    assert saved.lvt[reg.LVT_LINT0] == 0x700
    assert saved.timer.armed_ns is None


@pytest.mark.parametrize(
    "state",
    [LapicState(lvt=[0] * 6), LapicState(lvt=[1 << 32] * 7), LapicState(irr=1 << 256)],
    ids=["short", "wide", "vector"],
)
def test_state_that_is_none_is_refused(state):
    with pytest.raises(StateError):
        LapicBoard().apic.load(state)


def test_init_keeps_base_and_id_and_resets_the_rest():
    board = LapicBoard("on", 1)
    board.write(reg.ID, 0x09000000)
    board.apic.set_apic_base(0xFED00800)
    board.accept(0x41)
    board.apic.reset(init=True)
    state = board.apic.state
    assert (state.apic_base, state.id_reg) == (0xFED00800, 0x09000000)
    assert (state.irr, state.spiv) == (0, 0xFF)


# --- what remains


@pytest.mark.parametrize("vector", [-1, 256])
def test_message_with_an_impossible_vector_raises(vector):
    with pytest.raises(VectorRangeError, match=r"0\.\.255"):
        LapicBoard("on").accept(vector)
    with pytest.raises(VectorRangeError, match=r"0\.\.255"):
        LapicBoard("tcg").apic.set_irq(vector, 0)


def test_write_of_a_value_that_does_not_fit_raises():
    with pytest.raises(AccessError, match="4 bytes do not hold it"):
        LapicBoard().write(reg.TPR, 1 << 32)


def test_qemu_8_byte_access_is_two_of_the_same_register():
    board = LapicBoard("tcg")
    board.apic.write_mmio(reg.TPR, 8, 0x30 << 32 | 0x20, 0)
    assert board.apic.read_mmio(reg.TPR, 8, 0) == 0x30 << 32 | 0x30


@pytest.mark.parametrize("register", [reg.ID, reg.LDR, reg.DFR, reg.ICR2])
def test_qemu_x2apic_write_of_a_read_only_register_faults(register):
    board = LapicBoard("tcg")
    board.x2apic()
    assert not board.apic.write_msr(register, 0, 0)


def test_qemu_x2apic_undefined_register_faults_and_sets_esr():
    board = LapicBoard("tcg")
    board.x2apic()
    assert not board.apic.write_msr(0x40, 0, 0)
    assert board.apic.read_msr(0x40, 0) is None
    assert board.apic.read_msr(reg.ESR, 0) == 0x80


def test_qemu_read_only_register_ignores_writes_without_a_fault():
    board = LapicBoard("tcg")
    board.x2apic()
    assert board.apic.write_msr(reg.VERSION, 0, 0)
    assert board.apic.read_msr(reg.VERSION, 0) == 0x50014


def test_qemu_10_icr_msr_sends_to_the_upper_half_and_reads_the_lower():
    board = LapicBoard("tcg")
    board.x2apic()
    assert board.apic.write_msr(reg.ICR, 0x102 << 32 | 0x31, 0)
    assert board.port.ipis[-1].dest == 0x102
    assert board.apic.read_msr(reg.ICR, 0) == 0x31


def test_qemu_pic_level_low_of_an_edge_lint0_changes_nothing():
    board = LapicBoard("tcg")
    for lvt0 in (0x31, 0x400):
        board.write(reg.LVT0, lvt0)
        board.port.calls.clear()
        board.apic.pic_intr(False)
        assert board.port.calls == []


def test_qemu_lvt_of_another_mode_does_nothing():
    board = LapicBoard("tcg")
    board.write(0x340, 0x531)
    board.port.calls.clear()
    assert board.apic.local_deliver(reg.LVT_PERF) == 0
    assert board.port.calls == []


def test_kvm_cmci_is_a_register_where_the_cpu_has_it():
    plain, cmci = LapicBoard(), LapicBoard(tune(profile("on"), lapic__cmci=True))
    for board in (plain, cmci):
        board.write(reg.LVT_CMCI_REG, 0xFFFFFFFF)
    assert plain.read(reg.LVT_CMCI_REG) == 0
    assert cmci.read(reg.LVT_CMCI_REG) == 0x117FF


def test_apicv_eoi_with_nothing_in_service_is_silent():
    board = LapicBoard(tune(profile("on"), lapic__apicv=True))
    board.write(reg.EOI, 0)
    assert board.texts == []


@pytest.mark.parametrize("which", ALL)
def test_reset_keeps_nothing_of_before(which):
    board = LapicBoard(which, 1)
    board.accept(0x41)
    board.write(reg.LDR, 0x02000000)
    board.write(reg.TMICT, 1_000_000)
    board.apic.reset()
    fresh = LapicBoard(which, 1, enabled=False)
    assert board.apic.state == fresh.apic.state
    assert board.port.timer.deadline_ns is None


@pytest.mark.parametrize(("qemu", "read", "written"), [("7.2", 0, True), ("10.0", None, False)])
def test_x2apic_msr_outside_x2apic_mode_under_tcg_faults_only_where_qemu_knows_it(
    qemu, read, written
):
    board = LapicBoard(profile("tcg", qemu=qemu))

    assert board.apic.read_msr(reg.TPR, 0) is read
    assert board.apic.write_msr(reg.TPR, 0x50, 0) is written
    assert board.apic.state.tpr == 0
