"""The judgement of a case as a whole, or of a part of it, on the way to its result."""

from __future__ import annotations

from typing import NamedTuple

from harness.model.verdict import Blame, PartResult, Verdict
from harness.record.recording import Recording


class Ruling(NamedTuple):
    """A verdict, why, and whose fault it looks like where that is known already."""

    verdict: Verdict
    detail: str
    blame: Blame | None = None

    def part(self, name: str, expected: Verdict | None) -> PartResult:
        """The same, said of a part."""
        return PartResult(name, self.verdict, self.detail, expected, blame=self.blame)


def busy(recording: Recording) -> str:
    """What else a busy machine's CPUs had to do, to be added to a failure; else nothing."""
    share = recording.cpu_share
    if share is None or not share.is_small:
        return ""
    return (
        f"; this machine was busy: the guest waited for a CPU for {share.waited_s:.0f} of "
        f"{share.elapsed_s:.0f} s, and had one for {share.ran_s:.0f}; run fewer things beside it"
    )
