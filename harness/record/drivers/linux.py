"""A Linux guest is booted, perhaps moved, and runs one workload after the other."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

from harness.guests import linux
from harness.guests.plan import GuestPlan
from harness.model.case import LinuxGuest
from harness.model.marks import LOADED, READY, SAVED, Mark, MarkKind
from harness.record.boot import Boot, PartialRecording
from harness.record.collectors.qmp import Monitor
from harness.record.drivers.base import Driver
from harness.record.recording import WorkloadRecord


class LinuxDriver(Driver[LinuxGuest]):
    """Each workload is between two snapshots by the monitor."""

    needs_monitor = True

    async def drive(self, boot: Boot, mon: Monitor | None) -> bool:
        """Up, saved or loaded, and its workloads; False where it is not to end by itself."""
        assert mon is not None
        if boot.plan.incoming:
            boot.step("loading its state")
            await boot.unless_gone(mon.load(boot.files.state))
            await boot.mark(LOADED)
            await mon.execute("cont")
        else:
            boot.step("booting")
            await boot.console.expect(linux.READY)
            await boot.console.expect(linux.PROMPT)
        if self._moves(boot.plan):
            boot.step("saving its state")
            await boot.unless_gone(mon.save(boot.files.state))
            await boot.mark(SAVED)
            return False
        return await self._workloads(boot, mon)

    def next_boot(self, plan: GuestPlan, seen: PartialRecording) -> GuestPlan | None:
        """The boot that loads the guest which this one saved."""
        if seen.failure is not None or not self._moves(plan):
            return None
        seen.boots += 1
        return replace(plan, incoming=True)

    def _moves(self, plan: GuestPlan) -> bool:
        """Whether the guest is to be saved once it is up, for another boot to load."""
        return self.guest.migrate and not plan.incoming

    async def _workloads(self, boot: Boot, mon: Monitor) -> bool:
        case, seen = boot.plan.case, boot.seen
        if not case.deterministic:  # a mark comes at a time of this machine
            await boot.mark(READY)
        for name in linux.runnable(self.guest.workloads, case.machine.value, case.smp):
            boot.step(name)
            seen.current = (name, time.monotonic())
            if case.deterministic:
                record = await _watched(name, boot)
            else:
                record = await self._run(name, boot, mon)
            seen.workloads.append(record)
            seen.current = None
            if record.transcript is None:
                return False
        boot.step("powering off")
        if not case.deterministic:
            await boot.console.send_line(linux.POWER_OFF)
        return True

    async def _run(self, name: str, boot: Boot, mon: Monitor) -> WorkloadRecord:
        """One workload between two snapshots, with the patience that it needs."""
        smp, console = boot.plan.case.smp, boot.console
        before = await mon.snapshot(smp)
        await boot.mark(Mark(MarkKind.BEGIN, name))
        started = time.monotonic()
        await console.send_line(linux.command(name, self.guest.parameters.get(name, {})))
        said = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(linux.WORKLOADS[name].patience_s):
                said = await console.read_to(linux.PROMPT)
        duration_s = time.monotonic() - started
        await boot.mark(Mark(MarkKind.END, name))
        after = await mon.snapshot(smp)
        await boot.mark(Mark(MarkKind.SEEN, name))
        transcript = None
        if said is not None:
            await console.send_line(linux.REPORT)
            report = await console.read_to(linux.PROMPT)
            transcript = linux.parse_transcript(said, report)
        return WorkloadRecord(name, transcript, before, after, duration_s)


async def _watched(name: str, boot: Boot) -> WorkloadRecord:
    """One workload of a guest that runs by itself: what comes from outside comes any time."""
    started = time.monotonic()
    said = await boot.console.read_to(linux.PROMPT)
    duration_s = time.monotonic() - started
    transcript = linux.parse_transcript(said, await boot.console.read_to(linux.PROMPT))
    return WorkloadRecord(name, transcript, None, None, duration_s)
