"""UNIX sockets that QEMU inherits, so that nobody ever waits for a socket to appear.

Where one connection is enough, QEMU gets one end of a pair (``-chardev socket,fd=N``).  Where
clients come and go, the harness listens and QEMU gets the listening descriptor
(``-chardev socket,fd=N,server=on``, as libvirt does it); it accepts whenever it is ready.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path


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


def connect(path: Path) -> socket.socket:
    """A connection to the socket at ``path``; the caller owns it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection
