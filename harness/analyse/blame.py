"""Whose fault a verdict looks like: a table from facts to :class:`Blame`, and a look at a run.

It is where to look first, and no proof.  A case alone is judged by the table.  Over a run more is
known: what passes elsewhere is not the guest's fault, and what all irqchip modes of a lab show and
plain TCG does not is the lab's, which is what they share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from harness.model.case import Accel, Host
from harness.model.verdict import Blame, CaseResult, PartResult, Verdict

GOOD: Final = frozenset({Verdict.PASS, Verdict.SKIP})
_UNTOLD: Final = frozenset({Verdict.SKIP, Verdict.ERROR, Verdict.INCOMPLETE})
"""Verdicts that say nothing of the subject."""
_OF_CHIPS: Final = frozenset(
    {Verdict.STORM, Verdict.STUCK, Verdict.LOST, Verdict.MISROUTED, Verdict.DIVERGED}
)
_BY_ITSELF: Final = frozenset({"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGTRAP"})
"""The signals that a program brings on itself."""


@dataclass(frozen=True)
class Facts:
    """What is known of how a case ended, besides its verdict."""

    in_lab: bool = False
    probe: bool = False
    """Whether the guest is our own, which asks nothing but the chips."""
    lab_died: bool = False
    killed_by: str | None = None
    """The signal that ended the QEMU under test."""
    refused: bool = False
    """Whether that QEMU said on stderr why it ended."""
    asserted: bool = False
    """Whether it said that an assertion of its own failed."""
    kvm_error: bool = False
    """Whether KVM gave the guest up, with an internal error."""
    complains: bool = False
    """Whether the guest's kernel complained of its interrupts."""
    live: bool = False
    """Whether it was not QEMU, but the VMM of the live chips: ours."""
    starved: bool = False
    """Whether this machine's CPUs had other work for most of the time that it wanted one."""
    deaf: bool = False
    """Whether its QEMU's monitor did not answer when it hung."""
    by_guest: bool = False
    """Whether the guest ended by itself, and nothing failed but what it reported."""


@dataclass(frozen=True)
class BlameRow:
    """The first row that holds counts; ``why`` is the reason in words."""

    verdicts: frozenset[Verdict]
    holds: Callable[[Facts], bool]
    blame: Blame
    why: str


def _always(_: Facts) -> bool:
    return True


_CRASH: Final = frozenset({Verdict.CRASH})
_ERROR: Final = frozenset({Verdict.ERROR})
_HANG: Final = frozenset({Verdict.HANG})
_GUESTS: Final = frozenset({Verdict.FAIL, Verdict.HANG, Verdict.TIMEOUT, Verdict.CRASH})

TABLE: Final = (
    BlameRow(frozenset(Verdict) - GOOD, lambda f: f.lab_died, Blame.LAB, "the lab died under it"),
    BlameRow(
        _CRASH | _ERROR,
        lambda f: f.live and (f.killed_by in _BY_ITSELF or f.refused),
        Blame.HARNESS,
        "the VMM of the live chips is ours",
    ),
    BlameRow(
        _CRASH,
        lambda f: f.killed_by in _BY_ITSELF or f.asserted,
        Blame.QEMU,
        "only a fault of its own ends a program like this",
    ),
    BlameRow(
        _CRASH,
        lambda f: f.killed_by is not None and f.in_lab,
        Blame.LAB,
        "in a lab only its kernel kills a QEMU, when memory runs out",
    ),
    BlameRow(
        _CRASH,
        lambda f: f.killed_by is not None,
        Blame.HARNESS,
        "its QEMU was killed from outside",
    ),
    BlameRow(_ERROR, lambda f: f.refused, Blame.QEMU, "QEMU gave up and said why"),
    BlameRow(_ERROR, lambda f: f.by_guest, Blame.GUEST, "it did not report what it should"),
    BlameRow(_ERROR, _always, Blame.HARNESS, "it could not be run or not be judged"),
    BlameRow(frozenset({Verdict.INCOMPLETE}), _always, Blame.HARNESS, "the run ended before it"),
    BlameRow(_OF_CHIPS, _always, Blame.IRQCHIP, "interrupts did what the chips may not do"),
    BlameRow(_GUESTS, lambda f: f.kvm_error, Blame.IRQCHIP, "KVM gave up on it"),
    BlameRow(
        frozenset({Verdict.HANG, Verdict.TIMEOUT}),
        lambda f: f.starved,
        Blame.HARNESS,
        "this machine was too busy for it",
    ),
    BlameRow(
        _HANG, lambda f: f.deaf and f.in_lab, Blame.LAB, "a lab that is slow does not answer either"
    ),
    BlameRow(_HANG, lambda f: f.deaf and f.live, Blame.HARNESS, "the monitor of the VMM is ours"),
    BlameRow(_HANG, lambda f: f.deaf, Blame.QEMU, "its monitor does not answer"),
    BlameRow(
        _GUESTS, lambda f: f.complains, Blame.IRQCHIP, "its kernel complained of its interrupts"
    ),
    BlameRow(_GUESTS, lambda f: f.probe, Blame.IRQCHIP, "the probe exercises only the chips"),
    BlameRow(_GUESTS, _always, Blame.GUEST, "the guest's own fault, as far as one case can show"),
)


