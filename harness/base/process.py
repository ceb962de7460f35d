"""A child process that is owned: it dies with its owner, its block, and its owner's process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from harness.base.errors import LaunchError
from harness.base.ownership import OWNER, end_processes
from harness.base.procstat import ProcStat, read_stat

GRACE_S = 1.0
"""How long a process may take to obey SIGTERM; a guest in KVM's emulator ignores it for minutes."""

_UNLESS_ORPHANED = """[ "$PPID" = "$0" ] || exit
trap "" XFSZ
ulimit -f "$1"
shift
exec "$@"
"""
"""Shell: run the program if the parent is still the one given; if it died before the child asked
to die with it, no parent is left whose death could be noticed.  A file that reaches its limit
(setrlimit(2), RLIMIT_FSIZE) is cut there: without the signal a write fails, and a log's writer
ignores that."""

BLOCK_BYTES = 512
"""The unit of a shell's ``ulimit -f`` (POSIX)."""


class OwnedProcess:
    """A running child.  Made by :func:`owned_process` only."""

    def __init__(
        self, argv: Sequence[str], process: asyncio.subprocess.Process, owner: str
    ) -> None:
        self.argv = tuple(argv)
        self._process = process
        self._owner = owner
        self._ended = asyncio.ensure_future(self._end())

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status (negative: the signal that killed it), or None while it runs."""
        return self._process.returncode

    @property
    def is_stopped(self) -> bool:
        """Whether it is there and does not run, by SIGSTOP or a debugger (proc(5), ``stat``)."""
        stat = self._stat()
        return stat is not None and stat.state in ("T", "t")

    @property
    def cpu_s(self) -> float:
        """CPU time that it has taken so far, in all of its threads; 0 once it has ended."""
        stat = self._stat()
        return 0.0 if stat is None else stat.cpu_s

    def _stat(self) -> ProcStat | None:
        return None if self.status is not None else read_stat(Path("/proc", str(self.pid)))

    async def wait(self) -> int:
        """Its exit status, once it has ended and what it left has, too."""
        return await asyncio.shield(self._ended)

    async def _end(self) -> int:
        """Children that it left, in its session or another, would hold its sockets."""
        status = await self._process.wait()
        await asyncio.to_thread(end_processes, self._owner)
        return status

    async def stop(self, grace_s: float = GRACE_S) -> int:
        """End it: SIGTERM, and SIGKILL to its whole group after ``grace_s`` seconds."""
        if self.status is not None:
            return await self.wait()
        with contextlib.suppress(ProcessLookupError):
            if grace_s > 0:
                self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        return await self.wait()
            os.killpg(self.pid, signal.SIGKILL)
        return await self.wait()


@contextlib.asynccontextmanager
async def owned_process(
    argv: Sequence[str],
    *,
    stdout: IO[bytes] | int = asyncio.subprocess.DEVNULL,
    stderr: IO[bytes] | int = asyncio.subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    grace_s: float = GRACE_S,
    owner: Path | None = None,
    max_file_bytes: int | None = None,
) -> AsyncIterator[OwnedProcess]:
    """Run ``argv`` for as long as the block lasts.

    The child is killed when its parent dies, however and whenever that happens (``setpriv
    --pdeathsig``, from util-linux, and then a look at who the parent is), and leads a session of
    its own, so that a terminal's Ctrl-C reaches only the harness, which then takes things down in
    order.  What it starts goes with it, in whatever session that is; with ``owner``, a folder of
    :func:`~harness.base.ownership.owned_directory`, also where its parent could not see to it.

    No file that it writes gets longer than ``max_file_bytes``.  Raises :class:`LaunchError` where
    the program is not there or cannot be executed.
    """
    program = shutil.which(argv[0], path=None if env is None else env.get("PATH"))
    if program is None:
        raise LaunchError(f"cannot run {argv[0]!r}", "no such program", "see irqmatrix doctor")
    token = uuid.uuid4().hex if owner is None else str(owner)
    limit = "unlimited" if max_file_bytes is None else str(max_file_bytes // BLOCK_BYTES)
    try:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("sh", "-c", _UNLESS_ORPHANED, str(os.getpid()), limit, program, *argv[1:]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
            cwd=cwd,
            env={**(os.environ if env is None else env), OWNER: token},
        )
    except OSError as error:
        # It may be setpriv that is not there.
        raise LaunchError(f"cannot run {error.filename or argv[0]!r}", error.strerror) from error
    owned = OwnedProcess(argv, process, token)
    try:
        yield owned
    finally:
        # The end of a process is waited for even when the task is being cancelled.
        await asyncio.shield(asyncio.ensure_future(owned.stop(grace_s)))
