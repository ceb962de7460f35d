"""Members in groups: who did the same, and which axes of the matrix separate the groups.

Pure, and without a word about what was compared.  An *axis* is what a matrix varies (the irqchip
mode, the version of QEMU, ...), and a member has a value on each.  A set of axes separates groups
where the values on them say for each member which group it is in.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

AXES: Final = ("irqchip", "QEMU", "Linux", "host", "machine", "smp", "CPU", "run")
"""Every axis; of several sets of the same size that separate, the first in this order is taken."""
_MOVING: Final = ("run", "QEMU", "Linux", "machine", "smp", "CPU", "host", "irqchip")
"""Of two axes that separate together, the one that is named first; the other says where."""
NO_AXIS: Final = "no axis"
OTHERS: Final = "the others"
_MODES: Final = ("on", "split", "off", "tcg")
_PHRASES: Final[Mapping[str, tuple[str, str]]] = {
    "irqchip": ("{}", "in {}"),
    "QEMU": ("QEMU {}", "with QEMU {}"),
    "Linux": ("Linux {}", "with Linux {}"),
    "host": ("{}", "on host {}"),
    "machine": ("{}", "on {}"),
    "smp": ("smp {}", "with smp {}"),
    "CPU": ("{}", "with CPU {}"),
    "run": ("{}", "in {}"),
}
"""How a value is called, and how a report says that something holds only there."""

Axes: TypeAlias = Mapping[str, str]
"""A member's value on each axis that it has; an axis that it has not is ``-``."""
_T = TypeVar("_T")
_Values: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Separation:
    """What separates groups: ``axes`` (None where none do), in words, and a label a group."""

    axes: tuple[str, ...] | None
    text: str
    labels: tuple[str, ...]


def grouped(
    values: Sequence[_T], apart: Callable[[_T, _T], bool], place: Callable[[_T], float]
) -> list[list[int]]:
    """The indices of ``values`` in groups in which no two are ``apart``, each in its order.

    Values are cut at their greatest gap for as long as two in a group are apart, so that groups
    that are far from each other stay whole, and a chain of small steps hides nothing.
    """
    order = sorted(range(len(values)), key=lambda index: place(values[index]))
    return [sorted(run) for run in _cut(order, values, apart, place)]


def _cut(
    run: list[int],
    values: Sequence[_T],
    apart: Callable[[_T, _T], bool],
    place: Callable[[_T], float],
) -> list[list[int]]:
    if not any(apart(values[a], values[b]) for a, b in itertools.combinations(run, 2)):
        return [run]
    gaps = [place(values[b]) - place(values[a]) for a, b in itertools.pairwise(run)]
    after = gaps.index(max(gaps)) + 1
    return [
        *_cut(run[:after], values, apart, place),
        *_cut(run[after:], values, apart, place),
    ]


def separate(groups: Sequence[Sequence[Axes]]) -> Separation:
    """The smallest set of axes that separates ``groups``, and how to say it.

    Two axes that only separate together are written as one and where it holds: ``Linux: 6.1 | 6.12,
    only in split``.
    """
    axes = smallest(groups)
    if axes is None:
        return Separation(None, NO_AXIS, ("",) * len(groups))
    if len(axes) <= 1:
        return _plain(axes, groups)
    return _scoped(axes, groups) or _general(axes, groups)


def smallest(groups: Sequence[Sequence[Axes]]) -> tuple[str, ...] | None:
    """The smallest set of axes that separates ``groups``, or None."""
    varied = [
        axis
        for axis in AXES
        if len({member.get(axis, "-") for group in groups for member in group}) > 1
    ]
    for size in range(len(varied) + 1):
        for axes in itertools.combinations(varied, size):
            if _separates(axes, groups):
                return axes
    return None


def only(axis: str, values: Iterable[str]) -> str:
    """That something is so for these values of an axis alone: ``in split``."""
    return _PHRASES[axis][1].format(", ".join(in_order(values)))


def in_order(values: Iterable[str]) -> list[str]:
    """Values of an axis as a person sorts them: modes in their order, versions as numbers."""
    return sorted(set(values), key=value_order)


def value_order(value: str) -> tuple[object, ...]:
    """The key of that order."""
    if value in _MODES:
        return (0, _MODES.index(value), ())
    words = re.split(r"(\d+)", value)
    return (1, 0, tuple((word.isdigit(), int(word) if word.isdigit() else word) for word in words))


def _of(member: Axes, axes: Iterable[str]) -> _Values:
    return tuple(member.get(axis, "-") for axis in axes)


def _separates(axes: Sequence[str], groups: Sequence[Sequence[Axes]]) -> bool:
    seen: dict[_Values, int] = {}
    return all(
        seen.setdefault(_of(member, axes), number) == number
        for number, group in enumerate(groups)
        for member in group
    )


