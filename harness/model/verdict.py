"""The verdict of a case and of its parts, and whose fault it looks like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from harness.base import limits
from harness.base.emphasis import Emphasis
from harness.base.text import shortened
from harness.model.case import Case


class Verdict(StrEnum):
    """The verdict of a case or of a part of it, from harmless to grave."""

    PASS = "pass"
    SKIP = "skip"
    FAIL = "fail"
    """The guest's own check failed."""
    STORM = "storm"
    STUCK = "stuck"
    LOST = "lost"
    MISROUTED = "misrouted"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    """It still ran when its time was up."""
    HANG = "hang"
    """Nothing moves any more."""
    CRASH = "crash"
    ERROR = "error"
    """It could not be run or not be judged; says nothing of the subject."""
    INCOMPLETE = "incomplete"
    """The run ended before it did."""

    @property
    def emphasis(self) -> Emphasis:
        """How it is shown where it is as expected."""
        return _EMPHASIS.get(self, Emphasis.NOTICE)


_EMPHASIS: Final = {
    Verdict.PASS: Emphasis.GOOD,
    Verdict.SKIP: Emphasis.FAINT,
    Verdict.HANG: Emphasis.BAD,
    Verdict.CRASH: Emphasis.BAD,
    Verdict.ERROR: Emphasis.BAD,
    Verdict.FAIL: Emphasis.BAD,
}


class Blame(StrEnum):
    """Whose fault a verdict other than ``pass`` or ``skip`` looks like."""

    GUEST = "guest"
    IRQCHIP = "irqchip"
    QEMU = "qemu"
    LAB = "lab"
    """The emulator or the kernel that is the lab's hardware."""
    HARNESS = "harness"


_GRAVITY: Final = {verdict: rank for rank, verdict in enumerate(Verdict)}


NOT_REACHED: Final = "not reached"
"""How the detail of a part begins that the case did not live to see."""


@dataclass(frozen=True)
class PartResult:
    """A workload of a Linux guest, or a check of a flat image."""

    id: str
    verdict: Verdict
    detail: str = ""
    expected: Verdict | None = None
    """What the configuration says it has to be, where it says so."""
    metrics: Mapping[str, int | float | str] = field(default_factory=dict)
    blame: Blame | None = None

    @property
    def was_reached(self) -> bool:
        """Whether the guest came to it; what a check of its own reports was reached."""
        why = self.detail.removeprefix(NOT_REACHED)
        is_ours = why != self.detail and (not why or why.startswith(": "))
        return self.verdict is not Verdict.ERROR or not is_ours

    @property
    def as_expected(self) -> bool:
        """Whether it is what it should be."""
        if self.expected is not None:
            return self.verdict is self.expected
        return self.verdict in (Verdict.PASS, Verdict.SKIP)


@dataclass(frozen=True)
class CaseResult:
    """One case: what became of it, and where its files are (below the run directory)."""

    id: str
    subject: str
    backend: str
    axes: Mapping[str, str | int | None]
    guest: str
    """The guest's kind, as a configuration calls it: ``linux``."""
    verdict: Verdict
    detail: str
    duration_s: float
    dir: str
    parts: tuple[PartResult, ...] = ()
    observations: Mapping[str, str] = field(default_factory=dict)
    """What the monitor reported of the chips themselves, by id."""
    as_expected: bool = True
    expected: Verdict | None = None
    """What the configuration says the case as a whole has to be, where it says so."""
    blame: Blame | None = None
    notes: tuple[str, ...] = ()
    """What ledger and replay say, where that is not the verdict."""
    status: int | None = None
    """QEMU's exit status, where it ended by itself."""
    family: str = ""
    """The subject without machine, CPU and smp."""
    group: str = ""
    """What the case is judged by where that is not the matrix: a reproducer; else empty."""
    first_time: str | None = None
    """What it was the first time, where it was run again because that was not as expected."""

    @property
    def full_detail(self) -> str:
        """The detail with the notes."""
        return "; ".join(filter(None, (self.detail, *self.notes)))

    @property
    def flaky(self) -> bool:
        """Whether it is as expected now and was not the first time."""
        return self.as_expected and self.first_time is not None


def of_case(
    case: Case,
    verdict: Verdict,
    detail: str,
    duration_s: float,
    *,
    parts: tuple[PartResult, ...] = (),
    observations: Mapping[str, str] | None = None,
    as_expected: bool = True,
    expected: Verdict | None = None,
    blame: Blame | None = None,
    status: int | None = None,
    notes: tuple[str, ...] = (),
) -> CaseResult:
    """The result of ``case``, in the folder of its name; its details are cut to their limit."""
    most = limits.current().detail_characters
    return CaseResult(
        id=case.id,
        subject=case.subject,
        backend=case.backend.name,
        axes=case.axes,
        guest=case.guest.kind,
        verdict=verdict,
        detail=shortened(detail, most),
        duration_s=round(duration_s, 3),
        dir=case.directory_name,
        parts=tuple(replace(part, detail=shortened(part.detail, most)) for part in parts),
        observations=dict(observations or {}),
        as_expected=as_expected,
        expected=expected,
        blame=blame,
        status=status,
        notes=notes,
        family=case.family,
        group=case.group,
    )


def judged(parts: Iterable[PartResult]) -> Verdict:
    """The worst verdict of ``parts``; where some passed, the skipped ones do not count."""
    verdicts = {part.verdict for part in parts}
    if Verdict.PASS in verdicts:
        verdicts.discard(Verdict.SKIP)
    return max(verdicts, key=_GRAVITY.__getitem__, default=Verdict.PASS)
