"""Signals that ask to end: in order if that is quick, at once if it is not."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def on_signals(
    task: asyncio.Task[Any], within_s: float, otherwise: Callable[[], None]
) -> Iterator[None]:
    """During the block one of :data:`SIGNALS` cancels ``task``, which has to end ``within_s``.

    That goes on after the block, until the process ends or the next block: what still runs then
    (threads that are waited for) has to end as well.  If it does not, ``otherwise`` is called, in
    a thread: it is not to return.  The main thread's; a signal that is ignored stays ignored.
    """
    loop = asyncio.get_running_loop()
    too_long = threading.Timer(within_s, otherwise)
    too_long.daemon = True

    def stop(_number: int, _frame: FrameType | None) -> None:
        # A handler of Python's, not of the loop's: it also runs where the loop is kept busy.
        if not too_long.is_alive() and not too_long.finished.is_set():
            too_long.start()
        loop.call_soon_threadsafe(task.cancel)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
