"""TAP 14 read with tap.py, which knows no subtests: each level is a document of its own."""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import dataclass

from tap.line import Result
from tap.parser import Parser

VERSION = "TAP version 14"


@dataclass(frozen=True)
class Subtest:
    """A test point with the points of its subtest."""

    point: Result
    points: tuple[Result, ...]


def read(text: str) -> list[Subtest]:
    """The subtests; asserts that every plan is kept and that every subtest has its name."""
    assert text.startswith(VERSION + "\n")
    subtests = []
    top: list[str] = []
    inner: list[str] = []
    name = None
    for line in text.splitlines():
        if line.startswith("    "):
            inner.append(line)
        elif line.startswith("# Subtest: "):
            name = line.removeprefix("# Subtest: ")
        else:
            top.append(line)
            if name is not None:
                assert line.endswith(f"- {name}")
                subtests.append(_points(f"{VERSION}\n{textwrap.dedent(chr(10).join(inner))}"))
                inner, name = [], None
    points = _points("\n".join(top))
    return [Subtest(point, inner) for point, inner in zip(points, subtests, strict=True)]


def _points(text: str) -> tuple[Result, ...]:
    lines = [*Parser().parse_text(text)]
    (plan,) = [line for line in lines if line.category == "plan"]
    points = tuple(line for line in lines if line.category == "test")
    assert [point.number for point in points] == [*range(1, plan.expected_tests + 1)]
    assert {line.category for line in lines} <= {"version", "plan", "test"}
    return points


def failing(subtests: list[Subtest]) -> set[tuple[str, str]]:
    """Subtest and point of all that makes a harness say that the run has failed."""
    return {
        (_name(subtest.point), _name(point))
        for subtest, point in itertools.chain.from_iterable(
            ((subtest, point) for point in subtest.points) for subtest in subtests
        )
        if not point.ok and not point.todo
    }


def _name(point: Result) -> str:
    return point.description.removeprefix("- ")
