"""The IOAPIC: registers, latches, service, EOI, storm throttle, the RTC's pin; KVM's and QEMU's."""

import pytest

from support.chip_ports import IoapicRecorder
from userspace_chip.architecture import (
    EOIR,
    IOAPIC_PINS,
    IOAPICARB,
    IOAPICID,
    IOAPICVER,
    IOREDTBL,
    IOREGSEL,
    IOWIN,
    RTC_PIN,
)
from userspace_chip.errors import AccessError, PinRangeError, StateError, VectorRangeError
from userspace_chip.ioapic import RTE, Ioapic, IoapicState, KvmIoapicImage, rte_message, rte_msi
from userspace_chip.messages import DeliveryMode, DestMode, LapicMessage, Trigger
from userspace_chip.profile import Profile, profile, tune

ON = profile("on")
SPLIT = profile("split")
TCG = profile("tcg")
ALL = (ON, SPLIT, TCG)
QEMUS = (SPLIT, TCG)
LEVEL = RTE.trigger.mask
MASKED = RTE.masked.mask
REMOTE_IRR = RTE.remote_irr.mask
NOW = 1_000_000


def make(profile: Profile) -> tuple[Ioapic, IoapicRecorder]:
    port = IoapicRecorder()
    return Ioapic(profile, port, port.emit), port


def select(chip: Ioapic, index: int) -> None:
    chip.write(IOREGSEL, 4, index, NOW)


def write_register(chip: Ioapic, index: int, value: int) -> None:
    select(chip, index)
    chip.write(IOWIN, 4, value, NOW)


def read_register(chip: Ioapic, index: int) -> int:
    select(chip, index)
    return chip.read(IOWIN, 4)


def program(chip: Ioapic, pin: int, entry: int) -> None:
    """Write an RTE as an operating system does: high half first."""
    write_register(chip, IOREDTBL + 2 * pin + 1, entry >> 32)
    write_register(chip, IOREDTBL + 2 * pin, entry & 0xFFFFFFFF)


def deliveries(port: IoapicRecorder) -> int:
    return len(port.named("deliver", "send_msi"))


def ids(profile: Profile) -> str:
    return f"{profile.mode}-{profile.qemu}-{profile.linux}"


each = pytest.mark.parametrize("which", ALL, ids=ids)
each_qemu = pytest.mark.parametrize("which", QEMUS, ids=ids)


# --- registers


@pytest.mark.parametrize(("which", "version"), [(ON, 0x11), (SPLIT, 0x20), (TCG, 0x20)])
def test_version_register_says_version_and_last_pin(which, version):
    chip, _ = make(which)
    write_register(chip, IOAPICVER, 0xFFFFFFFF)
    assert read_register(chip, IOAPICVER) == 23 << 16 | version


@each
def test_id_register_keeps_four_bits_and_arbitration_follows(which):
    chip, _ = make(which)
    write_register(chip, IOAPICID, 0xFAFFFFFF)
    write_register(chip, IOAPICARB, 0x05000000)
    assert read_register(chip, IOAPICID) == read_register(chip, IOAPICARB) == 0x0A000000


@pytest.mark.parametrize(("which", "value"), [(ON, 0xFFFFFFFF), (SPLIT, 0), (TCG, 0)])
@pytest.mark.parametrize("index", [3, 0x0F, 0x40, 0xFF])
def test_unmapped_index_reads_as_the_implementation_has_it(which, value, index):
    chip, _ = make(which)
    write_register(chip, index, 0x12345678)
    assert read_register(chip, index) == value


@each
def test_ioregsel_keeps_its_low_byte(which):
    chip, _ = make(which)
    chip.write(IOREGSEL, 4, 0x1FF, NOW)
    assert chip.read(IOREGSEL, 4) == 0xFF


@each
def test_rte_takes_everything_but_the_read_only_bits(which):
    chip, _ = make(which)
    program(chip, 5, (1 << 64) - 1)
    assert read_register(chip, IOREDTBL + 10) == 0xFFFFFFFF & ~(REMOTE_IRR | 1 << 12)
    assert read_register(chip, IOREDTBL + 11) == 0xFFFFFFFF


