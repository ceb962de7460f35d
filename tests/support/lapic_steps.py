"""Random steps for local APICs: loaded register pages, MSIs, register accesses in both modes.

What would make a comparison depend on the host is left out: timers count for at least a second and
are never due, TMCCT is not read, a vCPU that runs the guest gets no INIT, SIPI or SMI.
"""

import random

from support.differential import Step
from support.kernel_machine import APIC_ADDRESS, MSR_APIC_BASE, X2APIC_MSRS, Registers
from support.kvm import local_kvm
from userspace_chip import lapic_registers as reg
from userspace_chip.lapic_registers import LVT_REGISTERS

MSR_TSC_DEADLINE = 0x6E0
FAR_COUNT = 0x4000_0000
"""A timer count that is more than a second even undivided."""
FAR_DEADLINE = 1 << 60

GUEST_MODES = (0, 0, 0, 0, 1, 1, 3, 7)
"""Delivery modes that leave a running vCPU where it is (not SMI, NMI, INIT, SIPI)."""
VECTORS = (0x20, 0x21, 0x31, 0x41, 0x5F, 0x08)
"""Few, so that sources share vectors; one that no LAPIC ever delivers."""
ALL_MODES = (*GUEST_MODES, 2, 4, 4, 5, 6)

REGISTERS = tuple(offset for offset in range(0, 0x400, 0x10) if offset != reg.TMCCT)
LVT_OFFSETS = tuple(range(reg.LVTT, reg.LVTT + 0x60, 0x10))
READABLE = (
    *(reg.ID, reg.VERSION, reg.TPR, reg.APR, reg.PPR, reg.LDR, reg.DFR, reg.SPIV),
    *range(reg.ISR, reg.ESR + 0x10, 0x10),
    *(reg.ICR, reg.ICR2, *LVT_OFFSETS, reg.TMICT, reg.TDCR),
)
"""By MMIO; what another read gives depends on how the kernel emulates it: see the docs."""
XAPIC_BASES = (0xFEE0_0900, 0xFEE0_0800)


def few_bits(rng: random.Random) -> int:
    """A vector bitmap with 0 to 3 bits, sometimes one below 16."""
    return sum({1 << rng.randrange(256) for _ in range(rng.randrange(4))})


def random_vector(rng: random.Random) -> int:
    return rng.choice(VECTORS) if rng.random() < 0.7 else rng.randrange(256)


def random_dest(rng: random.Random) -> int:
    usual = (0, 1, 1, 2, 3, 3, 0xFF)
    return rng.choice((*usual, *usual, rng.randrange(16), rng.randrange(256), 0x11, 0x13))


def random_ldr(rng: random.Random, vcpu: int) -> int:
    """Mostly one's own bit; sometimes none, several, a neighbour's or a cluster's."""
    return rng.choice((1 << vcpu, 1 << vcpu, 0x10 | 1 << vcpu, 0, rng.randrange(256))) << 24


def random_dfr(rng: random.Random) -> int:
    return rng.choice((0xFFFF_FFFF,) * 5 + (0x0FFF_FFFF,) * 3 + (rng.randrange(16) << 28,))


def random_icr(rng: random.Random, modes: tuple[int, ...]) -> int:
    shorthand = rng.choice((0, 0, 0, 1, 2, 3))
    high = rng.randrange(16) << 28 if rng.random() < 0.1 else 0
    return (
        high
        | shorthand << 18
        | rng.randrange(4) << 14
        | rng.randrange(2) << 12
        | rng.randrange(2) << 11
        | rng.choice(modes) << 8
        | rng.randrange(256)
    )


def random_msi(rng: random.Random, modes: tuple[int, ...]) -> Step:
    address = 0xFEE0_0000 | random_dest(rng) << 12 | rng.randrange(2) << 2
    if rng.random() < 0.2:
        address |= 8
    if rng.random() < 0.05:
        address ^= rng.getrandbits(64) & 0xFFFF_FF00_0010_0FE3
    data = rng.randrange(4) << 14 | rng.choice(modes) << 8 | random_vector(rng)
    return Step("msi", (address, data))


def random_tpr(rng: random.Random) -> int:
    """SVM's V_TPR has no room for the low nibble: a run of the guest may clear it."""
    return rng.randrange(256) & (0xF0 if local_kvm().module == "kvm_amd" else 0xFF)


def random_page(rng: random.Random, vcpu: int) -> Registers:
    """A register page that a running APIC could have."""
    enabled = 0x100 if rng.random() < 0.85 else 0
    count = rng.choice((0, 0, FAR_COUNT | rng.getrandbits(31)))
    registers = {
        reg.ID: rng.choice((vcpu, vcpu, vcpu, vcpu, rng.randrange(4), rng.randrange(256))) << 24,
        reg.TPR: rng.choice((0, 0, random_tpr(rng))),
        reg.LDR: random_ldr(rng, vcpu),
        reg.DFR: random_dfr(rng),
        reg.SPIV: enabled | rng.randrange(256) | rng.randrange(2) << 9,
        reg.ICR: random_icr(rng, GUEST_MODES) & ~(1 << 12),
        reg.ICR2: rng.randrange(256) << 24,
        reg.TMICT: count,
        reg.TMCCT: count,
        reg.TDCR: rng.choice((0, 1, 2, 3, 8, 9, 10, 11)),
    }
    for offset, register in zip(LVT_OFFSETS, LVT_REGISTERS, strict=False):
        registers[offset] = rng.getrandbits(32) & register.write_mask
    for first in (reg.ISR, reg.TMR, reg.IRR):
        bitmap = few_bits(rng)
        for word in range(8):
            registers[first + 0x10 * word] = bitmap >> 32 * word & 0xFFFF_FFFF
    return tuple((offset, value) for offset, value in registers.items() if value)


