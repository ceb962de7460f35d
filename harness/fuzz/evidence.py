"""A finding's evidence: what is looked for in a program's logs, whoever said that it is wrong.

Each is a :class:`~harness.repro.minimise.Comparison`, so that the minimiser can ask it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.fuzz import laws
from harness.fuzz.oracles import Difference, Oracle
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


def of(difference: Difference, bench: Bench) -> Comparison:
    """What asks whether a scenario shows the difference."""
    side = bench_module.parse(difference.side)
    own = bench.chips_of(side)
    match difference.oracle:
        case Oracle.LAWS:
            return OfLaws(bench, side)
        case Oracle.CHIPS:
            return TwoSubjects(bench, (side, own), (own, own))
        case _:
            other = bench_module.parse(difference.against)
            return TwoSubjects(bench, (side, other), (own, bench.chips_of(other)))