@each
def test_every_rte_is_masked_after_reset(which):
    chip, _ = make(which)
    program(chip, 3, 0x31)
    write_register(chip, IOAPICID, 0x01000000)
    chip.reset()
    assert chip.state.rte == [MASKED] * IOAPIC_PINS
    assert (chip.state.id, chip.state.ioregsel, chip.state.irr) == (0, 0, 0)


@pytest.mark.parametrize(("size", "value"), [(1, 0x41), (2, 0x8041), (8, 0x1_00008041)])
def test_kvm_window_write_of_any_size_replaces_the_whole_half(size, value):
    chip, _ = make(ON)
    select(chip, IOREDTBL)
    chip.write(IOWIN, size, value, NOW)
    assert chip.state.rte[0] == value & 0xFFFFFFFF


@each_qemu
@pytest.mark.parametrize("size", [1, 2])
def test_qemu_window_takes_no_narrow_access(which, size):
    chip, _ = make(which)
    select(chip, IOREDTBL)
    chip.write(IOWIN, size, 0x41, NOW)
    assert chip.state.rte[0] == MASKED
    assert chip.read(IOWIN, size) == 0
    assert chip.read(IOREGSEL, size) == IOREDTBL


@each_qemu
def test_qemu_cuts_wide_and_unaligned_accesses_into_aligned_words(which):
    chip, _ = make(which)
    select(chip, IOREDTBL)
    chip.write(IOWIN, 8, 0xFFFFFFFF_00018041, NOW)
    assert chip.state.rte[0] == 0x18041
    assert chip.read(IOWIN, 8) == 0x18041
    chip.write(IOWIN - 4, 8, 0x00010042_00000000, NOW)
    assert chip.state.rte[0] == 0x10042
    chip.write(IOWIN - 2, 4, 0x55550000, NOW)
    assert chip.state.rte[0] == 0x10042


@each_qemu
def test_qemu_decodes_the_low_byte_of_the_offset_in_its_page(which):
    chip, _ = make(which)
    chip.write(0xF00, 4, IOAPICVER, NOW)
    assert chip.read(0x310, 4) == 23 << 16 | 0x20


@pytest.mark.parametrize(("which", "present"), [(ON, False), (SPLIT, True), (TCG, True)])
def test_eoi_register_exists_where_the_version_is_0x20(which, present):
    chip, port = make(which)
    chip.write(EOIR, 4, 0x31, NOW)
    assert port.named("eoi_broadcast") == ([("eoi_broadcast", 0x31, NOW)] if present else [])
    assert chip.read(EOIR, 4) == 0


def test_eoi_register_is_gone_with_version_0x11():
    chip, port = make(tune(TCG, ioapic__version=0x11))
    chip.write(EOIR, 4, 0x31, NOW)
    assert not port.named("eoi_broadcast")


@pytest.mark.parametrize("size", [1, 2])
def test_eoi_register_ignores_narrow_writes(size):
    chip, port = make(TCG)
    chip.write(EOIR, size, 0x31, NOW)
    assert not port.named("eoi_broadcast")


# --- edge pins


def test_kvm_edge_while_masked_is_latched_and_blocks_until_the_line_is_low():
    chip, port = make(ON)
    program(chip, 5, MASKED | 0x41)
    assert chip.set_irq(5, 1) == -1
    program(chip, 5, 0x41)
    assert deliveries(port) == 0
    assert chip.set_irq(5, 1) == 0
    assert chip.set_irq(5, 0) == 1
    assert chip.set_irq(5, 1) == 1
    assert deliveries(port) == 1


@each_qemu
def test_qemu_edge_while_masked_is_forgotten(which):
    chip, port = make(which)
    program(chip, 5, MASKED | 0x41)
    chip.set_irq(5, 1)
    assert chip.state.irr == 0
    program(chip, 5, 0x41)
    assert deliveries(port) == 0
    chip.set_irq(5, 1)
    assert deliveries(port) == 1


def test_kvm_edge_raised_twice_without_lowering_is_coalesced():
    chip, port = make(ON)
    program(chip, 5, 0x41)
    assert [chip.set_irq(5, 1), chip.set_irq(5, 1)] == [1, 0]
    assert deliveries(port) == 1


