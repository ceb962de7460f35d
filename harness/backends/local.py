"""This machine as a host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from harness.backends import live_argv
from harness.backends.base import THREAD_LINE, HostPlan
from harness.backends.guest_argv import guest_argv, trace_path
from harness.backends.qemu_argv import (
    Channels,
    command_text,
    max_file_bytes,
    qemu_argv,
)
from harness.base.errors import CollectError
from harness.base.ownership import claim, owned_directory
from harness.base.process import OwnedProcess, owned_process
from harness.base.sockets import pair, roomy
from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestFiles, GuestPlan
from harness.images.model import QemuImage
from harness.model.case import Vmm
from harness.model.layout import CaseDir

TRACEFS = "/sys/kernel/tracing"


@dataclass(frozen=True)
class _Made:
    """A folder that we made: a descriptor of its parent, and what to close when it is removed."""

    parent: int
    owning: contextlib.ExitStack


class LocalFiles:
    """This machine's files; :class:`CollectError` for one that cannot be used."""

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}

    async def write(self, items: Sequence[tuple[str, str]]) -> None:
        """Write each text to its path, in order."""
        for path, text in items:
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
            except OSError as error:
                raise CollectError(f"cannot write {text!r} to {path}", error.strerror) from error

    async def read(self, path: str) -> str:
        """The text of a small file."""
        try:
            return Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise CollectError(f"cannot read {path}", error.strerror) from error

    async def fetch(self, path: str, destination: Path) -> None:
        """Copy a file here; a file that is not there becomes an empty one."""
        with destination.open("wb") as out:
            try:
                source = Path(path).open("rb")  # noqa: SIM115 - closed below, errors differ
            except FileNotFoundError:
                return
            with source:
                await asyncio.to_thread(shutil.copyfileobj, source, out, 1 << 20)

    async def make_dir(self, path: str) -> None:
        """Create a folder; it may be there already.

        What is killed before it can remove it leaves a claim, for a later harness to do so.
        The parent stays open: so it can be removed even where tracefs is unmounted meanwhile.
        """
        owning = contextlib.ExitStack()
        try:
            claim(owning.enter_context(owned_directory()), path)
            parent = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            owning.callback(os.close, parent)
            Path(path).mkdir(exist_ok=True)
        except OSError as error:
            owning.close()
            raise CollectError(f"cannot create {path}", error.strerror) from error
        self._made[path] = _Made(parent, owning)

    async def remove_dir(self, path: str) -> None:
        """Remove what :meth:`make_dir` made, which is empty or a tracefs instance."""
        made = self._made.pop(path)
        with made.owning, contextlib.suppress(FileNotFoundError):
            os.rmdir(Path(path).name, dir_fd=made.parent)


class LocalGuest:
    """A guest under a QEMU of this machine."""

    def __init__(
        self,
        process: OwnedProcess,
        console: socket.socket,
        monitor: socket.socket,
        directory: Path,
    ) -> None:
        self.console = console
        self.console_end: str | None = None
        self.monitor = monitor
        self.host_pid: int | None = process.pid
        self._process = process
        self._directory = directory
        self._exited = asyncio.ensure_future(process.wait())

    @property
    def exited(self) -> asyncio.Future[int]:
        """QEMU's exit status."""
        return self._exited

    async def kill(self) -> None:
        """End QEMU."""
        await self._process.stop()

    async def collect(self, stderr: Path, trace_log: Path) -> None:
        """Copy what QEMU wrote."""
        files = LocalFiles()
        await files.fetch(str(self._directory / "stderr"), stderr)
        await files.fetch(str(self._directory / "trace"), trace_log)
        _append_threads(self._directory, trace_log)


def _append_threads(directory: Path, trace_log: Path) -> None:
    """What each thread has traced to a file of its own, after a line that says whose it is."""
    with trace_log.open("ab") as out:
        for path in sorted(directory.glob("trace.*")):
            out.write(f"{THREAD_LINE}{path.suffix[1:]}\n".encode())
            with path.open("rb") as source:
                shutil.copyfileobj(source, out)


