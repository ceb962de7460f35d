"""Runs the cases of a matrix: which host they run on, and in which order; one lab serves many."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import platform
import shutil
import time
import traceback
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from harness.backends.base import GuestPlan, Session
from harness.backends.lab import LabPlan, booted_lab
from harness.backends.local import LocalSession
from harness.base.errors import HarnessError, HostError, LabLost, StoreError, advice
from harness.config import feasibility
from harness.config.config import RunConfig
from harness.config.feasibility import LocalFacts
from harness.images import multiboot
from harness.images.cache import ImageCache
from harness.images.model import QemuImage
from harness.model import manifest
from harness.model.case import Accel, Case, FlatGuest, Host, ProbeGuest, folder_name
from harness.model.manifest import CaseFile
from harness.model.verdict import Blame, CaseResult, Verdict, of_case
from harness.record.case_runner import conduct
from harness.record.recording import Recording
from harness.run.progress import Progress
from harness.scenario.program import encode
from harness.store import case_folder
from harness.store.run_directory import FIRST_TIME

MAX_LAB_FAILURES: Final = 2
"""After so many labs that did not boot, no further one is tried for the same kernel and QEMU."""

MAX_LABS_ENDED: Final = 2
"""A case under which so many labs died is not run again, nor its repetitions."""

_CellKey: TypeAlias = tuple[str, str]
Judge: TypeAlias = Callable[[Recording], Coroutine[None, None, CaseResult]]
_Outcome = TypeVar("_Outcome")


class Bug(HarnessError):
    """An error that is our own mistake; its details are in a file."""


@dataclass(frozen=True)
class HostKey:
    """What cases have to share to run on the same booted host."""

    host: Host
    qemu: str
    kernel: str | None

    @classmethod
    def of(cls, case: Case) -> HostKey:
        """The host that ``case`` needs."""
        return cls(case.backend.host, case.backend.qemu, case.backend.kernel)


@dataclass(frozen=True)
class Prepared:
    """A case whose images are there, or that cannot be run for the reason ``skip``."""

    case: Case
    plan: GuestPlan
    skip: str | None


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

    What the probe is to execute is written below ``out``.
    """
    prepared: list[Prepared] = []
    failed: dict[str, HarnessError] = {}
    hosts: dict[HostKey, HarnessError | None] = {}
    for case in config.cases:
        key = HostKey.of(case)
        if key not in hosts:
            hosts[key] = _error_of(functools.partial(_prepare_host, key, config, cache))
        try:
            if (error := hosts[key]) is not None:
                raise error
            prepared.append(_prepare_one(case, cache, local, out))
        except (HarnessError, OSError) as error:
            failed[case.id] = _as_ours(error)
    return Preparation(tuple(prepared), failed)


def _prepare_host(key: HostKey, config: RunConfig, cache: ImageCache) -> None:
    if key.host is Host.LAB:
        cache.lab_initrd(cache.kernel(key.kernel or "default"), cache.qemu(key.qemu))
        cache.qemu(config.lab.qemu)


def _error_of(work: Callable[[], None]) -> HarnessError | None:
    try:
        work()
    except (HarnessError, OSError) as error:
        return _as_ours(error)
    return None


def _as_ours(error: HarnessError | OSError) -> HarnessError:
    """An error of this machine as one of ours, with what to do about it."""
    if isinstance(error, HarnessError):
        return error
    return HarnessError("the system refused it", str(error), advice(error))


