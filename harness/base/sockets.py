"""UNIX sockets that QEMU inherits, so that there is no wait for a socket to appear.

Where one connection is enough, QEMU gets one end of a pair (``-chardev socket,fd=N``).  Where
clients come and go, the harness listens and QEMU gets the listening descriptor
(``-chardev socket,fd=N,server=on``, as libvirt does it); it accepts whenever it is ready.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

PIPE_BYTES: Final = 1 << 20
"""What a pipe holds at most without root (Linux ``fs/pipe.c``, ``pipe_max_size``)."""


@contextlib.contextmanager
def listener(path: Path) -> Iterator[socket.socket]:
    """A listening socket at ``path``, inheritable; closed and unlinked with the block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        try:
            server.listen(1)
            server.set_inheritable(True)
            yield server
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair: ours, and an inheritable one for QEMU; both closed with the block."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.set_inheritable(True)
        yield ours, theirs


@contextlib.contextmanager
def roomy(connection: socket.socket) -> Iterator[IO[bytes]]:
    """An inheritable file; what is written to it goes to ``connection``, which ends when it does.

    Its writer need not wait for whoever reads, before there is a megabyte.  Of single bytes, as a
    serial port writes them, a socket takes a few hundred.
    """
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", 0) as source, os.fdopen(write_end, "wb", 0) as sink:
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_inheritable(sink.fileno(), True)

        def copy() -> None:
            with connection, contextlib.suppress(OSError):
                while data := source.read(1 << 16):
                    connection.sendall(data)

        thread = threading.Thread(target=copy, name="console", daemon=True)
        thread.start()
        try:
            yield sink
        finally:
            sink.close()
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()


def connect(path: Path) -> socket.socket:
    """A connection to the socket at ``path``; the caller owns it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection
