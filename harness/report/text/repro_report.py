"""What a person reads of the catalogue and of a reproducer that was run; or JSON."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analyse.case_evidence import read_ledger
from harness.base.errors import HarnessError
from harness.ledger import ledger
from harness.model.layout import CaseDir
from harness.model.verdict import CaseResult, Verdict
from harness.repro.catalogue import Entry, Seen
from harness.repro.reproduce import Measured, Outcome, Reproduction, value_text

_OUTCOME_STYLES: Final = {
    Outcome.REPRODUCED: "bold green",
    Outcome.NOT_REPRODUCED: "bold yellow",
    Outcome.CANNOT_RUN: "bold red",
}
_Say = Callable[..., None]


def _say(console: Console) -> _Say:
    return functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)


# --- The catalogue ------------------------------------------------------------------------------


def catalogue_table(console: Console, entries: Iterable[Entry]) -> None:
    """One row an entry, with its symptom and what was seen of it in each mode."""
    table = Table(box=None, pad_edge=False)
    for column in ("reproducer", "kind", "modes", "affected", "symptom, and what was seen"):
        table.add_column(column, no_wrap=column in ("reproducer", "kind"))
    for entry in entries:
        words = Text(entry.symptom)
        for seen in entry.seen:
            words.append(f"\n{_seen_text(seen)}", style="dim")
        name, modes = Text(entry.id, style="bold"), ", ".join(entry.modes)
        table.add_row(name, entry.kind.value, modes, entry.affected_text, words)
    console.print(table)


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


def announce(console: Console, entry: Entry) -> None:
    """What is about to be run."""
    say = _say(console)
    say(f"{entry.id}: {entry.symptom}", style="bold")
    say(f"{entry.kind}; affected: {entry.affected_text}; it shows in {', '.join(entry.modes)}")
    for link in entry.links:
        say(f"  {link}", style="dim")


def reproduction_report(console: Console, found: Reproduction) -> None:
    """What was measured side by side, the ledgers, the replays, and the answer."""
    say = _say(console)
    _signs(console, found)
    for case in found.result.cases:
        say(f"{case.backend}: {case.verdict} in {case.duration_s:.1f} s", style="bold")
        if case.full_detail:
            say(f"  {case.full_detail}")
        if case.verdict is Verdict.DIVERGED:
            say(f"  irqmatrix replay {found.directory / case.dir} shows what stands around it")
        for line in _ledger_lines(found.directory / case.dir):
            say(f"  {line}")
    answer(console, found)


def answer(console: Console, found: Reproduction) -> None:
    """The answer alone, with its reason and what the catalogue says of it."""
    say = _say(console)
    assessment = found.assessment
    because = ", because " if assessment.outcome is Outcome.CANNOT_RUN else ": "
    say("")
    say(
        f"{found.entry.id}: {assessment.outcome}{because}{assessment.reason}",
        style=_OUTCOME_STYLES[assessment.outcome],
    )
    if assessment.expected is None:
        pass
    elif assessment.as_expected:
        say("this is what the catalogue says for these versions")
    else:
        say(
            f"NOT what the catalogue says for these versions: {assessment.expected}, "
            f"as {found.entry.affected_text} is affected",
            style="bold red",
        )
    say(f"results: {found.directory} (irqmatrix report shows every counter)")


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


def _signs(console: Console, found: Reproduction) -> None:
    """One row a sign, one column a case."""
    cases = found.result.cases
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    subjects = {case.subject for case in cases}
    for case in cases:
        name = case.backend if len(subjects) == 1 else f"{case.subject}\n{case.backend}"
        table.add_column(name, justify="right")
    for sign in found.entry.signs:
        items = {item.case.id: item for item in found.assessment.measured if item.sign is sign}
        if items:
            table.add_row(sign.what, *_cells(cases, items))
    console.print()
    console.print(table)
    for item in found.assessment.measured:
        if item.holds is None and item.case.verdict != "skip":
            why = getattr(item.value, "why", "")
            _say(console)(f"n/o: {item.case.backend}: {item.sign.what}: {why}", style="dim")
    console.print()


def _cells(cases: Iterable[CaseResult], items: Mapping[str, Measured]) -> Iterator[Text]:
    styles = {True: "green", False: "yellow", None: "dim"}
    for case in cases:
        if (item := items.get(case.id)) is None:
            yield Text("")
        else:
            expected = f"(expected {item.expected})"
            yield Text(f"{_shown(item)} {expected}", style=styles[item.holds])


_SHOWN_CHARACTERS: Final = 60


def _shown(item: Measured) -> str:
    text = value_text(item.value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _ledger_lines(directory: Path) -> list[str]:
    """The account of a case, without the laws that hold; nothing where there is none."""
    path = CaseDir(directory).ledger
    try:
        account = read_ledger(path)
    except HarnessError as error:
        return [f"its ledger cannot be read: {error}"]
    if account is None or not account.rows:
        return []
    balanced = sum(law.status == "balanced" for law in account.laws)
    lines = [
        line
        for line in ledger.table(account).splitlines()
        if line and not line.startswith(("balanced:", "not observable:"))
    ]
    return [*lines, f"{balanced} of {len(account.laws)} laws of the ledger hold and can be seen"]
