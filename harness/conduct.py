"""One case, run and recorded: everything that was seen, nothing yet concluded."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from harness import migration
from harness.case import Accel, Case, Host, LinuxGuest, ProbeGuest
from harness.collect.qmp import Monitor, MonitorSnapshot, monitor
from harness.collect.tracefs import Trace, tracing
from harness.errors import CollectError, GuestCrash, GuestError, GuestHang, HarnessError, LabLost
from harness.guests import linux, probe
from harness.guests.console import Console, console
from harness.hosts.base import GuestPlan, RunningGuest, Session

LAST_LOOK_TIMEOUT_S: Final = 5.0
EXIT_TIMEOUT_S: Final = 5.0
MAX_BOOTS: Final = 8
"""Of one case: after a scenario that hangs the probe is booted again for those behind it."""
END_TIMEOUT_S: Final = 60.0
"""For the end of a QEMU and of its console; the lab answers slowly while a guest drowns."""

_T = TypeVar("_T")

Step: TypeAlias = Callable[[str], None]
"""Told what the case is doing, for the progress display."""


@dataclass(frozen=True)
class WorkloadRecord:
    """One workload as it was seen: by the guest, and by the monitor before and after it.

    ``transcript`` is None where the guest gave no answer within ``duration_s``.
    """

    name: str
    transcript: linux.Transcript | None
    monitor_before: MonitorSnapshot | None
    monitor_after: MonitorSnapshot | None
    duration_s: float


@dataclass(frozen=True)
class Mark:
    """A moment that the harness gave a name to, on this machine's clock."""

    time_ns: int
    text: str


@dataclass(frozen=True)
class Recording:
    """All that is known of a case's run; its files are in ``directory``.

    ``status`` is QEMU's, and None where the harness had to end it.  ``kernel_trace`` and
    ``qemu_trace`` are files there, or None where nothing was traced;
    ``missing`` says why.  ``marks`` are on this machine's clock; a kernel trace has its own.
    """

    case: Case
    directory: Path
    duration_s: float
    console: str
    status: int | None
    failure: HarnessError | None
    workloads: tuple[WorkloadRecord, ...] = ()
    marks: tuple[Mark, ...] = ()
    kernel_trace: Path | None = None
    qemu_trace: Path | None = None
    vcpu_of_thread: Mapping[int, int] = field(default_factory=dict)
    """Which vCPU runs in which of QEMU's threads."""
    missing: Mapping[str, str] = field(default_factory=dict)
    stalled: Mapping[int, HarnessError] = field(default_factory=dict)
    """What ended the boot in which a scenario (by index) did not come to its end."""


@dataclass(frozen=True)
class _Files:
    """Where a case is recorded, and where on its host a state of its guest is kept."""

    directory: Path
    state: str


class _Marker(Protocol):
    async def __call__(self, text: str) -> None: ...


