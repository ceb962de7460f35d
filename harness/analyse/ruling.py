"""The judgement of a case as a whole, or of a part of it, on the way to its result."""

from __future__ import annotations

from typing import NamedTuple

from harness.model.verdict import Blame, PartResult, Verdict


class Ruling(NamedTuple):
    """A verdict, why, and whose fault it looks like where that is known already."""

    verdict: Verdict
    detail: str
    blame: Blame | None = None

    def part(self, name: str, expected: Verdict | None) -> PartResult:
        """The same, said of a part."""
        return PartResult(name, self.verdict, self.detail, expected, blame=self.blame)
