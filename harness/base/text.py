"""Text of guests, QEMU and files, made fit for a terminal and for a report.

A control character in such a text is data. A terminal would obey it: ESC clears the screen or sets
the title, CSI (U+009B) is its one-character form, and the bidirectional controls show a line in
another order than it has (CVE-2021-42574).
"""

from __future__ import annotations

import re
from typing import Final

_ACTIVE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 without tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls (Unicode UAX #9)
    "\u2028\u2029"  # line and paragraph separators
    "\ufffe\uffff"  # no characters (XML 1.0, section 2.2)
    "\ud800-\udfff]"  # what no encoding can hold: bytes of a file name that are not UTF-8
)

LONG_NUMBER: Final = re.compile(r"\d{100}")
"""A number that counts and names nothing; Python refuses to read one of 4300 digits."""


def plain(text: str) -> str:
    r"""``text`` with every character that a terminal would obey written out, such as ``\x1b``.

    Tabs and line feeds stay.
    """
    return _ACTIVE.sub(lambda match: _written_out(ord(match[0])), text)


def plain_json(text: str) -> str:
    r"""The JSON document ``text`` with the same characters as ``\u001b``: the same document.

    They can only be inside strings: outside of those JSON has none but white space.
    """
    return _ACTIVE.sub(
        lambda match: match[0] if match[0] == "\r" else f"\\u{ord(match[0]):04x}", text
    )


def shortened(text: str, limit: int) -> str:
    """``text``, or its beginning and its end with the number of characters left out in between."""
    if len(text) <= limit:
        return text
    note = f" [... {len(text) - limit} characters ...] "
    return text[: limit - limit // 3] + note + text[len(text) - limit // 3 :]


def _written_out(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
