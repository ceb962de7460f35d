"""A run's cases on the workers of a dask cluster: ``--executor dask://HOST:PORT``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import platform
import shutil
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from harness.base import limits
from harness.base.errors import CannotRun, ClusterError, HarnessError, StoreError
from harness.cluster import abilities, archive, dask, worker
from harness.cluster.archive import Folder
from harness.cluster.bench import CASE, LOGS
from harness.cluster.images import NotedImages, dotted
from harness.cluster.order import CaseOrder, Delivery, Pins, WorkerStep, topic
from harness.cluster.roster import Roster
from harness.config import feasibility
from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestPlan, Site
from harness.model import manifest
from harness.model.case import Case, Host
from harness.model.layout import RunDir
from harness.model.manifest import CaseFile
from harness.record import recording_file
from harness.record.recording import Recording
from harness.run import scheduler
from harness.run.executor import Executor, Hosts, Job, OpenExecutor
from harness.run.scheduler import CellKey, Failed, Preparation, Take, cell_of, guarded
from harness.run.waiting import HostKey, Prepared

MAX_WORKERS_LOST: Final = 2
"""A case under which this number of workers was lost is not run again."""
LOOK_S: Final = 1.0
END_S: Final = 1.0
"""For the workers to hear that a run is over."""


@dataclass
class _Pending:
    """A case that is not back yet."""

    case: Case
    needs: Mapping[str, float]
    given_up: asyncio.Future[HarnessError]
    begun_by: list[str] = field(default_factory=list)
    lacks_since: float | None = None

    def give_up(self, why: HarnessError) -> None:
        """It is not waited for any longer."""
        if not self.given_up.done():
            self.given_up.set_result(why)


class ClusterExecutor:
    """Made by :func:`on_cluster` only; ``client`` is dask's, connected to ``scheduler``."""

    def __init__(self, job: Job, client: Any, scheduler: str) -> None:
        self._job = job
        self._client = client
        self._scheduler = scheduler
        self._wait_s = limits.current().worker_s
        self.run = uuid.uuid4().hex
        self.roster = Roster()
        self._images = NotedImages()
        self._lab = job.config.lab
        self._pins: dict[str, Pins] = {}
        self._host: str | None = None
        self._pending: dict[str, _Pending] = {}
        self._ends_labs: set[CellKey] = set()
        self._described: dict[str, CaseFile] = {}
        self._ran: Counter[str] = Counter()
        self._lost: list[str] = []
        self._refused: set[str] = set()

    async def prepare(self) -> Preparation:
        """Find out what the names of images stand for; what workers lack shows later."""
        prepared: list[Prepared] = []
        failed: dict[str, HarnessError] = {}
        for case in self._job.config.cases:
            try:
                prepared.append(await asyncio.to_thread(self._prepared, case))
            except (HarnessError, OSError) as error:
                failed[case.id] = scheduler.as_ours(error)
        if any(abilities.uses_kvm(item.case) for item in prepared):
            self._host = self.roster.most_common(abilities.HOST)
        return Preparation(tuple(prepared), failed)

    def _prepared(self, case: Case) -> Prepared:
        images, backend = self._images, case.backend
        images.taken()
        try:
            version = images.qemu(backend.qemu).version
            if backend.host is Host.LAB:
                images.kernel(backend.kernel or "default")
                emulator = images.lab_qemu(self._job.config.lab.qemu)
                self._lab = replace(self._lab, qemu=dotted(emulator.version))
            site = Site(images, self._job.out, is_local_kvm=False, emulates=False)
            plan = kind_of(case.guest).plan(case, site)
        except CannotRun as error:
            unplanned = GuestPlan(case, Path(), None, trace_log=False, paused=False)
            return Prepared(case, unplanned, str(error))
        self._pins[case.id] = images.taken()
        return Prepared(plan.case, plan, feasibility.why_not(case, version, None))

    def hosts(self) -> Hosts:
        """What the workers were, as far as cases came back."""
        cases = self._described.values()
        kvms = sorted({case.kvm for case in cases if case.kvm is not None})
        told = {"scheduler": self._scheduler, "cases": dict(self._ran), "lost": list(self._lost)}
        return Hosts(
            kvm=", ".join(kvms) or "not asked: nothing ran on it",
            kernel=self._host or platform.release(),
            emulates_labs=any(case.lab_qemu is not None for case in cases),
            more={"cluster": told},
        )

    def ends_labs(self, case: Case) -> bool:
        """Whether enough labs, or workers, died under it to know."""
        return cell_of(case) in self._ends_labs

    async def record(self, items: Iterable[Prepared], take: Take) -> None:
        """Each on a worker that has what it needs; those that need the same lab in a row."""
        ordered = sorted(items, key=lambda item: str(HostKey.of(item.case)))
        watching = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for item in ordered:
                    group.create_task(self._one(item.case, take))
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    async def _one(self, case: Case, take: Take) -> None:
        outcome = await guarded(case, self._job.out, self._outcome(case))
        await take(outcome)

    # --- One case

    async def _outcome(self, case: Case) -> Recording | Failed:
        needs = abilities.needed(case, self._lab, self._pins[case.id], self._host)
        pending = _Pending(case, needs, asyncio.get_running_loop().create_future())
        self._pending[case.id] = pending
        task = self._client.submit(
            worker.record,
            self._order(case),
            key=f"irqmatrix-{uuid.uuid4().hex}",
            resources=dict(needs),
            pure=False,
        )
        try:
            delivery = await self._delivered(task, pending)
        finally:
            del self._pending[case.id]
            task.release()
        self._ran[delivery.worker] += 1
        return await asyncio.to_thread(self._arrived, case, delivery)

    def _order(self, case: Case) -> CaseOrder:
        qemus = {name: to for pins in self._pins.values() for name, to in pins.qemus.items()}
        kernels = {name: to for pins in self._pins.values() for name, to in pins.kernels.items()}
        files = kind_of(case.guest).own_files
        content = {name: path.read_bytes() for name, path in files.items()}
        return CaseOrder(self.run, case, self._lab, Pins(qemus, kernels), content)

    async def _delivered(self, task: Any, pending: _Pending) -> Delivery:
        """What came back for ``task``; an error of it is the case's."""
        back = asyncio.ensure_future(_result(task))
        try:
            either: set[asyncio.Future[Any]] = {back, pending.given_up}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not back.done():
                await self._client.cancel([task])
                raise pending.given_up.result()
            return back.result()
        finally:
            back.cancel()

    def _arrived(self, case: Case, delivery: Delivery) -> Recording | Failed:
        """Its folder, as if it had been recorded here."""
        place = RunDir(self._job.out)
        folder, arriving = place.case(case.directory_name).path, place.arriving(case.directory_name)
        shutil.rmtree(arriving, ignore_errors=True)
        try:
            logs = Folder(place.path, "lab-*.*")
            folders = {CASE: Folder(arriving), LOGS: logs}
            archive.unpack(delivery.archive, delivery.sha256, folders)
            if arriving.exists():
                shutil.rmtree(folder, ignore_errors=True)
                arriving.rename(folder)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)
        if delivery.ends_labs:
            self._ends_labs.add(cell_of(case))
        if delivery.failed is not None:
            return replace(delivery.failed, case=case)
        recording = _at_home(recording_file.load(folder), case)
        if recording.case.id != case.id:
            raise StoreError("a worker delivered another case", recording.case.id)
        self._described[case.id] = manifest.read(folder)
        return recording

    # --- What goes on meanwhile

    def heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        """A worker says what it does."""
        step = WorkerStep(**{name: event[1][name] for name in WorkerStep.__dataclass_fields__})
        pending = self._pending.get(step.case)
        if pending is None:
            if not step.case:
                self._job.shown.note(f"{step.by}: {step.text}")
            return
        self._job.shown.step(step.case, f"{step.by}: {step.text}")
        if step.starts:
            self._begun(pending, step.by)

    def _begun(self, pending: _Pending, by: str) -> None:
        lost, case = pending.begun_by, pending.case
        if lost:
            self._note_loss(f"worker {lost[-1]} was lost under {case.id}: it runs again on {by}")
        if len(lost) >= MAX_WORKERS_LOST:
            self._ends_labs.add(cell_of(case))
            pending.give_up(ClusterError("workers were lost under it", ", ".join(lost)))
        lost.append(by)

    def _note_loss(self, text: str) -> None:
        self._lost.append(text)
        self._job.shown.note(text)

    async def _watch(self) -> None:
        """Who is there, and which cases wait for what no worker has."""
        gone_since: float | None = None
        while True:
            try:
                await self.look()
                gone_since = None
            except OSError as error:
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > self._wait_s:
                    for pending in self._pending.values():
                        pending.give_up(_scheduler_gone(str(error)))
            for pending in self._pending.values():
                self._look_after(pending)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Ask the scheduler who is there; :class:`OSError` where it does not answer."""
        self.roster = Roster.of(await self._client.scheduler.identity(n_workers=-1))
        for text in self.roster.refused:
            if text not in self._refused:
                self._refused.add(text)
                self._job.shown.note(text)

    def _look_after(self, pending: _Pending) -> None:
        if self.roster.can(pending.needs):
            pending.lacks_since = None
            return
        pending.lacks_since = pending.lacks_since or time.monotonic()
        if time.monotonic() - pending.lacks_since <= self._wait_s:
            return
        waited = f"for {self._wait_s} s ({limits.hint('worker_s')})"
        if pending.begun_by:
            text = f"worker {pending.begun_by[-1]} was lost under {pending.case.id}"
            self._note_loss(f"{text}: no other can run it")
            pending.give_up(ClusterError(text, f"no other could run it {waited}"))
        elif not self.roster.ours:
            what = f"the cluster had no worker of {abilities.VERSION} {waited}"
            fix = f"start one with: irqmatrix worker {self._scheduler}"
            pending.give_up(ClusterError(what, None, fix))
        else:
            what = f"no worker of the cluster could run it {waited}"
            pending.give_up(CannotRun(what, self.roster.why_not(pending.needs)))


async def _result(task: Any) -> Delivery:
    """What ``task`` gives; dask's own errors as ours."""
    try:
        found: Delivery = await task
    except concurrent.futures.CancelledError:
        raise _scheduler_gone("its tasks were cancelled") from None
    except dask.distributed().KilledWorker as error:
        raise ClusterError(
            "workers were lost under it", f"the last was {error.last_worker}"
        ) from None
    return found