@each_qemu
def test_qemu_edge_raised_twice_without_lowering_is_delivered_twice(which):
    chip, port = make(which)
    program(chip, 5, 0x41)
    chip.set_irq(5, 1)
    chip.set_irq(5, 1)
    assert deliveries(port) == 2


def test_kvm_delivered_edge_stays_in_irr_but_get_irqchip_hides_it():
    chip, _ = make(ON)
    program(chip, 5, 0x41)
    chip.set_irq(5, 1)
    assert chip.state.irr == 1 << 5
    assert chip.get_irqchip().irr == 0


def test_kvm_masked_edge_shows_in_get_irqchip():
    chip, _ = make(ON)
    chip.set_irq(5, 1)
    assert chip.get_irqchip().irr == 1 << 5


def test_kvm_line_is_high_while_any_source_holds_it():
    chip, _ = make(ON)
    program(chip, 5, LEVEL | 0x41)
    chip.set_irq(5, 1, source=0)
    chip.set_irq(5, 1, source=2)
    chip.set_irq(5, 0, source=0)
    assert chip.state.irr == 1 << 5
    chip.set_irq(5, 0, source=2)
    assert chip.state.irr == 0


def test_kvm_freed_source_holds_no_line():
    chip, _ = make(ON)
    chip.set_irq(5, 1, source=3)
    chip.clear_source(3)
    assert chip.state.lines[5] == 0


# --- level pins


def test_kvm_level_while_masked_is_latched_and_sent_on_unmask():
    chip, port = make(ON)
    program(chip, 9, MASKED | LEVEL | 0x41)
    assert chip.set_irq(9, 1) == -1
    program(chip, 9, LEVEL | 0x41)
    assert deliveries(port) == 1
    assert chip.remote_irr == 1 << 9


@each_qemu
def test_qemu_level_while_masked_is_latched_and_sent_on_unmask(which):
    chip, port = make(which)
    program(chip, 9, MASKED | LEVEL | 0x41)
    chip.set_irq(9, 1)
    assert deliveries(port) == 0
    program(chip, 9, LEVEL | 0x41)
    assert deliveries(port) == 1


def test_kvm_level_raised_in_service_is_latched_with_result_minus_1():
    chip, port = make(ON)
    program(chip, 9, LEVEL | 0x41)
    assert chip.set_irq(9, 1) == 1
    chip.set_irq(9, 0)
    assert chip.set_irq(9, 1) == -1
    assert chip.state.irr == 1 << 9
    assert deliveries(port) == 1


@each
def test_level_lowered_is_no_longer_pending(which):
    chip, _ = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    chip.set_irq(9, 0)
    assert chip.state.irr == 0


@pytest.mark.parametrize(("result", "in_service"), [(-1, True), (0, False), (1, True), (3, True)])
def test_kvm_sets_remote_irr_unless_the_delivery_was_dropped(result, in_service):
    chip, port = make(ON)
    port.result = result
    program(chip, 9, LEVEL | 0x41)
    assert chip.set_irq(9, 1) == result
    assert chip.remote_irr == (1 << 9 if in_service else 0)


def test_kvm_message_carries_every_field_of_the_entry():
    chip, port = make(ON)
    entry = RTE.pack(
        vector=0x41, delivery_mode=1, dest_mode=1, trigger=1, polarity=1, dest=0x0F, reserved=0x7F
    )
    program(chip, 9, entry)
    chip.set_irq(9, 1)
    expected = LapicMessage(0x41, DeliveryMode.LOWEST, DestMode.LOGICAL, 0x0F, Trigger.LEVEL)
    assert port.named("deliver") == [("deliver", expected)]


def test_qemu_message_has_bits_63_to_48_in_the_address():
    entry = RTE.pack(vector=0x41, delivery_mode=4, dest_mode=1, trigger=1, dest=0x12) | 0x34 << 48
    assert rte_msi(entry) == (0xFEE12344, 0x8441)
    assert rte_message(entry).dest == 0x12


# --- writes to an entry


@each
def test_edge_written_over_a_level_entry_clears_remote_irr(which):
    chip, _ = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    chip.set_irq(9, 0)
    program(chip, 9, MASKED | 0x41)
    program(chip, 9, LEVEL | 0x41)
    assert chip.remote_irr == 0


