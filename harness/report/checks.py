"""What a run says, as a list of named checks: the one content of JUnit XML and TAP.

A group is a case, the comparison of all backends of a guest, the known differences, or what ran at
all.  Names depend on the configuration alone, so that they are the same every night.  A check that
FAILs or is an ERROR is there if, and only if, the run's exit status is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from harness.base.text import plain
from harness.compare.diff import Comparison, Status
from harness.compare.expectations import RuleResult
from harness.compare.finding import Finding
from harness.model.verdict import Blame, CaseResult, PartResult, Verdict
from harness.report.views import finding_view, since_text
from harness.store.baseline import BaselineComparison, Change, State
from harness.store.result import RunResult

WHOLE: Final = "the whole case"
"""The check of a case for what is not said of any of its parts."""
UNNAMED: Final = "(no name)"
KNOWN: Final = "known differences"
COVERAGE: Final = "what ran"
EVERYWHERE: Final = "everything ran somewhere"


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
    FLAKY = "flaky"
    """As expected only when it was run again."""
    BASELINE = "baseline"
    """It fails, and the baseline that decides has it already."""
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
    state: State | None = None
    """What became of it since the baseline, where something is wrong and there is a store."""
    since: str = ""
    """Since when it is so, and how often."""


@dataclass(frozen=True)
class CheckGroup:
    """The checks of one thing; ``duration_s`` is None where it took no time of its own."""

    name: str
    checks: tuple[Check, ...]
    duration_s: float | None = None

    @property
    def failed(self) -> bool:
        """Whether a check of it makes the run fail."""
        return any(check.outcome in FAILING for check in self.checks)


def groups_of(run: RunResult, compared: BaselineComparison | None = None) -> tuple[CheckGroup, ...]:
    """The checks of ``run``: cases, comparisons, the known differences that have to show.

    ``compared`` says of each that is wrong whether it is new; where a baseline decides, what that
    has already does not fail.
    """
    groups = [
        *(
            CheckGroup(case.id, _named(_case_checks(case, compared)), case.duration_s)
            for case in run.cases
        ),
        *_comparisons(run, compared),
    ]
    rules = [rule for rule in run.rules if rule.always]  # the others may be silent
    if rules:
        groups.append(CheckGroup(KNOWN, tuple(map(_rule_check, rules))))
    groups.append(CheckGroup(COVERAGE, (_coverage(run),)))
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


def _case_checks(case: CaseResult, compared: BaselineComparison | None) -> Iterable[Check]:
    yield _since(_whole(case), compared, _verdicts(compared, case, ""))
    for part in case.parts:
        yield _since(_part(part, case), compared, _verdicts(compared, case, part.id))


def _verdicts(
    compared: BaselineComparison | None, case: CaseResult, part: str
) -> tuple[Change, ...]:
    return () if compared is None else compared.verdicts_of(case.id, part)


def _since(check: Check, compared: BaselineComparison | None, changes: Sequence[Change]) -> Check:
    """``check`` with what became of it since the baseline."""
    if compared is None or not changes:
        return check
    first = min(changes, key=lambda change: list(State).index(change.state))
    outcome = check.outcome
    if compared.decides and outcome in FAILING and not any(one.is_regression for one in changes):
        outcome = Outcome.BASELINE
    return replace(check, outcome=outcome, state=first.state, since=since_text(first))


def _whole(case: CaseResult) -> Check:
    """Fails where no part of a case is to blame for it."""
    if case.flaky:
        first, *rest = _lines(f"the first time {case.first_time}")
        return Check(WHOLE, Outcome.FLAKY, Outcome.FLAKY, first, tuple(rest))
    if case.verdict is Verdict.SKIP and case.as_expected:
        return Check(WHOLE, Outcome.SKIP, case.verdict, case.detail)
    if case.as_expected:
        is_told = case.expected not in (None, Verdict.PASS)
        if not is_told:
            return Check(WHOLE, Outcome.PASS)
        return _as_told(WHOLE, case.verdict, case.detail, case.blame)
    if case.expected not in (None, case.verdict):
        return _unlike(WHOLE, case.verdict, case.expected, _said(case), case.blame)
    if any(_is_to_blame(part) for part in case.parts):
        return Check(WHOLE, Outcome.PASS)
    return _unlike(WHOLE, case.verdict, None, _said(case), case.blame)


def _said(case: CaseResult) -> str:
    return "\n".join(filter(None, (case.detail, *case.notes)))


def _part(part: PartResult, case: CaseResult) -> Check:
    if not part.was_reached:
        return Check(part.id, Outcome.SKIP, Verdict.SKIP, part.detail)
    if _is_to_blame(part) and not case.as_expected:
        return _unlike(part.id, part.verdict, part.expected, part.detail, part.blame)
    if part.verdict is Verdict.PASS:
        return Check(part.id, Outcome.PASS)
    if part.verdict is Verdict.SKIP:
        return Check(part.id, Outcome.SKIP, part.verdict, part.detail)
    return _as_told(part.id, part.verdict, part.detail, part.blame)


def _is_to_blame(part: PartResult) -> bool:
    return not part.as_expected and part.was_reached


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


def _comparisons(run: RunResult, compared: BaselineComparison | None) -> Iterable[CheckGroup]:
    """A group a guest; a check for each workload and check that several backends have."""
    families: dict[str, list[Comparison]] = {}
    for comparison in run.comparisons:
        families.setdefault(comparison.family, []).append(comparison)
    for family, of_family in families.items():
        own = [finding for finding in run.findings if finding.family == family]
        names = dict.fromkeys(
            name for each in of_family for name in (*each.workloads, *each.checks)
        )
        checks = _named(
            _since(
                _compared(name, [f for f in own if f.part == name]),
                compared,
                () if compared is None else compared.differences_of(family, name),
            )
            for name in names
        )
        yield CheckGroup(f"{family}: backends compared", checks)


def _compared(name: str, findings: Sequence[Finding]) -> Check:
    unexplained = [each for each in findings if each.status is Status.UNEXPLAINED]
    bugs = [each for each in findings if each.status is Status.KNOWN_BUG]
    if unexplained:
        message = "; ".join(finding_view(each).headline for each in unexplained)
        return Check(name, Outcome.FAIL, "unexplained", message, _group_lines(unexplained))
    if bugs:
        rules = ", ".join(dict.fromkeys(rule for each in bugs for rule in each.rules))
        links = tuple(dict.fromkeys(each.link for each in bugs if each.link))
        lines = (*_group_lines(bugs), *links)
        return Check(name, Outcome.XFAIL, "known-bug", f"known bug: {rules}", lines)
    return Check(name, Outcome.PASS)


def _group_lines(findings: Sequence[Finding]) -> tuple[str, ...]:
    """What each group saw; where there are several findings, of which of them."""
    lines: list[str] = []
    for finding in findings:
        view = finding_view(finding)
        lines += [view.headline] * (len(findings) > 1) + list(view.groups)
    return tuple(lines)


def _coverage(run: RunResult) -> Check:
    """Fails where that makes the run fail: one of which nothing could be run has another status."""
    nowhere = run.nowhere
    if not nowhere.parts:
        return Check(EVERYWHERE, Outcome.PASS)
    is_failure = nowhere.is_error and run.summary.exit_status == 1
    outcome = Outcome.FAIL if is_failure else Outcome.SKIP
    return Check(EVERYWHERE, outcome, "ran-nowhere", f"ran nowhere: {', '.join(nowhere.parts)}")


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
