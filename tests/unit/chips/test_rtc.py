"""One rule of QEMU's real-time clock a test; QEMU: tests/differential/test_qtest_rtc.py."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from support.chip_ports import Timer
from userspace_chip.errors import AccessError, StateError
from userspace_chip.profile import profile, tune
from userspace_chip.rtc import NS_PER_S, REGISTER_A, REGISTER_B, REGISTER_C, Rtc, RtcState

NOON_S = 1767268800
"""2026-01-01 12:00, a Thursday."""
MS = 1_000_000
NEW = profile("tcg", qemu="10.0")


@dataclass
class Board:
    periodic: Timer = field(default_factory=Timer)
    update: Timer = field(default_factory=Timer)
    coalesced: Timer = field(default_factory=Timer)
    levels: list[int] = field(default_factory=list)
    takes: int = 0

    def set_irq(self, level: int) -> int:
        self.levels.append(level)
        return self.takes

    def take(self) -> list[int]:
        levels, self.levels = self.levels, []
        return levels


def rtc_of(which=NEW, base_s: int = NOON_S) -> tuple[Rtc, Board]:
    board = Board()
    return Rtc(which, board, base_s), board


def get(rtc: Rtc, register: int, now_ns: int) -> int:
    rtc.write(0x70, register, 1, now_ns)
    return rtc.read(0x71, 1, now_ns)


def put(rtc: Rtc, register: int, value: int, now_ns: int = 0) -> None:
    rtc.write(0x70, register, 1, now_ns)
    rtc.write(0x71, value, 1, now_ns)


def test_time_of_day_is_read_in_bcd():
    rtc, _ = rtc_of()
    read = [get(rtc, register, 61 * NS_PER_S) for register in (0, 2, 4, 6, 7, 8, 9, 0x32, 0x37)]
    assert read == [0x01, 0x01, 0x12, 5, 0x01, 0x01, 0x26, 0x20, 0x20]


def test_time_of_day_of_12_hours_has_a_bit_for_the_afternoon():
    rtc, _ = rtc_of()
    put(rtc, REGISTER_B, 0x04)
    assert get(rtc, 4, 3600 * NS_PER_S) == 0x81


def test_time_that_was_set_goes_on_from_there():
    rtc, _ = rtc_of()
    put(rtc, REGISTER_B, 0x82)
    for register, value in ((0, 0x58), (2, 0x59), (4, 0x23), (7, 0x28), (8, 0x02), (9, 0x24)):
        put(rtc, register, value, 300 * MS)
    put(rtc, REGISTER_B, 0x02, 300 * MS)
    read = [get(rtc, register, 2 * NS_PER_S) for register in (0, 2, 4, 7, 8)]
    assert read == [0x00, 0x00, 0x00, 0x29, 0x02]


@pytest.mark.parametrize(("rate", "hz"), [(6, 1024), (15, 2), (1, 256), (2, 128), (3, 8192)])
def test_periodic_interrupt_has_the_rate_of_register_a(rate, hz):
    rtc, board = rtc_of()
    put(rtc, REGISTER_A, 0x20 | rate)
    put(rtc, REGISTER_B, 0x42)
    assert board.periodic.deadline_ns == NS_PER_S // hz + 1


def test_periodic_interrupt_raises_the_line_at_each_tick_and_register_c_lowers_it():
    rtc, board = rtc_of()
    put(rtc, REGISTER_B, 0x42)
    board.take()
    rtc.expire_periodic(board.periodic.deadline_ns)
    rtc.expire_periodic(board.periodic.deadline_ns)
    assert board.take() == [1, 1]
    assert get(rtc, REGISTER_C, 3 * MS) == 0xC0
    assert board.take() == [0]
    assert get(rtc, REGISTER_C, 3 * MS) == 0


def test_update_sets_its_flag_without_an_interrupt():
    rtc, board = rtc_of()
    assert board.update.deadline_ns is None
    assert get(rtc, REGISTER_C, 999 * MS) == 0
    assert get(rtc, REGISTER_C, 1001 * MS) == 0x10


def test_update_ended_interrupt_comes_with_the_second():
    rtc, board = rtc_of()
    put(rtc, REGISTER_B, 0x12)
    assert board.update.deadline_ns == NS_PER_S
    rtc.expire_update(NS_PER_S)
    assert board.take()[-1] == 1
    assert get(rtc, REGISTER_C, NS_PER_S) == 0x90


def test_update_that_was_not_acknowledged_interrupts_when_it_is_enabled():
    rtc, board = rtc_of()
    put(rtc, REGISTER_B, 0x12, 1500 * MS)
    assert board.take() == [1]


@pytest.mark.parametrize(
    ("alarm", "seconds"),
    [
        ((0x12, 0x00, 0x05), 5),
        ((0xFF, 0xFF, 0x07), 7),
        ((0xFF, 0x01, 0x00), 60),
        ((0x13, 0xC0, 0xC0), 3600),
        ((0xFF, 0xFF, 0xFF), 1),
        ((0x12, 0x00, 0x00), 86400),
    ],
)
def test_alarm_interrupts_where_all_that_counts_is_equal(alarm, seconds):
    rtc, board = rtc_of()
    for register, value in zip((5, 3, 1), alarm, strict=True):
        put(rtc, register, value)
    put(rtc, REGISTER_B, 0x22)
    at_ns = 0
    while not rtc.state.memory[REGISTER_C] & 0x20:
        at_ns = board.update.deadline_ns
        rtc.expire_update(at_ns)
    assert at_ns == seconds * NS_PER_S


def test_divider_reset_stops_updates_and_the_first_one_is_half_a_second_after_it():
    rtc, board = rtc_of()
    put(rtc, REGISTER_B, 0x12)
    put(rtc, REGISTER_A, 0x66, 100 * MS)
    assert board.update.deadline_ns is None
    put(rtc, REGISTER_A, 0x26, 5000 * MS)
    assert board.update.deadline_ns == 5500 * MS


def test_set_bit_holds_the_time_and_clears_the_update_interrupt():
    rtc, _ = rtc_of()
    put(rtc, REGISTER_B, 0x92, 200 * MS)
    assert get(rtc, REGISTER_B, 200 * MS) == 0x82
    assert get(rtc, 0, 5 * NS_PER_S) == 0


def test_update_in_progress_shows_244_us_before_the_second():
    rtc, _ = rtc_of()
    assert get(rtc, REGISTER_A, NS_PER_S - 244_141) == 0x26
    assert get(rtc, REGISTER_A, NS_PER_S - 244_000) == 0xA6
    assert get(rtc, REGISTER_A, NS_PER_S + 1) == 0x26


def test_tick_that_no_cpu_took_is_delivered_later_with_slew():
    rtc, board = rtc_of(tune(NEW, rtc__slew=True))
    put(rtc, REGISTER_B, 0x42)
    rtc.expire_periodic(board.periodic.deadline_ns)
    assert rtc.state.coalesced == 1
    board.takes = 1
    rtc.expire_coalesced(board.coalesced.deadline_ns)
    assert rtc.state.coalesced == 0
    assert board.coalesced.deadline_ns is None


def test_reset_clears_enables_and_flags_and_lowers_the_line():
    rtc, board = rtc_of()
    put(rtc, REGISTER_B, 0x72)
    rtc.expire_periodic(board.periodic.deadline_ns)
    board.take()
    rtc.reset(2 * MS)
    assert board.take() == [0]
    assert get(rtc, REGISTER_B, 2 * MS) == 0x12
    assert get(rtc, REGISTER_C, 2 * MS) == 0


def test_registers_c_and_d_cannot_be_written():
    rtc, _ = rtc_of()
    put(rtc, REGISTER_C, 0xFF)
    put(rtc, 13, 0)
    assert get(rtc, REGISTER_C, 0) == 0
    assert get(rtc, 13, 0) == 0x80


def test_state_saved_while_timers_run_arms_them_again():
    rtc, _ = rtc_of()
    put(rtc, REGISTER_B, 0x52)
    other, board = rtc_of(base_s=0)
    other.load(rtc.save())
    assert (board.periodic.deadline_ns, board.update.deadline_ns) == (976_563, NS_PER_S)
    assert other.save() == rtc.save()


def test_impossible_inputs_raise():
    rtc, _ = rtc_of()
    with pytest.raises(AccessError):
        rtc.read(0x72, 1, 0)
    with pytest.raises(AccessError):
        rtc.write(0x70, 0x100, 1, 0)
    with pytest.raises(StateError):
        rtc.load(RtcState(memory=[0]))
