"""What every scenario starts from, as operations: the prologue of a program."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from harness.scenario.program import Feature, Op, Opcode, OpFlag
from harness.scenario.registers import REGISTERS, ApicMode
from userspace_chip.architecture import (
    ELCR,
    IOAPIC_PINS,
    IOREDTBL,
    MASTER_COMMAND,
    MSR_APIC_BASE,
    SLAVE_COMMAND,
)
from userspace_chip.lapic_registers import BSP, DEFAULT_BASE, ENABLE, EXTD, MASKED

_LVTS = ("timer", "thermal", "perf", "lint0", "lint1", "error")


def prologue(cpus: int, mode: ApicMode, *, interrupts: bool, needs: Feature) -> tuple[Op, ...]:
    """The baseline of ``docs/scenarios.md``, section "The baseline".

    The PIT is not part of it: the reset before leaves it quiet, and programming a counter moves its
    output once more, later.  What the probe's reset does as well (``images/probe/reset.c``) is
    flagged so.
    """
    return _prologue(cpus, mode, interrupts, 2 if Feature.IOAPIC2 in needs else 1)


@cache
def _prologue(cpus: int, mode: ApicMode, interrupts: bool, ioapics: int) -> tuple[Op, ...]:
    """There are few, and hundreds of scenarios."""
    return (
        *_by_reset(_pic()),
        *_by_reset(_ioapics(ioapics)),
        *(op for cpu in range(cpus) for op in _lapic(cpu, mode)),
        *(Op(Opcode.STI if interrupts else Opcode.CLI, cpu=cpu) for cpu in range(cpus)),
    )


def _by_reset(ops: Iterator[Op]) -> Iterator[Op]:
    return (replace(op, flags=op.flags | OpFlag.BY_RESET) for op in ops)


def _pic() -> Iterator[Op]:
    for chip, base, cascade in ((MASTER_COMMAND, 0x20, 4), (SLAVE_COMMAND, 0x28, 2)):
        for offset, value in ((0, 0x11), (1, base), (1, cascade), (1, 0x01)):
            yield _out(chip + offset, value)
    for chip in (MASTER_COMMAND, SLAVE_COMMAND):
        yield _out(chip + 1, 0xFF)  # OCW1: all masked
        yield _out(chip, 0x00)  # OCW2: no rotation in auto-EOI mode
        yield _out(chip, 0x4A)  # OCW3: no special mask mode, the port reads IRR
    yield _out(ELCR, 0)
    yield _out(ELCR + 1, 0)


def _ioapics(number: int) -> Iterator[Op]:
    """Each entry unmasked and masked again: QEMU's keep the MSI route of when they last were not.

    QEMU ``hw/intc/ioapic.c:ioapic_update_kvm_routes``, split.
    """
    for chip in range(number):
        for index in range(IOREDTBL, IOREDTBL + 2 * IOAPIC_PINS, 2):
            for half, value in ((1, 0), (0, 0), (0, MASKED)):
                yield Op(Opcode.IOAPIC_WRITE, index + half, value, chip)


def _lapic(cpu: int, mode: ApicMode) -> Iterator[Op]:
    if mode is ApicMode.X2APIC:
        base = DEFAULT_BASE | ENABLE | EXTD | (BSP if cpu == 0 else 0)
        yield Op(Opcode.MSR_WRITE, MSR_APIC_BASE, base, cpu=cpu)
    values = {"lapic.svr": 0x1FF, "lapic.tpr": 0}
    if mode is ApicMode.XAPIC:
        values |= {"lapic.id": cpu << 24, "lapic.dfr": 0xFFFFFFFF, "lapic.ldr": 1 << cpu << 24}
    values |= {f"lapic.lvt_{name}": MASKED for name in _LVTS}
    values |= {"lapic.timer_divide": 0, "lapic.timer_initial": 0, "lapic.esr": 0}
    writes = [(REGISTERS[name].address, value) for name, value in values.items()]
    yield from _by_reset(Op(Opcode.LAPIC_WRITE, *write, cpu=cpu) for write in writes)


def _out(port: int, value: int) -> Op:
    return Op(Opcode.PIO_WRITE, port, value, size=1)
