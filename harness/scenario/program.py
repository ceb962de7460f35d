"""A compiled scenario: what the probe guest and the model both execute, and its binary form.

**Who executes.**  A program has blocks of operations.  The *main* block is executed in order, each
operation on the CPU that it names, one at a time: CPU 0 conducts and hands an operation to
another CPU, which has ended it before the next one starts.  Operations of one *step* carry the same
step number; after the last one of a step (flag ``SETTLE``) everything comes to rest: every CPU is
made to leave and enter its guest (CPUID), so that what is pending and may be taken is taken,
and this is repeated until a round brings no new event.  CPUs that sleep or are offline are left
out.

**Interrupts.**  At the entry of a vector the CPU logs it, then executes a block of the vector's
:class:`Handler`, interrupts off.  Events carry the step of their CPU: the step that is being
executed, but for a CPU that sleeps (HLT) or is offline (OFFLINE) the step that sent it there, until
an AWAIT for it has ended.  So the log of a CPU does not depend on how fast it woke.

**Bounds.**  Every WAIT, AWAIT and DELAY has its time.  A handler that was entered more than
``limit`` times logs ``cut`` once, does nothing else and returns with IF clear, now and
whenever it is entered again.

**Logs.**  The probe writes text to its console, one line an event, grouped by CPU, see ``log.py``.

The binary form is a multiboot module: 32-bit little-endian words, described at :func:`encode`;
``images/probe`` has the same in C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Final

from harness.scenario.expect import Expectation
from harness.scenario.requests import Request

MAX_CPUS: Final = 8


class Opcode(IntEnum):
    """What an operation does; a, b and c are its arguments."""

    MMIO_WRITE = 1
    """``size`` bytes at physical address a: b low word, c high word."""
    MMIO_READ = 2
    """``size`` bytes at a; logs ``read``."""
    PIO_WRITE = 3
    """OUT ``size`` bytes b to port a."""
    PIO_READ = 4
    """IN from port a; logs ``read``."""
    MSR_WRITE = 5
    """WRMSR a with c:b; logs ``gp`` where it faults."""
    MSR_READ = 6
    """RDMSR a; logs ``read``, or ``gp`` where it faults."""
    LAPIC_WRITE = 7
    """The own local APIC's register at xAPIC offset a := b, through the page or the MSR as the
    APIC's mode is; for the ICR (0x300) c is the high word, written first in xAPIC mode."""
    LAPIC_READ = 8
    """The own local APIC's register at offset a; logs ``read`` (ICR in x2APIC mode: 64 bits)."""
    IOAPIC_WRITE = 9
    """IOAPIC number c: select register a, write b to its window."""
    IOAPIC_READ = 10
    """IOAPIC number c: select register a, read its window; logs ``read``."""
    LINE = 11
    """pc-testdev, or from GSI 24 on virtio-serial, drives GSI a to level b."""
    MSI = 12
    """A device (edu) sends data b to address c:a."""
    STI = 13
    """STI, and one instruction more."""
    CLI = 14
    HLT = 15
    """HLT with IF as it is; logs ``woke`` once it goes on."""
    EOI = 16
    """Writes the local APIC's EOI register; with ``IN_SERVICE`` only where the vector being
    handled is set in the ISR."""
    WAIT = 17
    """Until CPU ``target`` entered vector a (``ANY_VECTOR``: any) at least b times since the
    scenario began, or c microseconds have passed: then logs ``timeout``."""
    DELAY = 18
    """a microseconds of nothing."""
    AWAIT = 19
    """Until CPU ``target`` is out of its HLT or has come up after a SIPI, at most a microseconds;
    then logs ``asleep``."""
    OFFLINE = 20
    """The CPUs of mask a are about to get an INIT: nothing is asked of them until AWAIT."""
    PARALLEL = 21
    """The CPUs of mask a start at the same time: the lowest one executes block b, the next one
    block b + 1 and so on; ends when all have ended."""
    CR8_WRITE = 22
    """MOV CR8, b: bits 7:4 of the local APIC's TPR (AMD64 APM volume 2, "CR8 (TPR)")."""
    PV_IPI = 23
    """KVM's hypercall SEND_IPI: ICR's low word b to the CPUs of bitmap a, whose bit 0 is APIC ID c;
    logs ``read`` with what it returns (Linux Documentation/virt/kvm/x86/hypercalls.rst)."""
    MONITOR = 24
    """Ask who runs the machine for the program's request a, and wait until that is done."""


class OpFlag(IntFlag):
    """How an operation is executed."""

    NONE = 0
    SETTLE = 1
    """The last one of its step."""
    IN_SERVICE = 2
    """See :attr:`Opcode.EOI`."""
    BY_RESET = 4
    """In a prologue: the probe's reset has left things so, and proved it; only who starts from new
    chips, as the model does, executes it.  In a nested guest it costs too much to do all twice."""
    UNLOGGED = 8
    """A read whose value is not logged."""


ANY_VECTOR: Final = 0x100
NMI_ENTRY: Final = 0x101
"""Where a handler's vector is asked for: what is done at an NMI, after it was logged."""


@dataclass(frozen=True, slots=True)
class Op:
    """One operation on CPU ``cpu``; ``step`` counts from 0 and means nothing in a handler."""

    opcode: Opcode
    a: int = 0
    b: int = 0
    c: int = 0
    cpu: int = 0
    target: int = 0
    size: int = 4
    step: int = 0
    flags: OpFlag = OpFlag.NONE


