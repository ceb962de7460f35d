"""What a person reads at the end of a run: the subjects, the findings, the summary."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.console import Console

from harness.analyse import audit
from harness.analyse.case_evidence import read_ledger
from harness.compare.diff import Status
from harness.ledger import ledger
from harness.model.layout import CaseDir
from harness.model.verdict import CaseResult
from harness.report import views
from harness.report.text.subject_table import NOT_OBSERVABLE, subject_table
from harness.store.result import RunResult

FEW: Final = 8
"""Up to this number of cases everything is shown; of more, what is as expected in short."""
SHOWN_AXES: Final = 3
"""Number of axes named on which a rule explains something."""

_Say = Callable[..., None]


def run_report(
    console: Console,
    run: RunResult,
    directory: Path,
    *,
    verbose: bool = False,
    ledgers: bool = False,
) -> None:
    """The subjects of a run, its findings, what is not as expected, and where everything is.

    ``verbose`` shows every table and every rule of a run of many cases, too; ``ledgers`` the
    account of each case.
    """
    is_whole = verbose or len(run.cases) <= FEW
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    shown = False
    causes = views.causes(run.cases)
    told = {cause.cases[0].id for cause in causes}
    for subject, cases in groupby(
        sorted(run.cases, key=lambda case: case.subject), key=lambda case: case.subject
    ):
        found = list(cases)
        if is_whole or not all(case.as_expected for case in found):
            subject_table(console, subject, found, run.findings, directory, told)
            shown = True
        else:
            say(f"{subject}: {views.counted(found)}", style="dim")
        if ledgers and is_whole:
            _ledger_tables(say, found, directory)
    say("")
    _findings(say, run)
    (_rules if is_whole else _rules_in_short)(say, run)
    _not_met(say, run)
    _end(say, run, causes, directory, has_tables=shown)


def _ledger_tables(say: _Say, cases: Sequence[CaseResult], directory: Path) -> None:
    """The account of every case, as docs/ledger.md explains it."""
    for case in cases:
        account = read_ledger(CaseDir(directory / case.dir).ledger)
        if account is not None and account.rows:
            text = f"\nledger of {case.id}: {audit.state(account)}\n{ledger.table(account)}"
            say(text, end="")


def _findings(say: _Say, run: RunResult) -> None:
    """What nothing explains, each thing once."""
    for finding in run.of(Status.UNEXPLAINED):
        view = views.finding_view(finding)
        say(f"{views.WORDS[finding.status]}  {view.headline}", style="bold red")
        for line in view.groups:
            say(f"    {line}")


def _rules(say: _Say, run: RunResult) -> None:
    """Every rule that explains something, with its reason."""
    for rule in views.rule_views(run.findings):
        axes = "; ".join(rule.axes[:SHOWN_AXES])
        if len(rule.axes) > SHOWN_AXES:
            axes += f" and {len(rule.axes) - SHOWN_AXES} more"
        word = views.WORDS[rule.status]
        say(f"{word}: {rule.rule}  ({axes})\n    {rule.reason}\n    {rule.link}", style="dim")


def _rules_in_short(say: _Say, run: RunResult) -> None:
    """The names of the rules that explain something."""
    rules = views.rule_views(run.findings)
    for status in (Status.KNOWN_BUG, Status.BY_DESIGN):
        names = [rule.rule for rule in rules if rule.status is status]
        if names:
            count = sum(rule.findings for rule in rules if rule.status is status)
            say(f"{views.WORDS[status]}: {count} findings, by {', '.join(names)}", style="dim")


def _not_met(say: _Say, run: RunResult) -> None:
    """The known differences that should have shown and did not; a bug's absence is the louder."""
    for rule in run.rules:
        count = f"{rule.due} comparison{'s' if rule.due > 1 else ''}"
        if rule.stale:
            say(
                f"stale: the known difference {rule.rule!r} should have shown on {rule.backend} "
                f"in {count} and did not",
                style="yellow",
            )
        elif rule.xpass:
            say(
                f"XPASS  the known bug {rule.rule!r} no longer shows on {rule.backend} "
                f"({count}): fixed there? narrow the rule's versions\n    {rule.link}",
                style="bold magenta",
            )


def _end(
    say: _Say,
    run: RunResult,
    causes: Sequence[views.Cause],
    directory: Path,
    *,
    has_tables: bool,
) -> None:
    """First what matters."""
    good = run.summary.exit_status == 0
    say(f"\n{views.conclusion(run)}", style="green" if good else "bold red")
    if run.did_not_end:
        say("  the run did not end: its cases were not compared", style="bold red")
    for cause in causes:
        say(f"  not as expected: {cause}")
    for skip in views.skips(run.cases):
        say(f"  skipped: {skip}", style="dim")
    if run.nowhere.parts:
        style = "bold red" if run.nowhere.is_error else "yellow"
        say(f"  ran nowhere: {', '.join(run.nowhere.parts)}", style=style)
    if run.did_not_end:
        say("  the run did not end: its cases were not compared", style="bold red")
    if xpassed := sum(rule.xpass for rule in run.rules):
        text = f"  XPASS: {xpassed} known bug{'s' if xpassed > 1 else ''} not seen any more"
        say(text, style="bold magenta")
    for case in run.cases:
        if case.flaky:
            text = f"  flaky: {case.id}: the first time {case.first_time}"
            say(text, style="bold yellow")
    if has_tables:
        say(f"{NOT_OBSERVABLE}: not observable there; why is in each counters.json", style="dim")
    else:
        say("irqmatrix report --verbose shows every table and every rule", style="dim")
    say(f"results: {directory}")
