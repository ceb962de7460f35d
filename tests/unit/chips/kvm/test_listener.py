"""What comes over a descriptor, and when listening ends."""

from __future__ import annotations

import os
import queue
import socket
import threading

from userspace_chip.kvm.listener import Listener


def test_listener_gives_what_comes_until_it_is_closed():
    heard, (ours, theirs) = queue.Queue(), socket.socketpair()
    before = threading.active_count()
    with ours, theirs:
        with Listener(theirs.fileno(), heard.put, "test") as listener:
            listener.begin()
            ours.sendall(b"one")
            assert heard.get(timeout=10) == b"one"

        assert threading.active_count() == before
        ours.sendall(b"two")
        assert theirs.recv(10) == b"two"


def test_listener_of_what_has_ended_ends():
    reader, end = os.pipe()
    os.close(end)
    heard = queue.Queue()

    with Listener(reader, heard.put, "test") as listener:
        listener.begin()

    assert heard.empty()
    os.close(reader)


def test_listener_that_never_began_leaves_nothing():
    with Listener(0, lambda piece: None, "test"):
        pass
