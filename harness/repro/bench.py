"""Two subjects that a scenario is put to, again and again: real backends, or the Python chips.

A subject is written ``[PLACE:]MODE[,kernel=V][,qemu=V]``: ``split``, ``lab:split,kernel=6.1``,
``local:on``, ``tcg,qemu=10.0``, ``model:off,qemu=7.2``, ``lab:pychip-split``; PLACE is ``lab`` by
default, for ``tcg`` it is ``local``.  The modes ``pychip-on``, ``pychip-split`` and ``pychip-off``
are the machine of the Python chips on a real KVM (docs/live.md).
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from harness.base import suggest
from harness.base.errors import CannotRun, ConfigError, HostError, PredictionError
from harness.config import feasibility, lanes
from harness.config.config import Lab, RunConfig
from harness.config.feasibility import LocalFacts
from harness.doctor.doctor import local_facts
from harness.guests import probe
from harness.images.cache import ImageCache
from harness.model.case import (
    MODES,
    Accel,
    Backend,
    Case,
    Host,
    Irqchip,
    Machine,
    ProbeGuest,
    Vmm,
    board_of,
    mode_word,
)
from harness.record.recording import Recording
from harness.replay.profiles import profile_of
from harness.run import scheduler
from harness.run.progress import Silent
from harness.run.scheduler import Failed
from harness.scenario import choice
from harness.scenario.log import Log
from harness.scenario.predict import predict
from harness.scenario.program import Scenario
from userspace_chip.architecture import Board
from userspace_chip.profile import LINUX_VERSIONS, QEMU_VERSIONS, Profile, profile

MEMORY_MIB: Final = 64
ROUND_TIMEOUT_S: Final = 900.0
"""For a boot that executes hundreds of scenarios, some of which wait in vain."""


class Place(StrEnum):
    """Where a side is."""

    MODEL = "model"
    LAB = "lab"
    LOCAL = "local"


@dataclass(frozen=True)
class Side:
    """One subject; ``kernel`` (of a lab) and ``qemu`` None are the default ones of its place."""

    place: Place
    irqchip: Irqchip
    kernel: str | None = None
    qemu: str | None = None
    vmm: Vmm = Vmm.QEMU

    @property
    def backend(self) -> Backend:
        """What it is in a case."""
        accel = Accel.TCG if self.irqchip is Irqchip.TCG else Accel.KVM
        lab = self.place is Place.LAB
        kernel = (self.kernel or "default") if lab else None
        host = Host.LAB if lab else Host.LOCAL
        return Backend(host, accel, self.irqchip, self.qemu or "system", kernel, self.vmm)

    def __str__(self) -> str:
        versions = ("kernel", self.kernel), ("qemu", self.qemu)
        words = [f"{name}={value}" for name, value in versions if value is not None]
        return ",".join([f"{self.place}:{mode_word(self.vmm, self.irqchip)}", *words])


def parse(text: str) -> Side:
    """The side that ``text`` means; :class:`ConfigError` for what is no side."""
    first, *rest = text.split(",")
    place_text, colon, mode = first.rpartition(":")
    if mode not in MODES:
        fix = suggest.nearest(mode, MODES)
        raise ConfigError(f"{text!r}: there is no irqchip mode {mode!r}", None, fix)
    vmm, irqchip = MODES[mode]
    place = Place.LOCAL if irqchip is Irqchip.TCG else Place.LAB
    if colon:
        if place_text not in list(Place):
            fix = suggest.nearest(place_text, map(str, Place))
            raise ConfigError(f"{text!r}: there is no place {place_text!r}", None, fix)
        place = Place(place_text)
    if (place, irqchip) == (Place.LAB, Irqchip.TCG):
        raise ConfigError(f"{text!r}: TCG in a lab is not a backend", None, "write tcg")
    if (place, vmm) == (Place.MODEL, Vmm.PYCHIP):
        fix = f"write model:{irqchip}, or lab:{mode} for the chips on a real KVM"
        raise ConfigError(f"{text!r}: a model has no VMM", None, fix)
    side = Side(place, irqchip, **_versions(text, rest), vmm=vmm)
    if side.kernel is not None and (place is Place.LOCAL or irqchip is Irqchip.TCG):
        raise ConfigError(f"{text!r}: only a lab and a model of KVM have a kernel to choose")
    return side


def _versions(text: str, words: Sequence[str]) -> dict[str, str]:
    """The versions that ``words`` name; a lane's name stands for its own."""
    found: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in ("kernel", "qemu") or not value:
            fix = suggest.nearest(key, ("kernel", "qemu"))
            raise ConfigError(
                f"{text!r}: {word!r} says nothing", "expected kernel=V or qemu=V", fix
            )
        found[key] = lanes.version(key, value)
    return found


