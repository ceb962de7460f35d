"""A finding's evidence: what is looked for in a program's logs, whoever said that it is wrong.

Each is a :class:`~harness.repro.minimise.Comparison`, so that the minimiser can ask it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.fuzz import laws, oracles
from harness.fuzz.oracles import Difference, Oracle
from harness.fuzz.runner import Runner
from harness.repro import bench as bench_module
from harness.repro.bench import Bench, Side
from harness.repro.minimise import Comparison, TwoSubjects, mistakes
from harness.scenario.finding import LogFinding
from harness.scenario.program import Scenario


@dataclass(frozen=True)
class OfLaws:
    """Laws that the log of one backend breaks."""

    bench: Bench
    side: Side

    @property
    def is_pure(self) -> bool:
        """A backend is booted."""
        return False

    async def findings(self, scenarios: Sequence[Scenario]) -> list[tuple[LogFinding, ...] | None]:
        """The laws that are broken; None where there is no whole log."""
        (logs,) = await self.bench.logs([self.side], scenarios)
        return [
            None if log is None or not log.complete else laws.broken(one.program, log)
            for one, log in zip(scenarios, logs, strict=True)
        ]

    def problems(self, scenario: Scenario) -> frozenset[str]:
        """The kinds of mistakes in a scenario, as the chips show them."""
        return mistakes(scenario, self.bench.chips_of(self.side), self.bench.stage.board)


AT_ONCE: Final = 4
"""Programs of a boot, each of which may stop the probe for as long as it takes to notice."""
PATIENCE_S: Final = 600.0
"""How long one program that does not end is made shorter at most."""


@dataclass(frozen=True)
class OfEnds:
    """Programs that do not come to their end: the probe stops, or its QEMU or lab ends.

    Each that shows it costs a boot and a wait.  After ``until`` (``time.monotonic``) no more are
    run: none shows it any more, and what was left then is the result.
    """

    bench: Bench
    side: Side
    runner: Runner
    until: float

    @property
    def is_pure(self) -> bool:
        """A backend is booted."""
        return False

    async def findings(self, scenarios: Sequence[Scenario]) -> list[tuple[LogFinding, ...] | None]:
        """How each ended, if it did not by itself."""
        found: list[tuple[LogFinding, ...] | None] = []
        for first in range(0, len(scenarios), AT_ONCE):
            part = scenarios[first : first + AT_ONCE]
            if time.monotonic() > self.until:
                found += [()] * len(part)
                continue
            ran = (await self.runner.run([self.side], part))[self.side]
            for scenario, one in zip(part, ran, strict=True):
                said = oracles.of_one(scenario, None, one)
                found.append(tuple(text for oracle, text, _ in said if oracle is Oracle.ENDS))
        return found

    def problems(self, scenario: Scenario) -> frozenset[str]:
        """The kinds of mistakes in a scenario, as the chips show them."""
        return mistakes(scenario, self.bench.chips_of(self.side), self.bench.stage.board)


def of(difference: Difference, bench: Bench) -> Comparison:
    """What asks whether a scenario shows the difference."""
    side = bench_module.parse(difference.side)
    own = bench.chips_of(side)
    match difference.oracle:
        case Oracle.LAWS:
            return OfLaws(bench, side)
        case Oracle.ENDS:
            return OfEnds(bench, side, Runner(bench), time.monotonic() + PATIENCE_S)
        case Oracle.CHIPS:
            return TwoSubjects(bench, (side, own), (own, own))
        case _:
            other = bench_module.parse(difference.against)
            return TwoSubjects(bench, (side, other), (own, bench.chips_of(other)))
