"""Two logs of one scenario: where they part first, and in words.

Events are aligned by step and CPU: the order between CPUs is not compared.  In the steps of
:func:`unordered_steps` not even a CPU's own order is compared, only what it logged.  Of a fault its
vector and error code count: where it struck is known to the probe alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.scenario.log import Log, LogEvent
from harness.scenario.program import Opcode, Program

_MAIN: Final = 1
_FAULT_ARGS: Final = 2
_CONTEXT: Final = 2
"""Common events that are shown before a divergence."""


@dataclass(frozen=True, slots=True)
class LogDivergence:
    """The first event that only one log has, or that differs.

    ``expected`` and ``found``: None where that log has no more of this step and CPU.  ``before``:
    the last events of the CPU that both have.  ``cut_off``: the found log does not end, so that
    what is missing may just not have been seen.
    """

    step: int
    cpu: int
    expected: LogEvent | None
    found: LogEvent | None
    before: tuple[LogEvent, ...] = ()
    cut_off: bool = False

    def describe(
        self, steps: Sequence[str] = (), *, names: tuple[str, str] = ("expected", "got")
    ) -> str:
        """One line; ``steps`` are the steps as written, ``names`` what the two logs are called."""
        written = f" ({steps[self.step]})" if self.step < len(steps) else ""
        left, right = (
            "nothing" if event is None else describe(event) for event in (self.expected, self.found)
        )
        text = f"step {self.step}{written}, CPU {self.cpu}: "
        text += f"{names[0]} {left}, {names[1]} {right}"
        if self.cut_off and self.found is None:
            text += ", where its log breaks off"
        if self.before:
            text += f"; after {', '.join(describe(event) for event in self.before)}"
        return text


def unordered_steps(program: Program) -> frozenset[int]:
    """The steps in which CPUs run in parallel: only what each CPU logged is defined."""
    return frozenset(op.step for op in program.blocks[_MAIN] if op.opcode is Opcode.PARALLEL)


def first_divergence(
    expected: Log, found: Log, *, unordered: Collection[int] = ()
) -> LogDivergence | None:
    """Where the logs part, in the earliest step; None where they agree.

    A ``dirty`` event comes before all others: after it nothing that follows can be trusted.
    """
    left, right = _by_place(expected), _by_place(found)
    shared: dict[int, list[LogEvent]] = {}
    for place in sorted(left.keys() | right.keys()):
        _, step, cpu = place
        ours, theirs = left.get(place, []), right.get(place, [])
        same = _common(ours, theirs)
        if step in unordered:
            pair = _missing(ours[same:], theirs[same:])
        else:
            pair = _at(ours, same), _at(theirs, same)
        common = shared.setdefault(cpu, [])
        common += ours[:same]
        if pair != (None, None):
            before = tuple(common[-_CONTEXT:])
            return LogDivergence(step, cpu, *pair, before, not found.complete)
    return None


def _by_place(log: Log) -> Mapping[tuple[bool, int, int], list[LogEvent]]:
    places: dict[tuple[bool, int, int], list[LogEvent]] = {}
    for event in log.events:
        place = event.kind != "dirty", event.step, event.cpu
        places.setdefault(place, []).append(comparable(event))
    return places


def comparable(event: LogEvent) -> LogEvent:
    """``event`` without what depends on the probe's own code: of a fault, the frame."""
    if event.kind != "fault":
        return event
    return replace(event, args=event.args[:_FAULT_ARGS])


def _common(ours: Sequence[LogEvent], theirs: Sequence[LogEvent]) -> int:
    """How many events both begin with."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(ours), len(theirs)))


def _at(events: Sequence[LogEvent], index: int) -> LogEvent | None:
    return events[index] if index < len(events) else None


def _missing(
    ours: Sequence[LogEvent], theirs: Sequence[LogEvent]
) -> tuple[LogEvent | None, LogEvent | None]:
    """The first event that only the one or only the other has, in any order."""
    missing, extra = Counter(ours) - Counter(theirs), Counter(theirs) - Counter(ours)
    return next(iter(missing), None), next(iter(extra), None)


# ------------------------------------------------------------------ in words

_BITMAPS: Final = ("IRR", "ISR", "TMR")


def describe(event: LogEvent) -> str:
    """An event in words, numbers with ``0x``: ``irq 0x51 (IRR 0x40, ISR 0x51, TMR none)``."""
    args = event.args
    if event.kind == "irq" and args:
        details = [
            f"{name} {_vectors(word)}" for name, word in zip(_BITMAPS, args[1:4], strict=False)
        ]
        details += [_pin(word) for word in args[4:]]
        return f"irq 0x{args[0]}" + (f" ({', '.join(details)})" if details else "")
    return " ".join((event.kind, *(_number(word) for word in args)))


def _vectors(word: str) -> str:
    names = {"-": "none", "?": "unknown"}
    return names.get(word) or " ".join(f"0x{vector}" for vector in word.split(","))


def _pin(word: str) -> str:
    pin, _, entry = word.partition("=")
    return f"redir[{int(pin, 16)}] 0x{entry}"


def _number(word: str) -> str:
    return f"0x{word}" if all(c in "0123456789abcdef" for c in word) else word
