"""A bench whose backends are the Python chips too: campaigns of random programs without a QEMU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.base.errors import GuestHang, HarnessError, HostError, LabDied
from harness.model.case import Case, Host, Irqchip, Machine, ProbeGuest
from harness.record.recording import Recording
from harness.repro.bench import Bench, Chips, Place, Side, Stage
from harness.run.scheduler import Failed
from harness.scenario.log import Log
from harness.scenario.predict import predict
from harness.scenario.program import Scenario
from userspace_chip.profile import Profile, profile

QEMU, LINUX = "7.2", "6.12"


def true_profile(side: Side) -> Profile:
    """The chips of a side's versions."""
    if side.irqchip is Irqchip.TCG:
        return profile("tcg", qemu=side.qemu or QEMU)
    return profile(side.irqchip.value, qemu=side.qemu or QEMU, linux=side.kernel or LINUX)


@dataclass
class ModelBench(Bench):
    """``wrong`` says how a side's backend differs from its chips.

    ``hangs``: programs that stop the probe, and so do those of which ``hangs_at`` is true.

    ``ends_lab``: programs under which a lab dies; ``broken``: sides that cannot be run;
    ``single``: sides that have one CPU at most.
    """

    folder: Path
    wrong: Callable[[Side, Profile], Profile] = lambda _side, of: of
    hangs: frozenset[str] = frozenset()
    hangs_at: Callable[[Scenario], bool] = lambda _: False
    ends_lab: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    single: frozenset[str] = frozenset()
    flaky: Mapping[str, int] = field(default_factory=dict)
    """Programs, and how often they are wrong: the first times that they are run."""
    cases: list[Case] = field(default_factory=list)
    runs: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(Stage(Machine.Q35, "qemu64", 2, self.folder), None)

    def chips_of(self, side: Side) -> Chips:
        return Chips(true_profile(side))

    def why_not(self, case: Case) -> str | None:
        return "one CPU works" if case.smp > 1 and str(side_of(case)) in self.single else None

    async def logs(
        self, subjects: Sequence[Side | Chips], scenarios: Sequence[Scenario]
    ) -> list[list[Log | None]]:
        return [
            [self._log(one, scenario) for scenario in scenarios]
            if isinstance(one, Side)
            else self._predicted(one, scenarios)
            for one in subjects
        ]

    async def record(
        self, cases: Sequence[Case], ended: Callable[[Recording | Failed], object] = lambda _: None
    ) -> list[Recording | Failed]:
        self.boots += len(cases)
        self.cases += cases
        found = [self._recorded(case) for case in cases]
        for one in found:
            ended(one)
        return found

    def _recorded(self, case: Case) -> Recording | Failed:
        side = side_of(case)
        if str(side) in self.broken:
            return Failed(case, HostError("the lab did not boot", "there is no kernel"))
        assert isinstance(case.guest, ProbeGuest)
        text, stalled, failure = "probe 1\n", {}, None
        for index, scenario in enumerate(case.guest.scenarios):
            if scenario.name in self.ends_lab and case.backend.host is Host.LAB:
                text += f"= {index:x}\n"
                failure = LabDied("the lab died under it", "an assertion failed")
                break
            if scenario.name in self.hangs or self.hangs_at(scenario):
                text += f"= {index:x}\n0 0 read 1\n"
                stalled[index] = GuestHang("a scenario says nothing for 20 s")
                continue
            log = self._log(side, scenario)
            text += f"= {index:x}\n" + "".join(f"{event}\n" for event in log.events)
            text += f". {index:x}\n"
        else:
            text += "done\n"
        return recording(case, self.folder, text, stalled, failure)

    def _log(self, side: Side, scenario: Scenario) -> Log:
        key = str(side), scenario.name
        turn = self.runs[key] = self.runs.get(key, 0) + 1
        true = true_profile(side)
        times = self.flaky.get(scenario.name)
        if times is not None and turn > times:
            return predict(scenario.program, true)
        return predict(scenario.program, self.wrong(side, true))


def recording(
    case: Case,
    folder: Path,
    console: str,
    stalled: Mapping[int, HarnessError] | None = None,
    failure: HarnessError | None = None,
) -> Recording:
    """What was recorded of a probe that said ``console``."""
    return Recording(case, folder, 1.0, console, 1, failure, stalled=dict(stalled or {}))


def side_of(case: Case) -> Side:
    """The side that a case is of."""
    backend = case.backend
    place = Place.LAB if backend.host is Host.LAB else Place.LOCAL
    kernel = None if backend.kernel in (None, "default") else backend.kernel
    qemu = None if backend.qemu == "system" else backend.qemu
    return Side(place, backend.irqchip, kernel, qemu)
