"""The collectors, in the order in which their events are put where their times are the same."""

from __future__ import annotations

from typing import Final

from harness.record.collectors.base import Collector
from harness.record.collectors.ftrace import KernelTrace
from harness.record.collectors.qemu_log import QemuTrace

COLLECTORS: Final[list[Collector]] = [KernelTrace(), QemuTrace()]
