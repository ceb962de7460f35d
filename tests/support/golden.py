"""Recorded texts for tests."""

from pathlib import Path

COLLECT = Path(__file__).parent.parent / "golden" / "collect"


def text(name):
    """The recorded text, with its line ends as they are."""
    return (COLLECT / name).read_bytes().decode()


def lines(name):
    return text(name).splitlines(keepends=True)
