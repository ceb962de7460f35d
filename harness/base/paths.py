"""Paths given by the user: a missing home, a name that is too long, an unreadable folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from harness.base.errors import HarnessError


def expanded(text: str) -> Path:
    """The path ``text``; ``~`` is a home, or itself where there is no such user."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path's raises for an unknown user


def first_file(candidates: Iterable[Path]) -> Path | None:
    """The first that is a file; :class:`HarnessError` where one cannot be looked at."""
    for path in candidates:
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise HarnessError(f"cannot access {path}", error.strerror) from None
    return None


def matching(pattern: str, places: Iterable[Path]) -> tuple[Path, ...]:
    """What matches the glob ``pattern`` in the first of ``places`` that has any, by name.

    :class:`HarnessError` for what is no pattern, or where a folder cannot be read.
    """
    path = expanded(pattern)
    if path.is_absolute():
        places, path = (Path(path.anchor),), path.relative_to(path.anchor)
    if not path.parts:
        raise HarnessError(f"{pattern!r} is a directory", "expected files or a pattern for them")
    try:
        for place in places:
            if found := tuple(sorted(place.glob(str(path)))):
                return found
    except (ValueError, IndexError, NotImplementedError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise HarnessError(f"cannot search for {pattern!r}", why) from None
    return ()
