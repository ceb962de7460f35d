"""A worker's own side: it records orders, and keeps a lab up for the next one that needs it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.base import ownership
from harness.base.errors import CannotRun, HarnessError, HostError, LabDied
from harness.cluster import archive
from harness.cluster.images import PinnedImages
from harness.cluster.order import CaseOrder, Delivery, WorkerStep
from harness.config.config import RunConfig
from harness.config.feasibility import LocalFacts
from harness.guests.kinds.table import kind_of
from harness.model.case import Case
from harness.model.layout import CaseDir, RunDir
from harness.record.recording import Recording
from harness.run import scheduler
from harness.run.progress import Silent
from harness.run.scheduler import Failed, Scheduler
from harness.run.waiting import Waiting

LINGER_S: Final = 5.0
"""How long a lab is kept for another order."""
OF_A_FAILURE: Final = (CaseDir.manifest, CaseDir.command, CaseDir.bug)
FILES: Final = "files"
CASE, LOGS = "case", "logs"
"""The folders of a delivery's archive."""


@dataclass(frozen=True)
class WorkerMachine:
    """The worker that it is on."""

    name: str
    seats: int
    local: LocalFacts


class _Telling(Silent):
    """Says over the cluster what goes on."""

    def __init__(self, machine: WorkerMachine, tell: Callable[[WorkerStep], None]) -> None:
        self._machine = machine
        self._tell = tell

    def note(self, text: str) -> None:
        """Of no case."""
        self._tell(WorkerStep(self._machine.name, "", text))

    def step(self, case_id: str, text: str) -> None:
        """Of a case."""
        self._tell(WorkerStep(self._machine.name, case_id, text))


class RunBench:
    """What a worker has for one run: its folder, its hosts.  Made by :func:`bench` only."""

    def __init__(
        self,
        first: CaseOrder,
        machine: WorkerMachine,
        folder: Path,
        tell: Callable[[WorkerStep], None],
    ) -> None:
        self._machine = machine
        self._folder = folder
        self._tell = tell
        self._lab = first.lab
        self._images = PinnedImages(first.pins)
        self._waiting = Waiting(linger_s=LINGER_S)
        self._ended: dict[str, asyncio.Future[Recording | Failed]] = {}
        self._scheduler = Scheduler(
            self._config(),
            folder,
            self._images,
            machine.local,
            _Telling(machine, tell),
            machine.seats,
            machine.name,
        )

    def _config(self, *cases: Case) -> RunConfig:
        return RunConfig("cluster", self._folder, cases, self._lab)

    async def serve(self) -> None:
        """Until it is cancelled."""
        await self._scheduler.serve(self._waiting, self._give)

    def _give(self, recorded: Recording | Failed) -> None:
        ended = self._ended.get(recorded.case.id)
        if ended is not None and not ended.done():
            ended.set_result(recorded)

    async def record(self, order: CaseOrder) -> Delivery:
        """One case; whatever happens to it is in the delivery."""
        case = order.case
        self._tell(WorkerStep(self._machine.name, case.id, "preparing", starts=True))
        folder = self._folder / case.directory_name
        try:
            recorded = await self._recorded(order)
            return await asyncio.to_thread(self._delivery, recorded, folder)
        except (HarnessError, OSError) as error:
            failed = Failed(case, scheduler.as_ours(error))
            return await asyncio.to_thread(self._delivery, failed, folder)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _recorded(self, order: CaseOrder) -> Recording | Failed:
        case = await asyncio.to_thread(self._here, order)
        prepared = await asyncio.to_thread(
            scheduler.prepare, self._config(case), self._images, self._machine.local, self._folder
        )
        (item,) = prepared.all()
        if item.skip is not None:
            raise CannotRun(f"worker {self._machine.name} cannot run it", item.skip)
        ended: asyncio.Future[Recording | Failed] = asyncio.get_running_loop().create_future()
        self._ended[case.id] = ended
        await self._waiting.add(item)
        try:
            return await ended
        finally:
            self._ended.pop(case.id, None)

    def _here(self, order: CaseOrder) -> Case:
        """The case with its files in our folder."""
        for name, data in order.files.items():
            content = hashlib.sha256(data).hexdigest()[:16]
            path = self._folder / FILES / content / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            order = replace(order, case=_at(order.case, path.parent))
        return order.case

    def _delivery(self, recorded: Recording | Failed, folder: Path) -> Delivery:
        failed = recorded if isinstance(recorded, Failed) else None
        error = recorded.error if isinstance(recorded, Failed) else recorded.failure
        files = sorted(path for path in folder.glob("*") if path.is_file())
        if failed is not None:  # of what may be anything, only what says why
            files = [path for path in files if path.name in OF_A_FAILURE]
        logs = RunDir(self._folder).lab_logs if isinstance(error, HostError | LabDied) else ()
        packed = archive.pack({CASE: files, LOGS: logs})
        ends_labs = self._scheduler.ends_labs(recorded.case)
        return Delivery(self._machine.name, packed, archive.digest(packed), failed, ends_labs)


def _at(case: Case, folder: Path) -> Case:
    return replace(case, guest=kind_of(case.guest).at(folder))


@contextlib.asynccontextmanager
async def bench(
    first: CaseOrder, machine: WorkerMachine, tell: Callable[[WorkerStep], None]
) -> AsyncIterator[RunBench]:
    """For the run of the order ``first``; at its end all hosts are down and its folder is gone."""
    with ownership.owned_directory() as folder:
        found = RunBench(first, machine, folder, tell)
        serving = asyncio.create_task(found.serve())
        try:
            yield found
        finally:
            serving.cancel()
            await asyncio.wait([serving])