@pytest.mark.parametrize(("which", "sent"), [(ON, 0), (SPLIT, 1), (TCG, 1)])
def test_pending_level_switched_to_edge_is_sent_by_qemu_only(which, sent):
    chip, port = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    port.clear()
    program(chip, 9, 0x41)
    assert deliveries(port) == sent


def test_kvm_write_services_the_written_pin_only():
    chip, port = make(ON)
    port.result = 0  # nobody takes it, so it stays pending
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    port.clear()
    program(chip, 10, LEVEL | 0x42)
    assert deliveries(port) == 0


@each_qemu
def test_qemu_write_passes_over_all_pins_and_traces_those_in_service_again(which):
    chip, port = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    port.clear()
    program(chip, 10, LEVEL | 0x42)
    assert port.events.count("ioapic_set_remote_irr set remote irr for pin 9") == 2
    assert deliveries(port) == 0


@each
def test_vector_changed_in_service_leaves_the_pin_stuck_until_it_was_edge(which):
    chip, port = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    program(chip, 9, LEVEL | 0x42)
    port.clear()
    chip.eoi(0x41, NOW)
    assert chip.remote_irr == 1 << 9
    chip.set_irq(9, 0)
    program(chip, 9, MASKED | 0x42)
    program(chip, 9, LEVEL | 0x42)
    chip.set_irq(9, 1)
    assert deliveries(port) == 1


def test_kvm_tells_of_a_changed_mask_before_it_services():
    chip, port = make(ON)
    program(chip, 9, MASKED | LEVEL | 0x41)
    chip.set_irq(9, 1)
    port.clear()
    write_register(chip, IOREDTBL + 18, LEVEL | 0x41)
    assert [call[0] for call in port.calls] == ["mask_changed", "deliver", "rte_written"]
    assert port.calls[0] == ("mask_changed", 9, False)


@pytest.mark.parametrize(("linux", "kicked"), [("6.1", False), ("6.12", True), ("6.18", True)])
def test_kvm_unmask_kicks_the_resampler_since_6_12(linux, kicked):
    chip, port = make(profile("on", linux=linux))
    port.resamplers.add(9)
    program(chip, 9, MASKED | LEVEL | 0x41)
    chip.set_irq(9, 1)
    program(chip, 9, LEVEL | 0x41)
    assert port.named("resample") == ([("resample", 9)] if kicked else [])
    assert deliveries(port) == (0 if kicked else 1)
    assert chip.state.irr == (0 if kicked else 1 << 9)


# --- end of interrupt


@each
def test_eoi_with_the_line_still_high_sends_again(which):
    chip, port = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    chip.eoi(0x41, NOW)
    assert deliveries(port) == 2
    assert chip.remote_irr == 1 << 9


@each
def test_eoi_with_the_line_low_ends_the_service(which):
    chip, port = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    chip.set_irq(9, 0)
    chip.eoi(0x41, NOW)
    assert deliveries(port) == 1
    assert chip.remote_irr == 0


@each
def test_eoi_of_another_vector_does_nothing(which):
    chip, _ = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    chip.eoi(0x42, NOW)
    assert chip.remote_irr == 1 << 9


@pytest.mark.parametrize("how", [{"level": False}, {"suppress": True}])
def test_kvm_eoi_of_an_edge_or_suppressed_one_only_notifies(how):
    chip, port = make(ON)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    chip.eoi(0x41, NOW, **how)
    assert port.named("ack") == [("ack", 9)]
    assert chip.remote_irr == 1 << 9


def test_kvm_eoi_sends_an_edge_pin_that_shares_the_vector_again():
    chip, port = make(ON)
    program(chip, 5, 0x41)
    chip.set_irq(5, 1)
    port.clear()
    chip.eoi(0x41, NOW)
    assert deliveries(port) == 1


@each_qemu
def test_qemu_eoi_skips_edge_pins_and_pins_without_remote_irr(which):
    chip, port = make(which)
    program(chip, 5, 0x41)
    program(chip, 9, MASKED | LEVEL | 0x41)
    chip.set_irq(9, 1)
    chip.state.eoi_count[9] = 7
    port.clear()
    chip.eoi(0x41, NOW)
    assert port.calls == [("resample", 9)]
    assert port.events == []
    assert chip.state.eoi_count[9] == 7


