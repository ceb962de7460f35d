"""Random programs: what no author of scenarios thinks of.

Few vectors and pins, so that sources collide.  A program whose log hangs on the order between CPUs
or on time is none (:func:`~harness.scenario.authoring.authoring_problems`).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from random import Random

from harness.scenario.authoring import authoring_problems
from harness.scenario.baseline import prologue
from harness.scenario.execution import Execution
from harness.scenario.log import Log
from harness.scenario.program import (
    ANY_VECTOR,
    NMI_ENTRY,
    Feature,
    Handler,
    Op,
    Opcode,
    OpFlag,
    Program,
)
from harness.scenario.registers import ApicMode
from support.scenario_programs import (
    APIC,
    DFR,
    EOI,
    EOI_IN_SERVICE,
    ICR,
    LDR,
    LEVEL,
    LINT0,
    LVTT,
    MASKED,
    NMI,
    PPR,
    STI,
    SVR,
    TPR,
    changed,
    inb,
    lapic,
    line,
    outb,
    read,
)
from userspace_chip.irqchip import Machine
from userspace_chip.profile import Profile

VECTORS = (0x05, 0x0F, 0x31, 0x35, 0x41, 0x42, 0x51, 0x81, 0xE1)
PINS = (1, 2, 3, 4, 5, 8, 14)
"""ISA lines that no device of the machine uses, but the clock's and the one that is not there."""
LEAST_VECTOR = 16
STEPS = 50
CPUS = 2
"""Of the machine; some programs use one."""
UNSTABLE = {"race", "time", "program"}


def random_programs(
    seed: int, number: int, subject: Profile, pins: Sequence[int] = PINS
) -> list[tuple[Program, Log]]:
    """``number`` of them, each with what is predicted on ``subject``."""
    return list(islice(_predictable(seed, subject, pins), number))


def random_program(seed: int, subject: Profile, pins: Sequence[int] = PINS) -> Program:
    """The program of that number, predictable or not."""
    author = _Author(Random(seed), pins, x2apic=subject.lapic.x2apic)
    return author.program(f"random-{seed}")


def _predictable(seed: int, subject: Profile, pins: Sequence[int]) -> Iterator[tuple[Program, Log]]:
    for each in count(seed):
        program = random_program(each, subject, pins)
        execution = Execution(program, subject, cpus=CPUS)
        log = execution.run()
        if _stops_the_clock(execution.machine):
            continue
        found = authoring_problems(program, subject, log, cpus=CPUS)
        if not any(problem.kind in UNSTABLE for problem in found):
            yield program, log


def _stops_the_clock(machine: Machine) -> bool:
    """KVM waits for the EOI of a vector that no CPU takes: only a new boot helps the RTC's pin."""
    return any(vector < LEAST_VECTOR for vector in machine.ioapics[0].state.rtc_dest_map.values())


