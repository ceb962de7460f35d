"""One boot of a guest, and what everyone who drives it can do with it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from harness.backends.base import RunningGuest
from harness.base.errors import CollectError, GuestCrash, HarnessError
from harness.guests.console import Console
from harness.guests.plan import GuestPlan
from harness.model.layout import CaseDir
from harness.model.marks import Mark
from harness.record.collectors.qmp import Monitor, monitor
from harness.record.recording import CpuShare, LastLook, MarkRecord, WorkloadRecord

LAST_LOOK_TIMEOUT_S: Final = 5.0
BETWEEN_LOOKS_S: Final = 1.0
LAB_PYTHON_S: Final = 120.0
"""What a Python in a lab may take to start on a busy machine, until the VMM's monitor greets."""
EXIT_TIMEOUT_S: Final = 5.0
"""A connection that breaks, or a console that ends, does so a little before the process does."""

_T = TypeVar("_T")

Announce: TypeAlias = Callable[[str], None]
"""Gets what the case is doing, for the progress display."""


@dataclass
class PartialRecording:
    """What has been recorded so far, of all boots of a case; true at whatever point it ends."""

    console: str = ""
    status: int | None = None
    ended_by: str | None = None
    failure: HarnessError | None = None
    workloads: list[WorkloadRecord] = field(default_factory=list)
    current: tuple[str, float] | None = None
    """The workload that is going on, and when it began."""
    marks: list[MarkRecord] = field(default_factory=list)
    trace_clock_offset_ns: int = 0
    vcpu_of_thread: dict[int, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    boots: int = 0
    stalled: dict[int, HarnessError] = field(default_factory=dict)
    is_saved: bool = False
    """Whether the last boot ended with the guest in a file, for the next one to load."""
    loads: int = 0
    """Of the boots, those that loaded it."""
    last_looks: list[LastLook] = field(default_factory=list)
    cpu_share: CpuShare | None = None


@dataclass(frozen=True)
class Files:
    """Where a case is recorded, and where on its host a state of its guest is kept."""

    directory: Path
    state: str


class Tracer(Protocol):
    """Who records what happens, and is to know what this is about."""

    async def mark(self, text: str) -> None:
        """A moment with a name."""

    async def follow(self, pids: Sequence[int]) -> None:
        """The tasks that run the guest's CPUs."""


@dataclass(frozen=True)
class Boot:
    """A running guest and who is informed of it; ``seen`` is where all of it goes."""

    plan: GuestPlan
    guest: RunningGuest
    console: Console
    files: Files
    trace: Tracer | None
    seen: PartialRecording
    step: Announce

    async def mark(self, mark: Mark) -> None:
        """A moment with a name, in the recording and among the events."""
        self.seen.marks.append(MarkRecord(time.time_ns(), str(mark)))
        if self.trace is not None:
            await self.trace.mark(str(mark))

    async def started(self, stack: contextlib.AsyncExitStack) -> Monitor | None:
        """The monitor of a guest that runs; None where QEMU ended instead of greeting."""
        self.step("connecting to the monitor")
        try:
            mon = await self.unless_gone(self.connected(stack))
            self.seen.vcpu_of_thread |= await self.unless_gone(mon.vcpu_threads())
        except GuestCrash:
            return None
        if self.plan.paused:
            if self.trace is not None:
                await self.trace.follow(list(self.seen.vcpu_of_thread))
            if not self.plan.incoming:
                await mon.execute("cont")
        return mon

    async def connected(self, stack: contextlib.AsyncExitStack) -> Monitor:
        """Its monitor, for as long as ``stack`` lasts."""
        log = CaseDir(self.files.directory).monitor
        greeting_s = LAB_PYTHON_S if self.plan.case.backend.is_live_in_lab else None
        connection = self.guest.monitor
        return await stack.enter_async_context(monitor(connection, log, greeting_s=greeting_s))

    async def unless_gone(self, work: Coroutine[None, None, _T]) -> _T:
        """What ``work`` with its QEMU gives; :class:`GuestCrash` where that ended instead."""
        working, exited = asyncio.ensure_future(work), self.guest.exited
        either: set[asyncio.Future[Any]] = {working, exited}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if working.done() and working.exception() is not None:
                await asyncio.wait({exited}, timeout=EXIT_TIMEOUT_S)
            if exited.done() and (not working.done() or working.exception() is not None):
                exited.result()
                raise GuestCrash("its QEMU went away")
            return await working
        finally:
            working.cancel()
            await asyncio.wait({working})

    async def last_look(self, mon: Monitor | None, stack: contextlib.AsyncExitStack) -> None:
        """The chips and the CPUs of a guest that hangs, into ``qmp.jsonl``; for its reader."""
        try:
            async with asyncio.timeout(LAST_LOOK_TIMEOUT_S):
                if mon is None:
                    mon = await self.connected(stack)
                await mon.snapshot(self.plan.case.smp)
                await mon.human("info registers -a")
        except (TimeoutError, CollectError) as error:
            why = f"the monitor of the hanging guest: {error or 'no answer'}"
            self.seen.missing["last look"] = why

    async def look_twice(self, mon: Monitor | None, stack: contextlib.AsyncExitStack) -> None:
        """What moves and what does not, a second apart.

        The console is read in the meantime: a guest that talks would wait for its reader.
        """
        reading = asyncio.ensure_future(self.console.read_all())
        try:
            async with asyncio.timeout(2 * LAST_LOOK_TIMEOUT_S):
                if mon is None:
                    mon = await self.connected(stack)
                first = await self._look(mon)
                await asyncio.sleep(BETWEEN_LOOKS_S)
                self.seen.last_looks += [first, await self._look(mon)]
        except (TimeoutError, CollectError) as error:
            why = f"the monitor of the guest: {error if str(error) else 'no answer'}"
            self.seen.missing["last look"] = why
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def _look(self, mon: Monitor) -> LastLook:
        status = await mon.status()
        registers = await mon.human("info registers -a")
        snapshot = await mon.snapshot(self.plan.case.smp)
        return LastLook(
            time_ns=time.time_ns(),
            status=status,
            registers=registers,
            lapics=snapshot.lapic_texts,
            stats=snapshot.stats,
            console_bytes=CaseDir(self.files.directory).console.stat().st_size,
        )
