"""Standard output and standard error, as what a command may write to whatever becomes of them."""

from __future__ import annotations

import errno
import os
import sys
from typing import IO, Any, TextIO, cast

from harness.base.text import plain_json


def print_json(document: str) -> None:
    """A JSON document and a line end on standard output."""
    sys.stdout.write(plain_json(document).rstrip("\n") + "\n")


class Outlet:
    """A standard stream that cannot fail: after the first error what is written goes nowhere.

    A run outlives its reader (``| head -1``) and the disk that its output is redirected to, and its
    results are kept. ``failure`` is that error, for a message at the end. What the stream's
    encoding cannot hold is written out.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

    @property
    def stream(self) -> TextIO:
        """This, as what can stand for ``sys.stdout``."""
        return cast(TextIO, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``, if that is still possible."""
        if self.failure is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is still possible."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._failed(error)

    def _failed(self, error: OSError) -> None:
        """Remember ``error``; what is left in buffers goes to the null device, also at exit."""
        self.failure = error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)

    @property
    def reader_left(self) -> bool:
        """Whether the other end of a pipe was closed, which is no fault of anything."""
        return self.failure is not None and self.failure.errno == errno.EPIPE


def open_missing() -> bool:
    """Put the null device where a standard stream was closed; whether standard output was.

    Otherwise the next file that is opened would get its number, and what is printed.
    """
    was_closed = sys.stdout is None
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        name = ("stdin", "stdout", "stderr")[number]
        if getattr(sys, name) is None:
            setattr(sys, name, _null(number, mode))
    return was_closed


def _null(number: int, mode: str) -> IO[str]:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    return os.fdopen(number, mode, encoding="utf-8", closefd=False)