@dataclass(frozen=True)
class Chips:
    """The Python chips as a subject."""

    profile: Profile

    def __str__(self) -> str:
        words = [f"model:{self.profile.mode}"]
        words += [f"kernel={self.profile.linux}"] if self.profile.linux else []
        return ",".join([*words, f"qemu={self.profile.qemu}"])


def chips(side: Side) -> Chips:
    """A model's side as chips; :class:`ConfigError` for versions that are not modelled."""
    for name, version, known in (
        ("kernel", side.kernel, LINUX_VERSIONS),
        ("qemu", side.qemu, QEMU_VERSIONS),
    ):
        if version is not None and version not in known:
            fix = f"there are {', '.join(known)}"
            raise ConfigError(f"{side}: {name} {version} is not modelled", None, fix)
    mode = side.irqchip.value
    if side.kernel is None:
        return Chips(profile(mode, qemu=side.qemu))
    return Chips(profile(mode, qemu=side.qemu, linux=side.kernel))


@dataclass(frozen=True)
class Stage:
    """On what machine the scenarios are put to their subjects, and where what is written goes."""

    machine: Machine
    cpu: str
    jobs: int
    folder: Path
    coverage: bool = False
    """Whether the labs record which instructions of their KVM run."""

    @property
    def board(self) -> Board:
        """The machine, as the Python chips have it."""
        return board_of(self.machine)


