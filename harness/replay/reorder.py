"""Another order of a trace whose threads may be stopped between an event and its effect.

A kernel that preempts itself traces an event and may bring it about later, or earlier: what happens
lies somewhere between the thread's event before and its event after.  So every order that keeps
each thread's own is as good as the recorded one, and what no such order explains is a divergence.
Only a few are tried, those that one preemption near the disagreement makes (docs/lab-faults.md,
"Preemption in Linux 7.x"):

* another thread was stopped after its last event: what that brings about comes when it goes on, at
  the latest when a CPU takes the interrupt;
* this thread was stopped there;
* a CPU took an interrupt, and was stopped before that was traced: a message of the same vector that
  was traced in between came later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from harness.replay.lookahead import NumberedEvent

_STARTS: Final = frozenset({"kvm_set_irq", "kvm_msi_set_irq"})
"""What begins something in a thread that is no CPU's; the lines after it follow from it."""
_FOLLOWS: Final = frozenset({"kvm_eoi", "kvm_ack_irq", "kvm_apic_ipi", "kvm_msr"})
"""What a CPU's thread traces in the middle of a register's write, and of an MSR's at its end."""
_ACCEPTS: Final = "kvm_apic_accept_irq"
_INJECTIONS: Final = 3
"""Number of injections before a disagreement whose trace may have been late."""


@dataclass(frozen=True)
class Move:
    """The lines of these numbers come just before the first one from ``until`` on."""

    lines: frozenset[int]
    until: int


def moved(lines: Iterable[NumberedEvent], moves: Iterable[Move]) -> Iterator[NumberedEvent]:
    """``lines`` in the order that ``moves`` make of it."""
    waiting = sorted(moves, key=lambda move: move.until)
    held: list[tuple[int, NumberedEvent]] = []
    targets = {number: move.until for move in waiting for number in move.lines}
    for line in lines:
        while held and held[0][0] <= line.number:
            yield held.pop(0)[1]
        if line.number in targets:
            held.append((targets[line.number], line))
            held.sort(key=lambda item: item[0])
        else:
            yield line
    yield from (line for _, line in held)


def candidates(around: Sequence[NumberedEvent], number: int) -> Iterator[Move]:
    """What may have happened where the line of that ``number`` disagrees, likely ones first."""
    kvm = [line for line in around if line.event.source == "kvm"]
    at = next((i for i, line in enumerate(kvm) if line.number == number), None)
    if at is None:
        return
    own = kvm[at].event.vcpu
    for thread in (not_own for not_own in _threads(kvm[:at]) if not_own != own):
        yield from _stopped(kvm, at, thread)
    yield from _stopped_itself(kvm, at)
    yield from _taken_before(kvm, at)


def _threads(lines: Sequence[NumberedEvent]) -> list[int | None]:
    """Those that were seen, the last one first."""
    return list(dict.fromkeys(line.event.vcpu for line in reversed(lines)))


def _last_of(
    lines: Sequence[NumberedEvent], thread: int | None
) -> Iterator[tuple[NumberedEvent, ...]]:
    """The last thing that ``thread`` began, as far as it had come; several where it is not sure."""
    group: tuple[NumberedEvent, ...] = ()
    for line in reversed(lines):
        if line.event.vcpu == thread:
            group = (line, *group)
            if thread is not None or line.event.name in _STARTS:
                yield group
                # A register's write, and what followed from it before the thread was stopped.
                if thread is None or line.event.name not in _FOLLOWS:
                    return


def _stopped(kvm: Sequence[NumberedEvent], at: int, thread: int | None) -> Iterator[Move]:
    """``thread`` was stopped in its last thing, which comes when it goes on."""
    after = next((i for i in range(at, len(kvm)) if kvm[i].event.vcpu == thread), None)
    for group in _last_of(kvm[:at], thread):
        lines = frozenset(line.number for line in group)
        if after is not None:
            yield Move(lines, kvm[after].number)
        taken = _injected(kvm[at + 1 : after], group)
        if taken is not None:
            yield Move(lines, taken)


def _injected(lines: Sequence[NumberedEvent], group: Sequence[NumberedEvent]) -> int | None:
    """The line in which a CPU takes what ``group`` accepted: then it had gone on."""
    vectors = {e.args[1] for e in (line.event for line in group) if e.name == _ACCEPTS}
    return next(
        (
            line.number
            for line in lines
            if line.event.name == "kvm_inj_virq" and line.event.args[1] in vectors
        ),
        None,
    )


def _stopped_itself(kvm: Sequence[NumberedEvent], at: int) -> Iterator[Move]:
    """The thread of the line itself was stopped before it; others came in between."""
    for group in _last_of(kvm[:at], kvm[at].event.vcpu):
        if group != tuple(kvm[at - len(group) : at]):
            yield Move(frozenset(line.number for line in group), kvm[at].number)


def _taken_before(kvm: Sequence[NumberedEvent], at: int) -> Iterator[Move]:
    """An injection that was traced late: messages that were traced before it came after."""
    found = 0
    for index in range(at, -1, -1):
        event = kvm[index].event
        if event.name != "kvm_inj_virq" or event.args[2]:
            continue
        between: list[NumberedEvent] = []
        for line in reversed(kvm[:index]):
            if line.event.vcpu == event.vcpu:
                break
            between.append(line)
            if line.event.name in _STARTS:
                yield Move(frozenset(each.number for each in between), kvm[index].number + 1)
        found += 1
        if found == _INJECTIONS:
            return