class _Author:
    def __init__(self, random: Random, pins: Sequence[int], *, x2apic: bool) -> None:
        self.random = random
        self.pins = pins
        self.cpus = random.choice((1, 1, CPUS))
        self.mode = ApicMode.X2APIC if x2apic and random.random() < 0.4 else ApicMode.XAPIC

    def program(self, name: str) -> Program:
        needs = Feature.X2APIC if self.mode is ApicMode.X2APIC else Feature.NONE
        main: list[Op] = []
        for step in range(self.random.randrange(4, STEPS)):
            ops = self._action()
            settled = [*ops[:-1], changed(ops[-1], flags=ops[-1].flags | OpFlag.SETTLE)]
            main += [changed(op, step=step) for op in settled]
        blocks = [prologue(self.cpus, self.mode, interrupts=True, needs=needs), tuple(main)]
        handlers = [self._handler(v, blocks) for v in VECTORS if self.random.random() < 0.5]
        handlers.append(Handler(ANY_VECTOR, len(blocks), limit=4))
        blocks.append((EOI_IN_SERVICE, outb(0x20, 0x20)))
        if self.random.random() < 0.25:
            handlers.append(self._nmi_handler(blocks))
        return Program(name, self.cpus, tuple(blocks), tuple(handlers), needs)

    def _handler(self, vector: int, blocks: list[tuple[Op, ...]]) -> Handler:
        ops = [op for _ in range(self.random.choice((0, 0, 1, 1, 2))) for op in self._action()]
        if self.random.random() < 0.9:
            eoi = self.random.choice((EOI, EOI_IN_SERVICE))
            ops.insert(self.random.randrange(len(ops) + 1), eoi)
        if self.random.random() < 0.25:
            ops.insert(0, STI)
        blocks.append(tuple(changed(op, cpu=0) for op in ops))
        pins = sum(1 << pin for pin in self.random.sample(self.pins, self.random.randrange(3)))
        return Handler(vector, len(blocks) - 1, pins=pins, limit=self.random.choice((3, 4, 6)))

    def _nmi_handler(self, blocks: list[tuple[Op, ...]]) -> Handler:
        ops = [op for _ in range(self.random.choice((1, 2, 3))) for op in self._action()]
        blocks.append(tuple(changed(op, cpu=0) for op in ops if op.opcode not in _OF_IOAPIC))
        return Handler(NMI_ENTRY, len(blocks) - 1, limit=self.random.choice((2, 3)))

    def _action(self) -> list[Op]:
        return self.random.choice(_ACTIONS)(self)

    @property
    def _cpu(self) -> int:
        return self.random.randrange(self.cpus)

    @property
    def _vector(self) -> int:
        return self.random.choice(VECTORS)

    @property
    def _pin(self) -> int:
        return self.random.choice(self.pins)

    @property
    def _dest(self) -> int:
        return self.random.choice((0, 0, 1, 1, 2, 3, 0xFF))

    def _redirection(self) -> list[Op]:
        pin, low = self._pin, self._vector | self._some(LEVEL) | self._some(MASKED, 0.25)
        low |= self._some(0x100, 0.25) | self._some(0x800, 0.25)
        high = Op(Opcode.IOAPIC_WRITE, 0x11 + 2 * pin, self._dest << 24)
        return [high, Op(Opcode.IOAPIC_WRITE, 0x10 + 2 * pin, low)][self.random.randrange(2) :]

    def _some(self, bits: int, probability: float = 0.5) -> int:
        return bits if self.random.random() < probability else 0

    def _line(self) -> list[Op]:
        return [line(self._pin, self.random.randrange(2))]

    def _pulse(self) -> list[Op]:
        pin = self._pin
        return [line(pin, 1), line(pin, 0)]

    def _ipi(self) -> list[Op]:
        low = self._vector | 0x4000 | self._some(0x100, 0.2) | self._some(0x800)
        low |= self._some(LEVEL, 0.1)
        dest = self._dest if self.mode is ApicMode.X2APIC else self._dest << 24
        return [lapic(ICR, low, dest, cpu=self._cpu)]

    def _shorthand_ipi(self) -> list[Op]:
        shorthand = self.random.choice((1, 1, 2, 3)) << 18
        return [lapic(ICR, self._vector | 0x4000 | shorthand | self._some(NMI, 0.2), cpu=self._cpu)]

    def _msi(self) -> list[Op]:
        address = APIC | self._dest << 12 | self.random.choice((0, 0, 4, 8, 0xC))
        return [Op(Opcode.MSI, address, self._vector | self.random.choice((0, 0, 0x100, 0xC000)))]

    def _lapic_read(self) -> list[Op]:
        maps = [base + 0x10 * word for base in (0x100, 0x180, 0x200) for word in range(8)]
        return [read(self.random.choice((PPR, TPR, SVR, LVTT, LINT0, *maps)), cpu=self._cpu)]

    def _ioapic_read(self) -> list[Op]:
        return [Op(Opcode.IOAPIC_READ, 0x10 + 2 * self._pin)]

    def _priority(self) -> list[Op]:
        return [lapic(TPR, self.random.choice((0, 0, 0x20, 0x45, 0x5F, 0xF0)), cpu=self._cpu)]

    def _interrupt_flag(self) -> list[Op]:
        opcode = self.random.choice((Opcode.STI, Opcode.STI, Opcode.CLI))
        return [Op(opcode, cpu=self._cpu)]

    def _eoi(self) -> list[Op]:
        return [changed(EOI, cpu=self._cpu)]

    def _enable(self) -> list[Op]:
        return [lapic(SVR, self.random.choice((0x1FF, 0x1FF, 0xFF, 0x13F)), cpu=self._cpu)]

    def _logical_id(self) -> list[Op]:
        if self.mode is ApicMode.X2APIC:
            return self._lapic_read()
        if self.random.random() < 0.3:
            return [lapic(DFR, self.random.choice((0xFFFFFFFF, 0x0FFFFFFF)), cpu=self._cpu)]
        ldr = self.random.choice((1, 2, 3, 0x10, 0x11, 0x21, 0xF1)) << 24
        return [lapic(LDR, ldr, cpu=self._cpu)]

    def _lint0(self) -> list[Op]:
        vector = self._vector
        values = (MASKED, MASKED, 0x700, 0x700, NMI, vector, LEVEL | vector)
        return [lapic(LINT0, self.random.choice(values), cpu=self._cpu)]

    def _pic_mask(self) -> list[Op]:
        return [outb(0x21, self.random.choice((0xFF, 0xEF, 0xE7, 0xCF, 0xC4, 0)))]

    def _pic_command(self) -> list[Op]:
        level = self.random.randrange(8)
        commands = (0x20, 0x20, 0x60 | level, 0xA0, 0xC0 | level, 0xE0 | level)
        return [outb(0x20, self.random.choice((*commands, 0x0A, 0x0B, 0x0C, 0x48, 0x68)))]

    def _pic_trigger(self) -> list[Op]:
        return [outb(0x4D0, self.random.choice((0, 0x10, 0x20, 0x38)))]

    def _pic_read(self) -> list[Op]:
        return [inb(self.random.choice((0x20, 0x21, 0xA0, 0x4D0)))]


_OF_IOAPIC = (Opcode.IOAPIC_READ, Opcode.IOAPIC_WRITE)
_ACTIONS: tuple[Callable[[_Author], list[Op]], ...] = (
    *[_Author._line] * 4,
    *[_Author._redirection] * 3,
    *(_Author._pulse, _Author._ipi, _Author._shorthand_ipi, _Author._msi),
    *(_Author._lapic_read, _Author._ioapic_read, _Author._priority, _Author._interrupt_flag),
    *(_Author._eoi, _Author._enable, _Author._logical_id, _Author._lint0),
    *(_Author._pic_mask, _Author._pic_command, _Author._pic_trigger, _Author._pic_read),
)
