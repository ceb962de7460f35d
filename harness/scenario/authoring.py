"""What the author of a scenario should look at: where its log depends on more than the rules.

The program is executed on the chips several times: with another order between the CPUs, with
operations that take their time, and with timers that are late.  Where the log then differs, it
would differ from run to run, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from harness.scenario.compare import describe, first_divergence, unordered_steps
from harness.scenario.execution import MAIN, Execution, Order, machine_for
from harness.scenario.log import Log
from harness.scenario.program import Op, Opcode, Program
from userspace_chip.architecture import IOAPIC_BASES, IOAPIC_PAGE_BYTES, PIC_PORTS, Board
from userspace_chip.lapic_registers import LVTT, TDCR, TMCCT, TMICT
from userspace_chip.profile import Profile

OPERATION_NS: Final = 17_900_000
"""What an operation may take: on a slow backend (a guest in a guest in an emulator) 0.1 ms, and
time slices of others more on a machine that has other things to do.  Longer than most counts that
a timer starts anew where its LVT entry is written.  No round number: a timer of 1 ms that was
started anew expired exactly between two operations of 1 ms."""

EXCEPTIONS: Final = 32
"""Vectors below are the processor's own (SDM 3A, "Exception and Interrupt Vectors")."""

LATE_NS: Final = 50_000
"""How late a timer of a busy host may expire."""

UNEVEN_ORDERS: Final = 8
"""How many random orders between the CPUs are tried."""

_TIMER_REGISTERS: Final = frozenset({LVTT, TMICT, TMCCT, TDCR})
_TIMELESS: Final = frozenset(
    {
        *(Opcode.IOAPIC_READ, Opcode.IOAPIC_WRITE, Opcode.LINE, Opcode.MSI, Opcode.EOI),
        *(Opcode.STI, Opcode.CLI, Opcode.CR8_WRITE, Opcode.PARALLEL, Opcode.OFFLINE),
    }
)

_SURPRISES: Final = {
    "timeout": "a WAIT's time passes",
    "asleep": "nothing wakes the CPU",
}


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """What is wrong in which step.

    ``kind``: ``timeout`` and ``asleep`` may be what the author wants to see; ``program`` is always
    a mistake; ``race`` and ``time`` mean that the log is not the same every time.
    """

    step: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"step {self.step}: {self.text}"


def authoring_problems(
    program: Program,
    profile: Profile,
    prediction: Log,
    *,
    board: Board = "pc",
    cpus: int | None = None,
    first: Execution | None = None,
) -> tuple[Problem, ...]:
    """All problems by step; ``prediction`` is the program's log on ``profile``, as predicted.

    ``first``: the execution that gave it, where there is one that looked ahead.

    :class:`~harness.base.errors.PredictionError` as for :func:`~harness.scenario.predict.predict`.
    """
    if prediction.events and prediction.events[0].kind == "skip":
        return ()
    expected = _awaited_again(program)
    found = {
        Problem(event.step, event.kind, f"CPU {event.cpu}: {_SURPRISES[event.kind]}")
        for event in prediction.events
        if event.kind in _SURPRISES and event.step not in expected
    }
    number = program.cpus if cpus is None else cpus
    machine = machine_for(profile, board, number)

    found |= _taken_for_exceptions(program, prediction)

    def run(**how: Any) -> Log:
        how = {"board": board, "cpus": number, "machine": machine, **how}
        return Execution(program, profile, **how).run()

    if first is None:
        first = Execution(program, profile, board=board, cpus=number, look_ahead=True)
        first.run()
    found |= {Problem(step, "program", text) for step, text in first.problems}
    found |= {Problem(step, "race", text) for step, text in first.races}
    for order, seed, how in _orders(program.cpus):
        races = _differs(program, prediction, run(order=order, seed=seed), "race", how)
        found |= races
        if races:
            break
    if first.waited or _may_see_time(program):
        slow = run(operation_ns=OPERATION_NS)
        how = f"operations that take {OPERATION_NS / 1e6:g} ms"
        found |= _differs(program, prediction, slow, "time", how)
    if first.waited:
        late = run(late_ns=LATE_NS)
        how = f"timers that expire {LATE_NS // 1000} us late"
        found |= _differs(program, prediction, late, "time", how)
    return tuple(sorted(found))


def _awaited_again(program: Program) -> frozenset[int]:
    """Steps with an AWAIT that another one of the same CPU follows: it may be in vain."""
    steps: dict[int, int] = {}
    found = set()
    for op in program.blocks[MAIN]:
        if op.opcode is Opcode.AWAIT:
            if op.target in steps:
                found.add(steps[op.target])
            steps[op.target] = op.step
        elif op.opcode is Opcode.HLT:
            steps.pop(op.cpu, None)
        elif op.opcode is Opcode.OFFLINE:
            steps = {cpu: step for cpu, step in steps.items() if not op.a >> cpu & 1}
    return frozenset(found)


def _orders(cpus: int) -> Iterator[tuple[Order, int, str]]:
    """Other orders between the CPUs: with a seed, and in words."""
    if cpus > 1:
        yield Order.LAZY, 0, "another order between the CPUs"
        for cpu in range(cpus):
            yield Order.STARVED, cpu, f"CPU {cpu} slower than all others"
        for seed in range(UNEVEN_ORDERS):
            yield Order.UNEVEN, seed, "CPUs that run unevenly"


def _may_see_time(program: Program) -> bool:
    """Whether anything in it starts a timer, reads one, or waits."""
    return any(not _is_timeless(op) for block in program.blocks[MAIN:] for op in block)


def _is_timeless(op: Op) -> bool:
    match op.opcode:
        case Opcode.LAPIC_READ | Opcode.LAPIC_WRITE:
            return op.a not in _TIMER_REGISTERS
        case Opcode.PIO_READ | Opcode.PIO_WRITE:
            return op.a in PIC_PORTS
        case Opcode.MMIO_READ | Opcode.MMIO_WRITE:
            return any(0 <= op.a - base < IOAPIC_PAGE_BYTES for base in IOAPIC_BASES)
        case _:
            return op.opcode in _TIMELESS


def _taken_for_exceptions(program: Program, prediction: Log) -> set[Problem]:
    """Interrupts below 32 that are neither in service nor have a handler: the probe cannot tell."""
    own = {handler.vector for handler in program.handlers}
    return {
        Problem(event.step, "program", f"vector 0x{event.args[0]} looks like an exception")
        for event in prediction.events
        if event.kind == "irq" and len(event.args) > 2 and int(event.args[0], 16) < EXCEPTIONS
        if int(event.args[0], 16) not in own and event.args[0] not in event.args[2].split(",")
    }


def _differs(program: Program, prediction: Log, other: Log, kind: str, how: str) -> set[Problem]:
    divergence = first_divergence(prediction, other, unordered=unordered_steps(program))
    if divergence is None:
        return set()
    left, right = (
        "nothing" if event is None else describe(event)
        for event in (divergence.expected, divergence.found)
    )
    text = f"CPU {divergence.cpu}: {left}, but with {how}: {right}"
    return {Problem(divergence.step, kind, text)}
