"""One boot of a guest, from its first word to its last: its commands and its answers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from harness.backends.base import RunningGuest
from harness.base.errors import CollectError, GuestCrash, GuestHang, HarnessError
from harness.guests import linux, probe, protocol_files, protocols
from harness.guests.console import Console
from harness.guests.plan import GuestPlan
from harness.model.case import FlatGuest, Guest, LinuxGuest, ProbeGuest
from harness.model.layout import CaseDir
from harness.model.marks import LOADED, READY, SAVED, Mark, MarkKind
from harness.record.collectors.qmp import Monitor, monitor
from harness.record.recording import LastLook, MarkRecord, WorkloadRecord

LAST_LOOK_TIMEOUT_S: Final = 5.0
BETWEEN_LOOKS_S: Final = 1.0
AFTER_RESULTS_S: Final = 2.0
"""For an image to exit, reset or power off after its last line, which says more than its end."""
MAX_END_LINES: Final = 100
"""That are looked at; an image with more of them does not mean them."""
EXIT_TIMEOUT_S: Final = 5.0
"""A connection that breaks, or a console that ends, does so a little before the process does."""

_T = TypeVar("_T")

Step: TypeAlias = Callable[[str], None]
"""Told what the case is doing, for the progress display."""


@dataclass
class Progress:
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
    last_looks: list[LastLook] = field(default_factory=list)


@dataclass(frozen=True)
class Files:
    """Where a case is recorded, and where on its host a state of its guest is kept."""

    directory: Path
    state: str


def moves(plan: GuestPlan) -> bool:
    """Whether the guest is to be saved once it is up, for another boot to load."""
    return isinstance(plan.case.guest, LinuxGuest) and plan.case.guest.migrate and not plan.incoming


class Tracer(Protocol):
    """Who records what happens, and is to know what this is about."""

    async def mark(self, text: str) -> None:
        """A moment with a name."""

    async def follow(self, pids: Sequence[int]) -> None:
        """The tasks that run the guest's CPUs."""


