"""Random steps for an IOAPIC: loaded states, lines, redirection table entries, its window."""

import random

from support.differential import Step
from support.kernel_machine import Entries
from support.lapic_steps import GUEST_MODES, random_dest, random_vector
from userspace_chip.architecture import IOAPIC_BASES, IOAPIC_PINS, IOREGSEL, IOWIN

MASKED = 1 << 16
OTHER_MODES = 6 << 8
"""Delivery mode bits that are neither fixed nor lowest priority: they could stop a vCPU."""


def random_rte(rng: random.Random) -> int:
    return (
        random_vector(rng)
        | rng.choice(GUEST_MODES) << 8
        | rng.randrange(2) << 11
        | rng.randrange(8) << 12
        | rng.randrange(2) << 15
        | (MASKED if rng.random() < 0.25 else 0)
        | random_dest(rng) << 56
        | (rng.getrandbits(39) << 17 if rng.random() < 0.1 else 0)
    )


def random_entries(rng: random.Random) -> Entries:
    """Entries as a guest can have made them: an edge pin has no remote IRR."""
    entries = []
    for pin in range(IOAPIC_PINS):
        if rng.random() < 0.8:
            rte = random_rte(rng) & ~(1 << 12)
            entries.append((pin, rte if rte >> 15 & 1 else rte & ~(1 << 14)))
    return tuple(entries)


def load_step(rng: random.Random) -> Step:
    irr = rng.getrandbits(IOAPIC_PINS) & rng.getrandbits(IOAPIC_PINS) & rng.getrandbits(IOAPIC_PINS)
    return Step("load_ioapic", (rng.randrange(256), rng.randrange(16), irr, random_entries(rng)))


def rte_step(rng: random.Random, pin: int) -> Step:
    half = 1 if rng.random() < 0.25 else 0
    return Step("rte", (pin, half, random_rte(rng) >> 32 * half & 0xFFFF_FFFF))


def window_step(rng: random.Random, vcpu: int) -> Step:
    """An access to the register page, of any size, at any register."""
    size = rng.choice((1, 2, 4, 4, 4))
    offset = rng.choice((IOREGSEL, IOREGSEL, IOWIN, IOWIN, 0x20, 0x40, 0xF0))
    address = IOAPIC_BASES[0] + offset
    if rng.random() < 0.5:
        return Step("read", (vcpu, address, size))
    value = rng.choice((rng.randrange(4), rng.randrange(0x44), rng.getrandbits(8 * size)))
    if offset == IOWIN:
        value &= ~OTHER_MODES
    return Step("write", (vcpu, address, value & (1 << 8 * size) - 1, size))
