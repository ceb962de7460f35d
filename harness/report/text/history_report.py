"""What ``irqmatrix history`` prints of the store: runs, a case, a finding; or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any, Final

from harness.base.emphasis import Emphasis
from harness.report.page import Cell, Column, ColumnKind, Page, Table, TextLine
from harness.store.history import (
    CaseHistory,
    CaseNight,
    CounterHistory,
    FindingHistory,
    FindingNight,
    StoredRun,
    StoreOverview,
)

_MINUTES: Final = 16
"""Characters of a time that is shown to the minute."""


def moment(time: str) -> str:
    """A time as people read it: ``2026-11-29 03:14``."""
    return time[:_MINUTES].replace("T", " ")


# --- Runs -----------------------------------------------------------------------------------------


def overview_report(found: StoreOverview) -> Page:
    """The runs, and what needed attention in the last of each configuration."""
    if not found.runs:
        yield TextLine("no run has been entered yet")
        return
    columns = (
        Column("run", ColumnKind.NUMBER),
        Column("started", ColumnKind.NAME),
        Column("configuration", ColumnKind.NAME),
        Column("cases", ColumnKind.NUMBER),
        Column("not as expected", ColumnKind.NUMBER),
        Column("unexplained", ColumnKind.NUMBER),
        Column("", ColumnKind.NAME),
        Column("directory"),
    )
    yield Table(columns, tuple(map(_run_row, found.runs)))
    if found.problems:
        yield TextLine()
        yield TextLine("in the last run of each configuration:", Emphasis.TITLE)
    for problem in found.problems:
        yield TextLine(finding_line(problem), Emphasis.WARNING)


def _run_row(run: StoredRun) -> tuple[Cell, ...]:
    start = (
        Cell(str(run.number)),
        Cell(moment(run.started)),
        Cell(run.name),
    )
    named = f"baseline {', '.join(run.baselines)}" if run.baselines else ""
    if not run.is_complete:
        return (*start, Cell(), Cell(), Cell(), Cell("incomplete", Emphasis.WARNING), _place(run))
    return (
        *start,
        Cell(str(run.cases)),
        _count(run.not_as_expected),
        _count(run.unexplained),
        Cell(named, Emphasis.GOOD),
        _place(run),
    )


def _count(number: int | None) -> Cell:
    return Cell(str(number), Emphasis.BAD if number else Emphasis.PLAIN)


def _place(run: StoredRun) -> Cell:
    return Cell(run.directory, Emphasis.FAINT)


def finding_line(found: FindingHistory) -> str:
    """A finding in one line: its key, what it is, since when, how often."""
    since = found.since
    when = "not in the last run" if since is None else f"since run {since.run}"
    if since is not None:
        when += f" ({moment(since.started)})"
    flaky = "flaky, " if found.is_flaky else ""
    return f"{found.identity.key}  {found.identity}: {when}; {flaky}{found.rate}"


# --- A case ---------------------------------------------------------------------------------------


def case_report(found: CaseHistory, last: int) -> Page:
    """Since when a case has its verdict, the last runs of it, and its counters."""
    yield TextLine(found.case, Emphasis.TITLE)
    if (since := found.since) is not None:
        yield TextLine(f"{since.verdict} since run {since.run} ({moment(since.started)})")
    yield TextLine(f"not as expected in {found.unexpected}, flaky in {found.flaky}")
    yield TextLine()
    columns = (
        Column("run", ColumnKind.NUMBER),
        Column("started", ColumnKind.NAME),
        Column("verdict", ColumnKind.NAME),
        Column("s", ColumnKind.NUMBER),
        Column("versions", ColumnKind.NAME),
        Column("detail"),
    )
    yield Table(columns, tuple(map(_case_row, found.nights[-last:])))
    counted = [
        each
        for each in found.counters
        if each.band is not None and (each.band.median or each.left_its_band)
    ]
    if counted:
        yield TextLine()
        yield _counters(counted)


def _case_row(night: CaseNight) -> tuple[Cell, ...]:
    verdict = f"{night.verdict}, flaky" if night.flaky else night.verdict
    emphasis = Emphasis.WARNING if night.flaky else Emphasis.PLAIN
    return (
        Cell(str(night.run)),
        Cell(moment(night.started)),
        Cell(verdict, emphasis if night.as_expected else Emphasis.BAD),
        Cell(f"{night.duration_s:.1f}"),
        Cell(str(night.versions)),
        Cell(night.detail.partition("\n")[0], Emphasis.FAINT),
    )


def _counters(found: Iterable[CounterHistory]) -> Table:
    columns = (
        Column("counter", ColumnKind.NAME),
        Column("last", ColumnKind.NUMBER),
        Column("median (band)", ColumnKind.NAME),
    )
    rows = (
        (
            Cell(f"{each.part} {each.name} [{each.source}]"),
            Cell(
                f"{each.points[-1].value:.6g}",
                Emphasis.WARNING if each.left_its_band else Emphasis.PLAIN,
            ),
            Cell(str(each.band)),
        )
        for each in found
    )
    return Table(columns, tuple(rows))


# --- A finding ------------------------------------------------------------------------------------


def finding_report(found: FindingHistory, last: int) -> Page:
    """Since when a finding shows, in which versions, and what each of the last runs saw."""
    yield TextLine(finding_line(found), Emphasis.TITLE)
    yield TextLine(f"first seen {moment(found.first_seen)}")
    for versions in found.versions:
        yield TextLine(f"seen in {versions}")
    yield TextLine()
    columns = (
        Column("run", ColumnKind.NUMBER),
        Column("started", ColumnKind.NAME),
        Column("", ColumnKind.NAME),
        Column("what it was", ColumnKind.NAME),
        Column("what was seen"),
    )
    yield Table(columns, tuple(map(_finding_row, found.nights[-last:])))


def _finding_row(night: FindingNight) -> tuple[Cell, ...]:
    word = {True: "seen", False: "absent", None: "not looked for"}[night.was_seen]
    emphasis = Emphasis.BAD if night.is_problem else Emphasis.PLAIN
    status = (night.status or "").replace("_", " ")
    rule = f" ({night.rule})" if night.rule else ""
    return (
        Cell(str(night.run)),
        Cell(moment(night.started)),
        Cell(word, emphasis if night.was_seen else Emphasis.FAINT),
        Cell(f"{status}{rule}", emphasis),
        Cell(night.text, Emphasis.FAINT),
    )


# --- JSON -----------------------------------------------------------------------------------------


def history_json(found: StoreOverview | CaseHistory | FindingHistory, last: int) -> str:
    """The last runs of it, with what is computed from all of them."""
    if isinstance(found, StoreOverview):
        document: dict[str, Any] = {
            "runs": [asdict(run) for run in found.runs],
            "baselines": [asdict(each) for each in found.baselines],
            "problems": [_finding_document(each, last) for each in found.problems],
        }
    elif isinstance(found, CaseHistory):
        since = found.since
        document = {
            **asdict(replace(found, nights=found.nights[-last:])),
            "since": None if since is None else asdict(since),
            "flaky": asdict(found.flaky),
            "unexpected": asdict(found.unexpected),
        }
    else:
        document = _finding_document(found, last)
    return json.dumps(document, indent=1)


def _finding_document(found: FindingHistory, last: int) -> dict[str, Any]:
    since = found.since
    return {
        "key": found.identity.key,
        **asdict(replace(found, nights=found.nights[-last:])),
        "since": None if since is None else asdict(since),
        "rate": asdict(found.rate),
        "is_flaky": found.is_flaky,
        "versions": [asdict(each) for each in found.versions],
    }
