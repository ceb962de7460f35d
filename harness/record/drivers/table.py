"""Who drives which kind of guest."""

from __future__ import annotations

from typing import Any, Final

from harness.model.case import Guest
from harness.record.drivers.base import Driver
from harness.record.drivers.flat import FlatDriver
from harness.record.drivers.linux import LinuxDriver
from harness.record.drivers.probe import ProbeDriver

DRIVERS: Final[dict[str, type[Driver[Any]]]] = {
    "linux": LinuxDriver,
    "flat": FlatDriver,
    "probe": ProbeDriver,
}


def driver_of(guest: Guest) -> Driver[Any]:
    """Who drives ``guest``."""
    return DRIVERS[guest.kind](guest)
