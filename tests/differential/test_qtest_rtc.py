"""QEMU's real-time clock against the model: the same accesses at the same virtual times on both.

Compared: the value of every read and every drive of a GSI, in and out of the HPET's legacy
replacement mode.  An instruction takes 256 ns here, so that seconds pass; the guest is
``support.timed_guest``.

Not tried: late ticks at more than 1024 Hz, whose eighth part can be no time at all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from support.board import rng
from support.qemus import QEMUS
from support.timed_chips import pair
from support.timed_guest import Access
from userspace_chip.architecture import HPET_BASE, RTC_DATA, RTC_INDEX
from userspace_chip.profile import Profile, tune

pytestmark = pytest.mark.live

SHIFT = 8
SESSIONS = 2
ACCESSES = 1200
RATES = (0, 1, 3, 6, 9, 13, 15, 15)
SLOW_RATES = (0, 6, 9, 13, 15)
PAUSE_NS = 2 << SHIFT
A, B, C, D, CENTURY = 10, 11, 12, 13, 0x32
SLEW = ("-global", "mc146818rtc.lost_tick_policy=slew")


def slew(profile: Profile) -> Profile:
    return tune(profile, rtc__slew=True)


def pause(random: random.Random) -> int:
    """Up to some ms, and now and then half a second."""
    kind = random.random()
    if kind < 0.5:
        return 1
    if kind < 0.97:
        return random.randrange(1, 5_000_000) // PAUSE_NS
    return random.randrange(1, 600_000_000) // PAUSE_NS


def read(register: int, wait: int = 1) -> list[Access]:
    return [Access(wait, "out", RTC_INDEX, register), Access(1, "in", RTC_DATA)]


def write(register: int, value: int, wait: int = 1) -> list[Access]:
    return [Access(wait, "out", RTC_INDEX, register), Access(1, "out", RTC_DATA, value)]


def time_of_day(random: random.Random) -> list[Access]:
    """One register, mostly to a possible value."""
    register = random.choice((0, 2, 4, 6, 7, 8, 9, CENTURY, 0x37))
    most = {0: 59, 2: 59, 4: 23, 6: 7, 7: 28, 8: 12, 9: 99}.get(register)
    if most is None:
        return write(register, random.choice((0x20, 0x21)), pause(random))
    value = random.choice((most, random.randrange(most + 1)))
    return write(register, value // 10 << 4 | value % 10, pause(random))


def alarm(random: random.Random) -> list[Access]:
    register = random.choice((1, 3, 5))
    value = random.choice((0xFF, 0xC0, random.randrange(60), 0, 0x59, 0x23))
    return write(register, value, pause(random))


def session(random: random.Random, count: int, rates: Sequence[int] = RATES) -> list[Access]:
    steps: list[Access] = []
    while len(steps) < count:
        kind, wait = random.random(), pause(random)
        if kind < 0.12:
            divider = random.choice((0x20, 0x20, 0x20, 0x00, 0x60, 0x70, 0x30))
            rate = random.choice(rates)
            steps += write(A, divider | rate | random.choice((0, 0x80)), wait)
        elif kind < 0.27:
            enabled = random.choice((0, 0x40, 0x40, 0x50, 0x60, 0x30, 0x70, 0x10))
            mode = random.choice((2, 2, 2, 0, 6))
            steps += write(B, enabled | mode | (random.random() < 0.15) << 7, wait)
        elif kind < 0.36:
            steps += alarm(random)
        elif kind < 0.42:
            steps += time_of_day(random)
        elif kind < 0.62:
            steps += read(C, wait)
        elif kind < 0.72:
            steps += read(random.choice((A, B, D)), wait)
        elif kind < 0.94:
            steps += read(random.choice((0, 0, 2, 4, 6, 7, 8, 9, CENTURY, 0x37, 1, 3, 5)), wait)
        elif kind < 0.96:
            steps.append(Access(wait, "store", HPET_BASE + 0x10, random.choice((0, 1, 2, 3)), 4))
        elif kind < 0.97:
            steps.append(Access(wait, "out", RTC_INDEX, random.choice((C, B)) | 0x0200, 2))
        else:
            steps.append(Access(wait, "in", RTC_INDEX, 0, random.choice((1, 2, 4))))
    return steps[:count]


@pytest.mark.parametrize("qemu", QEMUS)
def test_rtc_random_sessions_agree_with_qemu(qemu: str) -> None:
    machines = pair(qemu, SHIFT)
    for seed in range(SESSIONS):
        machines.agree(session(rng("rtc", seed), ACCESSES))


@pytest.mark.parametrize("qemu", QEMUS)
def test_rtc_that_delivers_lost_ticks_later_agrees_with_qemu(qemu: str) -> None:
    machines = pair(qemu, SHIFT, slew, SLEW)
    machines.agree(session(rng("rtc-slew", 0), ACCESSES, SLOW_RATES))


@pytest.mark.parametrize("qemu", QEMUS)
def test_rtc_update_in_progress_begins_and_ends_like_qemu(qemu: str) -> None:
    steps = write(B, 0x12) + read(C, 999_000_000 // PAUSE_NS)
    for _ in range(200):
        steps += read(A, 10)
    pair(qemu, SHIFT).agree(steps + read(C))
