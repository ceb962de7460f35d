"""How an image reports its results on a console: patterns for the lines that mean something."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LineKind(StrEnum):
    """What a line of a result protocol says."""

    PLAN = "plan"
    """How many checks there are: ``count``; how many of them failed: ``failures``."""
    SKIP_ALL = "skip-all"
    """That nothing is checked, on purpose; ``name`` is the reason."""
    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    """The result of a check: ``name``, ``number``, and what it measured (``value``, ``unit``)."""
    VALUE = "value"
    """What the check that reports next has measured: ``name``, ``value``, ``unit``."""
    SUBTEST = "subtest"
    """The name of the check whose parts follow."""
    END = "end"
    """The last line."""
    ABORT = "abort"
    """That it gives up; ``name`` is the reason."""


GROUPS = frozenset({"name", "number", "count", "failures", "value", "unit"})
"""The named groups that a pattern may have."""


@dataclass(frozen=True)
class LinePattern:
    """A regular expression for a line, from its beginning; what follows the match is free."""

    kind: LineKind
    pattern: str


@dataclass(frozen=True)
class Quoted:
    """Patterns of the first and the last line of text that holds no results (TAP's YAML)."""

    begin: str
    end: str


@dataclass(frozen=True)
class Protocol:
    """A result protocol.  A line means what the first pattern that matches it says."""

    name: str
    lines: tuple[LinePattern, ...]
    found_by: str | None = None
    """A line that only this protocol has; None: it is used only where it is asked for."""
    plan_required: bool = False
    """Whether a console without a plan is incomplete."""
    subtests: bool = False
    """Whether indented lines are the parts of a check whose own line comes after them."""
    quoted: Quoted | None = None

    def has(self, kind: LineKind) -> bool:
        """Whether it has lines of this kind."""
        return any(line.kind is kind for line in self.lines)