class Detail(IntEnum):
    """What a handler logs at its entry."""

    FULL = 0
    """``irq`` with the vectors set in IRR, ISR and TMR, and the asked-for redirection entries."""
    SHORT = 1
    """``irq`` with the vector alone."""
    COUNT = 2
    """Nothing; the count is logged at the scenario's end."""
    NONE = 3
    """Nothing at all, but for a ``cut``."""


DEFAULT_LIMIT: Final = 32


@dataclass(frozen=True, slots=True)
class Handler:
    """What happens at the entry of ``vector`` (``ANY_VECTOR``: of every one without its own).

    ``block``: index of the block to execute; ``first_block`` replaces it for the first
    ``first_times`` entries on each CPU.  ``pins``: bit n set to log redirection entry n.
    """

    vector: int
    block: int
    detail: Detail = Detail.FULL
    pins: int = 0
    limit: int = DEFAULT_LIMIT
    first_times: int = 0
    first_block: int | None = None


class Feature(IntFlag):
    """What a scenario needs of its backend; the probe skips it (``skip``) where it is not there."""

    NONE = 0
    X2APIC = 1
    TSC_DEADLINE = 2
    MSI = 4
    """An edu device."""
    LINES = 8
    """A pc-testdev."""
    IOAPIC2 = 16
    """A second IOAPIC."""
    PIC = 32
    PIT = 64
    CR8 = 128
    """CR8 outside 64-bit mode: AMD's LOCK MOV CR0."""
    HPET = 256
    RTC = 512
    KVM_APIC = 1024
    """KVM's local APIC, with its paravirtual interface (hypercall SEND_IPI, PV EOI)."""
    HYPERV = 2048
    """Hyper-V's MSRs of the local APIC (QEMU's hv-vapic)."""
    MONITOR = 4096
    """A monitor, by which the harness does what a program asks for."""
    LINES2 = 8192
    """A virtio-serial device for each line of the second IOAPIC."""


@dataclass(frozen=True, slots=True)
class Program:
    """A scenario, compiled.

    Block 0 is the *prologue*: after the probe's reset it makes the baseline that every scenario
    starts from, unlogged and unsettled; block 1 is the main block.
    """

    name: str
    cpus: int
    blocks: tuple[tuple[Op, ...], ...]
    handlers: tuple[Handler, ...] = field(default=())
    needs: Feature = Feature.NONE
    requests: tuple[Request, ...] = ()
    """What MONITOR operations ask for, by number; the probe knows the numbers alone."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A program, and what its file says of it beside what is executed.

    ``steps``: each step as it was written, by its number, for messages; ``lines`` where it stands.
    ``machines``: QEMU's machine types that it runs on, empty for all.  ``no_model``: why the Python
    chips cannot predict it, None where they can.
    """

    program: Program
    about: str
    path: Path
    steps: tuple[str, ...] = ()
    lines: tuple[int | None, ...] = ()
    machines: frozenset[str] = frozenset()
    no_model: str | None = None
    expect: tuple[Expectation, ...] = ()

    @property
    def name(self) -> str:
        """Its id in every report."""
        return self.program.name


MAGIC: Final = 0x50515249
"""``IRQP``."""
FORMAT: Final = 1
NO_BLOCK: Final = 0xFFFFFFFF


def encode(programs: Sequence[Program]) -> bytes:
    """The multiboot module.

    ======================  ==================================================================
    file                    MAGIC, FORMAT, number of programs, words in all; then the programs
    program                 words of it, CPUs, needs, blocks, handlers, operations; then
    block (2 words)         index of its first operation, number of operations
    handler (8 words)       vector, block, detail, pins, limit, first_times,
                            first_block or NO_BLOCK, 0
    operation (5 words)     opcode | cpu << 8 | target << 16 | flags << 24;
                            size | step << 8; a; b; c
    ======================  ==================================================================
    """
    bodies = [_encode_one(program) for program in programs]
    size = 4 + sum(len(body) for body in bodies) // 4
    return struct.pack("<4I", MAGIC, FORMAT, len(programs), size) + b"".join(bodies)


def _encode_one(program: Program) -> bytes:
    words: list[int] = []
    first = 0
    for block in program.blocks:
        words += [first, len(block)]
        first += len(block)
    for handler in program.handlers:
        words += _handler_words(handler)
    for block in program.blocks:
        words += _op_words(block)
    head = [len(words) + 6, program.cpus, int(program.needs)]
    head += [len(program.blocks), len(program.handlers), first]
    return struct.pack(f"<{len(head) + len(words)}I", *head, *words)


def _handler_words(handler: Handler) -> list[int]:
    first_block = NO_BLOCK if handler.first_block is None else handler.first_block
    return [
        *(handler.vector, handler.block, int(handler.detail), handler.pins),
        *(handler.limit, handler.first_times, first_block, 0),
    ]


def _op_words(ops: Iterable[Op]) -> list[int]:
    words: list[int] = []
    for op in ops:
        words.append(op.opcode | op.cpu << 8 | op.target << 16 | op.flags << 24)
        words += [op.size | op.step << 8, op.a, op.b, op.c]
    return words