def test_kvm_eoi_sees_what_an_ack_notifier_did_to_the_line():
    chip, port = make(ON)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    port.on_ack = lambda pin: chip.set_irq(pin, 0)
    port.clear()
    chip.eoi(0x41, NOW)
    assert deliveries(port) == 0
    assert chip.remote_irr == 0


# --- storm throttle


def storm(chip: Ioapic, count: int) -> None:
    for _ in range(count):
        chip.eoi(0x41, NOW)


@each
def test_storm_delays_the_ten_thousandth_interrupt(which):
    chip, port = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    port.clear()
    storm(chip, 9_999)
    assert (deliveries(port), port.timer.deadline_ns) == (9_999, None)
    storm(chip, 1)
    assert (deliveries(port), port.timer.deadline_ns) == (9_999, NOW + 10_000_000)
    chip.expire(NOW + 10_000_000)
    assert deliveries(port) == 10_000
    assert chip.state.delay_deadline_ns is None


@each
def test_storm_counter_starts_anew_after_an_eoi_with_the_line_low(which):
    chip, port = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    storm(chip, 9_999)
    chip.set_irq(9, 0)
    storm(chip, 1)
    chip.set_irq(9, 1)
    storm(chip, 9_999)
    assert port.timer.deadline_ns is None


@pytest.mark.parametrize(("which", "kept"), [(ON, True), (SPLIT, False), (TCG, False)])
def test_storm_counter_survives_a_write_of_the_entry_in_kvm_only(which, kept):
    chip, port = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    storm(chip, 9_999)
    write_register(chip, IOREDTBL + 19, 0)
    storm(chip, 1)
    assert (port.timer.deadline_ns is not None) == kept


@each
def test_second_storm_does_not_postpone_the_first_ones_delay(which):
    chip, port = make(which)
    program(chip, 9, LEVEL | 0x41)
    program(chip, 10, LEVEL | 0x42)
    chip.set_irq(9, 1)
    chip.set_irq(10, 1)
    chip.state.eoi_count[9] = chip.state.eoi_count[10] = 9_999
    chip.eoi(0x41, NOW)
    chip.eoi(0x42, NOW + 5_000_000)
    assert port.timer.deadline_ns == NOW + 10_000_000


def test_storm_events_name_the_entry_in_kvm_and_the_pin_in_qemu():
    texts = []
    for which in (ON, TCG):
        chip, port = make(which)
        program(chip, 9, 3 << 56 | LEVEL | 0x41)
        chip.set_irq(9, 1)
        chip.state.eoi_count[9] = 9_999
        chip.eoi(0x41, NOW)
        texts += [event for event in port.events if "delayed" in event]
    assert texts == [
        "kvm_ioapic_delayed_eoi_inj dst 3 vec 65 (Fixed|physical|level)",
        "ioapic_eoi_delayed_reassert delayed reassert on EOI broadcast for vector 9",
    ]


def test_reset_keeps_storm_counter_delay_and_lines():
    for which in ALL:
        chip, port = make(which)
        program(chip, 9, LEVEL | 0x41)
        chip.set_irq(9, 1)
        chip.state.eoi_count[9] = 9_999
        chip.eoi(0x41, NOW)
        chip.state.eoi_count[10] = 5
        chip.reset()
        assert chip.state.eoi_count[10] == 5
        assert chip.state.delay_deadline_ns == port.timer.deadline_ns == NOW + 10_000_000
        assert chip.state.lines[9] == 1


# --- the RTC's pin (KVM)


def rtc() -> tuple[Ioapic, IoapicRecorder]:
    chip, port = make(ON)
    port.takers = {0: 0x38}
    program(chip, RTC_PIN, 0x38)
    return chip, port


