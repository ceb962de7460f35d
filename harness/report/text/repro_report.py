"""What a person reads of the catalogue and of a reproducer that was run; or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Final

from harness.base.emphasis import Emphasis
from harness.base.errors import HarnessError
from harness.ledger import ledger
from harness.ledger.ledger import Ledger
from harness.model.verdict import CaseResult, Verdict
from harness.report.page import Cell, Column, ColumnKind, Page, Table, TextLine
from harness.report.versions import version_lines
from harness.repro.catalogue import Entry, Seen
from harness.repro.reproduce import Answer, Measured, Reproduction, value_text

_EMPHASIS: Final = {
    Answer.REPRODUCED: Emphasis.BEST,
    Answer.NOT_REPRODUCED: Emphasis.WARNING,
    Answer.CANNOT_RUN: Emphasis.ALARM,
}


# --- The catalogue ------------------------------------------------------------------------------


def catalogue_table(entries: Iterable[Entry]) -> Page:
    """One row an entry, with its symptom and what was seen of it in each mode."""
    columns = (
        Column("reproducer", ColumnKind.NAME),
        Column("kind", ColumnKind.NAME),
        Column("modes"),
        Column("affected"),
        Column("symptom, and what was seen"),
    )
    rows = tuple(
        (
            Cell(entry.id, Emphasis.TITLE),
            Cell(entry.kind.value),
            Cell(", ".join(entry.modes)),
            Cell(entry.affected_text),
            Cell(entry.symptom, notes=tuple(map(_seen_text, entry.seen))),
        )
        for entry in entries
    )
    yield Table(columns, rows)


def catalogue_json(entries: Iterable[Entry]) -> str:
    """The catalogue as JSON."""
    rows = [
        {
            "id": entry.id,
            "symptom": entry.symptom,
            "kind": entry.kind,
            "modes": entry.modes,
            "affected": entry.affected_text,
            "fixed": entry.fixed,
            "links": entry.links,
            "file": str(entry.file.path),
            "signs": [
                {"what": sign.what, "expected": {m: str(e) for m, e in sign.expect.items()}}
                for sign in entry.signs
            ],
            "seen": [asdict(seen) for seen in entry.seen],
            "tried": [asdict(tried) for tried in entry.tried],
        }
        for entry in entries
    ]
    return json.dumps(rows, indent=1)


def _seen_text(seen: Seen) -> str:
    versions = f"QEMU {seen.qemu}" + (f", Linux {seen.linux}" if seen.linux else "")
    saw = "; ".join(f"{mode} {text}" for mode, text in seen.saw.items())
    return f"{versions}: {saw}" + ("" if seen.reproduced else " (not there)")


# --- A reproducer before and after its run ------------------------------------------------------


def announce(entry: Entry) -> Page:
    """What is about to be run."""
    yield TextLine(f"{entry.id}: {entry.symptom}", Emphasis.TITLE)
    modes = ", ".join(entry.modes)
    yield TextLine(f"{entry.kind}; affected: {entry.affected_text}; it shows in {modes}")
    for link in entry.links:
        yield TextLine(f"  {link}", Emphasis.FAINT)


def reproduction_report(found: Reproduction, ledgers: Mapping[str, Ledger | HarnessError]) -> Page:
    """What was measured side by side, the ledgers, the replays, and the answer.

    ``ledgers`` by a case's id; the error of one that cannot be read.
    """
    yield from _signs(found)
    for case in found.result.cases:
        text = f"{case.backend}: {case.verdict} in {case.duration_s:.1f} s"
        yield TextLine(text, Emphasis.TITLE)
        if case.full_detail:
            yield TextLine(f"  {case.full_detail}")
        if case.verdict is Verdict.DIVERGED:
            path = found.directory / case.dir
            yield TextLine(f"  irqmatrix replay {path} shows the events around it")
        for text in _ledger_lines(ledgers.get(case.id)):
            yield TextLine(f"  {text}")
    yield from answer(found)


def answer(found: Reproduction) -> Page:
    """The answer alone, with its reason and what the catalogue says of it."""
    assessment = found.assessment
    outcome = assessment.outcome
    because = ", because " if outcome is Answer.CANNOT_RUN else ": "
    yield TextLine()
    yield TextLine(f"{found.entry.id}: {outcome}{because}{assessment.reason}", _EMPHASIS[outcome])
    if assessment.expected is None:
        pass
    elif assessment.as_expected:
        yield TextLine("this is what the catalogue says for these versions")
    else:
        yield TextLine(
            f"NOT what the catalogue says for these versions: {assessment.expected}, "
            f"as {found.entry.affected_text} is affected",
            Emphasis.ALARM,
        )
    for line in version_lines(found.result.environment):
        yield TextLine(line, Emphasis.FAINT)
    yield TextLine(f"results: {found.directory} (irqmatrix report shows every counter)")


def reproduction_json(found: Reproduction) -> str:
    """The same as JSON."""
    assessment = found.assessment
    document = {
        "reproducer": found.entry.id,
        "outcome": assessment.outcome,
        "reason": assessment.reason,
        "expected": assessment.expected,
        "as_expected": assessment.as_expected,
        "directory": str(found.directory),
        "environment": found.result.environment,
        "measured": [_measured_row(item) for item in assessment.measured],
    }
    return json.dumps(document, indent=1)


def _measured_row(item: Measured) -> dict[str, object]:
    known = item.holds is not None
    return {
        "what": item.sign.what,
        "case": item.case.id,
        "mode": item.mode,
        "value": item.value if known else None,
        "why_not": None if known else getattr(item.value, "why", None),
        "expected": str(item.expected),
        "holds": item.holds,
    }


def _signs(found: Reproduction) -> Page:
    """One row a sign, one column a case."""
    cases = found.result.cases
    subjects = {case.subject for case in cases}
    names = (
        case.backend if len(subjects) == 1 else f"{case.subject}\n{case.backend}" for case in cases
    )
    rows = []
    for sign in found.entry.signs:
        items = {item.case.id: item for item in found.assessment.measured if item.sign is sign}
        if items:
            rows.append((Cell(sign.what), *_cells(cases, items)))
    yield TextLine()
    yield Table((Column(), *(Column(name, ColumnKind.NUMBER) for name in names)), tuple(rows))
    for item in found.assessment.measured:
        if item.holds is None and item.case.verdict is not Verdict.SKIP:
            why = getattr(item.value, "why", "")
            yield TextLine(f"n/o: {item.case.backend}: {item.sign.what}: {why}", Emphasis.FAINT)
    yield TextLine()


def _cells(cases: Iterable[CaseResult], items: Mapping[str, Measured]) -> Iterator[Cell]:
    emphasis = {True: Emphasis.GOOD, False: Emphasis.NOTICE, None: Emphasis.FAINT}
    for case in cases:
        if (item := items.get(case.id)) is None:
            yield Cell()
        else:
            expected = f"(expected {item.expected})"
            yield Cell(f"{_shown(item)} {expected}", emphasis[item.holds])


_SHOWN_CHARACTERS: Final = 60


def _shown(item: Measured) -> str:
    text = value_text(item.value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _ledger_lines(account: Ledger | HarnessError | None) -> list[str]:
    """The account of a case, without the laws that hold; nothing where there is none."""
    if isinstance(account, HarnessError):
        return [f"its ledger cannot be read: {account}"]
    if account is None or not account.rows:
        return []
    balanced = sum(law.status == "balanced" for law in account.laws)
    lines = [
        line
        for line in ledger.table(account).splitlines()
        if line and not line.startswith(("balanced:", "not observable:"))
    ]
    return [*lines, f"{balanced} of {len(account.laws)} laws of the ledger are observable and hold"]