@dataclass(frozen=True)
class Drive:
    """A running guest and who is to be told of it; ``seen`` is where all of it goes."""

    plan: GuestPlan
    guest: RunningGuest
    console: Console
    files: Files
    trace: Tracer | None
    seen: Progress
    step: Step

    async def run(self) -> None:
        """To its end, or to the end of its time: :class:`GuestHang`, :class:`GuestCrash`."""
        case = self.plan.case
        async with contextlib.AsyncExitStack() as stack:
            mon: Monitor | None = None
            if self.plan.paused or isinstance(case.guest, LinuxGuest):
                mon = await self._started(stack)
                if mon is None:
                    return
            try:
                async with asyncio.timeout(case.timeout_s):
                    if await self._work(case.guest, mon):
                        # Shielded: others ask for the status after the time is up.
                        status = await asyncio.shield(self.guest.exited)
                        if status == 0 and mon is not None:
                            self.seen.ended_by = await mon.shutdown_reason()
            except TimeoutError:
                self._note_unanswered()
                self.step("its time is up: looking whether it moves")
                await self._look_twice(mon, stack)
                raise GuestHang(
                    f"nothing more within {case.timeout_s:g} s", console_tail=self.console.tail()
                ) from None

    async def _work(self, guest: Guest, mon: Monitor | None) -> bool:
        """What there is to do; True where the guest ends by itself then."""
        if isinstance(guest, LinuxGuest) and mon is not None:
            return await self._linux(guest, mon)
        if isinstance(guest, FlatGuest):
            return await self._flat(guest)
        if isinstance(guest, ProbeGuest):
            await self._probe(guest)
        return True

    async def _flat(self, guest: FlatGuest) -> bool:
        """Until its console ends, or its results do; False where its QEMU is to be ended then."""
        self.step("running the image")
        candidates = protocol_files.candidates(guest.protocol)
        pattern = protocols.end_pattern(candidates) if guest.has_checks else None
        for _ in range(MAX_END_LINES):
            if pattern is None or not await self.console.comes(pattern):
                break
            if protocols.is_over(self.console.text(), candidates):
                return await self._ends_by_itself()
        await self.console.read_all()
        return True

    async def _ends_by_itself(self) -> bool:
        """Whether a guest whose results are there ends soon, and does not just stand still."""
        try:
            async with asyncio.timeout(AFTER_RESULTS_S):
                await self.console.read_all()
        except TimeoutError:
            return False
        return True

    async def _mark(self, mark: Mark) -> None:
        self.seen.marks.append(MarkRecord(time.time_ns(), str(mark)))
        if self.trace is not None:
            await self.trace.mark(str(mark))

    # --- the monitor

    async def _started(self, stack: contextlib.AsyncExitStack) -> Monitor | None:
        """The monitor of a guest that runs; None where QEMU ended instead of greeting."""
        self.step("connecting to the monitor")
        try:
            mon = await self._unless_gone(self._connected(stack))
            self.seen.vcpu_of_thread |= await self._unless_gone(mon.vcpu_threads())
        except GuestCrash:
            return None
        if self.plan.paused:
            if self.trace is not None:
                await self.trace.follow(list(self.seen.vcpu_of_thread))
            if not self.plan.incoming:
                await mon.execute("cont")
        return mon

    async def _connected(self, stack: contextlib.AsyncExitStack) -> Monitor:
        """Its monitor, for as long as ``stack`` lasts."""
        log = CaseDir(self.files.directory).monitor
        return await stack.enter_async_context(monitor(self.guest.monitor, log))

    async def _unless_gone(self, work: Coroutine[None, None, _T]) -> _T:
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

    async def _last_look(self, mon: Monitor | None, stack: contextlib.AsyncExitStack) -> None:
        """The chips and the CPUs of a guest that hangs, into ``qmp.jsonl``; for its reader."""
        try:
            async with asyncio.timeout(LAST_LOOK_TIMEOUT_S):
                if mon is None:
                    mon = await self._connected(stack)
                await mon.snapshot(self.plan.case.smp)
                await mon.human("info registers -a")
        except (TimeoutError, CollectError) as error:
            why = f"the monitor of the hanging guest: {error or 'no answer'}"
            self.seen.missing["last look"] = why

    async def _look_twice(self, mon: Monitor | None, stack: contextlib.AsyncExitStack) -> None:
        """What moves and what does not, a second apart.

        The console is read in the meantime: a guest that talks would wait for its reader.
        """
        reading = asyncio.ensure_future(self.console.read_all())
        try:
            async with asyncio.timeout(2 * LAST_LOOK_TIMEOUT_S):
                if mon is None:
                    mon = await self._connected(stack)
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

    # --- Linux

    async def _linux(self, guest: LinuxGuest, mon: Monitor) -> bool:
        """Up, saved or loaded, and its workloads; False where it is not to end by itself."""
        if self.plan.incoming:
            self.step("loading its state")
            await self._unless_gone(mon.load(self.files.state))
            await self._mark(LOADED)
            await mon.execute("cont")
        else:
            self.step("booting")
            await self.console.expect(linux.READY)
            await self.console.expect(linux.PROMPT)
        if moves(self.plan):
            self.step("saving its state")
            await self._unless_gone(mon.save(self.files.state))
            await self._mark(SAVED)
            return False
        return await self._workloads(guest, mon)

    async def _workloads(self, guest: LinuxGuest, mon: Monitor) -> bool:
        case = self.plan.case
        if not case.deterministic:  # a mark comes at a time of this machine
            await self._mark(READY)
        for name in linux.runnable(guest.workloads, case.machine.value, case.smp):
            self.step(name)
            self.seen.current = (name, time.monotonic())
            if case.deterministic:
                record = await self._watch_workload(name)
            else:
                record = await self._run_workload(name, guest, mon)
            self.seen.workloads.append(record)
            self.seen.current = None
            if record.transcript is None:
                return False
        self.step("powering off")
        if not case.deterministic:
            await self.console.send_line(linux.POWER_OFF)
        return True

    async def _run_workload(self, name: str, guest: LinuxGuest, mon: Monitor) -> WorkloadRecord:
        """One workload between two snapshots, with the patience that it needs."""
        smp = self.plan.case.smp
        before = await mon.snapshot(smp)
        await self._mark(Mark(MarkKind.BEGIN, name))
        started = time.monotonic()
        await self.console.send_line(linux.command(name, guest.parameters.get(name, {})))
        said = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(linux.WORKLOADS[name].patience_s):
                said = await self.console.read_to(linux.PROMPT)
        duration_s = time.monotonic() - started
        await self._mark(Mark(MarkKind.END, name))
        after = await mon.snapshot(smp)
        await self._mark(Mark(MarkKind.SEEN, name))
        transcript = None
        if said is not None:
            await self.console.send_line(linux.REPORT)
            report = await self.console.read_to(linux.PROMPT)
            transcript = linux.parse_transcript(said, report)
        return WorkloadRecord(name, transcript, before, after, duration_s)

    async def _watch_workload(self, name: str) -> WorkloadRecord:
        """One workload of a guest that runs by itself: what comes from outside comes any time."""
        started = time.monotonic()
        said = await self.console.read_to(linux.PROMPT)
        duration_s = time.monotonic() - started
        transcript = linux.parse_transcript(said, await self.console.read_to(linux.PROMPT))
        return WorkloadRecord(name, transcript, None, None, duration_s)

    def _note_unanswered(self) -> None:
        """The workload in whose midst the time was up."""
        if self.seen.current is not None:
            name, began = self.seen.current
            elapsed_s = time.monotonic() - began
            self.seen.workloads.append(WorkloadRecord(name, None, None, None, elapsed_s))

    # --- the probe

    async def _probe(self, guest: ProbeGuest) -> None:
        """Until it has run all scenarios; one in which CPU 0 sleeps for ever is woken."""
        await self.console.expect(probe.FIRST_LINE)
        mon: Monitor | None = None
        was_woken = False
        ended = guest.first
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    async with asyncio.timeout(probe.STALL_S):
                        said = await self.console.expect(probe.END_OF_SCENARIO)
                except TimeoutError:
                    if was_woken:
                        await self._last_look(mon, stack)
                        why = f"a scenario says nothing for {probe.STALL_S:g} s"
                        raise GuestHang(
                            f"{why}, CPU 0 does not wake", console_tail=self.console.tail()
                        ) from None
                    if mon is None:
                        mon = await self._connected(stack)
                    await mon.execute("inject-nmi")
                    was_woken = True
                    continue
                if said[0].startswith(probe.DONE):
                    return
                was_woken = False
                ended += 1
                self.step(f"scenario {ended} of {len(guest.scenarios)}")
