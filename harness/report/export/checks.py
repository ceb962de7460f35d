"""What a run says, as a list of named checks: the one content of JUnit XML and TAP.

A group is a case, the comparison of two backends in one subject, or the known differences.  Names
hang on the configuration alone, so that they are the same every night.  A check that FAILs or is
an ERROR is there if, and only if, the run's exit status is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from harness.base.text import plain
from harness.compare.diff import Difference, DiffResult
from harness.compare.expectations import RuleResult
from harness.model.verdict import NOT_REACHED, Blame, CaseResult, PartResult, Verdict
from harness.store.result import RunResult

WHOLE: Final = "the whole case"
"""The check of a case for what is not said of any of its parts."""
UNNAMED: Final = "(no name)"
KNOWN: Final = "known differences"


class Outcome(StrEnum):
    """What became of a check."""

    PASS = "pass"
    SKIP = "skip"
    XFAIL = "xfail"
    """It fails, as the configuration or a known bug says."""
    STALE = "stale"
    """A difference by design that should have shown, and did not."""
    XPASS = "xpass"
    """A known bug that no longer shows."""
    UNSTEADY = "unsteady"
    """As expected only when it was run again."""
    FAIL = "fail"
    ERROR = "error"
    """It could not be run or not be judged."""


FAILING: Final = frozenset({Outcome.FAIL, Outcome.ERROR})


@dataclass(frozen=True)
class Check:
    """One line of a report.

    ``kind`` is one word for what is wrong (a verdict, ``unexplained``, ``xpass``, ...), ``message``
    one line, ``lines`` what else there is to say, ``blame`` whose fault it looks like.
    """

    name: str
    outcome: Outcome
    kind: str = ""
    message: str = ""
    lines: tuple[str, ...] = ()
    blame: Blame | None = None


@dataclass(frozen=True)
class Group:
    """The checks of one thing; ``duration_s`` is None where it took no time of its own."""

    name: str
    checks: tuple[Check, ...]
    duration_s: float | None = None

    @property
    def failed(self) -> bool:
        """Whether a check of it makes the run fail."""
        return any(check.outcome in FAILING for check in self.checks)


def groups_of(run: RunResult) -> tuple[Group, ...]:
    """The checks of ``run``: cases, comparisons, the known differences that have to show."""
    groups = [
        *(Group(case.id, _named(_case_checks(case)), case.duration_s) for case in run.cases),
        *(_comparison(diff) for diff in run.diffs),
    ]
    rules = [rule for rule in run.rules if rule.always]  # the others may be silent
    if rules:
        groups.append(Group(KNOWN, tuple(map(_rule_check, rules))))
    return tuple(groups)


def _named(checks: Iterable[Check]) -> tuple[Check, ...]:
    """``checks`` on a line each, whose names are all others: systems take equal ones for one."""
    found: dict[str, Check] = {}
    for check in checks:
        name = first = " ".join(plain(check.name).split()) or UNNAMED
        number = 1
        while name in found:
            number += 1
            name = f"{first}~{number}"
        found[name] = replace(check, name=name)
    return tuple(found.values())


# --- Cases --------------------------------------------------------------------------------------


def _case_checks(case: CaseResult) -> Iterable[Check]:
    yield _whole(case)
    for part in case.parts:
        yield _part(part, case)


def _whole(case: CaseResult) -> Check:
    """Fails where no part of a case is to blame for it."""
    if case.unsteady:
        first, *rest = _lines(f"the first time {case.first_time}")
        return Check(WHOLE, Outcome.UNSTEADY, Outcome.UNSTEADY, first, tuple(rest))
    if case.verdict is Verdict.SKIP and case.as_expected:
        return Check(WHOLE, Outcome.SKIP, case.verdict, case.detail)
    if case.as_expected:
        is_told = case.expected not in (None, Verdict.PASS)
        if not is_told:
            return Check(WHOLE, Outcome.PASS)
        return _as_told(WHOLE, case.verdict, case.detail, case.blame)
    if case.expected not in (None, case.verdict):
        return _unlike(WHOLE, case.verdict, case.expected, case.detail, case.blame)
    if any(_is_to_blame(part) for part in case.parts):
        return Check(WHOLE, Outcome.PASS)
    return _unlike(WHOLE, case.verdict, None, case.detail, case.blame)


def _part(part: PartResult, case: CaseResult) -> Check:
    if part.detail == NOT_REACHED:
        return Check(part.id, Outcome.SKIP, Verdict.SKIP, part.detail)
    if _is_to_blame(part) and not case.as_expected:
        return _unlike(part.id, part.verdict, part.expected, part.detail, part.blame)
    if part.verdict is Verdict.PASS:
        return Check(part.id, Outcome.PASS)
    if part.verdict is Verdict.SKIP:
        return Check(part.id, Outcome.SKIP, part.verdict, part.detail)
    return _as_told(part.id, part.verdict, part.detail, part.blame)


def _is_to_blame(part: PartResult) -> bool:
    return not part.as_expected and part.detail != NOT_REACHED


def _as_told(name: str, verdict: Verdict, detail: str, blame: Blame | None) -> Check:
    return Check(name, Outcome.XFAIL, verdict, f"{verdict}, as expected", _lines(detail), blame)


def _unlike(
    name: str, verdict: Verdict, expected: Verdict | None, detail: str, blame: Blame | None
) -> Check:
    """Not as it has to be; a pass where the configuration demands a failure is an XPASS."""
    first, *rest = _lines(detail) or (str(verdict),)
    if expected is not None and verdict is Verdict.PASS:
        message = f"XPASS: should be {expected}, and passed"
        return Check(name, Outcome.FAIL, "xpass", message, _lines(detail))
    if expected is not None:
        first = f"should be {expected}, is {verdict}: {first}"
    outcome = Outcome.ERROR if verdict is Verdict.ERROR else Outcome.FAIL
    return Check(name, outcome, verdict, first, tuple(rest), blame)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.splitlines())


# --- Comparisons --------------------------------------------------------------------------------


def _comparison(diff: DiffResult) -> Group:
    """One check a workload whose counters were compared, one a check that both backends ran."""
    names = (*diff.workloads, *diff.checks)
    checks = _named(_compared(name, diff) for name in names)
    return Group(f"{diff.subject}: {diff.a} / {diff.b}", checks)


def _compared(name: str, diff: DiffResult) -> Check:
    unexplained = _about(name, diff.unexplained)
    bugs = _about(name, diff.known_bugs)
    if unexplained:
        things = ", ".join(dict.fromkeys(each.what for each in unexplained))
        lines = tuple(f"{_values(each)} ({each.reason})" for each in unexplained)
        return Check(name, Outcome.FAIL, "unexplained", f"unexplained: {things}", lines)
    if bugs:
        rules = ", ".join(dict.fromkeys(each.rule or "" for each in bugs))
        lines = tuple(f"{_values(each)} ({each.rule}: {each.link})" for each in bugs)
        return Check(name, Outcome.XFAIL, "known-bug", f"known bug: {rules}", lines)
    return Check(name, Outcome.PASS)


def _about(name: str, differences: Sequence[Difference]) -> list[Difference]:
    return [each for each in differences if (each.workload or each.what) == name]


def _values(difference: Difference) -> str:
    a, b = (", ".join(map(str, values)) for values in (difference.a, difference.b))
    return f"{difference.what}: {a} against {b}"


# --- Known differences --------------------------------------------------------------------------


def _rule_check(result: RuleResult) -> Check:
    name = f"{result.rule} on {result.backend}"
    count = f"{result.due} comparison{'s' if result.due > 1 else ''}"
    lines = (result.link,)
    if result.xpass:
        message = f"XPASS: the known bug no longer shows ({count})"
        return Check(name, Outcome.XPASS, "xpass", message, lines)
    if result.stale:
        message = f"stale: it should have shown ({count})"
        return Check(name, Outcome.STALE, "stale", message, lines)
    return Check(name, Outcome.PASS)
