"""QEMU's 8259 pair against the model: the same steps on both, every visible effect compared.

Compared after each step: the value read, every trace event of the PICs in order, the INTR wire
(intercepted at the master, and as the board sees it); and ``info pic`` now and then.

The INTA cycle that a CPU would do is done by an IOAPIC entry in ExtINT mode: QEMU's IOAPIC
acknowledges the PIC when it services one, and its message to the local APIC shows the vector.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from support.board import IOREGSEL, IOWIN, Step, Subject, compare, rng
from support.qemus import QEMUS, find_qemu

pytestmark = pytest.mark.live

SESSIONS = 16
STEPS = 2500

PORTS = (0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1)
INTA_PIN = 23
PREPARE_INTA = [
    Step("writel", IOREGSEL, 0x10 + 2 * INTA_PIN),
    Step("writel", IOWIN, 0x0700),
]
INTA = Step("line", "ioapic", (INTA_PIN, 1))


def initialisation(random: random.Random, base: int) -> list[Step]:
    """ICW1 to ICW4, sometimes cut short."""
    icw1 = 0x10 | random.getrandbits(4) | (random.random() < 0.8)
    words = [Step("outb", base, icw1)]
    words += [Step("outb", base + 1, random.getrandbits(8)) for _ in range(3)]
    return words if random.random() < 0.8 else words[: random.randrange(1, 4)]


def command_byte(random: random.Random) -> int:
    """An OCW2 or OCW3; every bit pattern of them has the same chance."""
    return random.getrandbits(8) & ~0x10


def session(random: random.Random, count: int) -> list[Step]:
    steps = list(PREPARE_INTA)
    while len(steps) < count:
        kind = random.random()
        chip = random.randrange(2)
        base = (0x20, 0xA0)[chip]
        if kind < 0.35:
            line = (random.randrange(8), random.randrange(2))
            steps.append(Step("line", ("pic0", "pic1")[chip], line))
        elif kind < 0.50:
            steps.append(INTA)
        elif kind < 0.65:
            steps.append(Step("outb", base, command_byte(random)))
        elif kind < 0.70:
            # Few masked inputs, or nothing would ever get through.
            mask = random.getrandbits(8) & random.getrandbits(8)
            steps.append(Step("outb", base + 1, mask))
        elif kind < 0.74:
            steps += initialisation(random, base)
        elif kind < 0.77:
            steps.append(Step("outb", 0x4D0 + chip, random.getrandbits(8)))
        elif kind < 0.83:
            steps.append(Step("outb", base, 0x0C))  # poll
            steps.append(Step("inb", base + random.randrange(2)))
        elif kind < 0.87:
            steps.append(Step("outb", base, random.choice((0x0A, 0x0B))))
            steps.append(Step("inb", base))
        elif kind < 0.96:
            steps.append(Step("inb", random.choice(PORTS)))
        elif kind < 0.98:
            steps.append(Step(random.choice(("inw", "inl")), random.choice(PORTS)))
        else:
            size = random.choice("wl")
            value = random.getrandbits(16 if size == "w" else 32)
            steps.append(Step("out" + size, random.choice(PORTS), value))
    return steps


def agree(qemu: str, steps: Sequence[Step]) -> None:
    command, profile = find_qemu(qemu)
    compare(Subject(command, profile), steps)


@pytest.mark.parametrize("qemu", QEMUS)
def test_pic_random_sessions_agree_with_qemu(qemu: str) -> None:
    for seed in range(SESSIONS):
        agree(qemu, session(rng("pic", seed), STEPS))


@pytest.mark.parametrize("qemu", QEMUS)
def test_pic_spurious_interrupts_agree_with_qemu(qemu: str) -> None:
    program = [
        Step("outb", port, value)
        for base, icw2 in ((0x20, 0x30), (0xA0, 0x70))
        for port, value in ((base, 0x11), (base + 1, icw2), (base + 1, 0), (base + 1, 1))
    ]
    slave_request_gone = [
        Step("line", "pic1", (3, 1)),
        Step("outb", 0xA1, 0xFF),  # the slave has nothing to offer, the master's latch is set
        INTA,
    ]
    agree(qemu, [*PREPARE_INTA, *program, INTA, *slave_request_gone, INTA, Step("inb", 0x20)])
