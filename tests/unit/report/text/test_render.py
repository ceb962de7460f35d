"""Blocks on a terminal."""

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from harness.base.emphasis import Emphasis
from harness.base.terminal import STYLES
from harness.report.page import Cell, Column, ColumnKind, Table, TextLine, cells, columns
from harness.report.text.render import show
from support.showing import shown


@dataclass(frozen=True)
class Digits:
    """A table with a column for each digit, which is wide enough for ten terminals."""

    size: int = 10

    def part(self, columns):
        own = (Column(str(digit) * 5, ColumnKind.RESULT) for digit in columns)
        row = (Cell("row"), *(Cell("x") for _ in columns), Cell(f"{len(columns)} of 10"))
        return Table((Column(kind=ColumnKind.NAME), *own, Column("remark")), (row,))


def test_line_is_never_wrapped():
    assert shown([TextLine("word " * 50 + "end")], width=20) == "word " * 50 + "end\n"


@pytest.mark.parametrize(
    "block", [TextLine("[bold]:x: 12"), Table(columns("a"), (cells("[bold]:x: 12"),))]
)
def test_text_is_shown_as_it_is_and_has_no_markup(block):
    assert "[bold]:x: 12" in shown([block])


@pytest.mark.parametrize("block", [Table(columns("a\x1b"), (cells("b\x1b"),)), Table((), ())])
def test_control_characters_in_a_table_are_written_out(block):
    assert "\x1b" not in shown([block])


def test_table_without_names_has_no_header():
    assert shown([Table(columns("", ""), (cells("a", "b"),))]).splitlines() == ["a  b"]


def test_table_aligns_numbers_on_the_right():
    table = Table(
        (Column("name"), Column("n", ColumnKind.NUMBER)), (cells("a", "7"), cells("b", "1234"))
    )
    assert [line.rstrip() for line in shown([table]).splitlines()] == [
        "name     n",
        "a        7",
        "b     1234",
    ]


def test_cell_with_notes_has_them_on_faint_lines_below():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", width=40)

    show(console, [Table(columns("", ""), ((Cell("a"), Cell("b", notes=("c", "d"))),))])

    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "a  b",
        "   \x1b[2mc\x1b[0m",
        "   \x1b[2md\x1b[0m",
    ]


def test_divisible_table_that_fits_is_in_one_piece():
    (header, row) = shown([Digits()], width=100).splitlines()
    assert header.split() == [*(str(digit) * 5 for digit in range(10)), "remark"]
    assert row.split() == ["row", *"x" * 10, "10", "of", "10"]


def test_divisible_table_that_does_not_fit_is_in_blocks_that_do():
    lines = shown([Digits()], width=40).splitlines()

    assert max(len(line.rstrip()) for line in lines) <= 40
    headers = [line.split()[:-1] for line in lines if line.rstrip().endswith("remark")]
    assert len(headers) > 1
    assert [name for names in headers for name in names] == [str(digit) * 5 for digit in range(10)]


def test_divisible_table_in_no_space_at_all_has_a_column_at_a_time():
    assert shown([Digits()], width=1).count("\n\n") == 9


def test_every_emphasis_has_a_style():
    assert STYLES.keys() == set(Emphasis)
