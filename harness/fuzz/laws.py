"""Laws that hold of a program's log on every backend, whatever its versions: no model is asked.

They are of the architecture, not of an implementation: SDM 3A, chapter "Advanced Programmable
Interrupt Controller (APIC)"; Intel 82093AA, 3.2.4.  A law says nothing of programs for which it
would need to know more than their text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

from harness.scenario.compare import describe, unordered_steps
from harness.scenario.finding import LogFinding, What
from harness.scenario.log import Log, LogEvent
from harness.scenario.program import NMI_ENTRY, Op, Opcode, Program
from userspace_chip.architecture import (
    IOAPIC_PINS,
    IOREDTBL,
    MASTER_COMMAND,
    MSR_APIC_BASE,
    MSR_X2APIC,
    SLAVE_COMMAND,
)
from userspace_chip.lapic_registers import (
    ICR,
    ISR,
    LVT0,
    LVT1,
    LVT_CMCI_REG,
    LVTERR,
    LVTPC,
    LVTT,
    LVTTHMR,
    MASKED,
    PPR,
    SELF_IPI,
    SPIV,
    TPR,
)

LEAST_VECTOR: Final = 16
_MAIN: Final = 1
_REMOTE_IRR: Final = 1 << 14
_LEVEL: Final = 1 << 15
_LVTS: Final = frozenset({LVTT, LVTTHMR, LVTPC, LVT0, LVT1, LVTERR, LVT_CMCI_REG})
_MSI_OFFSET: Final = 0
"""A store there is a message to QEMU's local APIC (``hw/intc/apic.c``, ``apic_mem_write``)."""
_PIC_COMMANDS: Final = (MASTER_COMMAND, SLAVE_COMMAND)
_PIC_VECTORS: Final = frozenset(range(0x20, 0x30))
"""Of the baseline; they do not count, whatever is masked."""
_ICW1: Final = 0x10
_ISR_WORDS: Final = tuple(range(ISR, ISR + 0x80, 0x10))
_PRIORITY_READ: Final = (TPR, *_ISR_WORDS, PPR)
"""The registers that a step reads whose PPR is checked, in this order."""

Broken: TypeAlias = Iterator[tuple[LogEvent, str]]


@dataclass(frozen=True)
class _Case:
    """A program and one of its logs."""

    program: Program
    log: Log

    @cached_property
    def operations(self) -> tuple[Op, ...]:
        """All but those of the prologue."""
        return tuple(op for block in self.program.blocks[1:] for op in block)

    @cached_property
    def main(self) -> tuple[Op, ...]:
        return self.program.blocks[_MAIN]

    @cached_property
    def vectors(self) -> frozenset[int] | None:
        """Every vector that something unmasked may send; None where that is not known."""
        found = {0xFF}
        for op in self.operations:
            if (of_op := _vectors_of(op)) is None:
                return None
            found |= of_op
        return frozenset(found)


def _vectors_of(op: Op) -> set[int] | None:
    """The vectors that an operation lets come; None: it may be any."""
    low = op.b & 0xFFFFFFFF
    match op.opcode:
        case Opcode.LAPIC_WRITE if op.a in (_MSI_OFFSET, ICR, SELF_IPI, SPIV):
            return {low & 0xFF}
        case Opcode.LAPIC_WRITE if op.a in _LVTS:
            return set() if low & MASKED else {low & 0xFF}
        case Opcode.IOAPIC_WRITE if op.a >= IOREDTBL:
            is_low = not op.a & 1
            return set() if not is_low or low & MASKED else {low & 0xFF}
        case Opcode.MSI:
            return {low & 0xFF}
        case Opcode.MMIO_WRITE:
            return None
        case Opcode.MSR_WRITE if op.a != MSR_APIC_BASE:
            return None if op.a >= MSR_X2APIC else set()
        case Opcode.PIO_WRITE if op.a in _PIC_COMMANDS:
            return None if low & _ICW1 else set()
    return set()


# --- The laws -----------------------------------------------------------------------------------


