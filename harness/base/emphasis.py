"""How what is reported stands out, as data: each way of showing it has its own means."""

from __future__ import annotations

from enum import StrEnum


class Emphasis(StrEnum):
    """What a line or a cell is to its reader."""

    PLAIN = "plain"
    TITLE = "title"
    FAINT = "faint"
    """What is only there to be complete."""
    GOOD = "good"
    BEST = "best"
    """The answer that was looked for."""
    NOTICE = "notice"
    WARNING = "warning"
    BAD = "bad"
    ALARM = "alarm"
    """What makes a run fail."""
    EXPLAINED = "explained"
    """A difference by design."""
    NEWS = "news"
    """A known bug that no longer shows."""
