"""The kernel's tracepoints: an own tracefs instance on the host, owned by a ``with``.

The ring buffer is read when the guest has ended: a reader that runs along slows a lab's guest to a
third and triples its timer interrupts (measured), and what a full buffer loses is counted.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.backends.base import HostFiles
from harness.base.errors import CollectError
from userspace_chip.events import KVM_EVENTS

BUFFER_KIB: Final = 98304
"""For each CPU; a Linux boot takes about 2 MiB, a storm of seconds some 30."""
CLOCK: Final = "tai"
"""Wall-clock time (plus the machine's TAI offset, if it has one), as QEMU's trace log has it."""


def clock_offset_ns() -> int:
    """From this machine's wall-clock time to :data:`CLOCK`: 37 s, or 0 where nothing set it."""
    offset_s = time.clock_gettime(time.CLOCK_TAI) - time.clock_gettime(time.CLOCK_REALTIME)
    return round(offset_s) * 10**9


_STATS: Final = re.compile(r"^(entries|overrun|dropped events): (\d{1,15})$", re.MULTILINE)


@dataclass(frozen=True)
class TraceFill:
    """How many events a trace has, and how many did not stay: its buffer is full."""

    entries: int
    lost: int


class Trace:
    """A running trace.  Made by :func:`tracing` only."""

    def __init__(
        self, files: HostFiles, instance: str, events: tuple[str, ...], *, only_followed: bool
    ) -> None:
        self.events = events
        """Those that are traced: of what was asked for, what this kernel has."""
        self._files = files
        self._instance = instance
        self._only_followed = only_followed
        self.clock_offset_ns = 0

    async def mark(self, text: str) -> None:
        """Write ``text`` into the trace, where it becomes an event of its own."""
        await self._files.write([(f"{self._instance}/trace_marker", text)])

    async def follow(self, pids: Sequence[int]) -> None:
        """Trace only these tasks, and what they fork from now on, where all are not traced."""
        if not self._only_followed:
            return
        words = " ".join(map(str, pids))
        await self._files.write([(f"{self._instance}/set_event_pid", words)])

    async def fill(self, cpu: int) -> TraceFill:
        """How much of ``cpu`` there is so far; a processor that is not there has nothing."""
        try:
            text = await self._files.read(f"{self._instance}/per_cpu/cpu{cpu}/stats")
        except CollectError:
            return TraceFill(0, 0)
        found = {match[1]: int(match[2]) for match in _STATS.finditer(text)}
        lost = found.get("overrun", 0) + found.get("dropped events", 0)
        return TraceFill(found.get("entries", 0), lost)

    async def stop(self) -> None:
        """No more events."""
        await self._files.write([(f"{self._instance}/tracing_on", "0")])

    async def save(self, destination: Path) -> None:
        """Copy the trace, as text, to a file here; :class:`CollectError` where it is gone.

        The kernel begins every trace with a comment, also one without events.
        """
        path = f"{self._instance}/trace"
        await self._files.fetch(path, destination)
        if destination.stat().st_size == 0:
            raise CollectError(
                f"the kernel's trace is gone: {path}",
                "tracefs was unmounted, or something removed the instance, during the case",
                "run it again",
            )


@contextlib.asynccontextmanager
async def tracing(
    files: HostFiles,
    root: str,
    *,
    only_followed: bool,
    buffer_kib: int = BUFFER_KIB,
    events: Iterable[str] = KVM_EVENTS,
) -> AsyncIterator[Trace]:
    """Trace the ``kvm:*`` events called ``events`` in an instance below ``root``.

    With ``only_followed`` nothing is traced before :meth:`Trace.follow`, so that other guests of
    the machine stay out; ``buffer_kib`` is for each CPU.  Raises :class:`CollectError` where
    tracefs cannot be used.
    """
    instance = f"{root}/instances/irqmatrix-{uuid.uuid4().hex}"
    await files.make_dir(instance)
    try:
        # A process id that no task has: follow() replaces it.
        filters = [("options/event-fork", "1"), ("set_event_pid", "0")] if only_followed else []
        settings = [("trace_clock", CLOCK), ("buffer_size_kb", str(buffer_kib)), *filters]
        available = await _available(files, root, events)
        enables = [(f"events/kvm/{name}/enable", "1") for name in available]
        await files.write([(f"{instance}/{path}", text) for path, text in settings + enables])
        yield Trace(files, instance, available, only_followed=only_followed)
    finally:
        await files.remove_dir(instance)


async def _available(files: HostFiles, root: str, events: Iterable[str]) -> tuple[str, ...]:
    """Those of ``events`` that this kernel has."""
    known = set((await files.read(f"{root}/available_events")).split())
    return tuple(name for name in events if f"kvm:{name}" in known)
