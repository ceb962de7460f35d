"""What of KVM a campaign reaches, and the programs that reach something new: its corpus.

A batch is a boot.  Whether it reached lines that nothing in the campaign had reached before is
known once it has ended.  Which of its programs did is found out afterwards: a lab logs a block of
code when it first executes it, so the batch is run again in a new lab, in parts, one after the
other, and the part in which the line first comes is the one that reaches it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import yaml

from harness.base import files
from harness.base.errors import HarnessError
from harness.coverage.account import Tables
from harness.fuzz.programs import Program
from harness.model.coverage import Executed, SourceLine, by_build
from harness.model.layout import CaseDir, RunDir
from harness.record import executed_file
from harness.record.recording import Recording
from harness.repro.bench import Bench, Side
from harness.run.scheduler import Failed

PARTS: Final = 24
"""Of a batch, at each step: a boot each, in one lab."""
CORPUS: Final = "corpus"


@dataclass(frozen=True)
class Batch:
    """Programs of one boot, and the lines that they reached first in the campaign."""

    side: Side
    programs: tuple[Program, ...]
    lines: frozenset[SourceLine]


@dataclass(frozen=True)
class Kept:
    """A program of the corpus: the lines that it reached first, and on which backend."""

    program: Program
    side: Side
    lines: tuple[SourceLine, ...]

    def as_json(self) -> dict[str, object]:
        """As the journal has it."""
        return {
            "program": self.program.name,
            "side": str(self.side),
            "lines": [str(line) for line in self.lines],
        }


class Reach:
    """All that a campaign reached, its floor, and its corpus, in the campaign's folder.

    ``bench`` has one job, so that all that it records at once is in one lab; ``floor`` is what runs
    whatever the programs are; ``tables`` finds the lines of a build of KVM.
    """

    def __init__(
        self, folder: Path, bench: Bench, floor: Iterable[Executed], tables: Tables
    ) -> None:
        self._folder = folder
        self._bench = bench
        self._tables = functools.cache(tables)
        self._batches: list[Batch] = []
        path = CaseDir(folder).executed
        before = executed_file.read(path) if path.is_file() else ()
        self._floor = by_build(floor)
        self._builds = by_build([*self._floor.values(), *before])

    @property
    def lines(self) -> int:
        """The number of lines that were reached so far, of all builds."""
        return sum(len(self._lines(executed)) for executed in self._builds.values())

    def ended(self, side: Side, programs: Sequence[Program], recorded: Recording) -> None:
        """Take in what a boot executed; one that reached something new is remembered."""
        new: set[SourceLine] = set()
        for executed in _executed(recorded):
            before = self._builds.get(executed.build_id, replace(executed, offsets={}))
            whole = self._builds[executed.build_id] = before | executed
            new |= self._lines(whole) - self._lines(before)
        if new:
            self._batches.append(Batch(side, tuple(programs), frozenset(new)))

    def save(self) -> None:
        """Write what was reached; :class:`StoreError` where that cannot be."""
        executed_file.write(CaseDir(self._folder).executed, self._builds.values())
        executed_file.write(RunDir(self._folder).floor, self._floor.values())

    async def settle(self, tell: Callable[[str], None]) -> Sequence[Kept]:
        """Find the programs of the batches that reached something new, and keep them.

        A line that is not reached when a batch is run again depended on timing, and has none.
        """
        kept: list[Kept] = []
        batches, self._batches = self._batches, []
        for batch in batches:
            found, left = await self._split(batch)
            kept += found
            if left:
                names = ", ".join(map(str, sorted(left)))
                tell(f"{batch.side}: reached once, and not again: {names}")
        for one in kept:
            self._write(one)
        self.save()
        return kept

    async def _split(self, batch: Batch) -> tuple[list[Kept], frozenset[SourceLine]]:
        """The programs of a batch that reach its lines; and the lines that none does."""
        parts = [batch]
        while any(len(part.programs) > 1 for part in parts):
            smaller = [piece for part in parts for piece in _pieces(part)]
            parts = await self._first_to_reach(smaller, batch.lines)
        found = [Kept(part.programs[0], part.side, tuple(sorted(part.lines))) for part in parts]
        return found, batch.lines - frozenset().union(*(part.lines for part in parts))

    async def _first_to_reach(
        self, parts: Sequence[Batch], wanted: frozenset[SourceLine]
    ) -> list[Batch]:
        """Those that are the first to reach one of the lines, each with its own."""
        cases = [
            self._bench.case(
                part.side.backend,
                tuple(program.scenario for program in part.programs),
                part.programs[0].scenario.program.cpus,
                f"reach-{number}",
            )
            for number, part in enumerate(parts)
        ]
        number = {case.id: place for place, case in enumerate(cases)}
        reached: dict[int, frozenset[SourceLine]] = {}

        def take(recorded: Recording | Failed) -> None:
            if isinstance(recorded, Recording):
                lines = (self._lines(one) for one in _executed(recorded))
                reached[number[recorded.case.id]] = frozenset().union(*lines) & wanted

        await self._bench.record(cases, take)
        found, left = [], wanted
        for place, part in enumerate(parts):
            own = reached.get(place, frozenset()) & left
            if own:
                found.append(replace(part, lines=own))
                left -= own
        return found

    def _lines(self, executed: Executed) -> frozenset[SourceLine]:
        return self._tables(executed.kernel, executed.build_id).reached(executed).lines

    def _write(self, kept: Kept) -> None:
        folder = self._folder / CORPUS
        folder.mkdir(exist_ok=True)
        lines = "".join(f"#   {line}\n" for line in kept.lines)
        program = kept.program
        scenarios = {"version": 1, "scenarios": {program.name: program.written.data}}
        text = yaml.safe_dump(scenarios, sort_keys=False, width=100, default_flow_style=None)
        comment = f"# On {kept.side} the first program of the campaign that reached:\n{lines}"
        files.write_text(folder / f"{program.name}.yaml", comment + text)


def _executed(recorded: Recording) -> Iterable[Executed]:
    """What a boot executed; of one that is not in a lab nothing is known."""
    path = CaseDir(recorded.directory).executed
    try:
        return executed_file.read(path) if path.is_file() else ()
    except HarnessError:
        return ()


def _pieces(batch: Batch) -> Iterator[Batch]:
    size = -(-len(batch.programs) // PARTS)
    for first in range(0, len(batch.programs), size):
        yield replace(batch, programs=batch.programs[first : first + size])
