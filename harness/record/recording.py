"""What is recorded of a case: all that was seen, nothing yet concluded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.base.errors import HarnessError
from harness.guests import linux
from harness.model.case import Case
from harness.record.collectors.qmp import MonitorSnapshot


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
class MarkRecord:
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
    ended_by: str | None = None
    """Why QEMU ended, where it ended by itself and said so (QMP's SHUTDOWN): ``guest-reset``."""
    workloads: tuple[WorkloadRecord, ...] = ()
    marks: tuple[MarkRecord, ...] = ()
    kernel_trace: Path | None = None
    qemu_trace: Path | None = None
    vcpu_of_thread: Mapping[int, int] = field(default_factory=dict)
    """Which vCPU runs in which of QEMU's threads."""
    missing: Mapping[str, str] = field(default_factory=dict)
    stalled: Mapping[int, HarnessError] = field(default_factory=dict)
    """What ended the boot in which a scenario (by index) did not come to its end."""