def _scheduler_gone(why: str) -> ClusterError:
    return ClusterError("the cluster's scheduler is gone", why, "see cluster.log")


def _at_home(recording: Recording, case: Case) -> Recording:
    """With the paths of this machine, in its file too."""
    kind = kind_of(case.guest)
    if not kind.own_files:
        return recording
    folder = next(iter(kind.own_files.values())).parent
    guest = kind_of(recording.case.guest).at(folder)
    found = replace(recording, case=replace(recording.case, guest=guest))
    recording_file.write(found)
    return found


def on_cluster(executor: str) -> OpenExecutor:
    """The executor that is called so on the command line; :class:`ConfigError` for another name."""
    address = dask.scheduler_address(executor)

    @contextlib.asynccontextmanager
    async def opened(job: Job) -> AsyncIterator[Executor]:
        with dask.quiet(RunDir(job.out).cluster_log):
            library = dask.distributed()
            client = library.Client(
                address, asynchronous=True, set_as_default=False, timeout=dask.CONNECT_S
            )
            try:
                await client
            except (OSError, TimeoutError) as error:
                raise dask.unreachable(executor, error) from None
            found = ClusterExecutor(job, client, executor)
            try:
                client.subscribe_topic(topic(found.run), found.heard)
                await found.look()
                count = len(job.config.cases)
                job.shown.note(f"{count} cases on {executor}; results in {job.out}")
                job.shown.note(f"workers: {found.roster}")
                yield found
            finally:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(END_S):
                        await client.run(worker.end, found.run, on_error="ignore")
                await client.close()

    return opened
