"""A host without any QEMU, on which every guest says the same and ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket

WORDS = b"PASS: toy\r\nSUMMARY: 1 tests\r\n"


class ToyGuest:
    """A guest that has said all it had to say, and left."""

    console_end = None
    host_pid = None

    def __init__(self, console, monitor, exited):
        self.console, self.monitor, self.exited = console, monitor, exited

    async def kill(self):
        pass

    async def collect(self, stderr, trace_log):
        stderr.write_text("")
        trace_log.write_text("")


class ToySession:
    """A host on which every guest says the same."""

    files = None
    tracefs = None
    lost = False
    description = "a toy"

    def __init__(self, words=WORDS, status=0):
        self.words, self.status = words, status

    def executed(self):
        return None

    def state_file(self, directory):
        return "nowhere"

    def command(self, plan):
        return "toy\n"

    @contextlib.asynccontextmanager
    async def boot(self, plan):
        exited = asyncio.get_running_loop().create_future()
        exited.set_result(self.status)
        (ours, theirs), (monitor, other) = socket.socketpair(), socket.socketpair()
        with ours, theirs, monitor, other:
            theirs.sendall(self.words)
            theirs.shutdown(socket.SHUT_WR)
            yield ToyGuest(ours, monitor, exited)
