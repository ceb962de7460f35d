"""A campaign: random programs on all sides, round by round, and what the oracles say of them.

The programs of a round are made before anything is booted and judged as their boots end, so that
labs that run concurrently do not wait for this process.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.base import child
from harness.base.errors import CannotRun, ConfigError
from harness.fuzz import grammar, oracles
from harness.fuzz.journal import Campaign, Journal
from harness.fuzz.oracles import Difference, Oracle
from harness.fuzz.programs import Program, Source, examined
from harness.fuzz.reach import Reach
from harness.fuzz.runner import Booted, Ran, Runner
from harness.model.case import Machine
from harness.record.recording import Recording
from harness.repro import bench as bench_module
from harness.repro.bench import Bench, Place, Side
from harness.repro.minimise import MODEL
from harness.scenario.finding import LogFinding
from userspace_chip.profile import Profile

DEFAULT_CPU: Final = "qemu64,+x2apic,+tsc-deadline"
DEFAULT_SIDES: Final = ("tcg",)
TWICE_EVERY: Final = 8
"""One program in this number is run twice."""
FIRST_ROUND: Final = 100
"""Programs."""
ROUND_S: Final = 900.0
"""How long a round should take, once the rates are known: long beside the boots that it costs."""
LEAST_ROUND: Final = 500
"""Of a campaign without an end in time, however slow the machine: boots cost more than programs."""
LARGEST_ROUND: Final = 4000
LEAST_SHARE: Final = 25
"""Programs that a process of its own examines at least: it costs as much as about ten."""


@dataclass(frozen=True)
class FuzzRequest:
    """What is asked for; ``programs``, ``minutes`` and ``runs`` None: one round.

    ``runs`` is how many programs each side executes at least; ``name`` is what the campaign's
    folder is called.
    """

    sides: tuple[str, ...] = DEFAULT_SIDES
    seed: int = 1
    programs: int | None = None
    minutes: float | None = None
    runs: int | None = None
    only: str | None = None
    machine: Machine = Machine.Q35
    cpu: str = DEFAULT_CPU
    name: str = "fuzz"


def campaign_of(request: FuzzRequest) -> Campaign:
    """What has to be equal for a campaign to be gone on with."""
    digest = grammar.digest(grammar.selected(request.only, request.machine))
    sides = tuple(str(side) for side in sides_of(request.sides))
    return Campaign(request.seed, request.only, sides, request.machine, request.cpu, digest)


def sides_of(texts: Sequence[str]) -> tuple[Side, ...]:
    """The backends that are written so; :class:`ConfigError` for what is none."""
    sides = tuple(dict.fromkeys(bench_module.parse(text) for text in texts))
    for side in sides:
        if side.place is Place.MODEL:
            fix = "name backends: lab:on, lab:split, local:on, tcg"
            raise ConfigError(f"{side} is no backend", "its chips are what others are held to", fix)
    return sides


class Fuzzer:
    """Runs a campaign's rounds and writes its journal."""

    def __init__(
        self,
        journal: Journal,
        bench: Bench,
        tell: Callable[[str], None] = lambda _: None,
        reach: Reach | None = None,
    ) -> None:
        campaign = journal.history.campaign
        self.journal = journal
        self.bench = bench
        self.sides = sides_of(campaign.sides)
        self.profiles = {side: bench.chips_of(side).profile for side in self.sides}
        self.source = Source(
            campaign.seed,
            grammar.selected(campaign.only, campaign.machine),
            tuple(self.profiles.values()),
            bench.stage.board,
            campaign.machine,
        )
        self._examiners = len(os.sched_getaffinity(0))
        self._runner = Runner(bench)
        self._reach = reach
        self._tell = tell

    async def run(
        self, programs: int | None, minutes: float | None, runs: int | None = None
    ) -> None:
        """Rounds until ``programs`` were run in all, or ``minutes`` have passed.

        With ``runs`` a round is for the sides that have executed fewer, and the last one is that
        after which none has.
        """
        began = time.monotonic()
        child.prepare(("harness.fuzz.programs",))
        history = self.journal.history
        size = FIRST_ROUND

        def seconds_left() -> float:
            return 60 * (minutes or 0) - (time.monotonic() - began)

        while sides := self._short_of(runs):
            wanted = size if programs is None else min(size, programs - history.programs)
            if runs is not None:
                fewest = min(history.executed[str(side)] for side in sides)
                wanted = min(wanted, max(runs - fewest, LEAST_ROUND))
            if wanted <= 0 or (minutes is not None and seconds_left() <= 0):
                return
            started = time.monotonic()
            await self._round(wanted, sides)
            self._check_that_all_say_something()
            took_s = max(time.monotonic() - started, 0.1)
            aim_s = ROUND_S if minutes is None else max(min(ROUND_S, seconds_left()), 1)
            least = LEAST_ROUND if minutes is None else FIRST_ROUND
            size = max(least, min(LARGEST_ROUND, int(wanted * aim_s / took_s)))
            if programs is minutes is runs is None:
                return

    def _short_of(self, runs: int | None) -> tuple[Side, ...]:
        """The sides that have executed fewer programs than ``runs``; all of them for None."""
        executed = self.journal.history.executed
        return tuple(one for one in self.sides if runs is None or executed[str(one)] < runs)

    async def _round(self, wanted: int, sides: Sequence[Side]) -> None:
        started = time.monotonic()
        programs, next_ = await self._programs(wanted)
        made_s = time.monotonic() - started
        judge = _Judge(self.journal, sides, self.profiles, programs)
        ran = time.monotonic()
        await self._runner.run(sides, judge.scenarios, judge.ended, judge.booted(self._reach))
        judge.compare_backends()
        ran_s = max(time.monotonic() - ran, 0.001)
        executed = judge.executed()
        self.journal.round(next_, len(programs), executed, made_s + ran_s)
        history = self.journal.history
        self._tell(
            f"{history.programs} programs: {len(programs) / max(made_s, 0.001):.0f}/s made, "
            f"{len(judge.scenarios) * len(sides) / ran_s:.1f}/s run, "
            f"{len(history.differences)} differences"
        )
        if self._reach is not None:
            for kept in await self._reach.settle(self._tell):
                self.journal.reached(kept)
            self._tell(f"{self._reach.lines} lines of KVM's chips, corpus {len(history.corpus)}")

    def _check_that_all_say_something(self) -> None:
        """:class:`CannotRun` for a side that executed none of the programs so far."""
        for side in self.sides:
            if not self.journal.history.executed[str(side)]:
                raise CannotRun(
                    f"{side} executed none of {self.journal.history.programs} programs",
                    "it lacks what they need, such as x2APIC mode or a TSC deadline",
                    "choose another --cpu or --only",
                )

    async def _programs(self, wanted: int) -> tuple[list[Program], int]:
        """The next programs that can be compared, and the number after the last one.

        They are examined by as many processes as there are CPUs: nothing else runs meanwhile.
        """
        found: list[Program] = []
        number = self.journal.history.next
        while len(found) < wanted:
            share = max(LEAST_SHARE, -(-(wanted - len(found)) // self._examiners))
            starts = [number + share * one for one in range(self._examiners)]
            shares = await asyncio.gather(
                *(child.in_child(examined, self.source, range(one, one + share)) for one in starts)
            )
            for one in itertools.chain.from_iterable(shares):
                number += 1
                if (program := self.source.take(one)) is not None:
                    found.append(program)
                if len(found) == wanted:
                    break
        return found, number


class _Judge:
    """Judges the programs of a round as they end.

    ``scenarios`` are those of the programs, and after them some of them again.
    """

    def __init__(
        self,
        journal: Journal,
        sides: Sequence[Side],
        profiles: Mapping[Side, Profile],
        programs: Sequence[Program],
    ) -> None:
        self._journal = journal
        self._profiles = profiles
        self._programs = [*programs, *programs[::TWICE_EVERY]]
        self._again = {
            len(programs) + place: first
            for place, first in enumerate(range(0, len(programs), TWICE_EVERY))
        }
        self._ran: dict[Side, dict[int, Ran]] = {side: {} for side in sides}
        self.scenarios = [program.scenario for program in self._programs]

    def ended(self, side: Side, found: Mapping[int, Ran]) -> None:
        """Judge what ended on a side."""
        self._ran[side] |= found
        for place, ran in found.items():
            program = self._programs[place]
            if place not in self._again:
                expected = program.predicted.get(self._profiles[side])
                for oracle, finding, blame in oracles.of_one(program.scenario, expected, ran):
                    against = MODEL if oracle is Oracle.CHIPS else ""
                    self._write(oracle, program, side, against, finding, blame)
        for place, first in self._again.items():
            if place in found or first in found:
                self._compare_twice(side, first, place)

    def _compare_twice(self, side: Side, first: int, again: int) -> None:
        one, other = (self._ran[side].get(place) for place in (first, again))
        if one is None or other is None:
            return
        program = self._programs[first]
        for finding in oracles.compared(program.scenario, one.whole, other.whole)[:1]:
            self._write(Oracle.TWICE, program, side, str(side), finding)

    def booted(self, reach: Reach | None) -> Booted:
        """Has ``reach`` take in what boots executed."""

        def take(side: Side, places: Sequence[int], recorded: Recording) -> None:
            if reach is not None:
                reach.ended(side, [self._programs[place] for place in places], recorded)

        return take

    def compare_backends(self) -> None:
        """Of programs without a prediction: every side against the last one."""
        *others, reference = self._ran
        for place, program in enumerate(self._programs):
            if program.predicted or place in self._again:
                continue
            expected = self._ran[reference][place].whole
            for side in others:
                found = self._ran[side][place].whole
                for finding in oracles.compared(program.scenario, expected, found)[:1]:
                    self._write(Oracle.BACKENDS, program, side, str(reference), finding)

    def executed(self) -> Counter[str]:
        """By side, how many programs said something: those that it lacks the means for do not."""
        return Counter(
            {
                str(side): sum(
                    one.whole is not None or one.trouble is not None for one in ran.values()
                )
                for side, ran in self._ran.items()
            }
        )

    def _write(
        self,
        oracle: Oracle,
        program: Program,
        side: Side,
        against: str,
        finding: LogFinding,
        blame: str = "",
    ) -> None:
        written = program.written
        self._journal.difference(
            Difference(
                *(oracle, written.number, program.name, written.grammar.name),
                *(str(side), against, finding, blame),
            )
        )