def _plain(axes: tuple[str, ...], groups: Sequence[Sequence[Axes]]) -> Separation:
    """One axis: the values of each group."""
    if not axes:
        return Separation(axes, NO_AXIS, ("",) * len(groups))
    (axis,) = axes
    values = [", ".join(in_order(member.get(axis, "-") for member in group)) for group in groups]
    call = _PHRASES[axis][0]
    return Separation(axes, f"{axis}: {' | '.join(values)}", tuple(map(call.format, values)))


def _scoped(axes: tuple[str, ...], groups: Sequence[Sequence[Axes]]) -> Separation | None:
    """One axis that separates, and the values of the others where it does; None: it is not so."""
    for moving in sorted(axes, key=_MOVING.index):
        scope = tuple(axis for axis in axes if axis != moving)
        found = _scope_of(moving, scope, groups)
        if found is None:
            continue
        where, by_value, outside = found
        inside = [
            ", ".join(in_order(value for value, group in by_value.items() if group == number))
            for number in range(len(groups))
        ]
        narrowed = [(axis, {values[place] for values in where}) for place, axis in enumerate(scope)]
        place = ", ".join(_PHRASES[axis][0].format(", ".join(in_order(v))) for axis, v in narrowed)
        phrase = " ".join(only(axis, values) for axis, values in narrowed)
        call = _PHRASES[moving][0]
        labels = tuple(
            OTHERS if number == outside else f"{place}, {call.format(values)}"
            for number, values in enumerate(inside)
        )
        text = f"{moving}: {' | '.join(values for values in inside if values)}, only {phrase}"
        return Separation(axes, text, labels)
    return None


def _scope_of(
    moving: str, scope: tuple[str, ...], groups: Sequence[Sequence[Axes]]
) -> tuple[set[_Values], dict[str, int], int] | None:
    """Where ``moving`` separates, into which groups, and the one group of everybody else."""
    seen: dict[_Values, dict[str, int]] = {}
    for number, group in enumerate(groups):
        for member in group:
            seen.setdefault(_of(member, scope), {})[member.get(moving, "-")] = number
    where = {values for values, found in seen.items() if len(set(found.values())) > 1}
    outside = {n for values, found in seen.items() if values not in where for n in found.values()}
    by_value: dict[str, int] = {}
    agree = all(
        by_value.setdefault(value, number) == number
        for values in where
        for value, number in seen[values].items()
    )
    box = itertools.product(*({values[i] for values in where} for i in range(len(scope))))
    whole = all(values in where for values in box if values in seen)
    if not (where and agree and whole and len(outside) == 1):
        return None
    return where, by_value, outside.pop()


def _general(axes: tuple[str, ...], groups: Sequence[Sequence[Axes]]) -> Separation:
    """Several axes: the combinations of each group, the greatest group's left out."""
    combined = [
        sorted(
            {_of(member, axes) for member in group}, key=lambda values: [*map(value_order, values)]
        )
        for group in groups
    ]
    most = max(range(len(groups)), key=lambda number: len(combined[number]))
    labels = tuple(
        OTHERS if number == most else "; ".join(_called(axes, values) for values in found)
        for number, found in enumerate(combined)
    )
    return Separation(axes, f"{' and '.join(axes)}: {' | '.join(labels)}", labels)


def _called(axes: tuple[str, ...], values: _Values) -> str:
    return " ".join(_PHRASES[axis][0].format(v) for axis, v in zip(axes, values, strict=True))


def distinguishing(texts: Sequence[str]) -> list[str]:
    """Of texts of several lines, the lines in which they differ: enough to tell them apart.

    A text of one line is shown whole.
    """
    if all("\n" not in text for text in texts):
        return list(texts)
    lines = [text.splitlines() for text in texts]
    shown: list[list[str]] = [[] for _ in texts]
    together = [[*range(len(texts))]]
    for number in range(max(map(len, lines))):
        parts = [_by_line(group, lines, number) for group in together]
        for group, found in zip(together, parts, strict=True):
            if len(found) > 1:
                for index in group:
                    shown[index].append(_line(lines[index], number))
        together = [group for found in parts for group in found]
    return ["; ".join(found) for found in shown]


NOTHING_MORE: Final = "(nothing more)"


def _line(lines: Sequence[str], number: int) -> str:
    return lines[number] if number < len(lines) else NOTHING_MORE


def _by_line(group: Sequence[int], lines: Sequence[Sequence[str]], number: int) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    for index in group:
        found.setdefault(_line(lines[index], number), []).append(index)
    return list(found.values())
