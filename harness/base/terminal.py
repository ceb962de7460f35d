"""How text is printed on a terminal or into a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from harness.base.emphasis import Emphasis
from harness.base.text import plain

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
