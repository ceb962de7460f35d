"""A report on a terminal, or in a file as if it was one: the one module of reports that uses rich.

Text that is shown is data: it has no markup, and no character that controls a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from rich import table as rich_table
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from harness.base.emphasis import Emphasis
from harness.base.terminal import STYLES
from harness.base.text import plain
from harness.report.page import Cell, Column, ColumnKind, Divisible, Page, Table, TextLine

_GAP: Final = 2
"""Columns of the terminal between two cells."""
_REMARK_COLUMNS: Final = 40
"""Remarks on a row are wrapped at this width where space is short."""


def show(console: Console, page: Page) -> None:
    """Print ``page`` from its top to its end."""
    for block in page:
        if isinstance(block, TextLine):
            console.print(
                block.text,
                style=STYLES[block.emphasis],
                markup=False,
                emoji=False,
                highlight=False,
                soft_wrap=True,
            )
        elif isinstance(block, Table):
            console.print(_table(block))
        else:
            for number, columns in enumerate(_side_by_side(block, console.width)):
                if number:
                    console.print()
                console.print(_table(block.part(columns)))


def _table(table: Table) -> rich_table.Table:
    if table.has_header:
        found = rich_table.Table(box=None, pad_edge=False)
    else:
        found = rich_table.Table.grid(padding=(0, _GAP))
    for column in table.columns:
        whole = column.kind in (ColumnKind.NAME, ColumnKind.RESULT)
        found.add_column(Text(plain(column.name)), justify=_side(column), no_wrap=whole)
    for row in table.rows:
        found.add_row(*map(_text, row))
    return found


def _side(column: Column) -> Literal["left", "right"]:
    return "right" if column.kind in (ColumnKind.NUMBER, ColumnKind.RESULT) else "left"


def _text(cell: Cell) -> Text:
    text = Text(plain(cell.text), style=STYLES[cell.emphasis])
    for note in cell.notes:
        text.append(f"\n{plain(note)}", style=STYLES[Emphasis.FAINT])
    return text


# --- What does not fit side by side -------------------------------------------------------------


def _side_by_side(table: Divisible, width: int) -> Iterator[range]:
    """The columns that stand side by side on ``width`` columns, at least one at a time."""
    whole = table.part(range(table.size))
    left = width - _width(whole, 0) - _GAP
    left -= min(_REMARK_COLUMNS, max(cell_len(row[-1].text) for row in whole.rows))
    first, used = 0, 0
    for index in range(table.size):
        needed = _width(whole, index + 1) + _GAP
        if used + needed > left and index > first:
            yield range(first, index)
            first, used = index, 0
        used += needed
    yield range(first, table.size)


def _width(table: Table, index: int) -> int:
    """The width of a column and its name."""
    words = [*table.columns[index].name.splitlines(), *(row[index].text for row in table.rows)]
    return max(map(cell_len, words), default=0)
