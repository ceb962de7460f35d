"""On which backends a program shows a difference, and what separates those from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.base.errors import HarnessError
from harness.base.versions import Version, parse_version
from harness.compare import partition
from harness.compare.known import BackendFacts
from harness.compare.partition import Axes
from harness.compare.subjects import NO_KVM, short
from harness.fuzz import laws, oracles
from harness.fuzz.oracles import Difference, Oracle
from harness.fuzz.runner import Ran, Runner
from harness.images.cache import ImageCache
from harness.images.packages import PackageKind
from harness.model.case import Irqchip
from harness.repro import bench as bench_module
from harness.repro.bench import Bench, Place, Side
from harness.scenario.log import Log
from harness.scenario.program import Scenario

OTHERS: Final = 3
"""Kernels, and QEMUs, that a campaign does not name and its findings are run on as well."""


@dataclass(frozen=True)
class Member:
    """A backend on which the minimal program was run; ``shows`` is None where it could not be."""

    side: Side
    axes: Axes
    facts: BackendFacts
    log: Log | None
    expected: Log | None
    shows: bool | None


class Placer:
    """Runs programs on the backends of a campaign and on further ones."""

    def __init__(
        self,
        bench: Bench,
        sides: Sequence[Side],
        cache: ImageCache,
        tell: Callable[[str], None],
    ) -> None:
        self._bench = bench
        self._runner = Runner(bench)
        self._sides = sides
        self._cache = cache
        self._tell = tell

    async def placed(
        self, wanted: Sequence[Difference], scenarios: Sequence[Scenario]
    ) -> list[list[Member]]:
        """For each program the backends that it was run on, and whether they show it."""
        ran = await self._everywhere(scenarios)
        by_name = {str(side): of_side for side, of_side in ran.items()}
        return [
            [
                self._member(
                    difference,
                    scenario,
                    side,
                    of_side[index],
                    by_name[difference.against][index] if difference.against in by_name else None,
                )
                for side, of_side in ran.items()
            ]
            for index, (difference, scenario) in enumerate(zip(wanted, scenarios, strict=True))
        ]

    def shows(
        self,
        difference: Difference,
        scenario: Scenario,
        side: Side,
        ran: Ran,
        reference: Ran | None = None,
    ) -> bool:
        """Whether an execution shows what is wanted."""
        if difference.oracle is Oracle.ENDS:
            return ran.trouble is not None
        wanted = difference.finding
        if difference.oracle is Oracle.LAWS:
            return ran.whole is not None and wanted in laws.broken(scenario.program, ran.whole)
        expected = self._expected(difference, scenario, side, reference)
        return wanted in oracles.compared(scenario, expected, ran.whole)

    def _expected(
        self, difference: Difference, scenario: Scenario, side: Side, reference: Ran | None
    ) -> Log | None:
        if difference.oracle is Oracle.BACKENDS:
            return None if reference is None else reference.whole
        profile = self._bench.chips_of(side).profile
        return bench_module.predicted(scenario, profile, self._bench.stage.board)

    def _member(
        self,
        difference: Difference,
        scenario: Scenario,
        side: Side,
        ran: Ran,
        reference: Ran | None,
    ) -> Member:
        is_run = ran.trouble is not None or ran.whole is not None
        shows = self.shows(difference, scenario, side, ran, reference) if is_run else None
        expected = self._expected(difference, scenario, side, reference)
        return Member(side, self._axes(side), self._facts(side), ran.log, expected, shows)

    async def _everywhere(self, scenarios: Sequence[Scenario]) -> dict[Side, list[Ran]]:
        """What all of them did on each side that can be run; modes of one lab run together."""
        by_host: dict[tuple[Place, str | None, str | None], list[Side]] = {}
        for side in self._further():
            by_host.setdefault((side.place, side.kernel, side.qemu), []).append(side)
        found: dict[Side, list[Ran]] = {}
        for sides in by_host.values():
            try:
                found |= await self._runner.run(sides, scenarios)
            except HarnessError:
                for side in sides:
                    try:
                        found |= await self._runner.run([side], scenarios)
                    except HarnessError as error:
                        self._tell(f"not on {side}: {error}")
        return found

    def _further(self) -> list[Side]:
        """The campaign's sides, in every mode, and with other kernels and QEMUs at hand."""
        labs = [side for side in self._sides if side.place is Place.LAB]
        kernels = list(dict.fromkeys(side.kernel for side in labs))
        qemus = list(dict.fromkeys(side.qemu for side in self._sides))
        known_qemus = {short(self._versions(side)[0]) for side in self._sides}
        known_kernels = {short(v) for side in labs if (v := self._versions(side)[1]) is not None}
        other_kernels = self._others("kernel", known_kernels) if labs else []
        other_qemus = self._others("qemu", known_qemus)
        pairs = [(kernel, qemu) for kernel in kernels for qemu in qemus]
        pairs += [(kernel, qemus[0]) for kernel in other_kernels]
        pairs += [(kernels[0], qemu) for qemu in other_qemus if labs]
        in_labs = [
            Side(Place.LAB, mode, kernel, qemu)
            for kernel, qemu in pairs
            for mode in (Irqchip.ON, Irqchip.SPLIT)
        ]
        tcg = [Side(Place.LOCAL, Irqchip.TCG, None, qemu) for qemu in [*qemus, *other_qemus]]
        return list(dict.fromkeys([*self._sides, *in_labs, *tcg]))

    def _others(self, kind: PackageKind, known: Iterable[str]) -> list[str]:
        """Series of kernels or QEMUs that need not be downloaded: the oldest and the newest."""
        names = [name for name in self._cache.series(kind) if name not in set(known)]
        return names if len(names) <= OTHERS else [names[0], *names[1 - OTHERS :]]

    def _versions(self, side: Side) -> tuple[Version, Version | None]:
        """Of QEMU, and of a lab's kernel."""
        backend = side.backend
        linux = None
        if side.place is Place.LAB:
            linux = parse_version(self._cache.kernel(backend.kernel or "default").version)
        return self._cache.qemu(backend.qemu).version, linux

    def _axes(self, side: Side) -> Axes:
        qemu, linux = self._versions(side)
        is_tcg = side.irqchip is Irqchip.TCG
        called = NO_KVM if is_tcg else "-" if linux is None else short(linux)
        return {"irqchip": side.backend.mode, "QEMU": short(qemu), "Linux": called}

    def _facts(self, side: Side) -> BackendFacts:
        qemu, linux = self._versions(side)
        return BackendFacts(side.irqchip, self._bench.stage.machine, qemu, linux)


def axis_of(showing: Sequence[Member], others: Sequence[Member]) -> str:
    """What separates the backends that show a finding from those that do not, in words."""
    if not showing:
        return "not shown again"
    if not others:
        return "everywhere it was run"
    return partition.separate([[m.axes for m in showing], [m.axes for m in others]]).text
