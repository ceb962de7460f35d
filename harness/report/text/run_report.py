"""What a person reads at the end of a run: the subjects, the findings, the summary."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from harness.analyse import audit
from harness.base.emphasis import Emphasis
from harness.compare.diff import Status
from harness.compare.expectations import RuleResult
from harness.ledger import ledger
from harness.report import views
from harness.report.page import Page, TextLine
from harness.report.run_view import RunView, SubjectView
from harness.report.subject import NOT_OBSERVABLE
from harness.report.versions import version_lines
from harness.store.baseline import BaselineComparison, State, exit_status

SHOWN_AXES: Final = 3
"""Number of axes named on which a rule explains something."""


def run_report(view: RunView, directory: Path, *, ledgers: bool = False) -> Page:
    """The subjects of a run, its findings, what is not as expected, and where everything is.

    ``ledgers`` shows the account of each case of a view that is in full, too.
    """
    for subject in view.subjects:
        yield from _subject(subject)
        if ledgers and view.is_whole:
            yield from _ledgers(subject)
    yield TextLine()
    for finding in view.findings:
        yield TextLine(
            f"{views.WORDS[Status.UNEXPLAINED]}  {finding.headline}",
            views.EMPHASIS[Status.UNEXPLAINED],
        )
        for text in finding.groups:
            yield TextLine(f"    {text}")
    yield from (_rules if view.is_whole else _rules_in_short)(view.rules)
    for rule in view.run.rules:
        yield from _not_met(rule)
    if view.baseline is not None:
        yield from _since_baseline(view.baseline)
    yield from _end(view, directory)


def _subject(view: SubjectView) -> Page:
    if view.table is None:
        yield TextLine(f"{view.subject}: {views.counted(view.cases)}", Emphasis.FAINT)
        return
    yield TextLine()
    yield TextLine(view.subject, Emphasis.TITLE)
    yield view.table
    for text in view.remarks:
        yield TextLine(f"  {text}")


def _ledgers(view: SubjectView) -> Page:
    """The account of every case, as docs/ledger.md explains it."""
    for case, account in view.ledgers:
        yield TextLine()
        yield TextLine(f"ledger of {case}: {audit.state(account)}")
        yield TextLine(ledger.table(account).removesuffix("\n"))


def _rules(rules: Iterable[views.RuleView]) -> Page:
    """Every rule that explains something, with its reason."""
    for rule in rules:
        axes = "; ".join(rule.axes[:SHOWN_AXES])
        if len(rule.axes) > SHOWN_AXES:
            axes += f" and {len(rule.axes) - SHOWN_AXES} more"
        text = f"{views.WORDS[rule.status]}: {rule.rule}  ({axes})"
        yield TextLine(f"{text}\n    {rule.reason}\n    {rule.link}", Emphasis.FAINT)


def _rules_in_short(rules: Iterable[views.RuleView]) -> Page:
    """The names of the rules that explain something."""
    for status in (Status.KNOWN_BUG, Status.BY_DESIGN):
        own = [rule for rule in rules if rule.status is status]
        if own:
            count = sum(rule.findings for rule in own)
            names = ", ".join(rule.rule for rule in own)
            yield TextLine(f"{views.WORDS[status]}: {count} findings, by {names}", Emphasis.FAINT)


def _not_met(rule: RuleResult) -> Page:
    """A known difference that should have shown and did not; a bug's absence is the louder."""
    count = f"{rule.due} comparison{'s' if rule.due > 1 else ''}"
    if rule.stale:
        yield TextLine(
            f"stale: the known difference {rule.rule!r} should have shown on {rule.backend} "
            f"in {count} and did not",
            Emphasis.NOTICE,
        )
    elif rule.xpass:
        yield TextLine(
            f"XPASS  the known bug {rule.rule!r} no longer shows on {rule.backend} "
            f"({count}): fixed there? narrow the rule's versions\n    {rule.link}",
            Emphasis.NEWS,
        )


_CHANGE_EMPHASIS: Final = {
    State.NEW: Emphasis.ALARM,
    State.FLAKY: Emphasis.WARNING,
    State.STILL: Emphasis.NOTICE,
    State.GONE: Emphasis.GOOD,
    State.NOT_SEEN: Emphasis.FAINT,
}


def _since_baseline(compared: BaselineComparison) -> Page:
    """What became of each problem since the baseline."""
    yield TextLine()
    yield TextLine(views.baseline_headline(compared), Emphasis.TITLE)
    for change in views.change_views(compared):
        yield TextLine(f"  {change}", _CHANGE_EMPHASIS[change.state])
    for counter in compared.counters:
        yield TextLine(f"  left its band  {counter}", Emphasis.WARNING)
    for case in compared.flaky_cases:
        yield TextLine(f"  flaky case  {case.case}: {case.rate}", Emphasis.WARNING)


def _end(view: RunView, directory: Path) -> Page:
    """First what matters."""
    run = view.run
    yield TextLine()
    good = exit_status(run, view.baseline) == 0
    yield TextLine(view.conclusion, Emphasis.GOOD if good else Emphasis.ALARM)
    if run.did_not_end:
        yield TextLine("  the run did not end: its cases were not compared", Emphasis.ALARM)
    for text in run.losses:
        yield TextLine(f"  {text}", Emphasis.NOTICE)
    for cause in view.causes:
        yield TextLine(f"  not as expected: {cause}")
    for skip in view.skips:
        yield TextLine(f"  skipped: {skip}", Emphasis.FAINT)
    if run.nowhere.parts:
        emphasis = Emphasis.ALARM if run.nowhere.is_error else Emphasis.NOTICE
        yield TextLine(f"  ran nowhere: {', '.join(run.nowhere.parts)}", emphasis)
    if xpassed := sum(rule.xpass for rule in run.rules):
        text = f"  XPASS: {xpassed} known bug{'s' if xpassed > 1 else ''} no longer seen"
        yield TextLine(text, Emphasis.NEWS)
    for case in run.cases:
        if case.flaky:
            yield TextLine(
                f"  flaky: {case.id}: the first time {case.first_time}", Emphasis.WARNING
            )
    if any(subject.table is not None for subject in view.subjects):
        text = f"{NOT_OBSERVABLE}: not observable there; the reason is in each counters.json"
    else:
        text = "irqmatrix report --verbose shows every table and every rule"
    yield TextLine(text, Emphasis.FAINT)
    for line in version_lines(run.environment):
        yield TextLine(line, Emphasis.FAINT)
    yield TextLine(f"results: {directory}")
