"""A flat image is listened to until it ends, or has reported all that it had to."""

from __future__ import annotations

import asyncio
from typing import Final

from harness.guests import protocol_files, protocols
from harness.guests.console import Console
from harness.model.case import FlatGuest
from harness.record.boot import Boot
from harness.record.collectors.qmp import Monitor
from harness.record.drivers.base import Driver

AFTER_RESULTS_S: Final = 2.0
"""For an image to exit, reset or power off after its last line, which says more than its end."""
MAX_END_LINES: Final = 100
"""That are looked at; an image with more of them does not mean them."""


class FlatDriver(Driver[FlatGuest]):
    """It gets no input."""

    async def drive(self, boot: Boot, mon: Monitor | None) -> bool:
        """Until its console ends, or its results do; False where its QEMU is to be ended then."""
        boot.step("running the image")
        console = boot.console
        candidates = protocol_files.candidates(self.guest.protocol)
        pattern = protocols.end_pattern(candidates) if self.guest.has_checks else None
        for _ in range(MAX_END_LINES):
            if pattern is None or not await console.comes(pattern):
                break
            if protocols.is_over(console.text(), candidates):
                return await _ends_by_itself(console)
        await console.read_all()
        return True


async def _ends_by_itself(console: Console) -> bool:
    """Whether a guest whose results are there ends soon, and does not just stand still."""
    try:
        async with asyncio.timeout(AFTER_RESULTS_S):
            await console.read_all()
    except TimeoutError:
        return False
    return True
