"""What records events of a case: it runs along with the guest, and its file is read afterwards.

Those that there are stand in :data:`harness.record.collectors.table.COLLECTORS`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from harness.backends.base import Session
from harness.model.case import Case
from harness.model.counters import CounterSource
from harness.model.layout import CaseDir
from harness.record.eventlog import LogReport
from harness.record.recording import Recording
from userspace_chip.events import Event


class Running(Protocol):
    """A collector at work on a host."""

    clock_offset_ns: int
    """How far the host's trace clock is ahead of the clock of this machine."""

    async def mark(self, text: str) -> None:
        """A moment with a name, among the events."""

    async def follow(self, pids: Sequence[int]) -> None:
        """The tasks that run the guest's CPUs, as soon as they are known."""

    async def stop(self) -> None:
        """No more events."""

    async def save(self, destination: Path) -> None:
        """Copy what was collected to a file here."""


class Reader(Protocol):
    """Reads one file."""

    @property
    def report(self) -> LogReport:
        """What was met; complete when :meth:`events` has ended."""

    def events(self, lines: Iterable[str]) -> Iterator[Event]:
        """The events of ``lines``, their times on the clock of the machine that recorded."""


class Collector(Protocol):
    """One source of a case's events."""

    @property
    def key(self) -> str:
        """Its name in a recording."""

    @property
    def title(self) -> str:
        """Its name in reports, and in ``missing``."""

    @property
    def source(self) -> CounterSource:
        """Whose events it gives."""

    @property
    def event_types(self) -> Collection[str]:
        """Their names, of :data:`userspace_chip.events.EVENT_TYPES`."""

    @property
    def has_marks(self) -> bool:
        """Whether the marks are among them."""

    @property
    def is_ordered(self) -> bool:
        """Whether they come in the order of their times."""

    def file(self, folder: CaseDir) -> Path:
        """Where they are in a case's folder, while it runs."""

    def why_not(self, session: Session, case: Case) -> str | None:
        """Why there is nothing to collect of ``case``; None where there is."""

    def collecting(
        self, session: Session, case: Case
    ) -> AbstractAsyncContextManager[Running | None]:
        """Collect for as long as the block lasts; None where QEMU does so by itself.

        :class:`~harness.base.errors.CollectError` where that cannot be started.
        """

    def reader(self, recording: Recording) -> Reader:
        """Reads what was collected of ``recording``."""
