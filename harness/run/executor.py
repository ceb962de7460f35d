"""Where a run's cases are recorded: this machine, or others (:mod:`harness.cluster`)."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from harness.config import feasibility
from harness.config.config import RunConfig
from harness.config.feasibility import LocalFacts
from harness.doctor.doctor import local_facts
from harness.images.cache import ImageCache
from harness.model.case import Accel, Case
from harness.run import scheduler
from harness.run.progress import Progress
from harness.run.scheduler import Preparation, Scheduler, Take
from harness.run.waiting import Prepared


@dataclass(frozen=True)
class Job:
    """What an executor is given: a run's cases, its folder, the images, and who shows what goes on.

    ``jobs`` is how many cases run at the same time on this machine.
    """

    config: RunConfig
    out: Path
    cache: ImageCache
    shown: Progress
    jobs: int


@dataclass(frozen=True)
class Hosts:
    """The machines that record.  ``kvm`` and ``kernel`` are those of their own KVM.

    ``more`` is for the run's environment: what else is to be known of them.
    """

    kvm: str | None
    kernel: str
    emulates_labs: bool
    """Whether labs are run by a QEMU's TCG."""
    more: Mapping[str, object] = field(default_factory=dict)


class Recorder(Protocol):
    """Who records cases; whatever happens to one case, the others are recorded."""

    async def record(self, items: Iterable[Prepared], take: Take) -> None:
        """Record ``items``, each of which ``take`` gets once; back when all of that has ended."""

    def ends_labs(self, case: Case) -> bool:
        """Whether hosts died under ``case``, so that it is not to be run again."""


class Executor(Recorder, Protocol):
    """A recorder that knows first what it can record."""

    async def prepare(self) -> Preparation:
        """What can be run, and why the rest cannot; called once, before anything is recorded."""

    def hosts(self) -> Hosts:
        """The machines, as far as they are known by now."""


OpenExecutor: TypeAlias = Callable[[Job], AbstractAsyncContextManager[Executor]]
"""How to come by one, for as long as a block lasts; :class:`CannotRun` where there is none."""


class LocalExecutor:
    """This machine."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._local: LocalFacts | None = None
        self._scheduler: Scheduler | None = None

    async def prepare(self) -> Preparation:
        """Get the images of all cases."""
        job = self._job
        self._local = await asyncio.to_thread(_facts, job.config)
        self._scheduler = Scheduler(
            job.config, job.out, job.cache, self._local, job.shown, job.jobs
        )
        return await asyncio.to_thread(
            scheduler.prepare, job.config, job.cache, self._local, job.out
        )

    async def record(self, items: Iterable[Prepared], take: Take) -> None:
        """On as many hosts as there are jobs."""
        assert self._scheduler is not None
        await self._scheduler.record(items, take)

    def ends_labs(self, case: Case) -> bool:
        """Whether enough labs died under it to know."""
        return self._scheduler is not None and self._scheduler.ends_labs(case)

    def hosts(self) -> Hosts:
        """This one."""
        emulates_labs = (
            feasibility.lab_accel(self._local, coverage=self._job.config.lab.coverage) is Accel.TCG
        )
        return Hosts(_kvm(self._local), platform.release(), emulates_labs)


@contextlib.asynccontextmanager
async def local(job: Job) -> AsyncIterator[Executor]:
    """This machine as an executor."""
    job.shown.note(f"{len(job.config.cases)} cases, {job.jobs} at a time; results in {job.out}")
    yield LocalExecutor(job)


def _facts(config: RunConfig) -> LocalFacts | None:
    """The local KVM, where a case or a lab might use it; measured only where that decides."""
    if all(case.backend.accel is Accel.TCG for case in config.cases):
        return None
    return local_facts(measure=any(map(feasibility.needs_local_speed, config.cases)))


def _kvm(local: LocalFacts | None) -> str | None:
    if local is None:
        return "not asked: nothing here needs it"
    return local.kvm.module if local.kvm.usable else local.kvm.error
