"""What a report consists of, as data: lines and tables.

A report is a function from results to blocks.  It knows no terminal and opens no file; a renderer
shows the blocks: ``text/render.py`` on a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from harness.base.emphasis import Emphasis


@dataclass(frozen=True)
class TextLine:
    """A text that is never wrapped; it may have several lines, and be empty."""

    text: str = ""
    emphasis: Emphasis = Emphasis.PLAIN


@dataclass(frozen=True)
class Cell:
    """What a table says at one place; ``notes`` are faint lines below it."""

    text: str = ""
    emphasis: Emphasis = Emphasis.PLAIN
    notes: tuple[str, ...] = ()


class ColumnKind(StrEnum):
    """What the cells of a column are."""

    TEXT = "text"
    NAME = "name"
    """Not to be wrapped."""
    NUMBER = "number"
    """To be read from its end: aligned on the right."""
    RESULT = "result"
    """A number or a word that is compared with those beside it: as a number, and not wrapped."""


@dataclass(frozen=True)
class Column:
    """A column of a table; without a name where the cells explain themselves."""

    name: str = ""
    kind: ColumnKind = ColumnKind.TEXT


@dataclass(frozen=True)
class Table:
    """A table; a row has a cell for each column."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def has_header(self) -> bool:
        """Whether a column has a name."""
        return any(column.name for column in self.columns)


class Divisible(Protocol):
    """A table whose columns are shown a few at a time where they do not fit side by side."""

    @property
    def size(self) -> int:
        """The number of columns that may be apart."""

    def part(self, columns: range) -> Table:
        """The table of some of its columns, counted from 0.

        One with the rows' names stands before them, one with remarks after them.
        """


Block: TypeAlias = TextLine | Table | Divisible
Page: TypeAlias = Iterator[Block]
"""A report, from its top to its end."""


def cells(*texts: str) -> tuple[Cell, ...]:
    """A cell a text, none of them stressed."""
    return tuple(map(Cell, texts))


def columns(*names: str) -> tuple[Column, ...]:
    """A column of text a name."""
    return tuple(map(Column, names))