def _prepare_one(case: Case, cache: ImageCache, local: LocalFacts | None, out: Path) -> Prepared:
    skip = feasibility.why_not(case, cache.qemu(case.backend.qemu).version, local)
    is_local_kvm = case.backend.host is Host.LOCAL and case.backend.accel is Accel.KVM
    guest = case.guest
    if isinstance(guest, ProbeGuest):
        emulated = is_local_kvm and local is not None and local.emulates
        case = replace(case, guest=replace(guest, far_return=emulated))
        files = cache.probe(), _program(guest, case, out)
        return Prepared(case, GuestPlan(case, *files, trace_log=False, paused=False), skip)
    if isinstance(guest, FlatGuest):
        # Its monitor says whether it reset or powered off; what comes over it comes at any time.
        paused = not case.deterministic
        plan = GuestPlan(case, _image(guest, out), None, trace_log=True, paused=paused)
        return Prepared(case, plan, skip)
    image = cache.kernel(guest.kernel)
    initrd = cache.linux_initrd(image)
    plan = GuestPlan(case, image.vmlinuz, initrd, trace_log=True, paused=is_local_kvm)
    return Prepared(case, plan, skip)


def _image(guest: FlatGuest, out: Path) -> Path:
    """The image as QEMU loads it: itself, or what was made of it, in ``out``."""
    try:
        image = guest.path.read_bytes()
        made = multiboot.loadable(image)
        if made == image:
            return guest.path
        path = out / f"{guest.name}-{zlib.crc32(made):08x}.elf32"
        path.write_bytes(made)
    except OSError as error:
        what = f"cannot make a 32-bit ELF file of {guest.path}"
        raise StoreError(what, error.strerror, "choose another --out") from None
    return path


def _program(guest: ProbeGuest, case: Case, out: Path) -> Path:
    """The multiboot module with the scenarios of ``guest``; the same for every backend.

    A name with a comma would be two modules to QEMU.
    """
    path = out / f"{folder_name(case.subject).replace(',', '_')}.program"
    try:
        path.write_bytes(encode([scenario.program for scenario in guest.scenarios]))
    except OSError as error:
        raise StoreError(f"cannot write {path}", error.strerror, "choose another --out") from None
    return path


