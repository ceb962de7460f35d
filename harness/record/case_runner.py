"""One case, run and recorded: everything that was seen, nothing yet concluded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.backends.base import BOOT_LINE, RunningGuest, Session
from harness.backends.lab import COMMAND_TIMEOUT_S
from harness.base import limits, procstat
from harness.base.errors import (
    GuestCrash,
    GuestHang,
    HarnessError,
    LabDied,
    LabLost,
    advice,
)
from harness.base.files import shorten
from harness.guests.console import console
from harness.guests.plan import GuestPlan
from harness.model.case import Case
from harness.model.layout import CaseDir
from harness.record import recording_file, trace_files
from harness.record.boot import EXIT_TIMEOUT_S, Announce, Boot, Files, PartialRecording
from harness.record.collectors.base import Collector, Running
from harness.record.collectors.qmp import Monitor
from harness.record.collectors.table import COLLECTORS
from harness.record.drivers.table import driver_of
from harness.record.recording import CpuShare, Recording, WorkloadRecord

END_TIMEOUT_S: Final = COMMAND_TIMEOUT_S + 15
"""For the end of a QEMU and of its console; the lab answers slowly while a guest is flooded.  A lab
that stands still is found out before."""


async def conduct(session: Session, plan: GuestPlan, directory: Path, step: Announce) -> Recording:
    """Run ``plan`` on ``session`` and record it in ``directory``.

    What the guest does wrong is recorded as ``failure``; :class:`LabLost` is too, and the caller
    can see at the session that it is gone.  Only cancellation passes through.
    """
    started = time.monotonic()
    seen = PartialRecording()
    folder = CaseDir(directory)
    files = Files(directory, session.state_file(directory))
    try:
        for path in _of_an_earlier_case(folder):
            path.unlink(missing_ok=True)
        folder.command.write_text(session.command(plan), encoding="utf-8")
        async with _traced(session, plan.case, seen) as trace:
            attempt: GuestPlan | None = plan
            while attempt is not None:
                async with session.boot(attempt) as guest:
                    await _run_guest(guest, attempt, files, trace, seen, step)
                attempt = driver_of(attempt.case.guest).next_boot(attempt, seen)
            if trace is not None:
                step("reading the trace")
                await trace.save(folder)
    except OSError as error:
        seen.failure = seen.failure or HarnessError(
            "the case could not be recorded", str(error), advice(error)
        )
    except LabLost as error:
        seen.failure = error  # whatever was seen before was of a lab that was dying
    except HarnessError as error:
        seen.failure = seen.failure or error
    if isinstance(seen.failure, LabLost):
        lost = seen.failure
        seen.failure = LabDied("the lab died under it", lost.why, lost.fix)
    traces = {
        collector.key: kept
        for collector in COLLECTORS
        if (kept := await asyncio.to_thread(_kept, collector.file(folder), seen)) is not None
    }
    recording = Recording(
        case=plan.case,
        directory=directory,
        duration_s=time.monotonic() - started,
        console=recording_file.read_text(folder.console),
        status=seen.status,
        failure=seen.failure,
        ended_by=seen.ended_by,
        workloads=tuple(seen.workloads),
        marks=tuple(seen.marks),
        traces=traces,
        trace_clock_offset_ns=seen.trace_clock_offset_ns,
        vcpu_of_thread=seen.vcpu_of_thread,
        missing=seen.missing,
        stalled=seen.stalled,
        stderr=recording_file.read_text(folder.stderr),
        last_looks=tuple(seen.last_looks),
        cpu_share=seen.cpu_share,
    )
    await asyncio.to_thread(recording_file.write, recording)
    return recording


def _of_an_earlier_case(folder: CaseDir) -> Iterator[Path]:
    """What a case that runs in the same folder again would take for its own."""
    for trace in (collector.file(folder) for collector in COLLECTORS):
        yield trace
        yield trace.with_name(trace.name + trace_files.SUFFIX)
    yield from (folder.monitor, folder.recording, folder.console, folder.stderr, folder.executed)


def _kept(trace: Path, seen: PartialRecording) -> Path | None:
    """A raw trace as it is kept: compressed, but where there is no room for that."""
    if not trace.exists():
        return None
    try:
        return trace_files.compressed(trace)
    except OSError as error:
        seen.failure = seen.failure or HarnessError(
            "the trace could not be kept", str(error), advice(error)
        )
        return trace


class _All:
    """Several collectors at work."""

    def __init__(self, running: Mapping[Collector, Running]) -> None:
        self._running = running

    async def mark(self, text: str) -> None:
        """In all of them."""
        for one in self._running.values():
            await one.mark(text)

    async def follow(self, pids: Sequence[int]) -> None:
        """In all of them."""
        for one in self._running.values():
            await one.follow(pids)

    async def save(self, folder: CaseDir) -> None:
        """Stop all of them, and save what each has."""
        for one in self._running.values():
            await one.stop()
        for collector, one in self._running.items():
            await one.save(collector.file(folder))


@contextlib.asynccontextmanager
async def _traced(
    session: Session, case: Case, seen: PartialRecording
) -> AsyncIterator[_All | None]:
    """The collectors that have something to collect of the case; None where they are none."""
    running: dict[Collector, Running] = {}
    async with contextlib.AsyncExitStack() as stack:
        for collector in COLLECTORS:
            if (why := collector.why_not(session, case)) is not None:
                seen.missing[collector.title] = why
                continue
            one = await stack.enter_async_context(collector.collecting(session, case))
            if one is not None:
                running[collector] = one
                seen.trace_clock_offset_ns = one.clock_offset_ns or seen.trace_clock_offset_ns
        yield _All(running) if running else None


async def _run_guest(
    guest: RunningGuest,
    plan: GuestPlan,
    files: Files,
    trace: _All | None,
    seen: PartialRecording,
    step: Announce,
) -> None:
    """Drive the guest to its end, or to the end of its time, and take it down."""
    folder = CaseDir(files.directory)
    log = folder.console
    more, end = seen.boots > 0, guest.console_end
    share = _share(guest.host_pid)
    with console(guest.console, log, more=more, end=end) as con:
        try:
            await _drive(Boot(plan, guest, con, files, trace, seen, step))
        except HarnessError as error:
            seen.failure, seen.cpu_share = error, share()
        step("ending")
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                seen.status = await _end(guest, seen.failure)
                await con.read_all()
        except TimeoutError:
            raise GuestHang(f"its QEMU did not end within {END_TIMEOUT_S:g} s") from None
        part = folder.qemu_trace_part
        await guest.collect(folder.stderr, part)
        shorten(folder.stderr, limits.current().stderr_kib * 1024)
        if _was_cut(part):
            hint = limits.hint("trace_mib")
            seen.missing["QEMU trace"] = f"cut at {limits.current().trace_mib} MiB ({hint})"
        _append(part, folder.qemu_trace)
    seen.console = log.read_text(encoding="utf-8", errors="replace")


def _share(pid: int | None) -> Callable[[], CpuShare | None]:
    """Says, when it is called, what the CPUs did for a process since now; None of none."""
    began_s, before = time.monotonic(), {} if pid is None else procstat.cpu_times(pid)

    def since() -> CpuShare | None:
        most = None if pid is None else procstat.neediest(before, procstat.cpu_times(pid))
        if most is None:
            return None
        return CpuShare(time.monotonic() - began_s, most.ran_s, most.waited_s)

    return since


async def _drive(boot: Boot) -> None:
    """To its end, or to the end of its time: :class:`GuestHang`, :class:`GuestCrash`."""
    case, seen = boot.plan.case, boot.seen
    driver = driver_of(case.guest)
    async with contextlib.AsyncExitStack() as stack:
        mon: Monitor | None = None
        if boot.plan.paused or driver.needs_monitor:
            mon = await boot.started(stack)
            if mon is None:
                return
        try:
            async with asyncio.timeout(case.timeout_s):
                if await driver.drive(boot, mon):
                    # Shielded: others ask for the status after the time is up.
                    status = await asyncio.shield(boot.guest.exited)
                    if status == 0 and mon is not None:
                        seen.ended_by = await mon.shutdown_reason()
        except TimeoutError:
            _note_unanswered(boot)
            boot.step("its time is up: checking whether anything moves")
            await boot.look_twice(mon, stack)
            raise GuestHang(
                f"nothing more within {case.timeout_s:g} s", console_tail=boot.console.tail()
            ) from None


def _note_unanswered(boot: Boot) -> None:
    """The workload in whose midst the time was up."""
    if boot.seen.current is not None:
        name, began = boot.seen.current
        elapsed_s = time.monotonic() - began
        boot.seen.workloads.append(WorkloadRecord(name, None, None, None, elapsed_s))


def _was_cut(trace: Path) -> bool:
    """Whether a trace reached its limit; its last line then ends where its reader sees that."""
    size = trace.stat().st_size
    if size < limits.current().trace_mib * limits.MIB:
        return False
    os.truncate(trace, size - 1)
    return True


def _append(part: Path, whole: Path) -> None:
    """Append what one boot left to what those before it did."""
    if not whole.exists():
        part.rename(whole)
        return
    with part.open("rb") as source, whole.open("ab") as out:
        out.write(BOOT_LINE.encode())
        shutil.copyfileobj(source, out)
    part.unlink()


async def _end(guest: RunningGuest, failure: HarnessError | None) -> int | None:
    """QEMU's own exit status, or None where it had to be ended."""
    if isinstance(failure, GuestCrash):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(guest.exited), EXIT_TIMEOUT_S)
    by_itself = guest.exited.done()
    await guest.kill()
    status = await asyncio.shield(guest.exited)
    return status if by_itself else None