def _priorities_nest(case: _Case) -> Broken:
    """What is taken has a higher class than all else in service.

    SDM 3A, "Interrupt, Task, and Processor Priority": PPR is at least the class in service, and
    only a higher class is dispensed.
    """
    for event in case.log.events:
        if event.kind != "irq" or len(event.args) < 4 or event.args[2] in "-?":
            continue
        vector = int(event.args[0], 16)
        in_service = [int(word, 16) for word in event.args[2].split(",")]
        others = [one for one in in_service if one != vector]
        if min(in_service) < LEAST_VECTOR:  # reserved: what has no class has no priority
            continue
        if vector in in_service and others and max(others) >> 4 >= vector >> 4:
            yield event, f"{max(others):#x} is in service"


def _ppr_is_of_tpr_and_isr(case: _Case) -> Broken:
    """PPR is the greater of TPR and the class in service.

    SDM 3A, "Task and Processor Priorities": PPR[7:4] is the greater of TPR[7:4] and ISRV[7:4].
    """
    for values in _priority_reads(case):
        tpr, *isr, ppr = [int(event.args[0], 16) for event in values]
        bitmap = sum(word << 32 * number for number, word in enumerate(isr))
        highest = max(bitmap.bit_length() - 1, 0)
        expected = max(tpr & 0xF0, highest & 0xF0)
        if ppr & 0xF0 != expected:
            yield values[-1], f"TPR is {tpr:#x} and {highest:#x} is in service"


def _priority_reads(case: _Case) -> Iterator[list[LogEvent]]:
    """The values of each step that reads TPR, ISR and PPR and in which nothing else happens."""
    by_step: dict[int, list[Op]] = {}
    for op in case.main:
        by_step.setdefault(op.step, []).append(op)
    for step, ops in by_step.items():
        if tuple(op.a for op in ops if op.opcode is Opcode.LAPIC_READ) != _PRIORITY_READ:
            continue
        events = [event for event in case.log.events if event.step == step]
        if len(ops) == len(events) == len(_PRIORITY_READ) and {e.kind for e in events} == {"read"}:
            yield events


def _nothing_from_a_masked_source(case: _Case) -> Broken:
    """No interrupt has a vector that only masked entries have, or none.

    82093AA, 3.2.4, "Interrupt Mask"; SDM 3A, "Local Vector Table".
    """
    if case.vectors is None:
        return
    for event in case.log.events:
        if event.kind in ("irq", "cut"):
            vector = int(event.args[0], 16)
            if vector not in case.vectors and vector not in _PIC_VECTORS:
                yield event, "nothing that is unmasked has this vector"


def _remote_irr_of_level_entries(case: _Case) -> Broken:
    """Remote IRR is set in level-triggered entries only (82093AA, 3.2.4, "Remote IRR")."""
    reads: dict[tuple[int, int], list[Op]] = {}
    for op in case.main:
        if op.opcode in _LOGGED_READS:
            reads.setdefault((op.step, op.cpu), []).append(op)
    for (step, cpu), ops in reads.items():
        events = [
            event
            for event in case.log.events
            if (event.step, event.cpu) == (step, cpu) and event.kind in ("read", "gp")
        ]
        if len(events) != len(ops):  # handlers read as well
            continue
        for op, event in zip(ops, events, strict=True):
            if _reads_redirection_low(op) and _is_impossible(int(event.args[0], 16)):
                yield event, "an edge-triggered entry"
    for event in case.log.events:
        for word in event.args[4:] if event.kind == "irq" else ():
            if _is_impossible(int(word.partition("=")[2], 16)):
                yield event, "an edge-triggered entry"


_LOGGED_READS: Final = frozenset(
    {Opcode.LAPIC_READ, Opcode.IOAPIC_READ, Opcode.MMIO_READ, Opcode.PIO_READ, Opcode.MSR_READ}
)


def _reads_redirection_low(op: Op) -> bool:
    entry = IOREDTBL <= op.a < IOREDTBL + 2 * IOAPIC_PINS
    return op.opcode is Opcode.IOAPIC_READ and entry and not op.a & 1


def _is_impossible(entry: int) -> bool:
    return bool(entry & _REMOTE_IRR) and not entry & _LEVEL


