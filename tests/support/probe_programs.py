"""Programs for the probe, each with what has to be logged wherever the architecture rules alone."""

from __future__ import annotations

from harness.scenario.program import Detail, Feature, Handler, Op, Opcode, Program
from support.scenario_programs import (
    CLI,
    EOI,
    HLT,
    ICR,
    INIT,
    LDR,
    LEVEL,
    LINT0,
    LVTT,
    MASKED,
    NMI,
    OTHERS,
    SELF,
    SIPI,
    STI,
    SVR,
    TDCR,
    TMICT,
    TPR,
    await_cpu,
    handler,
    inb,
    ipi,
    lapic,
    line,
    msi,
    on,
    outb,
    program,
    read,
    rte,
    wait,
)

LINE = 6
RTC_PIN = 8
ENTRY = 0x10 + 2 * LINE
MS = 1_000_000
"""Of the local APIC's timer, undivided: nanoseconds."""


def _entry() -> Op:
    return Op(Opcode.IOAPIC_READ, ENTRY)


def edge() -> Program:
    """Two pulses are two interrupts."""
    pulse = [line(LINE, 1), line(LINE, 0)]
    return program(rte(LINE, 0x77), pulse, pulse, _entry())


def level() -> Program:
    """One interrupt, remote IRR while it is in service, TMR set."""
    return program(
        rte(LINE, LEVEL | 0x51),
        line(LINE, 1),
        _entry(),
        blocks=[[line(LINE, 0), EOI]],
        handlers=(handler(0x51, pins=1 << LINE),),
    )


def rtc() -> Program:
    """An interrupt of the pin of the real-time clock."""
    return program(rte(RTC_PIN, 0x58), [line(RTC_PIN, 1), line(RTC_PIN, 0)])


def rtc_nmi() -> Program:
    """An NMI of that pin: KVM with ``on`` waits for its EOI for ever."""
    return program(rte(RTC_PIN, NMI), [line(RTC_PIN, 1), line(RTC_PIN, 0)])


def storm() -> Program:
    """Nobody lowers the line; the handler is cut, and the CPU goes on with interrupts off."""
    return program(
        rte(LINE, LEVEL | 0x51),
        line(LINE, 1),
        line(LINE, 0),
        ipi(0x61 | SELF),
        blocks=[[EOI]],
        handlers=(handler(0x51, detail=Detail.COUNT, limit=20),),
    )


def ipis() -> Program:
    """Physical, to itself, to the others."""
    return program(
        ipi(0x41, dest=1), on(ipi(0x42), 1), ipi(0x43 | SELF), on(ipi(0x44 | OTHERS), 1), cpus=2
    )


def ipis_to_three() -> Program:
    """To all others, and by logical destination."""
    return program(ipi(0x41 | OTHERS), on(ipi(0x61 | 1 << 11, dest=0xA), 2), cpus=4)


def nested() -> Program:
    """The higher vector interrupts the handler of the lower one."""
    return program(
        ipi(0x41 | SELF),
        blocks=[[ipi(0x51 | SELF), STI, EOI], [EOI]],
        handlers=(handler(0x41, 2), handler(0x51, 3)),
    )


def held_off() -> Program:
    """By IF and by TPR."""
    return program(
        CLI, ipi(0x41 | SELF), read(0x220), STI, lapic(TPR, 0x60), ipi(0x51 | SELF), lapic(TPR, 0)
    )


def timer_wakes() -> Program:
    """A one-shot timer ends HLT."""
    return program([lapic(TDCR, 0xB), lapic(LVTT, 0x31), lapic(TMICT, 300 * MS), HLT])


def lost_in_wait() -> Program:
    """An interrupt that never comes: a line, not a hang."""
    return program(wait(0x31, us=2000), read(LDR))


def lost_in_hlt() -> Program:
    """CPU 0 sleeps for nothing; another CPU's watchdog wakes it."""
    return program(HLT, read(LDR), cpus=2)


def other_sleeps() -> Program:
    """Another CPU in HLT: woken by an IPI, and then by none."""
    return program(
        on(HLT, 1), ipi(0x41, dest=1), await_cpu(1), on(HLT, 1), await_cpu(1, us=2000), cpus=2
    )


def nmis() -> Program:
    """Each to the other."""
    return program(ipi(NMI, dest=1), on(ipi(NMI), 1), cpus=2)


def init_sipi() -> Program:
    """INIT and SIPI, and the CPU says from where it came; its local APIC is as after a reset."""
    return program(
        Op(Opcode.OFFLINE, 2),
        ipi(INIT, dest=1),
        ipi(SIPI | 0x33, dest=1),
        await_cpu(1),
        read(SVR, cpu=1),
        cpus=2,
    )