def test_rtc_edges_are_coalesced_until_the_target_has_written_eoi():
    chip, port = rtc()
    assert chip.set_irq(RTC_PIN, 1) == 1
    chip.set_irq(RTC_PIN, 0)
    assert chip.set_irq(RTC_PIN, 1) == 0
    assert chip.state.irr == 0  # not even latched
    chip.set_irq(RTC_PIN, 0)
    chip.eoi(0x38, NOW, level=False, vcpu=0)
    assert chip.set_irq(RTC_PIN, 1) == 1
    assert deliveries(port) == 2


def test_rtc_waits_for_every_target():
    chip, port = rtc()
    port.takers, port.result = {0: 0x38, 1: 0x38}, 2
    chip.set_irq(RTC_PIN, 1)
    chip.set_irq(RTC_PIN, 0)
    chip.eoi(0x38, NOW, level=False, vcpu=1)
    assert chip.set_irq(RTC_PIN, 1) == 0
    chip.eoi(0x38, NOW, level=False, vcpu=0)
    assert chip.set_irq(RTC_PIN, 1) == 2


def test_rtc_eoi_of_another_vector_or_cpu_does_not_count():
    chip, _ = rtc()
    chip.set_irq(RTC_PIN, 1)
    chip.eoi(0x39, NOW, level=False, vcpu=0)
    chip.eoi(0x38, NOW, level=False, vcpu=1)
    assert chip.state.rtc_pending_eoi == 1


def test_rtc_raised_without_line_status_is_not_tracked():
    chip, port = rtc()
    for level in (1, 0, 1):
        chip.set_irq(RTC_PIN, level, line_status=False)
    assert deliveries(port) == 2
    assert chip.state.rtc_pending_eoi == 0


def test_rtc_tracking_is_rebuilt_from_the_local_apics():
    chip, port = rtc()
    port.in_lapic = {(0, 0x38)}
    chip.set_irqchip(chip.get_irqchip())
    assert chip.state.rtc_pending_eoi == 1
    port.in_lapic = set()
    chip.lapic_restored(0)
    assert chip.state.rtc_pending_eoi == 0


def test_rtc_count_that_would_go_below_zero_is_rebuilt():
    chip, port = rtc()
    port.result = 0  # accepted by a CPU, as the map says, but counted by none
    chip.set_irq(RTC_PIN, 1)
    port.in_lapic = {(0, 0x38)}
    chip.eoi(0x38, NOW, level=False, vcpu=0)
    assert chip.state.rtc_pending_eoi == 1


def test_rtc_eoi_that_avic_did_not_trap_is_found_at_the_next_edge():
    port = IoapicRecorder(takers={0: 0x38})
    chip = Ioapic(tune(ON, lapic__apicv=True), port)
    program(chip, RTC_PIN, 0x38)
    chip.set_irq(RTC_PIN, 1)
    chip.set_irq(RTC_PIN, 0)
    port.in_lapic = {(0, 0x38)}
    assert chip.set_irq(RTC_PIN, 1) == 0
    port.in_lapic = set()
    assert chip.set_irq(RTC_PIN, 1) == 1


@each_qemu
def test_qemu_has_no_rtc_tracking(which):
    chip, port = make(which)
    program(chip, RTC_PIN, 0x38)
    chip.set_irq(RTC_PIN, 1)
    chip.set_irq(RTC_PIN, 1)
    assert deliveries(port) == 2


# --- QEMU: pin 0, statistics, ExtINT, routes


@each_qemu
def test_qemu_input_0_is_pin_2_but_is_counted_and_traced_as_0(which):
    chip, port = make(which)
    program(chip, 2, 0x30)
    port.clear()
    chip.set_irq(0, 1)
    assert port.named("send_msi")[0][1] == 2
    assert port.events == ["ioapic_set_irq vector: 0 level: 1"]
    assert (chip.state.raised[0], chip.state.raised[2]) == (1, 0)


@each_qemu
def test_qemu_counts_changes_from_0_to_1_only(which):
    chip, _ = make(which)
    for level in (0, 1, 1, 0, 1):
        chip.set_irq(7, level)
    assert chip.state.raised[7] == 2


def test_kvm_input_0_is_pin_0():
    chip, port = make(ON)
    program(chip, 0, 0x30)
    chip.set_irq(0, 1)
    assert deliveries(port) == 1


