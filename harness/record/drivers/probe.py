"""The probe runs one scenario after the other, and is woken or booted again where one hangs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import Final

from harness.base.errors import GuestError, GuestHang
from harness.guests import probe
from harness.guests.plan import GuestPlan
from harness.guests.probe import ProbeAnswer
from harness.model.case import ProbeGuest
from harness.model.marks import LOADED, SAVED, Mark, MarkKind
from harness.record.boot import Boot, PartialRecording
from harness.record.collectors.qmp import Monitor
from harness.record.drivers.base import Driver
from harness.scenario.requests import Command, Request

MAX_BOOTS: Final = 8
"""Of one case: after a scenario that hangs the probe is booted again for those after it."""
_MS_PER_S: Final = 1000


class ProbeDriver(Driver[ProbeGuest]):
    """It gets what its scenarios ask for, and an NMI where its CPU 0 sleeps."""

    async def drive(self, boot: Boot, mon: Monitor | None) -> bool:
        """Until it has run all scenarios, or is to be moved."""
        async with contextlib.AsyncExitStack() as stack:
            helper = _Helper(boot, stack, mon)
            if boot.plan.incoming:
                await helper.load()
            else:
                await boot.console.expect(probe.FIRST_LINE)
                if any(scenario.program.requests for scenario in self.guest.scenarios):
                    await helper.connect()
            return await self._to_the_end(boot, helper)

    async def _to_the_end(self, boot: Boot, helper: _Helper) -> bool:
        """False where it was saved instead; one in which CPU 0 sleeps for ever is woken."""
        was_woken, stall_s = False, probe.stall_s(boot.plan.case.backend)
        ended = self.guest.first
        while True:
            try:
                async with asyncio.timeout(stall_s):
                    said = await boot.console.expect(probe.SIGN_OF_LIFE)
            except TimeoutError:
                if was_woken:
                    await helper.look()
                    why = f"a scenario says nothing for {stall_s:g} s"
                    raise GuestHang(
                        f"{why}, CPU 0 does not wake", console_tail=boot.console.tail()
                    ) from None
                await helper.wake()
                was_woken = True
                continue
            was_woken = False
            if said[0].startswith(probe.DONE):
                return True
            if said[1] is not None:
                program = self.guest.scenarios[probe.running(boot.console.text())].program
                if not await helper.fulfil(program.requests[int(said[1], 16)], program.name):
                    return False
                continue
            ended += 1
            boot.step(f"scenario {ended} of {len(self.guest.scenarios)}")

    def next_boot(self, plan: GuestPlan, seen: PartialRecording) -> GuestPlan | None:
        """The boot that loads the guest which this one saved, or the one after a failure.

        That is for the scenarios after the one that the last boot ended in.  One that was not run,
        because those before it left something, gets a boot to begin with.
        """
        guest = self.guest
        if seen.is_saved:
            seen.is_saved = False
            seen.boots += 1
            seen.loads += 1
            return replace(plan, incoming=True)
        if not isinstance(seen.failure, GuestError):
            return None
        if probe.is_done(seen.console):
            seen.failure = None  # it ended by itself while its monitor was being asked
            return None
        index = probe.reached(seen.console, seen.boots + 1 - seen.loads, guest.first)
        if index is None:
            return None
        index = min(index, len(guest.scenarios) - 1)  # after the last one comes a reset
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
        if seen.boots - seen.loads >= MAX_BOOTS:
            return None
        seen.failure = None
        again = replace(plan.case, guest=replace(guest, first=first))
        return replace(plan, case=again, incoming=False)


@dataclass
class _Helper:
    """Does things to the guest from outside, by a monitor that is connected when it is needed."""

    boot: Boot
    stack: contextlib.AsyncExitStack
    mon: Monitor | None

    async def connect(self) -> Monitor:
        """Now, so that later nothing has to wait for it."""
        return await self.boot.unless_gone(self._monitor())

    async def fulfil(self, request: Request, scenario: str) -> bool:
        """Do it and say so; False where the guest is saved, and says no more here."""
        mon = await self._monitor()
        for act in request:
            match act.command:
                case Command.MOVE:
                    await self._save(mon)
                    return False
                case Command.PAUSE:
                    await asyncio.sleep(act.ms / _MS_PER_S)
                case Command.BEGIN_COUNT:
                    await self.boot.mark(Mark(MarkKind.BEGIN, scenario))
                case Command.END_COUNT:
                    await self.boot.mark(Mark(MarkKind.END, scenario))
                case Command.STOP | Command.CONT | Command.INJECT_NMI:
                    await mon.execute(act.command.value)
        await mon.human(ProbeAnswer.DONE.command_line)
        return True

    async def load(self) -> None:
        """The guest that another boot saved goes on here."""
        boot = self.boot
        boot.step("loading its state")
        mon = await self.connect()
        await boot.unless_gone(mon.load(boot.files.state))
        await boot.mark(LOADED)
        await mon.human(ProbeAnswer.MOVED.command_line)
        await mon.execute("cont")

    async def wake(self) -> None:
        """An NMI to all CPUs."""
        mon = await self._monitor()
        await mon.execute("inject-nmi")

    async def look(self) -> None:
        """At a guest that hangs."""
        await self.boot.last_look(self.mon, self.stack)

    async def _save(self, mon: Monitor) -> None:
        boot = self.boot
        boot.step("saving its state")
        await boot.unless_gone(mon.save(boot.files.state))
        await boot.mark(SAVED)
        boot.seen.is_saved = True

    async def _monitor(self) -> Monitor:
        if self.mon is None:
            self.mon = await self.boot.connected(self.stack)
        return self.mon