class Bench:
    """Puts scenarios to any number of subjects; a batch costs each backend one boot."""

    def __init__(self, stage: Stage, cache: ImageCache) -> None:
        self.stage = stage
        self._cache = cache
        self._numbers = itertools.count(1)
        self.boots = 0
        """Guests that were booted so far."""

    def chips_of(self, side: Side) -> Chips:
        """The Python chips that stand for a side, a backend's too."""
        if side.place is Place.MODEL:
            return chips(side)
        case = self.case(side.backend, (), 1)
        described = scheduler.described(case, self._lab, self._cache, self._local([case]))
        return Chips(profile_of(described)[0])

    def why_not(self, case: Case) -> str | None:
        """Why a backend of these versions can run ``case`` nowhere; None where it can."""
        return feasibility.why_not(case, self._cache.qemu(case.backend.qemu).version, None)

    async def logs(
        self, subjects: Sequence[Side | Chips], scenarios: Sequence[Scenario]
    ) -> list[list[Log | None]]:
        """For each subject the log of each scenario; None where none is available.

        :class:`CannotRun` where a backend cannot be run here, :class:`HostError` where it failed.
        """
        sides = [one for one in subjects if isinstance(one, Side)]
        recorded = await self._recorded(sides, scenarios) if sides and scenarios else {}
        return [
            recorded.get(one, []) if isinstance(one, Side) else self._predicted(one, scenarios)
            for one in subjects
        ]

    def _predicted(self, subject: Chips, scenarios: Sequence[Scenario]) -> list[Log | None]:
        return [predicted(one, subject.profile, self.stage.board) for one in scenarios]

    async def _recorded(
        self, sides: Sequence[Side], scenarios: Sequence[Scenario]
    ) -> dict[Side, list[Log | None]]:
        found: dict[Side, list[Log | None]] = {side: [None] * len(scenarios) for side in sides}
        left = {side: list(range(len(scenarios))) for side in sides}
        # A boot that hangs too often does not come to its end.
        while any(left.values()):
            wanted = sorted(set().union(*left.values()))
            logs = await self._boot(sides, [scenarios[index] for index in wanted])
            for side in sides:
                new = dict(zip(wanted, logs[side], strict=True))
                still = [index for index in left[side] if new[index] is None]
                for index in left[side]:
                    found[side][index] = new[index]
                left[side] = [] if still == left[side] else still
        return found

    async def _boot(
        self, sides: Sequence[Side], scenarios: Sequence[Scenario]
    ) -> dict[Side, list[Log | None]]:
        """Run all once.  A log that is not there was not reached."""
        groups = choice.by_cpus(scenarios)
        cases = [
            self.case(side.backend, group, cpus)
            for side in dict.fromkeys(sides)
            for cpus, group in groups.items()
        ]
        recordings = {one.case.id: _spoken(one) for one in await self.record(cases)}
        found: dict[Side, list[Log | None]] = {}
        for side in sides:
            logs: list[Log | None] = [None] * len(scenarios)
            for cpus, group in groups.items():
                recording = recordings[self.case(side.backend, group, cpus).id]
                places = [i for i, one in enumerate(scenarios) if one.program.cpus == cpus]
                for index, log in probe.parse_logs(recording.console).items():
                    logs[places[index]] = log
            found[side] = logs
        return found

    async def record(
        self, cases: Sequence[Case], ended: Callable[[Recording | Failed], object] = lambda _: None
    ) -> list[Recording | Failed]:
        """Boot all of them; ``ended`` gets each as it ends.

        :class:`CannotRun` where a backend cannot be run here.
        """
        folder = self.stage.folder / f"round-{next(self._numbers)}"
        folder.mkdir(parents=True)
        config = RunConfig("bench", folder, tuple(cases), self._lab)
        local = await asyncio.to_thread(self._local, cases)
        prepared = await asyncio.to_thread(scheduler.prepare, config, self._cache, local, folder)
        for item in prepared.all():
            if item.skip is not None:
                raise CannotRun(f"{item.case.backend.name} cannot be run here", item.skip)
        found: list[Recording | Failed] = []

        async def take(recorded: Recording | Failed) -> None:
            found.append(recorded)
            ended(recorded)

        runner = scheduler.Scheduler(config, folder, self._cache, local, Silent(), self.stage.jobs)
        await runner.record(prepared.prepared, take)
        # Everything that is asked of a recording is in memory; there may be thousands of them.
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self.boots += len(cases)
        return found

    @property
    def _lab(self) -> Lab:
        return Lab(coverage=self.stage.coverage)

    def _local(self, cases: Sequence[Case]) -> LocalFacts | None:
        """The local KVM, which cases run on, or labs; None where it is of no use to them."""
        is_kvm = any(case.backend.accel is Accel.KVM for case in cases)
        return self._local_kvm if is_kvm else None

    @functools.cached_property
    def _local_kvm(self) -> LocalFacts:
        return local_facts(measure=False)

    def case(
        self, backend: Backend, scenarios: tuple[Scenario, ...], cpus: int, label: str = ""
    ) -> Case:
        """One boot of the probe; ``label`` tells those of one round apart."""
        stage = self.stage
        return Case(
            ProbeGuest(scenarios, label),
            backend,
            stage.machine,
            stage.cpu,
            cpus,
            MEMORY_MIB,
            ROUND_TIMEOUT_S,
        )


def predicted(scenario: Scenario, chips_profile: Profile, board: Board) -> Log | None:
    """A scenario's log on the Python chips; None where they cannot tell."""
    if scenario.no_model is not None:
        return None
    try:
        return predict(scenario.program, chips_profile, board=board)
    except PredictionError:
        return None


def _spoken(recorded: Recording | Failed) -> Recording:
    """A recording of a probe that said something; :class:`HostError` where it was not run."""
    if isinstance(recorded, Recording) and recorded.console:
        return recorded
    error = recorded.error if isinstance(recorded, Failed) else recorded.failure
    backend = recorded.case.backend.name
    raise HostError(f"{backend}: the scenarios were not run", None if error is None else str(error))
