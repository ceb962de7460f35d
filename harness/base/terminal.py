"""Standard output and standard error: the one way that text takes to a terminal or a pipe."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping
from typing import IO, Any, Final, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from harness.base.emphasis import Emphasis
from harness.base.text import plain, plain_json

STYLES: Final[Mapping[Emphasis, str]] = {
    Emphasis.PLAIN: "",
    Emphasis.TITLE: "bold",
    Emphasis.FAINT: "dim",
    Emphasis.GOOD: "green",
    Emphasis.BEST: "bold green",
    Emphasis.NOTICE: "yellow",
    Emphasis.WARNING: "bold yellow",
    Emphasis.BAD: "red",
    Emphasis.ALARM: "bold red",
    Emphasis.EXPLAINED: "cyan",
    Emphasis.NEWS: "bold magenta",
}
"""In rich's words."""

WIDE: Final = 180
"""Columns of a table in a file or a pipe, where nothing wraps."""


class Printer(Console):
    """A console on which no text can control the terminal; rich's own control codes can.

    Cleaned is what is measured, and again what is rendered, whatever it was rendered from.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """A text's rich form, as it will be shown; a ``:name:`` in it is no emoji."""
        return super().render_str(plain(text), **options | {"emoji": False})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of anything that can be printed."""
        for segment in super().render(renderable, options):
            if segment.control is None:
                yield Segment(plain(segment.text), segment.style)
            else:
                yield segment


def printer(*, stderr: bool = False) -> Printer:
    """On standard output, or on standard error; tables in a file or a pipe are :data:`WIDE`."""
    stream = sys.stderr if stderr else sys.stdout
    in_file = not stream.isatty() and "COLUMNS" not in os.environ
    return Printer(stderr=stderr, width=WIDE if in_file else None)


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
