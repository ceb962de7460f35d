"""What a scenario's file itself says of its log; the model's prediction says the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.scenario.log import Log, LogEvent


@dataclass(frozen=True, slots=True)
class Expectation:
    """One clause: which events, and what of them.  None means any.

    Exactly one of ``read`` (the values of these reads, in order, as numbers), ``vectors`` (those of
    these handler entries, in order) and ``count`` (how many events) is not None.  ``irqchips``: the
    irqchip words for which it applies, empty for all.
    """

    step: int | None = None
    cpu: int | None = None
    event: str = "irq"
    vector: int | None = None
    read: tuple[int, ...] | None = None
    vectors: tuple[int, ...] | None = None
    count: int | None = None
    irqchips: frozenset[str] = frozenset()

    def __str__(self) -> str:
        words = [f"step {self.step}"] if self.step is not None else []
        words += [f"CPU {self.cpu}"] if self.cpu is not None else []
        if self.read is not None:
            return ", ".join([*words, f"read {_hex(self.read)}"])
        if self.vectors is not None:
            return ", ".join([*words, f"vectors {_hex(self.vectors)}"])
        vector = "" if self.vector is None else f" of vector {self.vector:#x}"
        return ", ".join([*words, f"{self.count} {self.event}{vector}"])


def failures(expectations: Iterable[Expectation], log: Log, irqchip: str) -> Iterator[str]:
    """A sentence for each clause that does not hold of ``log`` on this ``irqchip``."""
    for expectation in expectations:
        if expectation.irqchips and irqchip not in expectation.irqchips:
            continue
        found = _found(expectation, log)
        if found is not None:
            yield f"expected {expectation}; found {found}"


def _found(expectation: Expectation, log: Log) -> str | None:
    """What is there instead, None where it is as expected."""
    if expectation.read is not None:
        reads = tuple(int(event.args[0], 16) for event in _events(expectation, "read", log))
        return None if reads == expectation.read else _hex(reads)
    if expectation.vectors is not None:
        entered = tuple(int(event.args[0], 16) for event in _events(expectation, "irq", log))
        return None if entered == expectation.vectors else _hex(entered)
    number = 0
    for event in _events(expectation, expectation.event, log):
        if expectation.vector is None or int(event.args[0], 16) == expectation.vector:
            number += int(event.args[1], 16) if event.kind == "count" else 1
    return None if number == expectation.count else str(number)


def _events(expectation: Expectation, kind: str, log: Log) -> Iterator[LogEvent]:
    for event in log.events:
        if (
            event.kind == kind
            and expectation.step in (None, event.step)
            and expectation.cpu in (None, event.cpu)
        ):
            yield event


def _hex(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:#x}" for number in numbers) or "none"
