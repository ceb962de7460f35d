"""``irqmatrix worker``: this machine records cases for runs on others."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import platform
import tempfile
from dataclasses import dataclass
from typing import Any, Final

from harness.base import ownership
from harness.base.capacity import capacity
from harness.base.terminal import Printer
from harness.cluster import abilities, dask
from harness.cluster.bench import RunBench, WorkerMachine, bench
from harness.cluster.order import SERVING, CaseOrder, Delivery, WorkerStep, topic
from harness.doctor.doctor import local_facts
from harness.images.cache import ImageCache
from harness.model.case import folder_name
from harness.run.room import fitting_jobs

IDLE_S: Final = 30.0
"""What a worker has for a run goes when nothing was ordered for so long."""


@dataclass(frozen=True)
class WorkerRequest:
    """What is asked for on the command line.  ``jobs``: None for as many as fit."""

    executor: str
    jobs: int | None
    name: str | None


class _Kept:
    """A bench, in a task of its own that has it until it is idle or ended."""

    def __init__(self, first: CaseOrder, machine: WorkerMachine, tell: Any) -> None:
        self.orders = 0
        self._changed = asyncio.Event()
        self._bench: asyncio.Future[RunBench] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._keep(first, machine, tell))

    async def _keep(self, first: CaseOrder, machine: WorkerMachine, tell: Any) -> None:
        async with bench(first, machine, tell) as found:
            self._bench.set_result(found)
            while True:
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        await self._changed.wait()
                        continue
                if not self.orders:
                    return

    async def record(self, order: CaseOrder) -> Delivery:
        """One order."""
        self.orders += 1
        try:
            return await (await asyncio.shield(self._bench)).record(order)
        finally:
            self.orders -= 1
            self._changed.set()


class Serving:
    """What a dask worker has of irqmatrix: a bench for each run."""

    def __init__(self, machine: WorkerMachine, worker: Any) -> None:
        self._machine = machine
        self._worker = worker
        self._benches: dict[str, _Kept] = {}

    async def close(self) -> None:
        """Everything is down when it comes back."""
        for run in tuple(self._benches):
            await self.end(run)

    async def record(self, order: CaseOrder) -> Delivery:
        """One order, on the bench of its run."""
        kept = self._benches.get(order.run)
        if kept is None or kept.task.done():

            def tell(step: WorkerStep) -> None:
                self._worker.log_event(topic(order.run), dataclasses.asdict(step))

            kept = self._benches[order.run] = _Kept(order, self._machine, tell)
        ordered = asyncio.ensure_future(kept.record(order))
        await asyncio.wait([ordered, kept.task], return_when=asyncio.FIRST_COMPLETED)
        if not ordered.done():
            ordered.cancel()
            raise RuntimeError("the run has ended")
        return ordered.result()

    async def end(self, run: str) -> None:
        """Of a run nothing more is needed."""
        kept = self._benches.pop(run, None)
        if kept is not None:
            kept.task.cancel()
            await asyncio.wait([kept.task])


async def record(order: CaseOrder) -> Delivery:
    """A task of dask's, on the worker."""
    serving: Serving = dask.distributed().get_worker().extensions[SERVING]
    return await serving.record(order)


async def end(run: str, dask_worker: Any) -> None:
    """On every worker: the run is over."""
    serving = dask_worker.extensions.get(SERVING)
    if serving is not None:
        await serving.end(run)


async def work(request: WorkerRequest, console: Printer) -> None:
    """Record what is asked for, until the scheduler ends it; :class:`CannotRun` without one."""
    address = dask.scheduler_address(request.executor)
    with dask.quiet(), tempfile.TemporaryDirectory(prefix="irqmatrix-dask-") as scratch:
        ownership.remove_leftovers()
        found = capacity()
        seats = request.jobs or fitting_jobs(found=found)
        local = await asyncio.to_thread(local_facts, measure=True)
        name = folder_name(request.name or f"{platform.node()}-{os.getpid()}")
        resources = abilities.announced(ImageCache(offline=True), local, seats, found.memory_mib)
        library = dask.distributed()
        worker = library.Worker(
            address,
            name=name,
            nthreads=seats,
            resources=resources,
            local_directory=scratch,
            dashboard=False,
            memory_limit=0,
            death_timeout=dask.CONNECT_S,
        )
        serving = worker.extensions[SERVING] = Serving(WorkerMachine(name, seats, local), worker)
        try:
            await worker
        except (OSError, TimeoutError) as error:
            raise dask.unreachable(request.executor, error) from None
        try:
            _print(console, f"worker {name} of {request.executor}: {seats} at a time")
            _print(console, "  " + ", ".join(sorted(resources)))
            await worker.finished()
            _print(console, "the scheduler is gone, or has ended this worker")
        finally:
            await serving.close()
            await worker.close()


def _print(console: Printer, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
