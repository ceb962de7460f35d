"""One rule of QEMU's HPET a test; QEMU itself: tests/differential/test_qtest_hpet.py."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from support.chip_ports import Timer
from userspace_chip.errors import AccessError, PinRangeError, StateError
from userspace_chip.hpet import GEN_CONF, GINTR_STA, MAIN_CNT, TIMER_0, Hpet, HpetState
from userspace_chip.profile import profile

OLD, NEW, NEWEST = (profile("tcg", qemu=qemu) for qemu in ("7.2", "10.0", "11.1"))
EVERY = pytest.mark.parametrize("which", [OLD, NEW, NEWEST], ids=["7.2", "10.0", "11.1"])
ROUTE_20 = 20 << 9
EDGE, LEVEL, PERIODIC, SETS, SHORT = 0x4, 0x6, 0x8, 0x40, 0x100
US = 1000


@dataclass
class Board:
    clocks: list[Timer] = field(default_factory=lambda: [Timer() for _ in range(4)])
    done: list[tuple[object, ...]] = field(default_factory=list)

    def timer(self, number: int) -> Timer:
        return self.clocks[number]

    def set_irq(self, route: int, level: int) -> int:
        self.done.append((route, level))
        return 0

    def store(self, address: int, data: int) -> None:
        self.done.append(("store", address, data))

    def enable_pit(self, on: bool, now_ns: int) -> None:
        self.done.append(("pit", on))

    def take(self) -> list[tuple[object, ...]]:
        done, self.done = self.done, []
        return done


def hpet_of(which) -> tuple[Hpet, Board]:
    board = Board()
    return Hpet(which, board), board


def running(which, config: int, comparator: int, counter: int = 0) -> tuple[Hpet, Board]:
    """Timer 0 as it is said, the counter started at 0 ns; the other timers have expired."""
    hpet, board = hpet_of(which)
    hpet.write(TIMER_0 + 12, 4, 0, 0)
    hpet.write(TIMER_0, 4, config, 0)
    hpet.write(TIMER_0 + 8, 4, comparator, 0)
    hpet.write(MAIN_CNT, 4, counter, 0)
    hpet.write(GEN_CONF, 4, 1, 0)
    board.take()
    return hpet, board


@EVERY
def test_capabilities_say_three_timers_of_64_bits_at_100_mhz(which):
    hpet, _ = hpet_of(which)
    assert hpet.read(0, 4, 0) == 0x8086A201
    assert hpet.read(4, 4, 0) == 10_000_000


@EVERY
def test_edge_timer_pulses_its_route_and_leaves_no_status(which):
    hpet, board = running(which, ROUTE_20 | EDGE, 100)
    assert board.clocks[0].deadline_ns == 1 * US
    hpet.expire(0, 1 * US)
    assert board.take() == [(20, 1), (20, 0)]
    assert hpet.read(GINTR_STA, 4, 1 * US) == 0


@EVERY
def test_level_timer_holds_its_line_until_its_status_is_cleared(which):
    hpet, board = running(which, ROUTE_20 | LEVEL, 100)
    hpet.expire(0, 1 * US)
    assert board.take() == [(20, 1)]
    assert hpet.read(GINTR_STA, 4, 1 * US) == 1
    hpet.write(GINTR_STA, 4, 1, 2 * US)
    assert board.take() == [(20, 0)]
    assert hpet.read(GINTR_STA, 4, 2 * US) == 0


@EVERY
def test_periodic_timer_comes_again_after_the_period(which):
    hpet, board = running(which, ROUTE_20 | EDGE | PERIODIC | SETS, 200)
    for tick in (1, 2, 3):
        assert board.clocks[0].deadline_ns == tick * 2 * US
        hpet.expire(0, tick * 2 * US + 10)
    assert hpet.read(TIMER_0 + 8, 4, 6 * US) == 800


@EVERY
def test_counter_shows_time_while_it_runs_and_keeps_it_when_it_stops(which):
    hpet, _ = running(which, 0, 0, counter=7)
    assert hpet.read(MAIN_CNT, 4, 1 * US) == 107
    hpet.write(GEN_CONF, 4, 0, 2 * US)
    assert hpet.read(MAIN_CNT, 4, 9 * US) == 207


@EVERY
def test_fsb_timer_stores_its_message(which):
    hpet, board = running(which, 0x4000 | EDGE, 100)
    hpet.write(TIMER_0 + 0x10, 4, 0x4031, 0)
    hpet.write(TIMER_0 + 0x14, 4, 0xFEE00000, 0)
    hpet.expire(0, 1 * US)
    assert board.take() == [("store", 0xFEE00000, 0x4031)]


@EVERY
def test_legacy_replacement_takes_over_gsi_0_and_8(which):
    hpet, board = running(which, ROUTE_20 | EDGE, 100)
    hpet.write(GEN_CONF, 4, 3, 0)
    assert board.take() == [("pit", False), (0, 0), (8, 0)]
    hpet.expire(0, 1 * US)
    assert board.take() == [(0, 1), (0, 0)]


@EVERY
def test_legacy_replacement_cuts_off_the_rtc_and_gives_its_level_back(which):
    hpet, board = hpet_of(which)
    hpet.write(GEN_CONF, 4, 2, 0)
    board.take()
    hpet.set_rtc(1)
    hpet.set_pit(1)
    assert board.take() == []
    hpet.write(GEN_CONF, 4, 0, 0)
    assert board.take() == [(0, 0), ("pit", True), (8, 1)]


@pytest.mark.parametrize(
    ("which", "at_ns"), [(OLD, 10), (NEW, 42_949_672_950), (NEWEST, 42_949_672_950)]
)
def test_32_bit_comparator_far_ahead_is_past_before_9_1(which, at_ns):
    _, board = running(which, EDGE | SHORT, 0xFFFFFFFF)
    assert board.clocks[0].deadline_ns == at_ns


@EVERY
def test_32_bit_one_shot_timer_interrupts_at_the_wrap_too(which):
    hpet, board = running(which, ROUTE_20 | EDGE | SHORT, 50, counter=0xFFFFFF00)
    wrap_ns = board.clocks[0].deadline_ns
    assert wrap_ns in (2550, 2560)
    hpet.expire(0, 2560)
    assert board.take() == [(20, 1), (20, 0)]
    assert board.clocks[0].deadline_ns == 2560 + 500


def test_disabled_timer_runs_on_since_9_1_and_stops_before():
    for which, runs in ((OLD, False), (NEW, True), (NEWEST, True)):
        hpet, board = running(which, EDGE | PERIODIC | SETS, 1000)
        hpet.write(TIMER_0, 4, PERIODIC, 5 * US)
        assert (board.clocks[0].deadline_ns is not None) is runs


def test_level_timer_without_interrupts_has_a_status_since_9_1():
    for which, status in ((OLD, 0), (NEW, 1), (NEWEST, 1)):
        hpet, board = running(which, ROUTE_20 | 0x2, 100)
        hpet.expire(0, 1 * US)
        assert board.take() == [(20, 0)]
        assert hpet.read(GINTR_STA, 4, 1 * US) == status


def test_timer_beyond_the_last_one_is_there_up_to_10_0():
    for which, value in ((OLD, 77), (NEW, 77), (NEWEST, 0)):
        hpet, _ = hpet_of(which)
        hpet.write(TIMER_0 + 3 * 0x20 + 8, 4, 77, 0)
        assert hpet.read(TIMER_0 + 3 * 0x20 + 8, 4, 0) == value


@EVERY
def test_accesses_of_one_and_two_bytes_reach_nothing(which):
    hpet, _ = hpet_of(which)
    hpet.write(GEN_CONF, 2, 1, 0)
    assert hpet.read(GEN_CONF, 4, 0) == 0
    assert hpet.read(0, 1, 0) == 0


@EVERY
def test_state_saved_while_a_timer_runs_arms_it_again(which):
    hpet, _ = running(which, ROUTE_20 | EDGE, 100)
    other, board = hpet_of(which)
    other.load(hpet.save())
    assert board.clocks[0].deadline_ns == 1 * US
    assert other.save() == hpet.save()


def test_impossible_inputs_raise():
    hpet, _ = hpet_of(NEW)
    with pytest.raises(AccessError):
        hpet.read(0x400, 4, 0)
    with pytest.raises(AccessError):
        hpet.write(0, 4, 1 << 32, 0)
    with pytest.raises(PinRangeError):
        hpet.expire(9, 0)
    with pytest.raises(StateError):
        hpet.load(HpetState())
