"""What is said to somebody who wrote a word that there is not."""

import pytest

from harness.base.suggest import close, nearest

WORDS = ("idle", "serial", "block-intx", "block-msix")


@pytest.mark.parametrize(
    ("word", "count", "said"),
    [
        ("idel", 1, "did you mean 'idle'?"),
        ("block-msi", 2, "did you mean 'block-msix', 'block-intx'?"),
        ("xyzzy", 3, None),
    ],
)
def test_close_names_the_nearest_words_or_nothing(word, count, said):
    assert close(word, WORDS, count=count) == said


def test_nearest_where_none_is_near_names_them_all():
    assert nearest("xyzzy", WORDS) == "known: block-intx, block-msix, idle, serial"
    assert nearest("serail", WORDS) == "did you mean 'serial'?"
