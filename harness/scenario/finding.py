"""What a difference between two logs is, whatever the scenario around it, to be found again.

Steps, counts and places change when a scenario is shortened; what stays is that this interrupt is
missing, or that a register differs in these bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from harness.scenario.compare import comparable, describe
from harness.scenario.log import Log, LogEvent


class What(StrEnum):
    """In which way the logs differ."""

    MISSING = "missing"
    EXTRA = "extra"
    MOVED = "moved"
    """One CPU lacks what another one has too many of."""
    DIFFERS = "differs"
    """The same event with other values."""
    ORDER = "order"
    BREAKS_OFF = "breaks off"
    """The scenario did not come to its end: a hang, or a QEMU that died."""
    BREAKS_LAW = "breaks a law"
    """Of the architecture, whatever the other log says."""


@dataclass(frozen=True)
class LogFinding:
    """One difference.  Two are the same whatever their ``step`` and ``text``.

    ``event`` is the event's kind, with its vector where it has one; ``detail`` says what of it
    differs: ``IRR``, ``bits 0x4000``, ``more``.
    """

    what: What
    event: str
    detail: str = ""
    step: int = field(default=0, compare=False)
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return " ".join(filter(None, (self.event, self.what.value, self.detail)))


_VECTORED: Final = {"irq", "cut", "count"}
_IRQ_FIELDS: Final = ("IRR", "ISR", "TMR")
_ByCpu: TypeAlias = Mapping[int, Sequence[LogEvent]]


def findings(
    expected: Log, found: Log, *, unordered: Collection[int] = (), steps: Sequence[str] = ()
) -> tuple[LogFinding, ...]:
    """Every difference, in the order of the steps; none where the logs agree.

    Later ones may follow from the first.  ``unordered`` are the steps in which not even a CPU's own
    order is defined (:func:`~harness.scenario.compare.unordered_steps`); ``steps`` as they were
    written, for the texts.
    """
    ours, theirs = _by_step(expected), _by_step(found)
    last = max((event.step for event in found.events), default=-1)
    found_all: list[LogFinding] = []
    for step in sorted(ours.keys() | theirs.keys()):
        if not found.complete and step >= last:
            break
        written = f"step {step}" + (f" ({steps[step]})" if step < len(steps) else "")
        one, other = ours.get(step, {}), theirs.get(step, {})
        found_all += _of_step(one, other, step, written, step in unordered)
    if expected.complete and not found.complete:
        text = f"its log breaks off in step {max(last, 0)}"
        found_all.append(LogFinding(What.BREAKS_OFF, "the log", "", max(last, 0), text))
    return tuple(found_all)


def _by_step(log: Log) -> dict[int, dict[int, list[LogEvent]]]:
    steps: dict[int, dict[int, list[LogEvent]]] = {}
    for event in log.events:
        steps.setdefault(event.step, {}).setdefault(event.cpu, []).append(comparable(event))
    return steps


def _name(event: LogEvent) -> str:
    """An event's kind, with its vector where it has one."""
    vectored = event.kind in _VECTORED and event.args
    return f"{event.kind} 0x{event.args[0]}" if vectored else event.kind


def _of_step(
    ours: _ByCpu, theirs: _ByCpu, step: int, written: str, unordered: bool
) -> Iterator[LogFinding]:
    missing: dict[str, int] = {}
    extra: dict[str, int] = {}
    alike: list[int] = []
    for cpu in sorted(ours.keys() | theirs.keys()):
        one, other = (Counter(map(_name, side.get(cpu, ()))) for side in (ours, theirs))
        missing |= {name: cpu for name in one - other if name not in missing}
        extra |= {name: cpu for name in other - one if name not in extra}
        if one == other:
            alike.append(cpu)
    for name, cpu in missing.items():
        if name in extra:
            text = f"{written}: {name} on CPU {extra.pop(name)} instead of CPU {cpu}"
            yield LogFinding(What.MOVED, name, "", step, text)
        else:
            text = f"{written}, CPU {cpu}: {name} is missing"
            yield LogFinding(What.MISSING, name, "", step, text)
    for name, cpu in extra.items():
        text = f"{written}, CPU {cpu}: {name} is not expected"
        yield LogFinding(What.EXTRA, name, "", step, text)
    for cpu in alike:
        place = f"{written}, CPU {cpu}"
        yield from _values(ours.get(cpu, ()), theirs.get(cpu, ()), step, place, unordered)


def _values(
    ours: Iterable[LogEvent], theirs: Iterable[LogEvent], step: int, place: str, unordered: bool
) -> Iterator[LogFinding]:
    """The same events on both sides: in another order, or with other values."""
    if unordered:
        ours, theirs = sorted(ours, key=str), sorted(theirs, key=str)
    for one, other in zip(ours, theirs, strict=True):
        if one == other:
            continue
        text = f"{place}: expected {describe(one)}, got {describe(other)}"
        if _name(one) != _name(other):
            yield LogFinding(What.ORDER, f"{_name(one)}, {_name(other)}", "", step, text)
            return
        yield LogFinding(What.DIFFERS, _name(one), _detail(one, other), step, text)


def _detail(one: LogEvent, other: LogEvent) -> str:
    """What of the event differs, as far as it stays when other steps go."""
    if one.kind == "irq":
        pairs = zip(one.args[1:], other.args[1:], strict=False)
        return ", ".join(
            _irq_field(i, left) for i, (left, right) in enumerate(pairs) if left != right
        )
    if one.kind == "read":
        return f"bits {int(one.args[0], 16) ^ int(other.args[0], 16):#x}"
    if one.kind in ("count", "cut", "timeout"):
        return "more" if int(other.args[-1], 16) > int(one.args[-1], 16) else "fewer"
    return ""


def _irq_field(index: int, text: str) -> str:
    if index < len(_IRQ_FIELDS):
        return _IRQ_FIELDS[index]
    return f"redir[{int(text.partition('=')[0], 16)}]"
