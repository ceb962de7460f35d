"""QEMU's IOAPIC against the model: the same steps on both, every visible effect compared.

Compared after each step: the value read, every trace event of the IOAPIC and the PICs in order,
the message that arrives at the local APICs' window with all its fields, the PIC's INTR wire; and
the text of ``info pic`` now and then.

Not observable without a running CPU: whether the local APIC takes the message (another test's
subject), and the EOI that a CPU writes (the EOI register does the same broadcast).  In split the
message goes to the kernel, which is not seen here either, but every route update and commit is.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from support.board import (
    EOIR,
    IOAPIC_BASE,
    IOREGSEL,
    IOWIN,
    Board,
    Machine,
    Step,
    Subject,
    compare,
    rng,
)
from support.qemus import QEMUS, find_qemu, require_kvm
from userspace_chip.events import EVENT_TYPES
from userspace_chip.profile import Mode, tune
from userspace_chip.profile import profile as make_profile

pytestmark = pytest.mark.live

SESSIONS = 16
STEPS = 2500

VECTORS = (0x00, 0x07, 0x10, 0x31, 0x41, 0x55, 0x80, 0xFF)
OFFSETS = (0x00, 0x0C, 0x0E, 0x10, 0x11, 0x12, 0x14, 0x3C, 0x40, 0x44, 0x100, 0x110, 0xFF8)


def redirection_entry(random: random.Random, high: bool) -> int:
    if high:
        noise = random.getrandbits(24) if random.random() < 0.1 else 0
        return random.choice((0, 0, 1, 2, 3, 0xFF)) << 24 | noise
    value = random.choice(VECTORS)
    if random.random() < 0.4:
        value |= random.randrange(8) << 8  # delivery mode
    value |= random.choice((0, 0x8000))  # trigger
    value |= random.choice((0, 0, 0x10000))  # mask
    value |= random.choice((0, 0x0800))  # destination mode
    if random.random() < 0.1:
        value |= random.getrandbits(32) & 0xFFFE7000  # polarity, read-only and reserved bits
    return value


def access(random: random.Random, operation: str) -> Step:
    size = random.choice("bwlq")
    offset = random.choice(OFFSETS) if random.random() < 0.8 else random.randrange(0xFF8)
    bits = {"b": 8, "w": 16, "l": 32, "q": 64}[size]
    value = random.getrandbits(bits) if operation == "write" else 0
    return Step(operation + size, IOAPIC_BASE + offset, value)


def session(random: random.Random, count: int) -> list[Step]:
    steps: list[Step] = []
    while len(steps) < count:
        kind = random.random()
        if kind < 0.35:
            pin = random.randrange(24)
            steps.append(Step("line", "ioapic", (pin, random.randrange(2))))
        elif kind < 0.60:
            pin, high = random.randrange(24), random.random() < 0.3
            steps.append(Step("writel", IOREGSEL, 0x10 + 2 * pin + high))
            steps.append(Step("writel", IOWIN, redirection_entry(random, high)))
        elif kind < 0.75:
            plain = random.random() < 0.9
            vector = random.choice(VECTORS) if plain else random.getrandbits(32)
            steps.append(Step("writel", EOIR, vector))
        elif kind < 0.82:
            steps.append(Step("writel", IOREGSEL, random.choice((0, 1, 2, random.getrandbits(8)))))
            steps.append(Step("readl", IOWIN))
        elif kind < 0.84:
            steps.append(Step("writel", IOREGSEL, random.randrange(3)))
            steps.append(Step("writel", IOWIN, random.getrandbits(32)))
        elif kind < 0.89:
            steps.append(access(random, "read"))
        elif kind < 0.92:
            steps.append(access(random, "write"))
        elif kind < 0.95:
            chip = random.choice(("pic0", "pic1"))
            steps.append(Step("line", chip, (random.randrange(8), random.randrange(2))))
        else:
            port = random.choice((0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1))
            steps.append(Step("outb", port, random.getrandbits(8)))
    return steps


@pytest.mark.parametrize("qemu", QEMUS)
def test_ioapic_random_sessions_agree_with_qemu(qemu: str) -> None:
    command, profile = find_qemu(qemu)
    for seed in range(SESSIONS):
        compare(Subject(command, profile), session(rng("ioapic", seed), STEPS))


@pytest.mark.parametrize("qemu", QEMUS)
def test_ioapic_version_0x11_agrees_with_qemu(qemu: str) -> None:
    command, profile = find_qemu(qemu)
    subject = Subject(
        command, tune(profile, ioapic__version=0x11), ("-global", "ioapic.version=0x11")
    )
    for seed in range(4):
        compare(subject, session(rng("ioapic-0x11", seed), STEPS))


@pytest.mark.parametrize("qemu", QEMUS)
def test_ioapic_storm_is_throttled_at_the_same_eoi_as_in_qemu(qemu: str) -> None:
    command, profile = find_qemu(qemu)
    steps = [
        Step("writel", IOREGSEL, 0x10 + 2 * 9),
        Step("writel", IOWIN, 0x8041),
        Step("line", "ioapic", (9, 1)),
        *[Step("writel", EOIR, 0x41)] * 10_005,
        Step("writel", IOWIN, 0x8041),  # serviced again, and the counter starts anew
        *[Step("writel", EOIR, 0x41)] * 9_999,
        Step("line", "ioapic", (9, 0)),
        *[Step("writel", EOIR, 0x41)] * 2,
    ]
    compare(Subject(command, profile), steps, checkpoint=5_000)


HALTED = bytes.fromhex("faf4ebfd")  # cli; hlt; jmp -1


@pytest.mark.parametrize("qemu", QEMUS)
def test_ioapic_throttled_interrupt_comes_after_the_delay(qemu: str, tmp_path: Path) -> None:
    command, profile = find_qemu(qemu)
    firmware = tmp_path / "halt.bin"
    firmware.write_bytes(HALTED.rjust(0x10000 - 12, b"\xf4").ljust(0x10000, b"\xf4"))
    # With an idle CPU virtual time jumps from timer to timer.
    args = ("-bios", str(firmware), "-icount", "shift=0,sleep=off")
    storm = [
        Step("writel", IOREGSEL, 0x10 + 2 * 9),
        Step("writel", IOWIN, 0x8041),
        Step("line", "ioapic", (9, 1)),
        *[Step("writel", EOIR, 0x41)] * 10_000,
    ]
    board = Board(profile)
    with Machine(Subject(command, profile, args)) as machine:
        assert machine.steps(storm) == [board.run(step) for step in storm]
        seen = machine.run_until_traced("apic_deliver_irq")
    deadline_ns = board.ioapic.state.delay_deadline_ns
    assert deadline_ns is not None
    board.trace.clear()
    board.ioapic.expire(deadline_ns)
    assert [line for line in seen if line.split()[0] in EVENT_TYPES] == board.trace


@pytest.mark.kvm
@pytest.mark.parametrize("qemu", QEMUS)
@pytest.mark.parametrize("mode", ["split", "off"])
def test_ioapic_under_kvm_agrees_with_qemu(qemu: str, mode: Mode) -> None:
    require_kvm()
    command, tcg = find_qemu(qemu)
    if mode == "off" and tcg.qemu != "7.2":
        pytest.skip(f"QEMU {tcg.qemu} has no kernel-irqchip=off")
    subject = Subject(
        command, make_profile(mode, qemu=tcg.qemu), accel=f"kvm,kernel-irqchip={mode}"
    )
    for seed in range(4):
        compare(subject, session(rng(f"ioapic-{mode}", seed), STEPS))
