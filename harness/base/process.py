"""A child process that is owned: it dies with its owner, its block, and its owner's process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from harness.base.errors import LaunchError

GRACE_S = 1.0
"""How long a process may take to obey SIGTERM; a guest in KVM's emulator ignores it for minutes."""

_UNLESS_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'
"""Shell: run the program if the parent is still the one given; if it died before the child asked
to die with it, nobody is left whose death could tell."""


class OwnedProcess:
    """A running child.  Made by :func:`owned_process` only."""

    def __init__(self, argv: Sequence[str], process: asyncio.subprocess.Process) -> None:
        self.argv = tuple(argv)
        self._process = process

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status (negative: the signal that killed it), or None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Its exit status, once it has ended."""
        return await self._process.wait()

    async def stop(self, grace_s: float = GRACE_S) -> int:
        """End it: SIGTERM, and SIGKILL to its whole group after ``grace_s`` seconds."""
        if self.status is not None:
            return self.status
        with contextlib.suppress(ProcessLookupError):
            if grace_s > 0:
                self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        return await self._process.wait()
            os.killpg(self.pid, signal.SIGKILL)
        return await self._process.wait()


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
) -> AsyncIterator[OwnedProcess]:
    """Run ``argv`` for as long as the block lasts.

    The child is killed when its parent dies, however and whenever that happens (``setpriv
    --pdeathsig``, from util-linux, and then a look at who the parent is), and leads a session of
    its own, so that a terminal's Ctrl-C reaches only the harness, which then takes things down in
    order.  Raises :class:`LaunchError` where the program is not there or cannot be executed.
    """
    program = shutil.which(argv[0], path=None if env is None else env.get("PATH"))
    if program is None:
        raise LaunchError(f"cannot run {argv[0]!r}", "no such program", "see irqmatrix doctor")
    try:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("sh", "-c", _UNLESS_ORPHANED, str(os.getpid()), program, *argv[1:]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
            cwd=cwd,
            env=env,
        )
    except OSError as error:
        raise LaunchError(f"cannot run {argv[0]!r}", error.strerror) from error
    owned = OwnedProcess(argv, process)
    try:
        yield owned
    finally:
        # The end of a process is waited for even when the task is being cancelled.
        await asyncio.shield(asyncio.ensure_future(owned.stop(grace_s)))
