"""What a report gets of a run: made once, of what was read of it; opens no file itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from harness.compare.diff import Status
from harness.ledger.ledger import Ledger
from harness.ledger.timeline import Timeline
from harness.model.verdict import CaseResult
from harness.report.checks import CheckGroup, groups_of
from harness.report.pages import RunDetails
from harness.report.subject import Account, SubjectTable, subject_table
from harness.report.views import (
    Cause,
    FindingView,
    RuleView,
    Skip,
    causes,
    conclusion,
    finding_view,
    in_few_lines,
    rule_views,
    skips,
)
from harness.store.baseline import BaselineComparison
from harness.store.result import RunResult

FEW: Final = 8
"""Up to this number of cases everything is shown; of more, what is as expected in short."""


@dataclass(frozen=True)
class SubjectView:
    """A guest on all its backends; without a table where it is shown in short."""

    subject: str
    cases: tuple[CaseResult, ...]
    table: SubjectTable | None = None
    """Verdicts and counters; of a case that was repeated, of the first time."""
    remarks: tuple[str, ...] = ()
    """What else there is to say of a case in the table, by its backend."""
    ledgers: tuple[tuple[str, Ledger], ...] = ()
    """The accounts of interrupts that were read, and whose: the case's id."""


@dataclass(frozen=True)
class RunView:
    """A run as plain data: its result, and what reports say of it."""

    run: RunResult
    conclusion: str
    """The first thing to know of it."""
    subjects: tuple[SubjectView, ...]
    findings: tuple[FindingView, ...]
    """What nothing explains, each thing once."""
    rules: tuple[RuleView, ...]
    """The known differences that explain something."""
    causes: tuple[Cause, ...]
    """What is not as expected."""
    skips: tuple[Skip, ...]
    checks: tuple[CheckGroup, ...]
    """All that the run says, as named checks."""
    is_whole: bool
    """Whether what is as expected is there in full, too."""
    baseline: BaselineComparison | None = None
    """What is new in it; None where there is no store."""
    timelines: Mapping[str, Timeline] = field(default_factory=dict)
    """The interrupts of each case by its id, where a form needs them."""
    details: RunDetails = field(default_factory=RunDetails)
    """What the cases' files say beyond the tables, where a form needs that."""

    @classmethod
    def of(
        cls,
        run: RunResult,
        accounts: Mapping[str, Account] | None = None,
        baseline: BaselineComparison | None = None,
        *,
        verbose: bool = False,
    ) -> RunView:
        """The view of ``run``, with what was read of its cases, by id; ``verbose``: in full."""
        each = causes(run.cases)
        found = each if verbose else in_few_lines(each)
        return cls(
            run,
            conclusion(run),
            _subjects(run, accounts or {}, found, verbose=verbose),
            tuple(map(finding_view, run.of(Status.UNEXPLAINED))),
            rule_views(run.findings),
            found,
            skips(run.cases),
            groups_of(run, baseline),
            is_in_full(run, verbose=verbose),
            baseline,
        )


def is_in_full(run: RunResult, *, verbose: bool) -> bool:
    """Whether everything is shown of ``run``."""
    return verbose or len(run.cases) <= FEW


def by_subject(run: RunResult) -> dict[str, tuple[CaseResult, ...]]:
    """The cases of each subject, in the order of their names."""
    ordered = sorted(run.cases, key=lambda case: case.subject)
    return {
        subject: tuple(cases) for subject, cases in groupby(ordered, key=lambda case: case.subject)
    }


def needs_a_table(run: RunResult, cases: tuple[CaseResult, ...], *, verbose: bool) -> bool:
    """Whether the cases of a subject are shown in full."""
    return is_in_full(run, verbose=verbose) or not all(case.as_expected for case in cases)


def _subjects(
    run: RunResult,
    accounts: Mapping[str, Account],
    causes: tuple[Cause, ...],
    *,
    verbose: bool,
) -> tuple[SubjectView, ...]:
    elsewhere = {cause.cases[0].id for cause in causes}
    found = []
    for subject, cases in by_subject(run).items():
        if not needs_a_table(run, cases, verbose=verbose):
            found.append(SubjectView(subject, cases))
            continue
        firsts = [case for case in cases if not case.axes.get("repeat")]
        table = subject_table(firsts, accounts, run.findings)
        remarks = tuple(
            f"{case.backend}: {text}"
            for case in firsts
            if (text := _remark(case, is_elsewhere=case.id in elsewhere))
        )
        ledgers = tuple(
            (case.id, ledger)
            for case in cases
            if (ledger := accounts.get(case.id, Account()).ledger) is not None and ledger.rows
        )
        found.append(SubjectView(subject, cases, table, remarks, ledgers))
    return tuple(found)


def _remark(case: CaseResult, *, is_elsewhere: bool) -> str:
    """The notes of a case, and its detail unless that stands elsewhere."""
    said = [] if is_elsewhere or not case.detail else [case.detail]
    return "; ".join((*said, *case.notes))
