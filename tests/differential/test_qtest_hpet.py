"""QEMU's HPET against the model: the same accesses at the same virtual times on both.

Compared: the value of every read, every drive of a GSI and every message, with the PIT, whose line
goes through the HPET.  The guest is ``support.timed_guest``.

Not tried: periods below 100 ticks (7.2 would do nothing else), and what ends QEMU: before 9.1 a
32-bit period whose lower half is 0, and periods of which it would take QEMU years to add enough.
"""

from __future__ import annotations

import random

import pytest

from support.board import rng
from support.qemus import QEMUS
from support.timed_chips import pair
from support.timed_guest import Access
from userspace_chip.architecture import HPET_BASE

pytestmark = pytest.mark.live

SESSIONS = 5
ACCESSES = 1500
CONFIG, STATUS, COUNTER, TIMER = 0x10, 0x20, 0xF0, 0x100


def load(offset: int, pause: int = 1, size: int = 4) -> Access:
    return Access(pause, "load", HPET_BASE + offset, 0, size)


def store(offset: int, value: int, pause: int = 1, size: int = 4) -> Access:
    return Access(pause, "store", HPET_BASE + offset, value, size)


def pause(random: random.Random) -> int:
    kind = random.random()
    if kind < 0.4:
        return 1
    return random.randrange(1, 2_000 if kind < 0.8 else 30_000)


def config(random: random.Random, flavour: str) -> int:
    """Of a timer: interrupts mostly on; routes with and without a pin."""
    value = random.choice((0x4, 0x4, 0x6, 0x6, 0x0, 0x2))
    value |= random.choice((0, 2, 8, 16, 20, 23, 24, 31)) << 9
    if flavour != "once" and random.random() < 0.5:
        value |= 0x8 | random.choice((0, 0x40))
    if flavour != "long" and random.random() < 0.5:
        value |= 0x100
    if random.random() < 0.1:
        value |= 0x4000
    if random.random() < 0.05:
        value |= 0xFFFF80B1 if flavour == "mixed" else 0x80B1
    return value


def session(random: random.Random, count: int, flavour: str) -> list[Access]:
    """``mixed`` writes no upper halves, ``once`` has no periodic timers, ``long`` no 32 bits."""
    steps: list[Access] = []
    upper = {"mixed": (0,), "once": (0, 0, 1, 0xFFFFFFFF), "long": (0, 0, 1)}[flavour]
    for timer in range(4):
        steps += [
            store(TIMER + timer * 0x20 + 0x10, 0x4030 + timer),
            store(TIMER + timer * 0x20 + 0x14, 0xFEE00000),
        ]
    while len(steps) < count:
        register = TIMER + random.choice((0, 0, 1, 1, 2, 3)) * 0x20
        kind, wait = random.random(), pause(random)
        if kind < 0.20:
            steps.append(store(register, config(random, flavour), wait))
        elif kind < 0.40:
            value = random.choice((100, 1000, random.randrange(100, 100_000), 0xFFFFFFFF))
            if random.random() < 0.1:
                value = random.getrandbits(32) | 0x100
            steps.append(store(register + 8, value, wait))
            if flavour != "mixed" and random.random() < 0.3:
                steps.append(store(register + 12, random.choice(upper), pause(random)))
        elif kind < 0.50:
            steps.append(store(CONFIG, random.choice((0, 1, 1, 1, 2, 3, 3)), wait))
        elif kind < 0.58:
            steps.append(store(STATUS, random.choice((1, 2, 4, 8, 0xFFFFFFFF)), wait))
        elif kind < 0.63:
            near = random.randrange(1, 100_000)
            value = random.choice((0, 0, near, 0xFFFFFFFF - near, 0x7FFFFFFF - near))
            steps.append(store(CONFIG, random.choice((0, 0, 2)), wait))
            steps.append(store(COUNTER, value, pause(random)))
            if flavour != "mixed":
                steps.append(store(COUNTER + 4, random.choice((0, 0, 1)), pause(random)))
            steps.append(store(CONFIG, 1, pause(random)))
        elif kind < 0.66:
            size, value = random.choice(((1, 0x55), (2, 0x0104), (8, 0x104), (8, 100)))
            offset = random.choice((0, 8, CONFIG, STATUS))
            target = register + offset if offset < 16 else offset
            steps.append(store(target + random.choice((0, 0, 2)), value, wait, size))
        elif kind < 0.72:
            offset = random.choice((0, 4, CONFIG, STATUS, COUNTER, TIMER, TIMER + 8))
            steps.append(load(offset, wait, random.choice((1, 2, 8, 8))))
        else:
            offset = random.choice((0, 4, 8, 12, 16, 20, 24, 28))
            other = random.choice((CONFIG, STATUS, STATUS, COUNTER, COUNTER + 4, 0, 4, 0x14, 0x28))
            steps.append(load(register + offset if random.random() < 0.6 else other, wait))
    return steps[:count]


@pytest.mark.parametrize("qemu", QEMUS)
def test_hpet_random_sessions_agree_with_qemu(qemu: str) -> None:
    machines = pair(qemu)
    for seed in range(SESSIONS):
        flavour = ("mixed", "once", "long")[seed % 3]
        machines.agree(session(rng("hpet", seed), ACCESSES, flavour))


@pytest.mark.parametrize("qemu", QEMUS)
def test_hpet_every_register_reads_like_qemu(qemu: str) -> None:
    pair(qemu).agree([load(offset) for offset in range(0, 0x400, 4)])


@pytest.mark.parametrize("qemu", QEMUS)
def test_hpet_legacy_replacement_cuts_off_the_pit_like_qemu(qemu: str) -> None:
    pair(qemu).agree(
        [
            Access(1, "out", 0x43, 0x34),
            Access(1, "out", 0x40, 50),
            Access(1, "out", 0x40, 0),
            store(CONFIG, 3, 100_000),
            store(TIMER, 0x4, 100_000),
            store(TIMER + 8, 30_000),
            load(STATUS, 200_000),
            store(CONFIG, 1, 100_000),
            load(STATUS, 200_000),
        ]
    )
