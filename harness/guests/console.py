"""A guest's serial console, with pexpect on a connected socket."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import pexpect
from pexpect.socket_pexpect import SocketSpawn

from harness.base import limits
from harness.base.errors import GuestCrash, GuestFlood
from harness.base.text import shortened

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
    """What a guest says and is sent.  Made by :func:`console` only.

    Every read raises :class:`GuestFlood` where the guest says more than its console may.
    """

    def __init__(self, spawn: _Spawn, log: Path, end: str | None, kept: _Log) -> None:
        self._spawn = spawn
        self._log = log
        self._kept = kept
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
        lines = [line for line in self.text().splitlines() if line.strip()][-TAIL_LINES:]
        return tuple(shortened(line, limits.current().line_characters) for line in lines)

    def text(self) -> str:
        """All that the guest said."""
        return self._log.read_text(encoding="utf-8", errors="replace").replace("\r", "")

    async def _expect(self, patterns: list[Any]) -> int:
        waiting = asyncio.ensure_future(
            self._spawn.expect(patterns, timeout=None, searchwindowsize=_SEARCH_WINDOW, async_=True)
        )
        self._kept.on_full = waiting.cancel
        try:
            return int(await asyncio.shield(waiting))
        except asyncio.CancelledError:
            index = await self._unread(waiting)
            self.ended = index is not None and patterns[index] in self._ends
            self._check()
            raise

    async def _unread(self, waiting: asyncio.Future[int]) -> int | None:
        """Listen no more: what comes, its end above all, has to wait for the next reader.

        What came in this very moment is the pattern of the index returned.
        """
        while self._spawn.async_pw_transport is None and not waiting.done():
            await asyncio.sleep(0)  # no owner closes a transport whose making is cancelled
        if (made := self._spawn.async_pw_transport) is not None:
            made[1].pause_reading()
        if made is None or not made[0].fut.done():
            waiting.cancel()  # else the pattern is taken from the text, and would be lost
        await asyncio.wait({waiting})
        is_done = not waiting.cancelled() and waiting.exception() is None
        return waiting.result() if is_done else None

    def _check(self) -> None:
        """:class:`GuestFlood` where it was not the reader's task that was cancelled."""
        if self._kept.is_full:
            self.ended = True
            what = f"the guest said more than {limits.current().console_mib} MiB on its console"
            raise GuestFlood(what, None, limits.hint("console_mib"), console_tail=self.tail())


class _Log:
    """A log that shows what was said as soon as it was, without carriage returns or our mark.

    It takes a number of characters, and calls ``on_full`` when there are more.
    """

    def __init__(self, file: IO[str], end: str | None, limit: int) -> None:
        self._file = file
        self._end = end
        self._left = limit
        self.on_full: Callable[[], object] = lambda: None

    @property
    def is_full(self) -> bool:
        return self._left < 0

    def write(self, text: str) -> None:
        if self.is_full:
            return
        said = text[: self._left].replace("\r", "")
        self._file.write(said if self._end is None else said.replace(self._end, ""))
        self._left -= len(text)
        if self._left < 0:
            self.on_full()

    def flush(self) -> None:
        self._file.flush()


@contextlib.contextmanager
def console(
    connection: socket.socket, log: Path, *, more: bool = False, end: str | None = None
) -> Iterator[Console]:
    """The console on ``connection``, for as long as the block lasts; it is kept in ``log``.

    ``more``: after what is there already, that of an earlier boot.  ``end``: see :func:`end_mark`.
    """
    with log.open("a" if more else "w", encoding="utf-8") as file:
        spawn = _Spawn(
            connection,
            timeout=None,
            maxread=65536,
            encoding="utf-8",
            codec_errors="replace",
        )
        kept = _Log(file, end, limits.current().console_mib * limits.MIB)
        spawn.logfile_read = kept
        try:
            yield Console(spawn, log, end, kept)
        finally:
            _close(spawn)


def _close(spawn: _Spawn) -> None:
    """Take the spawn off the event loop, and close its socket."""
    if spawn.async_pw_transport is not None:
        _, transport = spawn.async_pw_transport
        asyncio.get_running_loop().call_soon(transport.close)
    else:
        spawn.close()
