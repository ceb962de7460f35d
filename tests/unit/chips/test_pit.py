"""The 8254: counters, OUT, channel 0 as an interrupt source; KVM's and QEMU's."""

import pytest

from support.chip_ports import PitRecorder
from userspace_chip.errors import AccessError, StateError
from userspace_chip.pit import NO_MODE, Pit, PitChannelState, PitState
from userspace_chip.profile import Profile, profile, tune

ON = profile("on")
Q7 = profile("tcg", qemu="7.2")
Q10 = profile("tcg", qemu="10.0")
ALL = (ON, Q7, Q10)
PULSE = [1, 0]
MS = 1_000_000
US = 1_000


def make(profile: Profile, now_ns: int = 0) -> tuple[Pit, PitRecorder]:
    port = PitRecorder()
    return Pit(profile, port, now_ns), port


def program(pit: Pit, mode: int, count: int, now_ns: int = 0, channel: int = 0) -> None:
    """Control word and both bytes of the count."""
    pit.write(0x43, channel << 6 | 0x30 | mode << 1, now_ns)
    pit.write(0x40 + channel, count & 0xFF, now_ns)
    pit.write(0x40 + channel, count >> 8, now_ns)


def run(pit: Pit, port: PitRecorder, until_ns: int) -> None:
    while port.timer.deadline_ns is not None and port.timer.deadline_ns <= until_ns:
        pit.expire(port.timer.deadline_ns)


def read_word(pit: Pit, now_ns: int, channel: int = 0) -> int:
    low = pit.read(0x40 + channel, now_ns)
    return low | pit.read(0x40 + channel, now_ns) << 8