@each_qemu
def test_qemu_extint_entry_takes_its_vector_from_an_inta_cycle(which):
    chip, port = make(which)
    program(chip, 5, 0x0731)
    port.clear()
    chip.set_irq(5, 1)
    assert port.named("intack", "send_msi") == [
        ("intack",),
        ("send_msi", 5, 0xFEE00000, 0x0777, False),
    ]


def test_qemu_extint_entry_does_the_inta_cycle_even_when_masked():
    chip, port = make(TCG)
    program(chip, 5, LEVEL | 0x0731)
    chip.set_irq(5, 1)
    program(chip, 5, MASKED | LEVEL | 0x0731)
    port.clear()
    program(chip, 6, MASKED)
    assert port.named("intack") == [("intack",)] * 2
    assert deliveries(port) == 0


def test_kvm_extint_entry_is_sent_with_its_own_vector():
    chip, port = make(ON)
    program(chip, 5, 0x0731)
    chip.set_irq(5, 1)
    assert port.named("deliver")[0][1].vector == 0x31
    assert not port.named("intack")


def split(qemu) -> tuple[Ioapic, IoapicRecorder]:
    chip, port = make(profile("split", qemu=qemu))
    program(chip, 9, MASKED | LEVEL | 0x41)
    chip.set_irq(9, 1)
    port.clear()
    return chip, port


def test_split_7_2_services_through_the_stale_route():
    chip, port = split("7.2")
    chip.write(IOWIN, 4, LEVEL | 0x41, NOW)
    assert [call[0] for call in port.named("send_msi", "update_route", "commit_routes")] == [
        "send_msi",
        "update_route",
        "commit_routes",
    ]


def test_split_10_0_updates_the_route_first():
    chip, port = split("10.0")
    chip.write(IOWIN, 4, LEVEL | 0x41, NOW)
    assert [call[0] for call in port.named("send_msi", "update_route", "commit_routes")] == [
        "update_route",
        "commit_routes",
        "send_msi",
    ]


@pytest.mark.parametrize(("qemu", "commits"), [("7.2", 3), ("10.0", 0)])
def test_split_commits_routes_on_any_write_in_7_2_only(qemu, commits):
    chip, port = split(qemu)
    select(chip, IOAPICID)
    chip.write(IOWIN, 4, 0, NOW)
    chip.write(EOIR, 4, 0x99, NOW)
    assert len(port.named("commit_routes")) == commits


def test_split_masked_pins_keep_their_route():
    chip, port = split("10.0")
    chip.write(IOWIN, 4, MASKED | LEVEL | 0x55, NOW)
    assert port.named("update_route", "commit_routes") == [("commit_routes",)]


def test_split_reset_does_not_touch_the_routes():
    chip, port = split("10.0")
    chip.reset()
    assert port.calls == []


def test_tcg_has_no_routes():
    chip, port = make(TCG)
    program(chip, 9, 0x41)
    chip.update_routes()
    assert port.named("update_route", "commit_routes") == []


# --- events


def test_kvm_event_has_the_entry_from_before_the_delivery():
    chip, port = make(ON)
    port.result = 0
    program(chip, 9, 2 << 56 | LEVEL | 0x0841 | 0x0100)
    chip.set_irq(9, 1)
    chip.set_irq(9, 0)
    assert port.events == [
        "kvm_ioapic_set_irq pin 9 dst 2 vec 65 (LowPrio|logical|level) (coalesced)",
        "kvm_ioapic_set_irq pin 9 dst 2 vec 65 (LowPrio|logical|level)",
    ]


def test_kvm_event_says_masked():
    chip, port = make(ON)
    chip.set_irq(4, 1)
    assert port.events == ["kvm_ioapic_set_irq pin 4 dst 0 vec 0 (Fixed|physical|edge|masked)"]


def test_qemu_events_of_an_access():
    chip, port = make(TCG)
    chip.write(IOREGSEL, 4, 0x10, NOW)
    chip.read(IOWIN, 4)
    assert port.events == [
        "ioapic_mem_write ioapic mem write addr 0x0 regsel: 0x0 size 0x4 val 0x10",
        "ioapic_mem_read ioapic mem read addr 0x10 regsel: 0x10 size 0x4 retval 0x10000",
    ]