def _is_split(plan: GuestPlan) -> bool:
    """Whether QEMU would take the path of a multiboot module for something else.

    It splits ``-initrd`` at commas, and each at a blank (QEMU 7.2 and 10.0
    ``hw/i386/multiboot.c:load_multiboot``); no character escapes them.
    """
    is_qemu = plan.case.backend.vmm is Vmm.QEMU
    loads_module = is_qemu and kind_of(plan.case.guest).loads_module
    return loads_module and re.search("[ ,]", str(plan.initrd)) is not None


def tracefs_here() -> str | None:
    """Where tracefs is on this machine; None where it is not mounted, or not writable."""
    mounted = Path(TRACEFS, "trace").exists() and os.access(TRACEFS, os.W_OK)
    return TRACEFS if mounted else None


class LocalSession:
    """This machine, with one QEMU of the image cache."""

    def __init__(self, qemu: QemuImage) -> None:
        self._qemu = qemu
        self.files = LocalFiles()
        self._cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        self.tracefs = tracefs_here()
        self.lost = False
        self.description: str | None = None

    def executed(self) -> None:
        """Nothing is known of this machine's KVM."""

    def state_file(self, directory: Path) -> str:
        """In the case's folder, until it is loaded."""
        return str(CaseDir(directory).guest_state)

    @contextlib.asynccontextmanager
    async def boot(self, plan: GuestPlan) -> AsyncIterator[LocalGuest]:
        """Start ``plan`` here."""
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(owned_directory())
            console, qemu_console = stack.enter_context(pair())
            monitor, qemu_monitor = stack.enter_context(pair())
            stderr = stack.enter_context((directory / "stderr").open("wb"))
            speaking: socket.socket | IO[bytes] = qemu_console
            backend = f"socket,fd={qemu_console.fileno()}"
            if plan.case.deterministic:
                # A serial port that has to wait for its reader is late in the guest's time.
                speaking = stack.enter_context(roomy(qemu_console))
                backend = f"file,path=/dev/fd/{speaking.fileno()}"
            channels = Channels(
                console=backend,
                monitor=f"socket,fd={qemu_monitor.fileno()}",
                trace_log=(
                    trace_path(plan.case, str(directory), self._qemu.version)
                    if plan.trace_log
                    else None
                ),
                paused=plan.paused,
                incoming=plan.incoming,
            )
            descriptors = [speaking.fileno(), qemu_monitor.fileno()]
            files = self._files(plan)
            if _is_split(plan):
                program = stack.enter_context(Path(files.initrd or "").open("rb"))
                files = replace(files, initrd=f"/dev/fd/{program.fileno()}")
                descriptors.append(program.fileno())
            argv = guest_argv((sys.executable,), plan.case, files, self._qemu.version, channels)
            async with owned_process(
                argv,
                stdout=stderr,
                stderr=stderr,
                pass_fds=descriptors,
                owner=directory,
                max_file_bytes=max_file_bytes(plan.case),
            ) as p:
                speaking.close()  # so that the console ends when QEMU does
                qemu_monitor.close()
                yield LocalGuest(p, console, monitor, directory)

    def command(self, plan: GuestPlan) -> str:
        """The same by hand."""
        files, channels = self._files(plan), Channels(console="stdio")
        if plan.case.backend.vmm is Vmm.PYCHIP:
            return command_text(live_argv.by_hand(plan.case, files, self._qemu.version, ()))
        if not _is_split(plan):
            return command_text(qemu_argv(plan.case, files, channels))
        argv = qemu_argv(plan.case, replace(files, initrd="/dev/fd/9"), channels)
        return f"{command_text(argv).rstrip()} 9<{shlex.quote(str(plan.initrd))}\n"

    def _files(self, plan: GuestPlan) -> GuestFiles:
        return GuestFiles(
            qemu=self._qemu.launcher,
            data_dirs=tuple(str(path) for path in self._qemu.data_dirs),
            kernel=str(plan.kernel),
            initrd=None if plan.initrd is None else str(plan.initrd),
            cpuinfo=self._cpuinfo,
        )


class LocalBackend:
    """This machine, which is up."""

    def prepare(self, plan: HostPlan) -> None:
        """There is nothing to boot."""

    @contextlib.asynccontextmanager
    async def open(
        self, plan: HostPlan, guests: Sequence[GuestPlan], log: Path
    ) -> AsyncIterator[LocalSession]:
        """This machine, with the QEMU of ``plan``."""
        yield LocalSession(plan.images.qemu(plan.qemu))
