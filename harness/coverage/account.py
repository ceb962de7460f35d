"""What runs reached of each build of KVM, with all that it is to be read beside.

Beside what was reached stand the floor, what another run reached, and what no lab can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from harness.base.errors import ConfigError
from harness.coverage import cannot_reach
from harness.coverage.cannot_reach import Condition
from harness.model.coverage import Executed, Function, LineTable, Reached, SourceLine, by_build
from harness.model.layout import CaseDir, RunDir
from harness.record import executed_file

_T = TypeVar("_T", SourceLine, Function)

Tables: TypeAlias = Callable[[str, str], LineTable]
"""The line table of a kernel's name and its module's build ID."""


@dataclass(frozen=True)
class Counts:
    """How many lines, or functions, of a file: all, and of these what was reached.

    ``beyond`` are those that no lab can reach, and ``gained`` those that another run does not.
    """

    all: int
    reached: int
    floor: int | None
    beyond: int
    gained: int | None

    @property
    def share(self) -> float:
        """Of all."""
        return self.reached / self.all if self.all else 0.0

    @property
    def share_of_reachable(self) -> float:
        """Of what a lab can reach."""
        left = self.all - self.beyond
        return self.reached / left if left else 0.0


@dataclass(frozen=True)
class BuildCoverage:
    """What was reached of one build; ``floor`` and ``other`` are None where there is none."""

    table: LineTable
    reached: Reached
    floor: Reached | None
    other: Reached | None
    cannot: Mapping[SourceLine, Condition]
    """Those that no lab can reach, and that none did."""

    def lines(self, file: str | None = None) -> Counts:
        """Of a file, or of all."""
        every = [line for line in self.table.lines if file in (None, line.file)]
        return self._counts(every, _lines, self.cannot.keys())

    def functions(self, file: str | None = None) -> Counts:
        """Of a file, or of all; one is beyond reach where each of its lines is."""
        every = [each for each in self.table.functions if file in (None, each.file)]
        by_function = {line: self.table.function_at(line) for line in self.table.lines}
        able = {function for line, function in by_function.items() if line not in self.cannot}
        beyond = {each for each in by_function.values() if each is not None and each not in able}
        return self._counts(every, _functions, beyond)

    def _counts(
        self, every: Sequence[_T], of: Callable[[Reached], frozenset[_T]], beyond: Set[_T]
    ) -> Counts:
        mine = of(self.reached)
        floor = None if self.floor is None else of(self.floor)
        other = None if self.other is None else of(self.other)
        return Counts(
            all=len(every),
            reached=sum(one in mine for one in every),
            floor=None if floor is None else sum(one in floor for one in every),
            beyond=sum(one in beyond for one in every),
            gained=None if other is None else sum(one in mine - other for one in every),
        )

    @property
    def missing(self) -> Iterator[SourceLine]:
        """What could be reached and was not, in order."""
        for line in sorted(self.table.lines):
            if line not in self.reached.lines and line not in self.cannot:
                yield line

    @property
    def gained(self) -> Sequence[SourceLine]:
        """What was reached and is not in the other run, in order."""
        return _less(self.reached, self.other)

    @property
    def lost(self) -> Sequence[SourceLine]:
        """What the other run reached, and this one did not, in order."""
        return _less(self.other, self.reached)


def _lines(reached: Reached) -> frozenset[SourceLine]:
    return reached.lines


def _functions(reached: Reached) -> frozenset[Function]:
    return reached.functions


def _less(one: Reached | None, other: Reached | None) -> Sequence[SourceLine]:
    return () if one is None or other is None else sorted(one.lines - other.lines)


def account(runs: Sequence[Path], minus: Path | None, tables: Tables) -> tuple[BuildCoverage, ...]:
    """What the runs reached together, of each build that any of them ran.

    :class:`ConfigError` for a folder without coverage, :class:`ImageError` where the debug
    information of a build cannot be found.
    """
    executed = by_build(one for run in runs for one in executed_in(run))
    floors = by_build(one for run in runs for one in _floor_in(run))
    others = None if minus is None else by_build(executed_in(minus))
    return tuple(
        _of_build(one, floors.get(build_id), others, tables) for build_id, one in executed.items()
    )


def _of_build(
    executed: Executed,
    floor: Executed | None,
    others: Mapping[str, Executed] | None,
    tables: Tables,
) -> BuildCoverage:
    table = tables(executed.kernel, executed.build_id)
    reached = table.reached(executed if floor is None else executed | floor)
    other = None
    if others is not None:
        there = others.get(executed.build_id)
        other = Reached() if there is None else table.reached(there)
    cannot = {
        line: condition
        for line, condition in cannot_reach.shipped(table).items()
        if line not in reached.lines
    }
    return BuildCoverage(
        table, reached, None if floor is None else table.reached(floor), other, cannot
    )


def executed_in(run: Path) -> tuple[Executed, ...]:
    """All that ran in a run, or in a campaign; :class:`ConfigError` where that was not recorded."""
    paths = [run / CaseDir.executed, *sorted(run.glob(f"*/{CaseDir.executed}"))]
    found = tuple(one for path in paths if path.is_file() for one in executed_file.read(path))
    if not found:
        raise ConfigError(
            f"{run} has no coverage",
            "it has no case that ran in a lab with --coverage",
            "irqmatrix run CONFIG --coverage records it",
        )
    return found


def _floor_in(run: Path) -> tuple[Executed, ...]:
    path = RunDir(run).floor
    return executed_file.read(path) if path.is_file() else ()
