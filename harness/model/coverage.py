"""Coverage: which instructions of KVM ran, and of which lines and functions of its source they are.

Instructions are named by their section of the module and their offset in it, because a module is
loaded somewhere else at every boot.  What belongs together has the same build ID.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Final, NamedTuple

MODULE: Final = "kvm"
"""All chips are in this one."""
CHIPS: Final = (
    "arch/x86/kvm/lapic.c",
    "arch/x86/kvm/ioapic.c",
    "arch/x86/kvm/i8259.c",
    "arch/x86/kvm/i8254.c",
    "arch/x86/kvm/irq_comm.c",
    "arch/x86/kvm/irq.c",
    "virt/kvm/irqchip.c",
    "virt/kvm/eventfd.c",
)
"""KVM's interrupt controllers and what connects them.  Linux 6.17 moved irq_comm.c to irq.c."""


class SourceLine(NamedTuple):
    """A line of the source, counted from 1."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{PurePosixPath(self.file).name}:{self.number}"


class Function(NamedTuple):
    """A function, and the line that it is declared in."""

    file: str
    line: int
    name: str


class Span(NamedTuple):
    """Machine code: bytes ``start`` to ``end`` (not included) of a section."""

    section: str
    start: int
    end: int


@dataclass(frozen=True)
class Executed:
    """The instructions of one build of KVM that ran: by section, the offsets of their first bytes.

    ``kernel`` is its name in the image cache; ``build_id`` that of the module.
    """

    kernel: str
    build_id: str
    offsets: Mapping[str, frozenset[int]]

    def __or__(self, other: Executed) -> Executed:
        sections = {**self.offsets, **other.offsets}
        nothing: frozenset[int] = frozenset()
        return Executed(
            self.kernel,
            self.build_id,
            {
                name: self.offsets.get(name, nothing) | other.offsets.get(name, nothing)
                for name in sections
            },
        )

    def as_json(self) -> dict[str, Any]:
        """Offsets as differences, which compress well."""
        return {
            "kernel": self.kernel,
            "build_id": self.build_id,
            "offsets": {name: _differences(sorted(each)) for name, each in self.offsets.items()},
        }

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Executed:
        """As :meth:`as_json` wrote it; ValueError, KeyError, TypeError for anything else."""
        offsets = {
            str(name): frozenset(itertools.accumulate(map(int, differences)))
            for name, differences in data["offsets"].items()
        }
        return cls(str(data["kernel"]), str(data["build_id"]), offsets)


def by_build(all_: Iterable[Executed]) -> dict[str, Executed]:
    """Everything that ran, by build ID."""
    found: dict[str, Executed] = {}
    for one in all_:
        found[one.build_id] = found[one.build_id] | one if one.build_id in found else one
    return found


@dataclass(frozen=True)
class Reached:
    """What ran, in terms of the source."""

    lines: frozenset[SourceLine] = frozenset()
    functions: frozenset[Function] = frozenset()


@dataclass(frozen=True)
class LineTable:
    """The machine code of each line and function of the chips, of one build of KVM.

    A line's code is also that of the functions that are inlined into it; a function's is also that
    of every place that it is inlined into.
    """

    kernel: str
    build_id: str
    lines: Mapping[SourceLine, tuple[Span, ...]]
    functions: Mapping[Function, tuple[Span, ...]]

    def reached(self, executed: Executed) -> Reached:
        """The lines and functions of which an instruction ran."""
        order = {name: sorted(offsets) for name, offsets in executed.offsets.items()}

        def ran(spans: Iterable[Span]) -> bool:
            return any(_any_in(order.get(span.section, ()), span) for span in spans)

        return Reached(
            frozenset(line for line, spans in self.lines.items() if ran(spans)),
            frozenset(function for function, spans in self.functions.items() if ran(spans)),
        )

    @property
    def files(self) -> tuple[str, ...]:
        """Those that this build has, in the order of :data:`CHIPS`."""
        there = {line.file for line in self.lines}
        return tuple(file for file in CHIPS if file in there)

    @functools.cached_property
    def order(self) -> Mapping[SourceLine, int]:
        """The place of each line among all that have code."""
        return {line: place for place, line in enumerate(sorted(self.lines))}

    def function_at(self, line: SourceLine) -> Function | None:
        """The function that a line stands in: the last one that is declared before it."""
        declared = self._declared.get(line.file, ())
        place = bisect.bisect_right(declared, line.number, key=lambda function: function.line) - 1
        return None if place < 0 else declared[place]

    @functools.cached_property
    def _declared(self) -> Mapping[str, Sequence[Function]]:
        found: dict[str, list[Function]] = {}
        for function in sorted(self.functions):
            found.setdefault(function.file, []).append(function)
        return found

    def as_json(self) -> dict[str, Any]:
        """Lists only, with sections and files by their numbers."""
        sections = sorted(
            {s.section for each in (self.lines, self.functions) for v in each.values() for s in v}
        )
        number = {name: place for place, name in enumerate(sections)}

        def code(spans: Iterable[Span]) -> list[list[int]]:
            return [[number[s.section], s.start, s.end] for s in spans]

        return {
            "kernel": self.kernel,
            "build_id": self.build_id,
            "sections": sections,
            "lines": [[*key, code(spans)] for key, spans in sorted(self.lines.items())],
            "functions": [[*key, code(spans)] for key, spans in sorted(self.functions.items())],
        }

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> LineTable:
        """As :meth:`as_json` wrote it; ValueError, KeyError, TypeError for anything else."""
        sections: Sequence[str] = data["sections"]

        def spans(code: Iterable[Sequence[int]]) -> tuple[Span, ...]:
            return tuple(Span(sections[place], start, end) for place, start, end in code)

        return cls(
            str(data["kernel"]),
            str(data["build_id"]),
            MappingProxyType({SourceLine(*key): spans(code) for *key, code in data["lines"]}),
            MappingProxyType({Function(*key): spans(code) for *key, code in data["functions"]}),
        )


def _any_in(offsets: Sequence[int], span: Span) -> bool:
    place = bisect.bisect_left(offsets, span.start)
    return place < len(offsets) and offsets[place] < span.end


def _differences(numbers: Sequence[int]) -> list[int]:
    return [after - before for before, after in itertools.pairwise((0, *numbers))]
