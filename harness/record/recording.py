"""What is recorded of a case: all that was seen, nothing yet concluded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator

from harness.base.errors import GuestError, HarnessError
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


def _kinds(base: type[HarnessError] = HarnessError) -> Iterator[tuple[str, type[HarnessError]]]:
    yield base.__name__, base
    for kind in base.__subclasses__():
        yield from _kinds(kind)


def _described(error: HarnessError) -> dict[str, Any]:
    """An error as data: its class by name, and what it says."""
    found: dict[str, Any] = {"kind": type(error).__name__}
    found |= {"what": error.what, "why": error.why, "fix": error.fix}
    if isinstance(error, GuestError):
        found["console_tail"] = list(error.console_tail)
    return found


def _error(data: object) -> HarnessError:
    """The error that :func:`_described` described; :class:`ValueError` for anything else."""
    if isinstance(data, HarnessError):
        return data
    if not isinstance(data, dict):
        raise ValueError(f"expected an error, found {data!r}")
    kind = dict(_kinds()).get(str(data.get("kind")))
    if kind is None or not isinstance(data.get("what"), str):
        raise ValueError(f"there is no error {data.get('kind')!r}")
    said = data["what"], data.get("why"), data.get("fix")
    if issubclass(kind, GuestError):
        return kind(*said, console_tail=tuple(data.get("console_tail", ())))
    return kind(*said)


Failure: TypeAlias = Annotated[HarnessError, PlainValidator(_error), PlainSerializer(_described)]
"""An error that is part of a recording."""


@dataclass(frozen=True)
class LastLook:
    """What a guest did when its time was up; two of them tell whether it moved.

    ``status`` is QEMU's run state (``query-status``), ``registers`` the text of ``info registers
    -a``, ``lapics`` those of ``info lapic`` by CPU, ``stats`` what ``query-stats`` gave;
    ``console_bytes`` is how much the guest had said.
    """

    time_ns: int
    status: str
    registers: str
    lapics: tuple[str, ...]
    stats: tuple[Mapping[str, Any], ...]
    console_bytes: int


@dataclass(frozen=True)
class CpuShare:
    """What this machine's CPUs did for a guest in ``elapsed_s``.

    Of the thread that wanted a CPU for the longest time: how long it had one, and how long it
    waited because others had them.
    """

    elapsed_s: float
    ran_s: float
    waited_s: float

    @property
    def is_small(self) -> bool:
        """Whether it wanted a CPU for much of the time, and had one for less than half of that."""
        return self.waited_s > max(self.ran_s, self.elapsed_s / 4)


@dataclass(frozen=True)
class Recording:
    """All that is known of a case's run; its files are in ``directory``.

    ``status`` is QEMU's, and None where the harness had to end it.  ``traces`` are files there, by
    the key of their collector; ``missing`` says why one is not.  ``marks`` are on the clock of the
    machine that recorded, and so is QEMU's trace; a kernel trace is ``trace_clock_offset_ns``
    ahead of that clock.
    ``console`` and ``stderr`` (QEMU's) are the texts of two of the files.
    """

    case: Case
    directory: Path
    duration_s: float
    console: str
    status: int | None
    failure: Failure | None
    ended_by: str | None = None
    """Why QEMU ended, where it ended by itself and said so (QMP's SHUTDOWN): ``guest-reset``."""
    workloads: tuple[WorkloadRecord, ...] = ()
    marks: tuple[MarkRecord, ...] = ()
    traces: Mapping[str, Path] = field(default_factory=dict)
    trace_clock_offset_ns: int = 0
    vcpu_of_thread: Mapping[int, int] = field(default_factory=dict)
    """Which vCPU runs in which of QEMU's threads."""
    missing: Mapping[str, str] = field(default_factory=dict)
    stalled: Mapping[int, Failure] = field(default_factory=dict)
    """What ended the boot in which a scenario (by index) did not come to its end."""
    stderr: str = ""
    cpu_share: CpuShare | None = None
    """Of the boot that failed; None where none did, or nothing is known of it."""
    last_looks: tuple[LastLook, ...] = ()
    """Two, at a guest whose time was up; none where it ended before, or no monitor answered."""
