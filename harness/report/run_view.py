"""What a report gets of a run."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.export.checks import Group, groups_of
from harness.store.result import RunResult


@dataclass(frozen=True)
class RunView:
    """A run as plain data: its result, and all that it says as named checks."""

    run: RunResult
    checks: tuple[Group, ...]

    @classmethod
    def of(cls, run: RunResult) -> RunView:
        """The view of ``run``."""
        return cls(run, groups_of(run))