def extint() -> Program:
    """The PIC through LINT0."""
    return program(
        lapic(LINT0, 0x700),
        outb(0x21, 0xFF & ~(1 << LINE)),
        line(LINE, 1),
        line(LINE, 0),
        inb(0x20),
        blocks=[[outb(0x20, 0x20)]],
        handlers=(handler(0x20 + LINE),),
    )


def faults() -> Program:
    """The PIC gives vector 6, for which nobody asked: an exception; the other CPU goes on."""
    words = [outb(0x20, 0x11), outb(0x21, 0), outb(0x21, 4), outb(0x21, 1)]
    return program(
        lapic(LINT0, 0x700),
        [*words, outb(0x21, 0xFF & ~(1 << LINE))],
        line(LINE, 1),
        read(LDR),
        read(LDR, cpu=1),
        cpus=2,
    )


def msr_faults() -> Program:
    """An MSR that there is not."""
    return program(Op(Opcode.MSR_READ, 0x12345), Op(Opcode.MSR_WRITE, 0x12345, 1), read(LDR))


def messages() -> Program:
    """Two messages to one CPU, one to the other."""
    return program(msi(0x61), msi(0x62), msi(0x63, dest=1), cpus=2, needs=Feature.MSI)


def x2apic() -> Program:
    """Mode switch, IPIs by MSR, self IPI, and a #GP for a register that the mode has not."""
    return program(
        Op(Opcode.MSR_WRITE, 0x1B, 0xFEE00D00),
        read(0x20),
        lapic(ICR, 0x4041, 0),
        lapic(0x3F0, 0x51),
        lapic(0xE0, 0),
        needs=Feature.X2APIC,
    )


def together() -> Program:
    """Two CPUs at the same time, each with its own block."""
    return program(
        Op(Opcode.PARALLEL, 3, 2),
        cpus=2,
        blocks=[[ipi(0x41 | SELF), read(LDR)], [ipi(0x42 | SELF), read(LDR)]],
    )


def memory() -> Program:
    """Accesses of all sizes, to memory."""
    address = 0x3000000
    return program(
        Op(Opcode.MMIO_WRITE, address, 0x11223344, 0x55667788, size=8),
        *(Op(Opcode.MMIO_READ, address, size=size) for size in (1, 2, 4, 8)),
    )


def untidy() -> Program:
    """Leaves behind what it can: vectors pending and in service, TMR, timers, a mode, lines."""
    return program(
        [lapic(TDCR, 3), lapic(LVTT, 0x20031), lapic(TMICT, 100 * MS), CLI],
        [*rte(3, LEVEL | 0x55, dest=1), line(3, 1), line(9, 1)],
        ipi(0x61 | SELF),
        [ipi(0x62 | SELF), STI],
        [lapic(TPR, 0xF0), ipi(0x63 | OTHERS), ipi(0x05, dest=1)],
        [lapic(0x280, 0), read(0x3F0)],
        [lapic(LDR, 0x40 << 24), lapic(0xE0, 0x0FFFFFFF, cpu=1), lapic(0x20, 0x33 << 24, cpu=1)],
        [outb(0x21, 0), outb(0x4D0, 0x20), outb(0x43, 0x34), outb(0x40, 0), outb(0x40, 0x40)],
        lapic(LVTT, MASKED | 0x31),
        Op(Opcode.HLT, cpu=1),
        cpus=2,
        blocks=[[]],
        handlers=(Handler(0x61, 2), Handler(0x55, 2), Handler(0x63, 2)),
    )


def no_way_back() -> Program:
    """Switches the local APIC off, which QEMU 7.2's own cannot undo."""
    return program(Op(Opcode.MSR_WRITE, 0x1B, 0xFEE00100))


def busy() -> Program:
    """About the size of a scenario: eight steps, three interrupts."""
    return program(
        rte(LINE, LEVEL | 0x51),
        line(LINE, 1),
        _entry(),
        rte(7, 0x61),
        line(7, 1),
        line(7, 0),
        ipi(0x71 | SELF),
        read(TPR),
        blocks=[[line(LINE, 0), EOI], [EOI]],
        handlers=(handler(0x51, pins=1 << LINE), handler(0x61, 3), handler(0x71, 3)),
    )


def without_slow_prologue(made: Program) -> Program:
    """As compiled scenarios are: what the probe's reset does is not done again."""
    done = {Opcode.PIO_WRITE, Opcode.LAPIC_WRITE, Opcode.DELAY}
    prologue = tuple(op for op in made.blocks[0] if op.opcode not in done)
    return Program(made.name, made.cpus, (prologue, *made.blocks[1:]), made.handlers, made.needs)