@each
def test_chip_without_a_listener_works_the_same(which):
    port = IoapicRecorder()
    chip = Ioapic(which, port)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    chip.read(IOWIN, 4)
    chip.state.eoi_count[9] = 9_998
    storm(chip, 2)
    assert port.events == []
    assert deliveries(port) == 2


# --- state


@each
def test_saved_state_restores_and_is_independent(which):
    chip, _ = make(which)
    program(chip, 9, LEVEL | 0x41)
    chip.set_irq(9, 1)
    saved = chip.save()
    program(chip, 9, 0x99)
    assert saved != chip.save()
    chip.load(saved)
    assert chip.save() == saved
    program(chip, 9, 0x99)
    assert saved.rte[9] == LEVEL | REMOTE_IRR | 0x41


@each
def test_loaded_state_arms_the_throttles_timer(which):
    chip, port = make(which)
    chip.load(IoapicState(delay_deadline_ns=77))
    assert port.timer.deadline_ns == 77
    chip.load(IoapicState())
    assert port.timer.deadline_ns is None


@pytest.mark.parametrize(
    "state",
    [
        IoapicState(rte=[0] * 23),
        IoapicState(rte=[1 << 64] * 24),
        IoapicState(irr=1 << 24),
        IoapicState(irr_delivered=-1),
        IoapicState(lines=[-1] * 24),
        IoapicState(rtc_pending_eoi=-1),
    ],
)
def test_state_of_no_ioapic_is_refused(state):
    chip, _ = make(ON)
    with pytest.raises(StateError):
        chip.load(state)


def test_kvm_set_irqchip_raises_the_images_requests_anew():
    chip, port = make(ON)
    rte = [MASKED] * IOAPIC_PINS
    rte[3], rte[9] = 0x31, LEVEL | 0x41
    chip.set_irqchip(KvmIoapicImage(0x13, 2, 1 << 3 | 1 << 9 | 1 << 10, tuple(rte)))
    assert [call[1].vector for call in port.named("deliver")] == [0x31, 0x41]
    assert chip.remote_irr == 1 << 9
    assert chip.get_irqchip().irr == 1 << 9 | 1 << 10
    assert (chip.state.ioregsel, chip.state.id) == (0x13, 2)


def test_kvm_set_irqchip_refuses_a_wrong_number_of_entries():
    chip, _ = make(ON)
    with pytest.raises(StateError):
        chip.set_irqchip(KvmIoapicImage(0, 0, 0, (0,) * 23))


# --- impossible inputs


@each
@pytest.mark.parametrize("pin", [-1, 24])
def test_pin_that_is_not_there_is_refused(which, pin):
    chip, _ = make(which)
    with pytest.raises(PinRangeError, match=rf"pin {pin}.*0\.\.23"):
        chip.set_irq(pin, 1)


def test_source_that_kvm_does_not_have_is_refused():
    chip, _ = make(ON)
    with pytest.raises(PinRangeError, match="source 64"):
        chip.set_irq(0, 1, source=64)


@each
@pytest.mark.parametrize("size", [0, 3, 16])
def test_access_size_that_no_bus_does_is_refused(which, size):
    chip, _ = make(which)
    with pytest.raises(AccessError, match=f"{size} bytes"):
        chip.read(IOWIN, size)
    with pytest.raises(AccessError, match=f"{size} bytes"):
        chip.write(IOWIN, size, 0, NOW)


@pytest.mark.parametrize(("which", "offset"), [(ON, 0x100), (TCG, 0x1000), (TCG, -1)])
def test_offset_beyond_the_decoded_range_is_refused(which, offset):
    chip, _ = make(which)
    with pytest.raises(AccessError, match="decodes"):
        chip.read(offset, 4)


@each
def test_value_wider_than_the_access_is_refused(which):
    chip, _ = make(which)
    with pytest.raises(AccessError, match="0x100"):
        chip.write(IOREGSEL, 1, 0x100, NOW)


@each
@pytest.mark.parametrize("vector", [-1, 256])
def test_eoi_vector_out_of_range_is_refused(which, vector):
    chip, _ = make(which)
    with pytest.raises(VectorRangeError, match=str(vector)):
        chip.eoi(vector, NOW)
