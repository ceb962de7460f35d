"""What a person reads at the end of a run: the subjects, the differences, the summary."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.console import Console

from harness.analyse import audit
from harness.analyse.case_evidence import read_ledger
from harness.compare.diff import Difference
from harness.ledger import ledger
from harness.model.verdict import CaseResult, Verdict
from harness.report.text.subject_table import NOT_OBSERVABLE, subject_table
from harness.store.result import RunResult

SHOWN_PAIRS: Final = 3
"""So many of the pairs that a rule explains are named."""


def run_report(console: Console, run: RunResult, directory: Path, *, ledgers: bool = False) -> None:
    """The table of a run, the differences, and where everything is; with ``ledgers`` those, too."""
    for subject, cases in groupby(
        sorted(run.cases, key=lambda case: case.subject), key=lambda case: case.subject
    ):
        diffs = [diff for diff in run.diffs if diff.subject == subject]
        found = list(cases)
        subject_table(console, subject, found, diffs, directory)
        if ledgers:
            _ledger_tables(console, found, directory)
    console.print()
    _differences(console, run)
    _summary(console, run, directory)


def _ledger_tables(console: Console, cases: Sequence[CaseResult], directory: Path) -> None:
    """The account of every case, as docs/ledger.md explains it."""
    for case in cases:
        account = read_ledger(directory / case.dir / "ledger.json")
        if account is not None and account.rows:
            text = f"\nledger of {case.id}: {audit.state(account)}\n{ledger.table(account)}"
            console.print(text, markup=False, highlight=False, soft_wrap=True, end="")


def _differences(console: Console, run: RunResult) -> None:
    """Every difference that has to be explained, and its explanation; each rule once."""
    explained: dict[str, tuple[str, Difference, list[str]]] = {}
    for diff in run.diffs:
        pair = f"{diff.a} / {diff.b}"
        for difference in diff.unexplained:
            text = (
                f"UNEXPLAINED  {diff.subject}  {pair}  {difference.workload} {difference.what}: "
                f"{_values(difference.a)} against {_values(difference.b)} ({difference.reason})"
            )
            text += "; here they part" if difference.first else ""
            console.print(text, markup=False, highlight=False, style="bold red", soft_wrap=True)
        for kind, found in (("by design", diff.by_design), ("known bug", diff.known_bugs)):
            for difference in found:
                rule = difference.rule or ""
                explained.setdefault(rule, (kind, difference, []))[2].append(pair)
    for rule, (kind, difference, pairs) in explained.items():
        unique = list(dict.fromkeys(pairs))
        shown = ", ".join(unique[:SHOWN_PAIRS])
        if len(unique) > SHOWN_PAIRS:
            shown += f" and {len(unique) - SHOWN_PAIRS} pairs more"
        text = f"{kind}: {rule}  ({shown})\n    {difference.reason}\n    {difference.link}"
        console.print(text, markup=False, highlight=False, style="dim", soft_wrap=True)
    _not_met(console, run)


def _not_met(console: Console, run: RunResult) -> None:
    """The known differences that should have shown and did not; a bug's absence is the louder."""
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
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


def _values(values: Sequence[int | str]) -> str:
    return ", ".join(map(str, values))


def _unexpected(case: CaseResult) -> str:
    """What was expected of the case and its parts, where the configuration says so."""
    told = [
        f"{'XPASS: ' if found is Verdict.PASS else ''}{name} should be {expected}, is {found}"
        for name, expected, found in (
            ("the case", case.expected, case.verdict),
            *((part.id, part.expected, part.verdict) for part in case.parts),
        )
        if expected is not None and found is not expected
    ]
    return f" ({'; '.join(told)})" if told else ""


def _summary(console: Console, run: RunResult, directory: Path) -> None:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in run.summary.by_verdict.items())
    unexplained = run.summary.unexplained_differences
    good = run.summary.exit_status == 0
    console.print(
        f"\n{run.summary.cases} cases: {counts}; {unexplained} unexplained differences",
        style="green" if good else "bold red",
        markup=False,
        highlight=False,
    )
    if run.did_not_end:
        console.print("  the run did not end: its cases were not compared", style="bold red")
    if xpassed := sum(rule.xpass for rule in run.rules):
        text = f"  XPASS: {xpassed} known bug{'s' if xpassed > 1 else ''} not seen any more"
        console.print(text, style="bold magenta")
    for diff in run.diffs:
        if diff.unexplained:
            things = ", ".join(dict.fromkeys(each.what for each in diff.unexplained))
            text = f"  unexplained: {diff.subject}: {diff.a} / {diff.b} ({things})"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    for case in run.cases:
        if case.unsteady:
            text = f"  unsteady: {case.id}: the first time {case.first_time}"
            console.print(text, style="bold yellow", markup=False, highlight=False, soft_wrap=True)
        if not case.as_expected:
            text = f"  not as expected: {case.id}{_unexpected(case)}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{NOT_OBSERVABLE}: not observable there; why is in each counters.json", style="dim"
    )
    console.print(f"results: {directory}", markup=False, highlight=False, soft_wrap=True)
