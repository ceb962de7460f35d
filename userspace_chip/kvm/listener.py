"""Reads what comes over a descriptor, in a thread of its own."""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Callable
from typing import Final

_PIECE_BYTES: Final = 1 << 12
_UNTIL_CONNECTED_S: Final = 0.1


class Listener:
    """Gives ``take`` what comes over ``descriptor``, from :meth:`begin` on.  Use it in a ``with``.

    The descriptor stays open.  One that breaks is no longer listened to.
    """

    def __init__(self, descriptor: int, take: Callable[[bytes], None], name: str) -> None:
        self._descriptor = descriptor
        self._take = take
        self._end, self._ender = os.pipe()
        self._thread = threading.Thread(target=self._listen, name=name)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No more is read."""
        os.close(self._ender)
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._end)

    def begin(self) -> None:
        """Listen from now on."""
        self._thread.start()

    def _listen(self) -> None:
        try:
            # A device, such as a virtio port, is at its end only while nothing is connected.
            is_device = stat.S_ISCHR(os.fstat(self._descriptor).st_mode)
            while self._end not in select.select([self._descriptor, self._end], [], [])[0]:
                piece = os.read(self._descriptor, _PIECE_BYTES)
                if piece:
                    self._take(piece)
                elif not is_device or select.select([self._end], [], [], _UNTIL_CONNECTED_S)[0]:
                    return
        except OSError:
            return
