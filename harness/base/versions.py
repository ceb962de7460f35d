"""Versions of QEMU and Linux, and ranges of them as rules write them: ``>=9.1, <10.1``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

Version: TypeAlias = tuple[int, ...]

_VERSION: Final = re.compile(r"\d+(?:\.\d+)*")
_TERM: Final = re.compile(r"(>=|<=|==|!=|>|<)?\s*(\d+(?:\.\d+)*)")

_COMPARE: Final[Mapping[str, Callable[[Version, Version], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


def parse_version(text: str) -> Version:
    """The numbers at the first digit of ``text``: ``6.1.0-18-amd64`` is (6, 1, 0).

    ValueError where there are none.
    """
    match = _VERSION.search(text)
    if match is None:
        raise ValueError(f"no version in {text!r}")
    return tuple(int(part) for part in match[0].split("."))


@dataclass(frozen=True)
class VersionRange:
    """Terms that all have to hold.

    A term compares only as many numbers as it has: ``6.1`` and ``==6.1`` hold for 6.1.192, and
    ``<=6.1`` too; ``<6.1`` and ``>6.1`` do not.
    """

    terms: tuple[tuple[str, Version], ...]

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """``text`` is terms with commas between; ValueError where one is none."""
        terms = []
        for part in text.split(","):
            match = _TERM.fullmatch(part.strip())
            if match is None:
                raise ValueError(f"{part.strip()!r} is not a version term such as '>=9.1'")
            terms.append((match[1] or "==", parse_version(match[2])))
        return cls(tuple(terms))

    def __contains__(self, version: Version) -> bool:
        return all(_holds(compare, version, bound) for compare, bound in self.terms)

    def __str__(self) -> str:
        return ", ".join(f"{compare}{'.'.join(map(str, bound))}" for compare, bound in self.terms)


def _holds(compare: str, version: Version, bound: Version) -> bool:
    same_length = (version + (0,) * len(bound))[: len(bound)]
    if compare in _COMPARE:
        return _COMPARE[compare](same_length, bound)
    return (same_length == bound) is (compare == "==")