@dataclass
class _Progress:
    """What has been recorded so far; complete at whatever point the case ends."""

    console: str = ""
    status: int | None = None
    failure: HarnessError | None = None
    workloads: list[WorkloadRecord] = field(default_factory=list)
    current: tuple[str, float] | None = None
    """The workload that is going on, and when it began."""
    marks: list[Mark] = field(default_factory=list)
    vcpu_of_thread: dict[int, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    boots: int = 0
    stalled: dict[int, HarnessError] = field(default_factory=dict)


async def conduct(session: Session, plan: GuestPlan, directory: Path, step: Step) -> Recording:
    """Run ``plan`` on ``session`` and record it in ``directory``.

    What the guest does wrong is recorded as ``failure``; :class:`LabLost` is too, and the caller
    can see at the session that it is gone.  Only cancellation passes through.
    """
    started = time.monotonic()
    seen = _Progress()
    kernel_trace, qemu_trace = directory / "kernel.trace", directory / "qemu.trace"
    files = _Files(directory, session.state_file(directory))
    try:
        (directory / "command.txt").write_text(session.command(plan), encoding="utf-8")
        async with _traced(session, plan.case, seen) as trace:
            attempt: GuestPlan | None = plan
            while attempt is not None:
                async with session.boot(attempt) as guest:
                    await _run_guest(guest, attempt, files, trace, seen, step)
                attempt = _moved(attempt, seen) or _behind(attempt, seen)
            if trace is not None:
                step("reading the trace")
                await trace.stop()
                await trace.save(kernel_trace)
    except OSError as error:
        seen.failure = seen.failure or HarnessError(
            "the case could not be recorded", str(error), "see that the run directory has room"
        )
    except HarnessError as error:
        seen.failure = seen.failure or _as_crash(error)
    return Recording(
        case=plan.case,
        directory=directory,
        duration_s=time.monotonic() - started,
        console=seen.console,
        status=seen.status,
        failure=seen.failure,
        workloads=tuple(seen.workloads),
        marks=tuple(seen.marks),
        kernel_trace=kernel_trace if kernel_trace.exists() else None,
        qemu_trace=qemu_trace if qemu_trace.exists() else None,
        vcpu_of_thread=seen.vcpu_of_thread,
        missing=seen.missing,
        stalled=seen.stalled,
    )


def _moves(plan: GuestPlan) -> bool:
    """Whether the guest is to be saved once it is up, for another boot to load."""
    return isinstance(plan.case.guest, LinuxGuest) and plan.case.guest.migrate and not plan.incoming


def _moved(plan: GuestPlan, seen: _Progress) -> GuestPlan | None:
    """The boot that loads the guest which the last one saved; None: there is none."""
    if seen.failure is not None or not _moves(plan):
        return None
    seen.boots += 1
    return replace(plan, incoming=True)


def _behind(plan: GuestPlan, seen: _Progress) -> GuestPlan | None:
    """The boot for the scenarios behind the one that the last boot ended in; None: all is said.

    One that was not run, because those before it left something behind, gets a boot to begin with.
    """
    guest = plan.case.guest
    if not isinstance(guest, ProbeGuest) or not isinstance(seen.failure, GuestError):
        return None
    if probe.is_done(seen.console):
        seen.failure = None  # it ended by itself while its monitor was being asked
        return None
    index = probe.reached(seen.console, seen.boots + 1, guest.first)
    if index is None:
        return None
    index = min(index, len(guest.scenarios) - 1)  # behind the last one comes a reset
    if index in seen.stalled:
        return None
    seen.boots += 1
    if index > guest.first and probe.was_not_run(seen.console, index):
        first = index
    else:
        seen.stalled[index] = seen.failure
        first = index + 1
    if first >= len(guest.scenarios):
        seen.failure = None
        return None
    if seen.boots >= MAX_BOOTS:
        return None
    seen.failure = None
    return replace(plan, case=replace(plan.case, guest=replace(guest, first=first)))


def _as_crash(error: HarnessError) -> HarnessError:
    """A lab that goes away under a case is a crash of that case."""
    if not isinstance(error, LabLost):
        return error
    return GuestCrash(f"the lab died under it: {error.why}", None, error.fix)


@contextlib.asynccontextmanager
async def _traced(session: Session, case: Case, seen: _Progress) -> AsyncIterator[Trace | None]:
    """The kernel's trace of the case, where there is a KVM and its tracefs can be used."""
    if isinstance(case.guest, ProbeGuest) and not case.guest.trace:
        seen.missing["kernel trace"] = "the probe logs what it sees itself (trace: true)"
        yield None
        return
    if case.backend.accel is not Accel.KVM:
        seen.missing["kernel trace"] = "there is no KVM under TCG"
        yield None
        return
    if session.tracefs is None:
        seen.missing["kernel trace"] = (
            "tracefs is not mounted at /sys/kernel/tracing, or may not be written "
            "(as root: mount -t tracefs nodev /sys/kernel/tracing)"
        )
        yield None
        return
    only_followed = case.backend.host is Host.LOCAL
    async with tracing(session.files, session.tracefs, only_followed=only_followed) as trace:
        yield trace


async def _run_guest(
    guest: RunningGuest,
    plan: GuestPlan,
    files: _Files,
    trace: Trace | None,
    seen: _Progress,
    step: Step,
) -> None:
    """Drive the guest to its end, or to the end of its time, and take it down."""
    log = files.directory / "console.log"
    with console(guest.console, log, more=seen.boots > 0) as con:
        try:
            await _drive(guest, plan, con, files, trace, seen, step)
        except HarnessError as error:
            seen.failure = error
        step("ending")
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                seen.status = await _end(guest, seen.failure)
                await con.read_all()
        except TimeoutError:
            raise GuestHang(f"its QEMU could not be ended within {END_TIMEOUT_S:g} s") from None
        part = files.directory / "qemu.trace.part"
        await guest.collect(files.directory / "stderr.log", part)
        _append(part, files.directory / "qemu.trace")
    seen.console = log.read_text(encoding="utf-8", errors="replace")


def _append(part: Path, whole: Path) -> None:
    """Put what one boot left behind what those before it did."""
    if not whole.exists():
        part.rename(whole)
        return
    with part.open("rb") as source, whole.open("ab") as out:
        shutil.copyfileobj(source, out)
    part.unlink()


async def _end(guest: RunningGuest, failure: HarnessError | None) -> int | None:
    """QEMU's own exit status, or None where it had to be ended."""
    if isinstance(failure, GuestCrash):
        # The console ends a little before the process does.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(guest.exited), EXIT_TIMEOUT_S)
    by_itself = guest.exited.done()
    await guest.kill()
    status = await guest.exited
    return status if by_itself else None


async def _drive(
    guest: RunningGuest,
    plan: GuestPlan,
    con: Console,
    files: _Files,
    trace: Trace | None,
    seen: _Progress,
    step: Step,
) -> None:
    case = plan.case

    async def mark(text: str) -> None:
        seen.marks.append(Mark(time.time_ns(), text))
        if trace is not None:
            await trace.mark(text)

    async with contextlib.AsyncExitStack() as stack:
        log = files.directory / "qmp.jsonl"
        mon: Monitor | None = None
        if plan.paused or isinstance(case.guest, LinuxGuest):
            step("connecting to the monitor")
            mon = await _connected(guest, stack, log)
            if mon is None:
                return
            for cpu in await mon.execute("query-cpus-fast"):
                seen.vcpu_of_thread[cpu["thread-id"]] = cpu["cpu-index"]
        if plan.paused and mon is not None:
            if trace is not None:
                await trace.follow(list(seen.vcpu_of_thread))
            if not plan.incoming:
                await mon.execute("cont")
        try:
            async with asyncio.timeout(case.timeout_s):
                if isinstance(case.guest, LinuxGuest) and mon is not None:
                    if plan.incoming:
                        step("loading its state")
                        await _unless_gone(guest, mon.load(files.state))
                        await mark(migration.LOADED)
                        await mon.execute("cont")
                    else:
                        await _boot_linux(con, step)
                    if _moves(plan):
                        step("saving its state")
                        await _unless_gone(guest, mon.save(files.state))
                        await mark(migration.SAVED)
                        return
                    await _drive_linux(case, case.guest, con, mon, mark, seen, step)
                elif isinstance(case.guest, ProbeGuest):
                    await _drive_probe(case, case.guest, con, guest, log, seen, step)
                else:
                    step("running the image")
                    await con.read_all()
                if seen.workloads and seen.workloads[-1].transcript is None:
                    return
                await guest.exited
        except TimeoutError:
            if seen.current is not None:
                name, began = seen.current
                elapsed_s = time.monotonic() - began
                seen.workloads.append(WorkloadRecord(name, None, None, None, elapsed_s))
            step("hangs: looking at its chips")
            await _last_look(guest, mon, stack, log, seen, case.smp)
            raise GuestHang(
                f"nothing more within {case.timeout_s:g} s", console_tail=con.tail()
            ) from None


async def _connected(
    guest: RunningGuest, stack: contextlib.AsyncExitStack, log: Path
) -> Monitor | None:
    """The guest's monitor; None where QEMU ended instead of greeting: it did not start."""
    greeting = stack.enter_async_context(monitor(guest.monitor, log))
    try:
        return await _unless_gone(guest, greeting)
    except GuestCrash:
        return None


async def _unless_gone(guest: RunningGuest, work: Coroutine[None, None, _T]) -> _T:
    """What ``work`` with its QEMU gives; :class:`GuestCrash` where that ended instead."""
    working = asyncio.ensure_future(work)
    either: set[asyncio.Future[Any]] = {working, guest.exited}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if working.done() and working.exception() is not None:
            # A connection that breaks does so a little before the process is gone.
            await asyncio.wait({guest.exited}, timeout=EXIT_TIMEOUT_S)
        if guest.exited.done() and (not working.done() or working.exception() is not None):
            guest.exited.result()
            raise GuestCrash("its QEMU went away")
        return await working
    finally:
        working.cancel()
        await asyncio.wait({working})


async def _boot_linux(con: Console, step: Step) -> None:
    step("booting")
    await con.expect(linux.READY)
    await con.expect(linux.PROMPT)


async def _drive_linux(
    case: Case,
    guest: LinuxGuest,
    con: Console,
    mon: Monitor,
    mark: _Marker,
    seen: _Progress,
    step: Step,
) -> None:
    if not case.deterministic:  # a mark comes at a time of this machine
        await mark("ready")
    for name in linux.runnable(guest.workloads, case.machine.value, case.smp):
        step(name)
        seen.current = (name, time.monotonic())
        if case.deterministic:
            record = await _watch_workload(name, con)
        else:
            record = await _run_workload(name, case.smp, guest, con, mon, mark)
        seen.workloads.append(record)
        seen.current = None
        if record.transcript is None:
            return
    step("powering off")
    if not case.deterministic:
        await con.send_line(linux.POWER_OFF)


async def _drive_probe(
    case: Case,
    guest: ProbeGuest,
    con: Console,
    running: RunningGuest,
    log: Path,
    seen: _Progress,
    step: Step,
) -> None:
    """Until the probe has run all scenarios; one in which CPU 0 sleeps for ever is woken."""
    await con.expect(probe.FIRST_LINE)
    mon: Monitor | None = None
    was_woken = False
    ended = guest.first
    async with contextlib.AsyncExitStack() as stack:
        while True:
            try:
                async with asyncio.timeout(probe.STALL_S):
                    said = await con.expect(probe.END_OF_SCENARIO)
            except TimeoutError:
                if was_woken:
                    await _last_look(running, mon, stack, log, seen, case.smp)
                    why = f"a scenario says nothing for {probe.STALL_S:g} s, CPU 0 does not wake"
                    raise GuestHang(why, console_tail=con.tail()) from None
                if mon is None:
                    mon = await stack.enter_async_context(monitor(running.monitor, log))
                await mon.execute("inject-nmi")
                was_woken = True
                continue
            if said[0].startswith(probe.DONE):
                return
            was_woken = False
            ended += 1
            step(f"scenario {ended} of {len(guest.scenarios)}")


async def _run_workload(
    name: str, smp: int, guest: LinuxGuest, con: Console, mon: Monitor, mark: _Marker
) -> WorkloadRecord:
    """One workload between two snapshots, with the patience that it needs."""
    before = await mon.snapshot(smp)
    await mark(f"begin {name}")
    started = time.monotonic()
    await con.send_line(linux.command(name, guest.parameters.get(name, {})))
    said = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(linux.WORKLOADS[name].patience_s):
            said = await con.read_to(linux.PROMPT)
    duration_s = time.monotonic() - started
    await mark(f"end {name}")
    after = await mon.snapshot(smp)
    await mark(f"seen {name}")
    transcript = None
    if said is not None:
        await con.send_line(linux.REPORT)
        transcript = linux.parse_transcript(said, await con.read_to(linux.PROMPT))
    return WorkloadRecord(name, transcript, before, after, duration_s)


async def _watch_workload(name: str, con: Console) -> WorkloadRecord:
    """One workload of a guest that runs by itself: what comes from outside comes at any time."""
    started = time.monotonic()
    said = await con.read_to(linux.PROMPT)
    duration_s = time.monotonic() - started
    transcript = linux.parse_transcript(said, await con.read_to(linux.PROMPT))
    return WorkloadRecord(name, transcript, None, None, duration_s)


async def _last_look(
    guest: RunningGuest,
    mon: Monitor | None,
    stack: contextlib.AsyncExitStack,
    log: Path,
    seen: _Progress,
    smp: int,
) -> None:
    """The chips and the CPUs of a guest that hangs, into ``qmp.jsonl``; for whoever reads it."""
    try:
        async with asyncio.timeout(LAST_LOOK_TIMEOUT_S):
            if mon is None:
                mon = await stack.enter_async_context(monitor(guest.monitor, log))
            await mon.snapshot(smp)
            await mon.human("info registers -a")
    except (TimeoutError, CollectError) as error:
        seen.missing["last look"] = f"the monitor of the hanging guest: {error or 'no answer'}"