def ticks_ns(ticks: int, profile: Profile) -> int:
    """The first nanosecond at which that many input clocks have passed."""
    return -(-ticks * 1_000_000_000 // profile.pit.frequency_hz)


def changes(levels: list[int]) -> list[int]:
    """The levels without repetitions."""
    return [level for i, level in enumerate(levels) if i == 0 or levels[i - 1] != level]


def ids(profile: Profile) -> str:
    return f"{profile.mode}-{profile.qemu}"


each = pytest.mark.parametrize("which", ALL, ids=ids)
each_qemu = pytest.mark.parametrize("which", [Q7, Q10], ids=ids)


# --- counting and reading


@each
@pytest.mark.parametrize(
    ("mode", "count", "ticks", "value"),
    [
        (0, 100, 40, 60),
        (0, 100, 101, 0xFFFF),
        (2, 100, 140, 60),
        (2, 100, 100, 100),
        (3, 100, 20, 60),
        (3, 100, 60, 80),
        (4, 100, 130, 0xFFE2),
        (0, 0, 1, 0xFFFF),
    ],
)
def test_counter_counts_as_its_mode_says(which, mode, count, ticks, value):
    pit, _ = make(which)
    program(pit, mode, count, channel=2)
    assert read_word(pit, ticks_ns(ticks, which), channel=2) == value


@each
def test_latched_count_stands_still_until_it_was_read(which):
    pit, _ = make(which)
    program(pit, 2, 1000)
    pit.write(0x43, 0x00, ticks_ns(10, which))
    pit.write(0x43, 0x00, ticks_ns(20, which))  # ignored: one is latched
    assert read_word(pit, ticks_ns(30, which)) == 990
    assert read_word(pit, ticks_ns(40, which)) == 960


@each
@pytest.mark.parametrize(("access", "value"), [(1, 0x34), (2, 0x1200)])
def test_single_byte_access_sets_and_reads_one_byte(which, access, value):
    pit, _ = make(which)
    pit.write(0x43, access << 4, 0)
    pit.write(0x40, value & 0xFF if access == 1 else value >> 8, 0)
    assert pit.state.channels[0].count == value
    expected = value >> 8 if access == 2 else value
    assert pit.read(0x40, 0) == expected & 0xFF
    assert pit.read(0x40, 0) == expected & 0xFF


@each
def test_read_back_latches_count_and_status_of_the_chosen_channels(which):
    pit, _ = make(which)
    program(pit, 2, 1000)
    program(pit, 3, 500, channel=2)
    pit.write(0x43, 0xC0 | 0x02 | 0x08, ticks_ns(10, which))
    assert pit.read(0x40, 0) == 0x34  # status first: OUT low, both bytes, mode 2
    assert read_word(pit, ticks_ns(99, which)) == 990
    assert pit.read(0x42, 0) == 0xB6
    assert pit.state.channels[1].status_latched == 0


@each
def test_control_port_reads_0(which):
    pit, _ = make(which)
    assert pit.read(0x43, 0) == 0


@pytest.mark.parametrize(("which", "modes"), [(ON, [2, 3]), (Q7, [6, 7]), (Q10, [6, 7])])
def test_modes_6_and_7_are_2_and_3_in_kvm_only(which, modes):
    pit, _ = make(which)
    stored = []
    for mode in (6, 7):
        program(pit, mode, 100)
        stored.append(pit.state.channels[0].mode)
    assert stored == modes


@pytest.mark.parametrize(("which", "before", "after"), [(ON, 1, 0), (Q7, 1, 0), (Q10, 0, 1)])
def test_out_in_mode_1_was_inverted_until_qemu_10(which, before, after):
    pit, _ = make(which)
    program(pit, 1, 100, channel=2)
    out = []
    for ticks in (50, 150):
        pit.write(0x43, 0xE0 | 0x08, ticks_ns(ticks, which))
        out.append(pit.read(0x42, 0) >> 7)
    assert out == [before, after]


def test_kvm_counter_of_channel_0_stands_still_before_it_was_started():
    pit, _ = make(ON)
    pit.write(0x43, 0x30, 0)
    assert read_word(pit, 5 * MS) == 0  # of 65536


# --- QEMU's channel 0: a wire


@each_qemu
def test_qemu_square_wave_drives_the_line_twice_a_period(which):
    pit, port = make(which)
    program(pit, 3, 1000)
    assert port.levels == [1]
    run(pit, port, ticks_ns(5000, which) + US)
    # Conversions round down, so some drives come a clock early and repeat the level.
    assert changes(port.levels) == [1] + [0, 1] * 5


@each_qemu
def test_qemu_rate_generator_drives_the_line_low_for_a_clock_a_period(which):
    pit, port = make(which)
    program(pit, 2, 1000)
    run(pit, port, ticks_ns(1001, which) + US)
    assert changes(port.levels) == [0, 1]  # low all through the first period
    port.clear()
    low_ns = 0
    while port.timer.deadline_ns < ticks_ns(5002, which):
        before_ns = port.timer.deadline_ns
        pit.expire(before_ns)
        if port.levels[-1] == 0:
            low_ns += port.timer.deadline_ns - before_ns
    assert changes(port.levels) == [0, 1] * 4
    assert low_ns < ticks_ns(2 * 4, which)


@each_qemu
@pytest.mark.parametrize("mode", [2, 3])
def test_qemu_lost_ticks_leave_the_line_alone_and_the_next_one_comes_in_time(which, mode):
    pit, port = make(which)
    program(pit, mode, 1000)
    run(pit, port, ticks_ns(1900, which))
    port.clear()

    assert pit.rises_next
    pit.lose_ticks(ticks_ns(5500, which))
    run(pit, port, ticks_ns(5990, which))
    assert port.levels == []
    run(pit, port, ticks_ns(6001, which))

    assert changes(port.levels)[-1] == 1


@each_qemu
def test_qemu_square_wave_between_its_ticks_does_not_rise_next(which):
    pit, port = make(which)
    program(pit, 3, 1000)
    run(pit, port, ticks_ns(1100, which))

    assert not pit.rises_next


@each_qemu
def test_qemu_strobe_goes_high_for_one_clock_and_stops(which):
    pit, port = make(which)
    program(pit, 4, 1000)
    run(pit, port, 100 * MS)
    assert changes(port.levels) == [0, 1, 0]
    assert port.timer.deadline_ns is None


@each_qemu
def test_qemu_one_shot_goes_high_once_and_stops(which):
    pit, port = make(which)
    program(pit, 0, 1000)
    run(pit, port, 100 * MS)
    assert port.levels[0] == 0
    assert port.levels[-1] == 1
    assert port.timer.deadline_ns is None


@each_qemu
def test_qemu_loads_a_count_into_a_running_counter_at_once(which):
    pit, port = make(which)
    program(pit, 3, 1000)
    pit.write(0x40, 0x10, 5_000)
    pit.write(0x40, 0x00, 5_000)
    assert port.timer.deadline_ns == 5_000 + 8 * 1_000_000_000 // 1193182


@each_qemu
def test_qemu_reset_starts_a_square_wave_without_driving_the_line(which):
    pit, port = make(which, now_ns=77)
    assert port.levels == []
    assert pit.state.channels[0].mode == 3
    assert port.timer.deadline_ns == 77 + 32768 * 1_000_000_000 // 1193182


@each_qemu
def test_qemu_hpet_legacy_silences_channel_0_and_gives_it_back(which):
    pit, port = make(which)
    program(pit, 3, 1000)
    port.clear()
    pit.set_hpet_legacy(True, 100)
    assert port.timer.deadline_ns is None
    program(pit, 3, 2000, 200)
    assert port.levels == []
    pit.set_hpet_legacy(False, 300)
    assert port.levels == [1]
    assert port.timer.deadline_ns is not None


# --- KVM's channel 0: pulses


def test_kvm_pulses_once_an_expiry_and_wakes_the_watchdog():
    pit, port = make(ON)
    program(pit, 2, 11932)
    run(pit, port, 10 * MS + 1 * US)
    assert port.calls == [("set_irq", 1), ("set_irq", 0), ("nmi_watchdog",)]


def test_kvm_does_not_run_before_it_was_programmed():
    pit, port = make(ON)
    assert pit.state.channels[0].mode == NO_MODE
    assert port.timer.deadline_ns is None


@pytest.mark.parametrize(
    ("mode", "expiries"), [(0, 1), (1, 1), (2, 5), (3, 5), (4, 1), (5, 0), (6, 5), (7, 5)]
)
def test_kvm_modes_are_one_shot_periodic_or_off(mode, expiries):
    pit, port = make(tune(ON, pit__reinject=False))
    program(pit, mode, 11932)
    run(pit, port, 55 * MS)
    assert port.levels == PULSE * expiries


def test_kvm_discard_pulses_at_every_tick():
    pit, port = make(tune(ON, pit__reinject=False))
    program(pit, 2, 11932)
    run(pit, port, 35 * MS)
    assert port.levels == PULSE * 3
    assert pit.state.pending == 0


def test_kvm_delay_waits_for_the_acknowledgement_and_makes_up_for_lost_ticks():
    pit, port = make(ON)
    program(pit, 2, 11932)
    run(pit, port, 35 * MS)
    assert port.levels == PULSE
    assert pit.state.pending == 3
    for _ in range(2):
        pit.ack(35 * MS)
        run(pit, port, 35 * MS)
    assert port.levels == PULSE * 3
    pit.ack(35 * MS)
    run(pit, port, 35 * MS)
    assert port.levels == PULSE * 3
    assert (pit.state.pending, pit.state.irq_ack) == (0, 1)


def test_kvm_reinjected_pulse_comes_after_the_acknowledging_call():
    pit, port = make(ON)
    program(pit, 2, 11932)
    run(pit, port, 25 * MS)
    port.clear()
    pit.ack(25 * MS)
    assert port.levels == []
    assert port.timer.deadline_ns == 25 * MS
    pit.expire(25 * MS)
    assert port.levels == PULSE


def test_kvm_acknowledged_in_time_every_tick_pulses():
    pit, port = make(ON)
    program(pit, 2, 11932)
    for tick in range(1, 6):
        run(pit, port, tick * 10 * MS + 1 * US)
        pit.ack(tick * 10 * MS + 2 * US)
    assert port.levels == PULSE * 5


def test_kvm_unmasking_forgets_lost_ticks_and_masking_does_not():
    pit, port = make(ON)
    program(pit, 2, 11932)
    run(pit, port, 35 * MS)
    pit.mask_changed(True, 35 * MS)
    assert pit.state.pending == 3
    pit.mask_changed(False, 35 * MS)
    assert (pit.state.pending, pit.state.irq_ack) == (0, 1)


def test_kvm_reload_forgets_lost_ticks():
    pit, port = make(ON)
    program(pit, 2, 11932)
    run(pit, port, 35 * MS)
    program(pit, 2, 11932, 36 * MS)
    assert (pit.state.pending, pit.state.irq_ack) == (0, 1)
    assert port.timer.deadline_ns == 36 * MS + 11932 * 1_000_000_000 // 1193181


def test_kvm_discard_ignores_acknowledgements_and_masks():
    pit, port = make(tune(ON, pit__reinject=False))
    program(pit, 2, 11932)
    run(pit, port, 15 * MS)
    before = pit.save()
    pit.ack(15 * MS)
    pit.mask_changed(False, 15 * MS)
    assert pit.save() == before


def test_kvm_policy_can_be_changed():
    pit, port = make(ON)
    program(pit, 2, 11932)
    run(pit, port, 25 * MS)
    pit.set_reinject(False)
    run(pit, port, 35 * MS)
    assert port.levels == PULSE * 2
    pit.set_reinject(True)
    assert (pit.state.pending, pit.state.irq_ack) == (0, 1)


def test_kvm_period_has_a_minimum_but_the_first_expiry_does_not():
    pit, port = make(tune(ON, pit__reinject=False))
    program(pit, 2, 12)
    first = port.timer.deadline_ns
    assert first == 12 * 1_000_000_000 // 1193181
    pit.expire(first)
    assert port.timer.deadline_ns == first + 200 * US


def test_kvm_counter_of_a_stretched_period_runs_ahead_of_its_count():
    pit, _ = make(ON)
    program(pit, 2, 120)
    # The timer has 100 us left of a period of 200 us, so 100 us count as passed at the load.
    elapsed = (200 * US - 120 * 1_000_000_000 // 1193181) * 1193181 // 1_000_000_000
    assert read_word(pit, 0) == 120 - elapsed % 120


def test_kvm_one_shot_has_no_minimum_period():
    pit, port = make(ON)
    program(pit, 0, 12)
    assert pit.state.period_ns == port.timer.deadline_ns == 12 * 1_000_000_000 // 1193181


def test_kvm_late_expiries_catch_up():
    pit, port = make(tune(ON, pit__reinject=False))
    program(pit, 2, 11932)
    pit.expire(35 * MS)
    assert port.levels == PULSE * 3


def test_kvm_reset_by_qemu_ticks_in_mode_3():
    pit, port = make(ON)
    program(pit, 0, 100)
    pit.reset(5 * MS)
    assert pit.state.channels[0].mode == 3
    assert port.timer.deadline_ns == 5 * MS + 65536 * 1_000_000_000 // 1193181


def test_kvm_hpet_legacy_stops_channel_0_and_its_reload():
    pit, port = make(ON)
    program(pit, 2, 11932)
    pit.set_hpet_legacy(True, 1 * MS)
    assert port.timer.deadline_ns is None
    program(pit, 2, 11932, 2 * MS)
    assert port.timer.deadline_ns is None
    assert pit.state.channels[0].mode == 2
    pit.set_hpet_legacy(False, 3 * MS)
    assert port.timer.deadline_ns == 3 * MS + 11932 * 1_000_000_000 // 1193181


def test_kvm_set_pit2_restarts_every_channel():
    pit, port = make(ON)
    program(pit, 2, 11932)
    program(pit, 2, 5000, channel=2)
    channels, legacy = pit.get_pit2()
    pit.set_pit2(channels, legacy, 7 * MS)
    assert [c.count_load_time_ns for c in pit.state.channels[1:]] == [7 * MS] * 2
    assert port.timer.deadline_ns == 7 * MS + 11932 * 1_000_000_000 // 1193181


# --- port 0x61


@each
def test_speaker_port_shows_gate_data_and_out_of_channel_2(which):
    pit, _ = make(which)
    program(pit, 3, 1000, channel=2)
    pit.write(0x61, 0x03, 0)
    assert pit.read(0x61, 0) & 0x2F == 0x23
    assert pit.read(0x61, ticks_ns(600, which)) & 0x2F == 0x03


@pytest.mark.parametrize(("qemu", "out"), [("7.2", 1), ("10.0", 0)])
def test_speaker_out_in_mode_1_is_qemus_also_beside_kvms_pit(qemu, out):
    pit, _ = make(profile("on", qemu=qemu))
    program(pit, 1, 1000, channel=2)
    assert pit.read(0x61, 0) >> 5 & 1 == out


@each
def test_speaker_gate_rising_restarts_the_counter(which):
    pit, _ = make(which)
    program(pit, 2, 1000, channel=2)
    pit.write(0x61, 0x01, 50 * US)
    assert pit.state.channels[2].count_load_time_ns == 50 * US


def test_speaker_refresh_bit_toggles_with_each_read_of_qemus():
    pit, _ = make(Q7)
    assert [pit.read(0x61, 0) >> 4 & 1 for _ in range(3)] == [1, 0, 1]


def test_speaker_refresh_bit_follows_the_clock_in_kvms():
    pit, _ = make(tune(ON, pit__speaker_in_kernel=True))
    assert [pit.read(0x61, t << 14) >> 4 & 1 for t in range(3)] == [0, 1, 0]


@pytest.mark.parametrize(("in_kernel", "restarted"), [(False, True), (True, False)])
def test_speaker_write_restarts_channel_0_where_qemu_writes_the_state_back(in_kernel, restarted):
    pit, port = make(tune(ON, pit__speaker_in_kernel=in_kernel))
    program(pit, 2, 11932)
    before = port.timer.deadline_ns
    pit.write(0x61, 0x00, 5 * MS)
    assert (port.timer.deadline_ns != before) == restarted


# --- access sizes, state, impossible inputs


def test_kvm_takes_the_low_byte_of_any_size():
    pit, _ = make(ON)
    pit.write(0x43, 0x34, 0)
    pit.write(0x40, 0x11112222, 0, size=4)
    assert pit.state.channels[0].write_latch == 0x22
    pit.write(0x42, 0x1234, 0, size=2)
    assert pit.state.channels[2].count == 0x34


def test_kvm_leaves_what_reaches_beyond_its_ports_to_user_space():
    pit, _ = make(ON)
    before = pit.save()
    pit.write(0x43, 0x3434, 0, size=2)
    pit.write(0x41, 0x01010101, 0, size=4)
    assert pit.save() == before
    assert pit.read(0x42, 0, size=4) == 0xFFFFFFFF


@each_qemu
def test_qemu_gives_every_byte_to_its_own_port(which):
    pit, _ = make(which)
    pit.write(0x40, 0x34_33_22_11, 0, size=4)
    assert [c.count for c in pit.state.channels] == [0x11, 0x22, 0x33]
    assert pit.state.channels[0].mode == 2
    assert pit.read(0x43, 0, size=4) == 0xFFFFFF00


@each
def test_saved_state_restores_arms_and_is_independent(which):
    pit, port = make(which)
    program(pit, 2, 11932)
    saved, deadline_ns = pit.save(), port.timer.deadline_ns
    program(pit, 0, 7, 1 * MS)
    assert pit.save() != saved
    pit.load(saved)
    assert pit.save() == saved
    assert port.timer.deadline_ns == deadline_ns
    pit.write(0x43, 0x36, 0)
    assert saved.channels[0].mode == 2


@pytest.mark.parametrize(
    "state",
    [
        PitState(channels=[PitChannelState()]),
        PitState(channels=[PitChannelState(count=65537)] * 3),
        PitState(channels=[PitChannelState(rw_mode=-1)] * 3),
    ],
)
def test_state_of_no_pit_is_refused(state):
    pit, _ = make(ON)
    with pytest.raises(StateError):
        pit.load(state)


def test_set_pit2_refuses_a_wrong_number_of_channels():
    pit, _ = make(ON)
    with pytest.raises(StateError):
        pit.set_pit2([PitChannelState()], 0, 0)


@each
@pytest.mark.parametrize("port", [0x3F, 0x44, 0x60, 0x62])
def test_port_of_another_chip_is_refused(which, port):
    pit, _ = make(which)
    with pytest.raises(AccessError, match=f"{port:#x}"):
        pit.read(port, 0)


@each
def test_access_size_that_no_bus_does_is_refused(which):
    pit, _ = make(which)
    with pytest.raises(AccessError, match="3 bytes"):
        pit.write(0x40, 0, 0, size=3)


@each
def test_value_wider_than_the_access_is_refused(which):
    pit, _ = make(which)
    with pytest.raises(AccessError, match="0x100"):
        pit.write(0x40, 0x100, 0)
