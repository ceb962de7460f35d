"""The probe runs one scenario after the other, and is woken or booted again where one hangs."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Final

from harness.base.errors import GuestError, GuestHang
from harness.guests import probe
from harness.guests.plan import GuestPlan
from harness.model.case import ProbeGuest
from harness.record.boot import Boot, PartialRecording
from harness.record.collectors.qmp import Monitor
from harness.record.drivers.base import Driver

MAX_BOOTS: Final = 8
"""Of one case: after a scenario that hangs the probe is booted again for those after it."""


class ProbeDriver(Driver[ProbeGuest]):
    """It gets no input but an NMI where its CPU 0 sleeps."""

    async def drive(self, boot: Boot, mon: Monitor | None) -> bool:
        """Until it has run all scenarios; one in which CPU 0 sleeps for ever is woken."""
        await boot.console.expect(probe.FIRST_LINE)
        was_woken, stall_s = False, probe.stall_s(boot.plan.case.backend)
        ended = self.guest.first
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    async with asyncio.timeout(stall_s):
                        said = await boot.console.expect(probe.END_OF_SCENARIO)
                except TimeoutError:
                    if was_woken:
                        await boot.last_look(mon, stack)
                        why = f"a scenario says nothing for {stall_s:g} s"
                        raise GuestHang(
                            f"{why}, CPU 0 does not wake", console_tail=boot.console.tail()
                        ) from None
                    if mon is None:
                        mon = await boot.connected(stack)
                    await mon.execute("inject-nmi")
                    was_woken = True
                    continue
                if said[0].startswith(probe.DONE):
                    return True
                was_woken = False
                ended += 1
                boot.step(f"scenario {ended} of {len(self.guest.scenarios)}")

    def next_boot(self, plan: GuestPlan, seen: PartialRecording) -> GuestPlan | None:
        """The boot for the scenarios after the one that the last boot ended in.

        One that was not run, because those before it left something, gets a boot to begin
        with.
        """
        guest = self.guest
        if not isinstance(seen.failure, GuestError):
            return None
        if probe.is_done(seen.console):
            seen.failure = None  # it ended by itself while its monitor was being asked
            return None
        index = probe.reached(seen.console, seen.boots + 1, guest.first)
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
        if seen.boots >= MAX_BOOTS:
            return None
        seen.failure = None
        return replace(plan, case=replace(plan.case, guest=replace(guest, first=first)))
