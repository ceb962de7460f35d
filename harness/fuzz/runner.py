"""Runs programs on backends: a log each, or what went wrong instead.

A program that stops the probe, or ends the QEMU or the lab that it ran in, does not take the others
with it: they are run in a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from harness.analyse import blame
from harness.analyse.judge import facts_of
from harness.base.errors import CannotRun, GuestHang, LabDied
from harness.guests import probe
from harness.guests.kinds.table import kind_of
from harness.model.case import Case
from harness.model.verdict import Blame, Verdict
from harness.record.recording import Recording
from harness.repro.bench import Bench, Side
from harness.run.scheduler import Failed
from harness.scenario.log import Log
from harness.scenario.program import Scenario

OF_ONE_BOOT: Final = 500
"""Programs of a boot: as many are lost when all ends at once."""
AGAIN: Final = 2
"""How often a side that has run programs before is tried again where nothing of it comes up."""


@dataclass(frozen=True)
class Trouble:
    """How a program did not come to its end, and whose fault that looks like."""

    what: str
    blame: Blame | None
    verdict: Verdict


@dataclass(frozen=True)
class Ran:
    """What a program did on a backend; ``log`` is None where nothing was seen of it."""

    log: Log | None
    trouble: Trouble | None = None

    @property
    def whole(self) -> Log | None:
        """The log, where the program was run from its begin to its end."""
        if self.trouble is not None or self.log is None or not self.log.complete:
            return None
        skipped = any(event.kind == "skip" for event in self.log.events)
        return None if skipped else self.log


Ended: TypeAlias = Callable[[Side, Mapping[int, Ran]], None]
"""Gets the programs of a side, by their places, as soon as they have ended."""
Booted: TypeAlias = Callable[[Side, Sequence[int], Recording], None]
"""Gets a boot: its side, the places of its programs, and what was recorded of it."""


@dataclass(frozen=True)
class _Boot:
    """One boot: the places of its programs among all that are run."""

    side: Side
    case: Case
    places: tuple[int, ...]


class Runner:
    """Puts programs to backends, many in one boot."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._has_run: set[Side] = set()

    async def run(
        self,
        sides: Sequence[Side],
        scenarios: Sequence[Scenario],
        ended: Ended = lambda _side, _found: None,
        booted: Booted = lambda _side, _places, _recorded: None,
    ) -> dict[Side, list[Ran]]:
        """What each program did on each side.

        Nothing, of programs that the side's versions cannot run.  :class:`CannotRun` for a side on
        which nothing can be run.
        """
        found = {side: self._refused(side, scenarios) for side in dict.fromkeys(sides)}
        refused = {side: len(of_side) for side, of_side in found.items()}
        for side in filter(refused.__getitem__, found):
            ended(side, dict(found[side]))
        left = dict.fromkeys(self._has_run, AGAIN)
        while boots := [boot for side in found for boot in self._boots(side, scenarios, found)]:
            by_case = {boot.case.id: boot for boot in boots}
            progress = False
            failures: dict[Side, Failed | Recording] = {}

            def take(
                recorded: Recording | Failed,
                by_case: Mapping[str, _Boot] = by_case,
                failures: dict[Side, Failed | Recording] = failures,
            ) -> None:
                nonlocal progress
                boot = by_case[recorded.case.id]
                if isinstance(recorded, Recording):
                    booted(boot.side, boot.places, recorded)
                new = {} if isinstance(recorded, Failed) else _ran(recorded)
                if not new:
                    failures[boot.side] = recorded
                    return
                progress = True
                by_place = {boot.places[index]: ran for index, ran in new.items()}
                found[boot.side] |= by_place
                ended(boot.side, by_place)

            await self.bench.record([boot.case for boot in boots], take)
            spoke = {side for side, ran in found.items() if len(ran) > refused[side]}
            self._has_run |= spoke
            silent = {side: failed for side, failed in failures.items() if side not in spoke}
            for side, failed in silent.items():
                if not left.get(side, 0):
                    raise CannotRun(f"{side} cannot be run here", _why(failed))
                left[side] -= 1  # it ran before: a host that is too busy to boot a lab
            if not progress and not silent:
                self._give_up(found, failures, len(scenarios), ended)
        return {
            side: [by_place[n] for n in range(len(scenarios))] for side, by_place in found.items()
        }

    def _refused(self, side: Side, scenarios: Sequence[Scenario]) -> dict[int, Ran]:
        """The programs that a side of these versions cannot run, such as those of several CPUs.

        :class:`CannotRun` where these are all of them, and it has not run others either.
        """
        whys: dict[int, str] = {}
        for boot in self._boots(side, scenarios, {side: {}}):
            why = self.bench.why_not(boot.case)
            if why is not None:
                whys |= dict.fromkeys(boot.places, why)
        if scenarios and len(whys) == len(scenarios) and side not in self._has_run:
            raise CannotRun(f"{side} cannot be run here", whys[0])
        return dict.fromkeys(whys, Ran(None))

    def _boots(
        self, side: Side, scenarios: Sequence[Scenario], found: Mapping[Side, Mapping[int, Ran]]
    ) -> list[_Boot]:
        """The boots for what has no result yet."""
        by_cpus: dict[int, list[int]] = {}
        for place, scenario in enumerate(scenarios):
            if place not in found[side]:
                by_cpus.setdefault(scenario.program.cpus, []).append(place)
        boots = []
        for cpus, places in sorted(by_cpus.items()):
            for first in range(0, len(places), OF_ONE_BOOT):
                part = tuple(places[first : first + OF_ONE_BOOT])
                chosen = tuple(scenarios[place] for place in part)
                case = self.bench.case(side.backend, chosen, cpus, f"fuzz-{first}")
                boots.append(_Boot(side, case, part))
        return boots

    @staticmethod
    def _give_up(
        found: dict[Side, dict[int, Ran]],
        failures: Mapping[Side, Failed | Recording],
        number: int,
        ended: Ended,
    ) -> None:
        for side, failed in failures.items():
            trouble = Trouble(f"not reached: {_why(failed)}", Blame.LAB, Verdict.ERROR)
            left = {
                place: Ran(None, trouble) for place in range(number) if place not in found[side]
            }
            found[side] |= left
            ended(side, left)


def _why(failed: Failed | Recording) -> str:
    error = failed.error if isinstance(failed, Failed) else failed.failure
    return "it said nothing" if error is None else str(error)


def _ran(recording: Recording) -> dict[int, Ran]:
    """What is certain of the programs of a boot, by their index in it.

    One that was not run, because of what others had left, is not among them.
    """
    logs = probe.parse_logs(recording.console)
    found = {
        index: Ran(log)
        for index, log in logs.items()
        if log.complete and not any(event.kind == "dirty" for event in log.events)
    }
    facts = facts_of(recording)
    stalled = dict(recording.stalled)
    if isinstance(recording.failure, LabDied):
        last = max(logs, default=0)
        stalled[last + 1 if last in found else last] = recording.failure
    number = len(kind_of(recording.case.guest).scenarios)
    for index, error in stalled.items():
        if index < number:
            verdict = Verdict.HANG if isinstance(error, GuestHang) else Verdict.CRASH
            trouble = Trouble(str(error), blame.of(verdict, facts), verdict)
            found[index] = Ran(logs.get(index), trouble)
    return found