class Scheduler:
    """One run.  Workers take cases; each keeps its host up for as long as there are cases for it.

    ``jobs`` is the number of workers, and so of labs that are up at the same time.  Whatever
    happens to one case is its result, and the others run.  ``settled`` is called for each result.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        cache: ImageCache,
        local: LocalFacts | None,
        progress: Progress,
        judge: Judge,
        settled: Callable[[CaseResult], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._out = out
        self._cache = cache
        self._local = local
        self._progress = progress
        self._judge = judge
        self._settled = settled
        self._judges = asyncio.Semaphore(len(os.sched_getaffinity(0)))
        self._waiting: dict[HostKey, list[Prepared]] = {}
        self._lab_failures: Counter[HostKey] = Counter()
        self._lab_numbers = itertools.count(1)
        self._first_times: dict[str, str] = {}
        self._labs_ended: Counter[_CellKey] = Counter()
        self.results: dict[str, CaseResult] = {}

    async def run(self, preparation: Preparation, jobs: int) -> None:
        """Run everything; :attr:`results` has the result of every case then."""
        items = preparation.prepared
        for case in self._config.cases:
            if (error := preparation.failed.get(case.id)) is not None:
                self._settle(_without_run(case, error))
        for item in items:
            if item.skip is not None:
                self._settle(of_case(item.case, Verdict.SKIP, item.skip, 0.0))
        await self._run_all([item for item in items if item.skip is None], jobs)
        for _ in range(self._config.retries):
            again = [
                item
                for item in items
                if not self.results[item.case.id].as_expected and not self._ends_labs(item.case)
            ]
            if not again:
                break
            self._progress.note(f"{len(again)} not as expected: run again")
            for item in again:
                self._set_aside(item.case)
            await self._run_all(again, jobs)

    async def _run_all(self, items: Iterable[Prepared], jobs: int) -> None:
        for item in items:
            self._waiting.setdefault(HostKey.of(item.case), []).append(item)
        async with asyncio.TaskGroup() as self._group:
            for _ in range(jobs):
                self._group.create_task(self._work())

    def _set_aside(self, case: Case) -> None:
        """Keep what a case was and left the first time, which is the one that is of interest."""
        outcome = self.results[case.id]
        folder, kept = self._out / outcome.dir, self._out / FIRST_TIME / outcome.dir
        if outcome.id in self._first_times:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            self._first_times[outcome.id] = f"{outcome.verdict}: {outcome.detail}"
            with contextlib.suppress(OSError):
                kept.parent.mkdir(exist_ok=True)
                folder.rename(kept)
        again = replace(incomplete(case), first_time=self._first_times[case.id])
        self.results[case.id] = again
        self._settled(again)

    async def _work(self) -> None:
        while (key := self._next_host()) is not None:
            try:
                async with self._session(key) as session:
                    await self._serve(key, session)
            except (Exception, asyncio.CancelledError) as error:
                _unless_cancelled(error)
                told = self._told(error, ".")
                self._progress.note(str(told))
                self._lab_failures[key] += 1
                if self._lab_failures[key] >= MAX_LAB_FAILURES:
                    for item in self._waiting.pop(key, []):
                        self._settle(_without_run(item.case, told))

    async def _serve(self, key: HostKey, session: Session) -> None:
        while self._waiting.get(key):
            item = self._waiting[key].pop(0)
            await self._run_one(session, item)
            if session.lost:
                self._note_end_of_lab(key, item.case)
                if self._waiting.get(key):
                    self._progress.note("the lab died; the remaining cases run in a new one")
                return

    def _note_end_of_lab(self, key: HostKey, case: Case) -> None:
        """A lab died under ``case``; where several did, no repetition of it ends more of them."""
        self._labs_ended[_cell(case)] += 1
        if not self._ends_labs(case):
            return
        error = LabLost("not run", f"{MAX_LABS_ENDED} labs died under a repetition of it")
        waiting = self._waiting.get(key, [])
        self._waiting[key] = [item for item in waiting if _cell(item.case) != _cell(case)]
        for item in waiting:
            if _cell(item.case) == _cell(case):
                self._settle(_without_run(item.case, error))

    def _ends_labs(self, case: Case) -> bool:
        """Whether enough labs died under it to know."""
        return self._labs_ended[_cell(case)] >= MAX_LABS_ENDED

    def _next_host(self) -> HostKey | None:
        """The host that most cases are waiting for."""
        waiting = {key: len(items) for key, items in self._waiting.items() if items}
        return max(waiting, key=waiting.__getitem__, default=None)

    @contextlib.asynccontextmanager
    async def _session(self, key: HostKey) -> AsyncIterator[Session]:
        qemu = self._cache.qemu(key.qemu)
        if key.host is Host.LOCAL:
            yield LocalSession(qemu)
            return
        number = next(self._lab_numbers)
        log = self._out / f"lab-{number}.log"
        started = time.monotonic()
        async with booted_lab(self._lab_plan(key, qemu), log) as session:
            took_s = time.monotonic() - started
            self._progress.note(f"lab {number}: Linux {session.description}, up in {took_s:.1f} s")
            yield session

    def _lab_plan(self, key: HostKey, qemu: QemuImage) -> LabPlan:
        kernel = self._cache.kernel(key.kernel or "default")
        plans = [item.plan for item in self._waiting.get(key, [])]
        files = dict.fromkeys(
            path for plan in plans for path in (plan.kernel, plan.initrd) if path is not None
        )
        return LabPlan(
            kernel=kernel,
            qemu=qemu,
            initrd=self._cache.lab_initrd(kernel, qemu),
            host_qemu=self._cache.qemu(self._config.lab.qemu),
            payload=tuple(files),
            accel=feasibility.lab_accel(self._local),
            memory_mib=self._config.lab.memory_mib,
            smp=self._config.lab.smp,
        )

    async def _run_one(self, session: Session, item: Prepared) -> None:
        """Run a case; it is judged while the host goes on with the next one."""
        case, started = item.case, time.monotonic()
        directory = self._out / case.directory_name

        async def record() -> Recording:
            directory.mkdir(parents=True, exist_ok=True)
            manifest.write(directory, self._described(case))
            return await conduct(session, item.plan, directory, self._step(case))

        self._step(case)("starting")
        recording = await self._guarded(case, started, record())
        if isinstance(recording, Recording):
            self._group.create_task(self._judge_one(recording, started))
        else:
            self._settle(recording)

    async def _judge_one(self, recording: Recording, started: float) -> None:
        case = recording.case
        self._step(case)("judging")
        async with self._judges:
            self._settle(await self._guarded(case, started, self._judge(recording)))

    async def _guarded(
        self, case: Case, started: float, work: Coroutine[None, None, _Outcome]
    ) -> _Outcome | CaseResult:
        """What ``work`` gives; an error of it is the case's, and a bug of ours is told as one."""
        try:
            return await work
        except (Exception, asyncio.CancelledError) as error:
            _unless_cancelled(error)
            told = self._told(error, case.directory_name)
            return _without_run(case, told, time.monotonic() - started)

    def _told(self, error: BaseException, folder: str) -> HarnessError:
        """An error as what a user is told; a bug of ours, with its details in ``folder``."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, HarnessError | OSError):
            return _as_ours(error)
        path = self._out / folder / "error.txt"
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        return Bug(f"a bug of irqmatrix, see {folder}/error.txt: {error!r}")

    def _step(self, case: Case) -> Callable[[str], None]:
        """Told what the case is doing."""
        return functools.partial(self._progress.step, case.id)

    def _described(self, case: Case) -> CaseFile:
        backend = case.backend
        is_lab = backend.host is Host.LAB
        is_local_kvm = not is_lab and backend.accel is Accel.KVM
        return manifest.describe(
            case,
            qemu=".".join(map(str, self._cache.qemu(backend.qemu).version)),
            linux=self._cache.kernel(backend.kernel or "default").version
            if is_lab
            else platform.release(),
            kvm=self._local.kvm.module if is_local_kvm and self._local is not None else None,
            lab_cpus=self._config.lab.smp if is_lab else 1,
            lab_qemu=self._emulator() if is_lab else None,
        )

    def _emulator(self) -> str | None:
        """The version of the QEMU whose TCG is the labs' hardware; None where a KVM runs them."""
        if feasibility.lab_accel(self._local) is not Accel.TCG:
            return None
        return ".".join(map(str, self._cache.qemu(self._config.lab.qemu).version))

    def _settle(self, outcome: CaseResult) -> None:
        outcome = replace(outcome, first_time=self._first_times.get(outcome.id))
        self.results[outcome.id] = outcome
        self._settled(outcome)
        directory = self._out / outcome.dir
        try:
            directory.mkdir(parents=True, exist_ok=True)
            case_folder.write_verdict(directory, outcome)
        except (OSError, StoreError) as error:
            self._progress.note(f"{outcome.id}: no verdict.json: {error}")
        self._progress.done(outcome)


def _cell(case: Case) -> _CellKey:
    """What all repetitions of a case have in common."""
    return case.subject, case.backend.name


def _unless_cancelled(error: BaseException) -> None:
    """Raise again where it is this task that is to end, and not something that it waited for."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
        raise error


def incomplete(case: Case) -> CaseResult:
    """What is known of a case before it has ended."""
    why = "the run ended before it"
    return of_case(case, Verdict.INCOMPLETE, why, 0.0, as_expected=False, blame=Blame.HARNESS)


def _without_run(case: Case, error: HarnessError, duration_s: float = 0.0) -> CaseResult:
    """A case that could not be run or judged; that says nothing of its subject."""
    blame = Blame.LAB if isinstance(error, HostError) else Blame.HARNESS
    return of_case(case, Verdict.ERROR, str(error), duration_s, as_expected=False, blame=blame)
