"""``result.json`` while its run goes on: right at every moment, for a run that is killed at any."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from harness.base.errors import StoreError
from harness.store import result
from harness.store.result import RunResult

SHARE: Final = 0.1
"""The share of the time that is spent on writing it, at most: a large one is written less often."""


class Checkpoint:
    """Writes what ``known`` gives, whole or not at all.  Made by :func:`checkpoint` only."""

    def __init__(
        self, path: Path, known: Callable[[], RunResult], note: Callable[[str], None]
    ) -> None:
        self._path = path
        self._known = known
        self._note = note
        self._not_before = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._told = False

    def update(self) -> None:
        """What is known has changed: write it, now or as soon as its turn is."""
        wait_s = self._not_before - time.monotonic()
        if wait_s <= 0:
            self.write()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(wait_s, self.write)

    def write(self) -> None:
        """Write it now; where that cannot be, the last one stays, and that is reported once."""
        self.close()
        started = time.monotonic()
        try:
            result.write(self._known(), self._path)
        except StoreError as error:
            if not self._told:
                self._note(str(error))
            self._told = True
        ended = time.monotonic()
        self._not_before = ended + (ended - started) / SHARE

    def close(self) -> None:
        """Write nothing more by itself."""
        if self._later is not None:
            self._later.cancel()
            self._later = None


@contextlib.contextmanager
def checkpoint(
    path: Path, known: Callable[[], RunResult], note: Callable[[str], None]
) -> Iterator[Checkpoint]:
    """A checkpoint in ``path`` for as long as the block lasts.

    Written at its beginning, which raises :class:`StoreError` where it cannot be; and once more at
    its end, where that is an error or a cancellation.
    """
    result.write(known(), path)
    kept = Checkpoint(path, known, note)
    try:
        yield kept
    except BaseException:
        kept.write()
        raise
    finally:
        kept.close()
