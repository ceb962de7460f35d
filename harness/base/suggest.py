"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

CUTOFF: Final = 0.6
"""How alike two words have to be, from 0 to 1 (:func:`difflib.get_close_matches`)."""


def close(word: str, words: Iterable[str], *, count: int = 1, cutoff: float = CUTOFF) -> str | None:
    """``did you mean 'idle'?`` with up to ``count`` of ``words``; None where none is near."""
    near = difflib.get_close_matches(word, sorted(words), n=count, cutoff=cutoff)
    return f"did you mean {', '.join(map(repr, near))}?" if near else None


def nearest(word: str, words: Iterable[str]) -> str:
    """The nearest of ``words``, or all of them."""
    known = sorted(words)
    return close(word, known) or f"known: {', '.join(known)}"
