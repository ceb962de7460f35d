"""Who drives a guest of one kind.

Those that there are stand in :data:`harness.record.drivers.table.DRIVERS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Generic

from harness.guests.kinds.base import GuestT
from harness.guests.plan import GuestPlan
from harness.record.boot import Boot, PartialRecording
from harness.record.collectors.qmp import Monitor


class Driver(ABC, Generic[GuestT]):
    """Drives one guest, in one boot or several."""

    needs_monitor: ClassVar[bool] = False
    """Whether it is connected to the monitor even of a guest that does not wait for it."""

    def __init__(self, guest: GuestT) -> None:
        self.guest = guest

    @abstractmethod
    async def drive(self, boot: Boot, mon: Monitor | None) -> bool:
        """Do the guest's work; True where the guest ends by itself then.

        ``mon`` is there where the guest waited for it, or :attr:`needs_monitor`.  Whatever is seen
        goes to ``boot.seen``.  :class:`GuestHang` and :class:`GuestCrash` for a guest that does not
        do its part; the case's time is kept elsewhere.
        """

    def next_boot(self, plan: GuestPlan, seen: PartialRecording) -> GuestPlan | None:
        """The boot that comes after that of ``plan``; None where the case has ended.

        Another boot is counted in ``seen``, whose failure is what the last one ended in.
        """
        return None
