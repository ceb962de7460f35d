"""What reaches a terminal."""

import io

from rich.table import Table
from rich.text import Text

from harness.base.terminal import Printer

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil"


def test_printer_hostile_text_in_any_form_controls_nothing():
    out = io.StringIO()
    console = Printer(file=out, width=200, force_terminal=True)
    table = Table("case", "detail")
    table.add_row(HOSTILE, Text(HOSTILE, style="red"))
    console.print(table)
    console.print(HOSTILE, markup=False, highlight=False, soft_wrap=True)
    console.print(Text(HOSTILE))
    printed = out.getvalue()
    assert not {"\x07", "\x9b", "\u202e"} & set(printed)
    assert "\x1b]" not in printed
    assert "\x1b[2J" not in printed
    assert printed.count("\\x9b31m\\u202eevil") == 3  # a cell that is a Text may be cropped


def test_printer_names_of_emoji_in_a_text_stay():
    out = io.StringIO()
    Printer(file=out).print("ioapic:x: pin 4", markup=False, highlight=False)
    assert out.getvalue() == "ioapic:x: pin 4\n"


def test_printer_own_colours_stay():
    out = io.StringIO()
    Printer(file=out, force_terminal=True, color_system="standard").print(Text("x", style="red"))
    assert out.getvalue() == "\x1b[31mx\x1b[0m\n"