def _nothing_with_interrupts_off(case: _Case) -> Broken:
    """Between CLI and STI a CPU takes no interrupt.

    SDM 3A, "Masking Maskable Hardware Interrupts".  In a handler of NMIs an STI lets them in again;
    such programs are passed over.
    """
    nmi = [h.block for h in case.program.handlers if h.vector == NMI_ENTRY]
    if any(op.opcode is Opcode.STI for block in nmi for op in case.program.blocks[block]):
        return
    off = _steps_with_interrupts_off(case)
    for event in case.log.events:
        if event.kind in ("irq", "cut") and event.step in off.get(event.cpu, ()):
            yield event, "interrupts are off"


def _steps_with_interrupts_off(case: _Case) -> dict[int, set[int]]:
    """By CPU, the steps from after a CLI to before the next STI, INIT, sleep or parallel step."""
    off: dict[int, set[int]] = {}
    steps = sorted({op.step for op in case.main})
    is_off: set[int] = set()
    by_step: dict[int, list[Op]] = {}
    for op in case.main:
        by_step.setdefault(op.step, []).append(op)
    for step in steps:
        ops = by_step[step]
        if any(op.opcode in _UNCLEAR for op in ops):
            return off
        for op in ops:
            if op.opcode is Opcode.STI:
                is_off.discard(op.cpu)
        for cpu in is_off:
            off.setdefault(cpu, set()).add(step)
        for op in ops:
            if op.opcode in (Opcode.CLI, Opcode.STI):
                is_off.discard(op.cpu)
            if op.opcode is Opcode.CLI:
                is_off.add(op.cpu)
    return off


_UNCLEAR: Final = frozenset({Opcode.PARALLEL, Opcode.OFFLINE, Opcode.HLT})


def _no_more_than_was_sent(case: _Case) -> Broken:
    """A vector that only steps send, as messages, is taken no more often than they do.

    Conservation: the local APIC makes no interrupts (SDM 3A, "Acceptance of Interrupts").
    """
    if case.vectors is None:
        return
    sent: dict[int, int] = {}
    unbounded: set[int] = {0xFF, *_PIC_VECTORS}
    inside = {id(op) for op in case.main}
    for op in case.operations:
        vectors = _vectors_of(op) or set()
        is_message = op.opcode is Opcode.MSI or (
            op.opcode is Opcode.LAPIC_WRITE and op.a in (ICR, SELF_IPI)
        )
        if not is_message or id(op) not in inside:
            unbounded |= vectors
            continue
        for vector in vectors:
            sent[vector] = sent.get(vector, 0) + 1
    taken: dict[tuple[int, int], int] = {}
    for event in case.log.events:
        if event.kind != "irq":
            continue
        vector = int(event.args[0], 16)
        count = taken[event.cpu, vector] = taken.get((event.cpu, vector), 0) + 1
        if vector in sent and vector not in unbounded and count == sent[vector] + 1:
            yield event, f"it was sent {count - 1} times"


LAWS: Final[dict[str, Callable[[_Case], Broken]]] = {
    "priorities nest": _priorities_nest,
    "PPR is of TPR and ISR": _ppr_is_of_tpr_and_isr,
    "nothing from a masked source": _nothing_from_a_masked_source,
    "remote IRR of level entries only": _remote_irr_of_level_entries,
    "nothing with interrupts off": _nothing_with_interrupts_off,
    "no more than was sent": _no_more_than_was_sent,
}


def broken(program: Program, log: Log) -> tuple[LogFinding, ...]:
    """The laws that ``log`` breaks, each once, in the order of the steps."""
    case = _Case(program, log)
    found = []
    unordered = unordered_steps(program)
    for name, law in LAWS.items():
        first = next((one for one in law(case) if one[0].step not in unordered), None)
        if first is not None:
            event, why = first
            text = f"step {event.step}, CPU {event.cpu}: {describe(event)}, but {why}"
            found.append(LogFinding(What.BREAKS_LAW, event.kind, name, event.step, text))
    return tuple(sorted(found, key=lambda one: one.step))
