"""What every host offers: files, and QEMU processes that live as long as a block.

A backend opens hosts.  Those that there are stand in :data:`harness.backends.table.BACKENDS`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from harness.guests.plan import GuestPlan
from harness.images.cache import ImageCache
from harness.model.case import Accel
from harness.model.coverage import Executed

THREAD_LINE: Final = "irqmatrix: thread "
"""In QEMU's trace, before what the thread of that number has traced, where each has a file."""

BOOT_LINE: Final = "irqmatrix: another QEMU\n"
"""In QEMU's trace, before what each QEMU of a case but the first has traced."""


class HostFiles(Protocol):
    """The few things that collectors do with files on a host."""

    async def write(self, items: Sequence[tuple[str, str]]) -> None:
        """Write each text to its path (existing files: tracefs, parameters), in order."""

    async def read(self, path: str) -> str:
        """The text of a small file."""

    async def fetch(self, path: str, destination: Path) -> None:
        """Copy a file of any size here; a file that is not there becomes an empty one."""

    async def make_dir(self, path: str) -> None:
        """Create a folder; it may be there already."""

    async def remove_dir(self, path: str) -> None:
        """Remove an empty folder or a tracefs instance."""


class RunningGuest(Protocol):
    """A guest under test and its QEMU."""

    console: socket.socket
    """Connected to its serial line; ends with an end of file, or with :attr:`console_end`."""
    console_end: str | None
    """What comes after a guest's last words, where there is no end of file."""
    monitor: socket.socket
    """Connected to its QMP monitor, whose greeting may already be waiting."""

    host_pid: int | None
    """The process on this machine whose threads run its CPUs; None where another one has it."""

    @property
    def exited(self) -> asyncio.Future[int]:
        """QEMU's exit status, once there is one; an exception where the host was lost."""

    async def kill(self) -> None:
        """End QEMU, at once if need be."""

    async def collect(self, stderr: Path, trace_log: Path) -> None:
        """After the end: write here what QEMU said on stderr and its own trace."""


class Session(Protocol):
    """A host that is up."""

    @property
    def files(self) -> HostFiles:
        """The host's files."""

    @property
    def description(self) -> str | None:
        """What it says of itself once it is up; None where nothing had to be booted."""

    @property
    def tracefs(self) -> str | None:
        """Where tracefs is mounted there, or None."""

    @property
    def lost(self) -> bool:
        """Whether the host is gone, and nothing can run there any more."""

    def executed(self) -> Executed | None:
        """What of its KVM ran that had not before it was last asked.

        None where that is not recorded; :class:`HostError` where it cannot be.
        """

    def state_file(self, directory: Path) -> str:
        """Where on that host a guest's state is kept; ``directory`` is its case's, here."""

    def boot(self, plan: GuestPlan) -> AbstractAsyncContextManager[RunningGuest]:
        """Start ``plan``; the guest is gone when the block is left."""

    def command(self, plan: GuestPlan) -> str:
        """A shell command that does the same by hand, with the guest's console on stdio."""


@dataclass(frozen=True)
class LabHardware:
    """What runs a lab: a QEMU (a name for the image cache), who executes for it, and its size."""

    qemu: str
    accel: Accel
    memory_mib: int
    smp: int


@dataclass(frozen=True)
class HostPlan:
    """What a host is to be: the QEMU and the Linux under test, by their names in ``images``.

    ``kernel`` is None where the host has its own; ``lab`` is for hosts that are booted.
    With ``coverage`` it records which instructions of its KVM run, where it can.
    """

    images: ImageCache
    qemu: str
    kernel: str | None
    lab: LabHardware
    coverage: bool = False


class HostBackend(Protocol):
    """Opens hosts of one kind."""

    def prepare(self, plan: HostPlan) -> None:
        """Get the images that opening ``plan`` needs; :class:`ImageError` where that fails."""

    def open(
        self, plan: HostPlan, guests: Sequence[GuestPlan], log: Path
    ) -> AbstractAsyncContextManager[Session]:
        """A host for ``guests``, up for as long as the block lasts.

        What is booted for it writes to ``log`` and to files of that name with another suffix.
        :class:`~harness.base.errors.HostError` where it does not come up.
        """
