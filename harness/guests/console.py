"""A guest's serial console, with pexpect on a connected socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import pexpect
from pexpect.socket_pexpect import SocketSpawn

from harness.base.errors import GuestCrash

TAIL_LINES: Final = 12
_SEARCH_WINDOW: Final = 4096


if TYPE_CHECKING:
    _TextSocketSpawn = SocketSpawn[str]
else:
    _TextSocketSpawn = SocketSpawn


def end_mark() -> str:
    """What follows a guest's last words where a console's end of file cannot be seen.

    No guest can know it, and so end its console before it has said everything.
    """
    return f"\x04irqmatrix: end of console {uuid.uuid4().hex}\n"


class _Spawn(_TextSocketSpawn):
    """A socket under pexpect whose other end may go away before ours."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class Console:
    """What a guest says and is told.  Made by :func:`console` only."""

    def __init__(self, spawn: _Spawn, log: Path, end: str | None) -> None:
        self._spawn = spawn
        self._log = log
        self._ends = [pexpect.EOF] if end is None else [re.escape(end), pexpect.EOF]
        self.ended = False
        """Whether the guest has said its last word."""

    async def expect(self, pattern: str) -> re.Match[str]:
        """Read up to ``pattern``; :class:`GuestCrash` where the console ends before it."""
        index = await self._expect([pattern, *self._ends])
        if index != 0:
            self.ended = True
            raise GuestCrash("the guest's QEMU went away", console_tail=self.tail())
        match = self._spawn.match
        assert isinstance(match, re.Match)
        return match

    async def read_to(self, pattern: str) -> str:
        """The text before ``pattern``; errors as :meth:`expect`."""
        await self.expect(pattern)
        return str(self._spawn.before)

    async def comes(self, pattern: str) -> bool:
        """Read up to ``pattern``; False where the console ends before it."""
        index = await self._expect([pattern, *self._ends])
        self.ended = index != 0
        return index == 0

    async def read_all(self) -> str:
        """The text up to the console's end."""
        if self.ended:
            return ""
        await self._expect(self._ends)
        self.ended = True
        return str(self._spawn.before)

    async def send_line(self, text: str) -> None:
        """Send one line; the guest's crash is seen by the next read."""
        with contextlib.suppress(OSError):
            self._spawn.sendline(text)

    def tail(self) -> tuple[str, ...]:
        """The last lines that the guest said."""
        return tuple(line for line in self.text().splitlines() if line.strip())[-TAIL_LINES:]

    def text(self) -> str:
        """All that the guest said."""
        return self._log.read_text(encoding="utf-8", errors="replace").replace("\r", "")

    async def _expect(self, patterns: list[Any]) -> int:
        waiting = self._spawn.expect(
            patterns, timeout=None, searchwindowsize=_SEARCH_WINDOW, async_=True
        )
        try:
            return int(await waiting)
        except asyncio.CancelledError:
            # Nobody listens now: what comes, its end above all, has to wait for the next reader.
            if self._spawn.async_pw_transport is not None:
                self._spawn.async_pw_transport[1].pause_reading()
            raise


class _Log:
    """A log that shows what was said as soon as it was, without carriage returns or our mark."""

    def __init__(self, file: IO[str], end: str | None) -> None:
        self._file = file
        self._end = end

    def write(self, text: str) -> None:
        text = text.replace("\r", "")
        self._file.write(text if self._end is None else text.replace(self._end, ""))

    def flush(self) -> None:
        self._file.flush()


@contextlib.contextmanager
def console(
    connection: socket.socket, log: Path, *, more: bool = False, end: str | None = None
) -> Iterator[Console]:
    """The console on ``connection``, for as long as the block lasts; it is kept in ``log``.

    ``more``: behind what is there already, that of an earlier boot.  ``end``: see :func:`end_mark`.
    """
    with log.open("a" if more else "w", encoding="utf-8") as file:
        spawn = _Spawn(
            connection,
            timeout=None,
            maxread=65536,
            encoding="utf-8",
            codec_errors="replace",
        )
        spawn.logfile_read = _Log(file, end)
        try:
            yield Console(spawn, log, end)
        finally:
            _close(spawn)


def _close(spawn: _Spawn) -> None:
    """Take the spawn off the event loop, and close its socket."""
    if spawn.async_pw_transport is not None:
        _, transport = spawn.async_pw_transport
        asyncio.get_running_loop().call_soon(transport.close)
    else:
        spawn.close()