def row_of(verdict: Verdict, facts: Facts) -> BlameRow | None:
    """The row of :data:`TABLE` for a verdict; None for one without blame."""
    rows = (row for row in TABLE if verdict in row.verdicts and row.holds(facts))
    return next(rows, None)


def of(verdict: Verdict, facts: Facts) -> Blame | None:
    """Whose fault ``verdict`` looks like, of a case alone; None where it is no fault."""
    row = row_of(verdict, facts)
    return None if row is None else row.blame


def assigned(result: CaseResult, facts: Facts) -> CaseResult:
    """``result`` with the blame for it and for its parts; one that is set already stays."""
    parts = tuple(
        replace(part, blame=part.blame or of(part.verdict, facts)) for part in result.parts
    )
    known = {part.blame for part in result.parts if part.verdict is result.verdict}
    single = known.pop() if len(known) == 1 else None
    whole = result.blame or single or of(result.verdict, facts)
    return replace(result, parts=parts, blame=None if result.verdict in GOOD else whole)


# --- Over a run ---------------------------------------------------------------------------------

_Thing: TypeAlias = tuple[str, str | None]
"""A subject, and a part of it or None for the whole."""
_Lab: TypeAlias = tuple[object, object]
"""Its kernel and the QEMU in it."""


@dataclass(frozen=True)
class _Seen:
    """What a thing was on a backend."""

    backend: str
    irqchip: str
    verdict: Verdict
    lab: _Lab | None
    is_tcg: bool


def over_run(results: Iterable[CaseResult], *, emulated_lab: bool) -> tuple[CaseResult, ...]:
    """``results``, blamed with all of them in view.

    ``emulated_lab``: whether TCG runs the labs.  Blame that is of QEMU, of the lab or of the
    harness already was found in what happened, and stays.
    """
    results = tuple(results)
    seen: dict[_Thing, list[_Seen]] = {}
    for result in results:
        for name, verdict in _verdicts(result).items():
            if verdict not in _UNTOLD:
                seen.setdefault((result.subject, name), []).append(_seen(result, verdict))
    return tuple(_reviewed(result, seen, emulated_lab) for result in results)


def _verdicts(result: CaseResult) -> Mapping[str | None, Verdict]:
    return {None: result.verdict, **{part.id: part.verdict for part in result.parts}}


def _seen(result: CaseResult, verdict: Verdict) -> _Seen:
    axes = result.axes
    in_lab = axes["host"] == Host.LAB
    return _Seen(
        backend=result.backend,
        irqchip=str(axes["irqchip"]),
        verdict=verdict,
        lab=(axes["lab_kernel"], axes["qemu"]) if in_lab else None,
        is_tcg=not in_lab and axes["accel"] == Accel.TCG,
    )


def _reviewed(
    result: CaseResult, seen: Mapping[_Thing, Sequence[_Seen]], emulated_lab: bool
) -> CaseResult:
    def review(name: str | None, verdict: Verdict, blame: Blame | None) -> Blame | None:
        there = seen.get((result.subject, name), ())
        if blame not in (Blame.GUEST, Blame.IRQCHIP) or verdict in _UNTOLD:
            return blame
        lab = _seen(result, verdict).lab
        if emulated_lab and lab is not None and _only_in(lab, there):
            return Blame.LAB
        elsewhere = (each for each in there if each.backend != result.backend)
        passes = any(each.verdict is Verdict.PASS for each in elsewhere)
        return Blame.IRQCHIP if passes else blame

    def part(found: PartResult) -> PartResult:
        return replace(found, blame=review(found.id, found.verdict, found.blame))

    return replace(
        result,
        blame=review(None, result.verdict, result.blame),
        parts=tuple(map(part, result.parts)),
    )


def _only_in(lab: _Lab, seen: Sequence[_Seen]) -> bool:
    """Whether all modes of ``lab``, of which there are several, show it, and plain TCG does not."""
    modes = {each.irqchip: each.verdict for each in seen if each.lab == lab}
    there = [each.verdict for each in seen if each.lab == lab]
    tcg = [each.verdict for each in seen if each.is_tcg]
    return (
        len(modes) > 1
        and all(verdict is not Verdict.PASS for verdict in there)
        and bool(tcg)
        and all(verdict is Verdict.PASS for verdict in tcg)
    )
