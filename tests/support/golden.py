"""Recorded texts for tests."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
COLLECT = TESTS / "golden" / "collect"


def text(name):
    """The recorded text, with its line ends as they are."""
    return (COLLECT / name).read_bytes().decode()


def lines(name):
    return text(name).splitlines(keepends=True)