def plain_page(rng: random.Random, vcpu: int) -> Registers:
    """An enabled APIC as an OS sets it up, a few of :data:`VECTORS` waiting or in service."""
    registers = {
        reg.ID: vcpu << 24,
        reg.LDR: 1 << vcpu + 24,
        reg.SPIV: 0x1FF | rng.randrange(2) << 9,
    }
    for first in (reg.ISR, reg.TMR, reg.IRR):
        for vector in rng.sample(VECTORS, rng.randrange(3)):
            offset = first + 0x10 * (vector // 32)
            registers[offset] = registers.get(offset, 0) | 1 << vector % 32
    return tuple((offset, value) for offset, value in registers.items() if value)


def load_lapic(rng: random.Random, vcpu: int, plain: float = 0.0) -> Step:
    """Load a page, with probability ``plain`` an ordinary one."""
    page = plain_page if rng.random() < plain else random_page
    return Step("load_lapic", (vcpu, page(rng, vcpu)))


def random_value(rng: random.Random, offset: int, vcpu: int) -> int:
    """A value worth writing to a register."""
    if offset == reg.TPR:
        return rng.getrandbits(24) << 8 | random_tpr(rng)
    if offset == reg.SPIV:
        return rng.getrandbits(32) | (0x100 if rng.random() < 0.8 else 0)
    if offset == reg.LDR:
        return random_ldr(rng, vcpu)
    if offset == reg.DFR:
        return random_dfr(rng)
    if offset == reg.ID:
        return rng.choice((vcpu, vcpu, rng.randrange(4))) << 24
    if offset == reg.TMICT:
        return rng.choice((0, FAR_COUNT | rng.getrandbits(31)))
    if offset == reg.ICR:
        return random_icr(rng, GUEST_MODES)
    if offset == reg.ICR2:
        return random_dest(rng) << 24 | rng.getrandbits(24)
    if offset == reg.SELF_IPI:
        return rng.randrange(256) | (0x100 if rng.random() < 0.2 else 0)
    return rng.choice((rng.getrandbits(32), rng.randrange(256), 0))


USEFUL = (reg.TPR, reg.SPIV, reg.LDR, reg.DFR, reg.ICR, reg.ICR, reg.ICR2, *LVT_OFFSETS)


def mmio_write(rng: random.Random, vcpu: int) -> Step:
    offset = rng.choice((*USEFUL, *USEFUL, *REGISTERS))
    value = random_value(rng, offset, vcpu)
    if rng.random() < 0.05:
        size = rng.choice((1, 2))
        return Step("write", (vcpu, APIC_ADDRESS + offset, value & 0xFF, size))
    return Step("write", (vcpu, APIC_ADDRESS + offset, value))


def mmio_read(rng: random.Random, vcpu: int) -> Step:
    address = APIC_ADDRESS + rng.choice(READABLE)
    size = rng.choice((1, 2, 4, 4, 4, 4))
    return Step("read", (vcpu, address + rng.randrange(0, 5 - size, size), size))


def msr_write(rng: random.Random, vcpu: int) -> Step:
    offset = rng.choice((*USEFUL, reg.SELF_IPI, reg.EOI, *REGISTERS))
    value = random_value(rng, offset, vcpu)
    if offset == reg.ICR:
        value &= 0xFFF_FFFF if rng.random() < 0.9 else 0xFFFF_FFFF
        value |= random_x2apic_dest(rng) << 32
    elif rng.random() < 0.1:
        value |= 1 << rng.randrange(32, 64)
    how = rng.choice(("wrmsr", "wrmsr", "set_msr"))
    return Step(how, (vcpu, X2APIC_MSRS + (offset >> 4), value))


def random_x2apic_dest(rng: random.Random) -> int:
    return rng.choice((0, 1, 2, 3, 0xFF, 0xFFFF_FFFF, 0x1_0001, rng.randrange(8), 0x10))


def msr_read(rng: random.Random, vcpu: int) -> Step:
    how = rng.choice(("rdmsr", "get_msr"))
    return Step(how, (vcpu, X2APIC_MSRS + (rng.choice(REGISTERS) >> 4)))


def base_write(rng: random.Random, vcpu: int) -> Step:
    """IA32_APIC_BASE: modes, illegal transitions, reserved bits; the page stays where it is."""
    value = 0xFEE0_0000 | rng.choice((0x800, 0x800, 0xC00, 0xC00, 0, 0x400))
    if vcpu == 0 or rng.random() < 0.1:
        value |= 0x100
    if rng.random() < 0.1:
        value |= 1 << rng.choice((0, 7, 9, 52, 63))
    return Step(rng.choice(("wrmsr", "set_msr")), (vcpu, MSR_APIC_BASE, value))


def deadline_step(rng: random.Random, vcpu: int) -> Step:
    if rng.random() < 0.5:
        return Step("get_msr", (vcpu, MSR_TSC_DEADLINE))
    value = rng.choice((0, FAR_DEADLINE | rng.getrandbits(40)))
    return Step(rng.choice(("wrmsr", "set_msr")), (vcpu, MSR_TSC_DEADLINE, value))


def register_step(rng: random.Random, vcpu: int) -> Step:
    """One access by the guest or the host."""
    kind = rng.randrange(20)
    if kind < 6:
        return mmio_write(rng, vcpu)
    if kind < 9:
        return mmio_read(rng, vcpu)
    if kind < 12:
        return Step("write", (vcpu, APIC_ADDRESS + reg.EOI, 0))
    if kind < 15:
        return msr_write(rng, vcpu)
    if kind < 17:
        return msr_read(rng, vcpu)
    if kind < 19:
        return base_write(rng, vcpu)
    return deadline_step(rng, vcpu)
