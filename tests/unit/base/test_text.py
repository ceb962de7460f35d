"""Text that a terminal would obey, written out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.text import plain, plain_json, shortened


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("nul\0", "nul\\x00"),
        ("back\rover", "back\\x0dover"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("\udcff", "\\udcff"),
    ],
    ids=["csi", "osc", "nul", "return", "c1", "bidi", "surrogate"],
)
def test_plain_active_character_is_written_out(hostile, shown):
    assert plain(hostile) == shown


def test_plain_words_of_any_language_stay():
    assert plain("é ü × 日本\tc\n") == "é ü × 日本\tc\n"


@given(st.text())
def test_plain_json_is_the_same_document_without_active_characters(text):
    document = json.dumps([text], ensure_ascii=False, indent=1)
    assert json.loads(plain_json(document)) == [text]
    assert plain(plain_json(document)) == plain_json(document)


def test_shortened_long_text_says_how_much_is_left_out():
    assert shortened("a" * 60 + "b" * 60, 60) == "a" * 40 + " [... 60 characters ...] " + "b" * 20
    assert shortened("short", 60) == "short"
