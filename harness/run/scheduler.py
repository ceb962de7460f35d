"""Records the cases of a matrix: on which host, and in which order; one lab serves many."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import platform
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from harness.backends.base import HostPlan, LabHardware, Session
from harness.backends.table import BACKENDS
from harness.base.errors import HarnessError, LabLost, advice
from harness.config import feasibility
from harness.config.config import Lab, RunConfig
from harness.config.feasibility import LocalFacts
from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestPlan, Site
from harness.images.cache import ImageCache
from harness.model import manifest
from harness.model.case import Accel, Case, Host
from harness.model.layout import CaseDir, RunDir
from harness.model.manifest import CaseFile
from harness.record import executed_file
from harness.record.case_runner import conduct
from harness.record.recording import Recording
from harness.run.progress import Progress
from harness.run.waiting import HostKey, Prepared, Waiting

MAX_LAB_FAILURES: Final = 2
"""Labs that may fail to boot before no further one is tried for the same kernel and QEMU."""

MAX_LABS_ENDED: Final = 2
"""A case under which this number of labs died is not run again, nor its repetitions."""

CellKey: TypeAlias = tuple[str, str]
_Outcome = TypeVar("_Outcome")


class Bug(HarnessError):
    """An error that is our own mistake; its details are in a file."""


@dataclass(frozen=True)
class Failed:
    """A case that could not be recorded or judged, and why; that says nothing of its subject."""

    case: Case
    error: HarnessError
    duration_s: float = 0.0


Take: TypeAlias = Callable[[Recording | Failed], Coroutine[None, None, None]]
"""Gets what was recorded of a case, while its host goes on with the next one."""
Give: TypeAlias = Callable[[Recording | Failed], object]


@dataclass(frozen=True)
class Preparation:
    """What can be run, and why the other cases cannot be, by id."""

    prepared: tuple[Prepared, ...]
    failed: Mapping[str, HarnessError]

    def all(self) -> tuple[Prepared, ...]:
        """All cases; raises why, where there is one that cannot be run."""
        for error in self.failed.values():
            raise error
        return self.prepared


def prepare(
    config: RunConfig, cache: ImageCache, local: LocalFacts | None, out: Path
) -> Preparation:
    """Get every image that the cases need.

    What the probe is to execute is written below ``out``; :class:`StoreError` where it cannot be.
    An image that cannot be made is an error of the cases that need it.
    """
    prepared: list[Prepared] = []
    failed: dict[str, HarnessError] = {}
    hosts: dict[HostKey, HarnessError | None] = {}
    for case in config.cases:
        key = HostKey.of(case)
        if key not in hosts:
            plan = _host_plan(key, config, cache, local)
            hosts[key] = _error_of(functools.partial(BACKENDS[key.host].prepare, plan))
        try:
            if (error := hosts[key]) is not None:
                raise error
            prepared.append(_prepare_one(case, cache, local, out))
        except (HarnessError, OSError) as error:
            failed[case.id] = as_ours(error)
    return Preparation(tuple(prepared), failed)


def _host_plan(
    key: HostKey, config: RunConfig, cache: ImageCache, local: LocalFacts | None
) -> HostPlan:
    lab, accel = config.lab, feasibility.lab_accel(local, coverage=config.lab.coverage)
    hardware = LabHardware(lab.qemu, accel, lab.memory_mib, lab.smp)
    return HostPlan(cache, key.qemu, key.kernel, hardware, lab.coverage)


def _error_of(work: Callable[[], None]) -> HarnessError | None:
    try:
        work()
    except (HarnessError, OSError) as error:
        return as_ours(error)
    return None


def as_ours(error: HarnessError | OSError) -> HarnessError:
    """An error of this machine as a HarnessError, with what to do about it."""
    if isinstance(error, HarnessError):
        return error
    return HarnessError("the system refused it", str(error), advice(error))


def _prepare_one(case: Case, cache: ImageCache, local: LocalFacts | None, out: Path) -> Prepared:
    skip = feasibility.why_not(case, cache.qemu(case.backend.qemu).version, local)
    is_local_kvm = case.backend.host is Host.LOCAL and case.backend.accel is Accel.KVM
    emulates = is_local_kvm and local is not None and local.emulates
    plan = kind_of(case.guest).plan(case, Site(cache, out, is_local_kvm, emulates))
    return Prepared(plan.case, plan, skip)


class Scheduler:
    """Seats take cases; each keeps its host up for as long as there are cases for it.

    Whatever happens to one case, the others are recorded.  Nothing is judged here.  ``jobs`` is the
    number of seats, and so of labs that are up at the same time; ``name`` is in the names of the
    labs' logs.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        cache: ImageCache,
        local: LocalFacts | None,
        progress: Progress,
        jobs: int,
        name: str = "",
    ) -> None:
        self._config = config
        self._out = out
        self._cache = cache
        self._local = local
        self._progress = progress
        self._jobs = jobs
        self._name = name
        self._lab_failures: Counter[HostKey] = Counter()
        self._numbers = {host: itertools.count(1) for host in BACKENDS}
        self._labs_ended: Counter[CellKey] = Counter()

    async def record(self, items: Iterable[Prepared], take: Take) -> None:
        """Record ``items``, each of which ``take`` gets once; back when all of that has ended."""
        waiting = Waiting(items)
        await waiting.close()
        async with asyncio.TaskGroup() as group:

            def give(recorded: Recording | Failed) -> None:
                group.create_task(take(recorded))

            await self.serve(waiting, give)

    async def serve(self, waiting: Waiting, give: Give) -> None:
        """Record what waits and what comes, until ``waiting`` is closed; ``give`` gets each."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._jobs):
                group.create_task(self._work(waiting, give))

    def ends_labs(self, case: Case) -> bool:
        """Whether enough labs died under it to know."""
        return self._labs_ended[cell_of(case)] >= MAX_LABS_ENDED

    async def _work(self, waiting: Waiting, give: Give) -> None:
        while (item := await waiting.next()) is not None:
            key, given = waiting.key(item), False
            guests = [each.plan for each in (item, *waiting.of(key))]
            try:
                async with self._session(key, guests) as session:
                    given = True
                    await self._serve(waiting, item, session, give)
            except (Exception, asyncio.CancelledError) as error:
                _unless_cancelled(error)
                told = as_told(error, self._out, ".")
                self._progress.note(str(told))
                if not given:
                    await waiting.add(item, first=True)
                self._lab_failures[key] += 1
                if self._lab_failures[key] >= MAX_LAB_FAILURES:
                    for left in waiting.take_out(key):
                        give(Failed(left.case, told))

    async def _serve(self, waiting: Waiting, first: Prepared, session: Session, give: Give) -> None:
        key, item = waiting.key(first), first
        while True:
            give(await self._recorded(session, item))
            if session.lost:
                self._note_end_of_lab(waiting, item, give)
                if waiting.of(key):
                    self._progress.note("the lab died; the remaining cases run in a new one")
                return
            following = await waiting.next_of(key)
            if following is None:
                return
            item = following

    def _note_end_of_lab(self, waiting: Waiting, item: Prepared, give: Give) -> None:
        """A lab died under ``item``; where several did, no repetition of it ends more of them."""
        cell = cell_of(item.case)
        self._labs_ended[cell] += 1
        if not self.ends_labs(item.case):
            return
        error = LabLost("not run", f"{MAX_LABS_ENDED} labs died under a repetition of it")
        for left in waiting.take_out(waiting.key(item), lambda case: cell_of(case) == cell):
            give(Failed(left.case, error))

    @contextlib.asynccontextmanager
    async def _session(self, key: HostKey, guests: Sequence[GuestPlan]) -> AsyncIterator[Session]:
        plan = _host_plan(key, self._config, self._cache, self._local)
        number = next(self._numbers[key.host])
        log = RunDir(self._out).host_log(key.host, number, self._name)
        started = time.monotonic()
        async with BACKENDS[key.host].open(plan, guests, log) as session:
            if (booted := session.description) is not None:
                took_s = time.monotonic() - started
                self._progress.note(f"{key.host} {number}: Linux {booted}, up in {took_s:.1f} s")
            yield session

    async def _recorded(self, session: Session, item: Prepared) -> Recording | Failed:
        case = item.case
        directory = self._out / case.directory_name

        async def record() -> Recording:
            directory.mkdir(parents=True, exist_ok=True)
            manifest.write(directory, self._described(case))
            recording = await conduct(session, item.plan, directory, self._step(case))
            executed = session.executed() if self._config.lab.coverage else None
            if executed is not None:
                executed_file.write(CaseDir(directory).executed, [executed])
            return recording

        self._step(case)("starting")
        return await guarded(case, self._out, record())

    def _step(self, case: Case) -> Callable[[str], None]:
        """Gets what the case is doing."""
        return functools.partial(self._progress.step, case.id)

    def _described(self, case: Case) -> CaseFile:
        return described(case, self._config.lab, self._cache, self._local)


def described(case: Case, lab: Lab, cache: ImageCache, local: LocalFacts | None) -> CaseFile:
    """``case`` with what the names of its axes stand for here, in a lab as ``lab`` has it."""
    backend = case.backend
    is_lab = backend.host is Host.LAB
    is_local_kvm = not is_lab and backend.accel is Accel.KVM
    return manifest.describe(
        case,
        qemu=".".join(map(str, cache.qemu(backend.qemu).version)),
        linux=cache.kernel(backend.kernel or "default").version if is_lab else platform.release(),
        kvm=local.kvm.module if is_local_kvm and local is not None else None,
        lab_cpus=lab.smp if is_lab else 1,
        lab_qemu=_emulator(lab, cache, local) if is_lab else None,
    )


def _emulator(lab: Lab, cache: ImageCache, local: LocalFacts | None) -> str | None:
    """The version of the QEMU whose TCG is the labs' hardware; None where a KVM runs them."""
    if feasibility.lab_accel(local, coverage=lab.coverage) is not Accel.TCG:
        return None
    return ".".join(map(str, cache.lab_qemu(lab.qemu).version))


def cell_of(case: Case) -> CellKey:
    """What all repetitions of a case have in common."""
    return case.subject, case.backend.name


def _unless_cancelled(error: BaseException) -> None:
    """Raise again where it is this task that is to end, and not something that it waited for."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
        raise error


async def guarded(
    case: Case, out: Path, work: Coroutine[None, None, _Outcome]
) -> _Outcome | Failed:
    """What ``work`` gives; an error of it is the case's; an internal one is reported as such."""
    started = time.monotonic()
    try:
        return await work
    except (Exception, asyncio.CancelledError) as error:
        _unless_cancelled(error)
        told = as_told(error, out, case.directory_name)
        return Failed(case, told, time.monotonic() - started)


def as_told(error: BaseException, out: Path, folder: str) -> HarnessError:
    """An error as the user sees it; an internal one with its details in ``folder`` of ``out``."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, HarnessError | OSError):
        return as_ours(error)
    path = RunDir(out).case(folder).bug
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return Bug(f"a bug of irqmatrix, see {folder}/{CaseDir.bug}: {error!r}")
