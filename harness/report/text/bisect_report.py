"""What a person reads of a bisection; or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

from harness.base.emphasis import Emphasis
from harness.report.page import Cell, Column, ColumnKind, Page, Table, TextLine
from harness.repro.bisect import Bisection, BisectStep, Boundary, Search
from harness.repro.reproduce import Answer

_EMPHASIS: Final = {
    Answer.REPRODUCED: Emphasis.BAD,
    Answer.NOT_REPRODUCED: Emphasis.GOOD,
    Answer.CANNOT_RUN: Emphasis.FAINT,
}
_WORDS: Final = {
    Answer.REPRODUCED: "bad",
    Answer.NOT_REPRODUCED: "good",
    Answer.CANNOT_RUN: "untestable",
}
"""As ``git bisect`` calls them."""


def bisection_report(found: Bisection) -> Page:
    """The table of each line, and where the answer changes."""
    steps = {(step.kernel, step.qemu): step for step in found.steps}
    for line in found.lines:
        yield TextLine()
        yield TextLine(line.title, Emphasis.TITLE)
        yield _table(line, steps)
        is_found = isinstance(line.found, Boundary)
        yield TextLine(conclusion(line), Emphasis.TITLE if is_found else Emphasis.WARNING)
    yield TextLine()
    yield TextLine(f"steps: {found.directory}", Emphasis.FAINT)


def conclusion(line: Search) -> str:
    """``last good: 9.0; first bad: 9.1``, or why there is none."""
    names = [choice.version for choice in line.choices]
    if not isinstance(line.found, Boundary):
        if line.found.answer is None:
            return "no version could be tested: the reasons are in the table"
        word = _WORDS[line.found.answer]
        return (
            f"both ends are {word}: {names[0]} and {names[-1]}; "
            "there is no change between them: choose a wider range"
        )
    before, after = _WORDS[line.found.before_answer], _WORDS[line.found.after_answer]
    text = f"last {before}: {names[line.found.before]}; first {after}: {names[line.found.after]}"
    if line.found.between:
        untested = ", ".join(names[index] for index in line.found.between)
        text += f"; between them, untestable: {untested}"
    return text


def bisection_json(found: Bisection) -> str:
    """The same as JSON."""
    document = {
        "reproducer": found.entry.id,
        "directory": str(found.directory),
        "steps": [asdict(step) for step in found.steps],
        "lines": [
            {
                "axis": line.axis,
                "fixed": line.fixed.version,
                "versions": [choice.version for choice in line.choices],
                "conclusion": conclusion(line),
                **_boundary_row(line),
            }
            for line in found.lines
        ],
    }
    return json.dumps(document, indent=1)


def _boundary_row(line: Search) -> dict[str, object]:
    if not isinstance(line.found, Boundary):
        return {"before": None, "after": None}
    return {
        "before": line.choices[line.found.before].version,
        "before_answer": _WORDS[line.found.before_answer],
        "after": line.choices[line.found.after].version,
        "after_answer": _WORDS[line.found.after_answer],
    }


def _table(line: Search, steps: dict[tuple[str, str], BisectStep]) -> Table:
    """The versions that were tested, in their order."""
    rows = []
    for choice in line.choices:
        pair = (choice.version, line.fixed.version)
        step = steps.get(pair if line.axis == "kernel" else (pair[1], pair[0]))
        if step is not None:
            word = Cell(_WORDS[step.outcome], _EMPHASIS[step.outcome])
            seconds = Cell(f"{step.duration_s:.1f}")
            rows.append((Cell(choice.version), word, seconds, Cell(step.reason)))
    columns = (Column("version"), Column(), Column("seconds", ColumnKind.NUMBER), Column("seen"))
    return Table(columns, tuple(rows))
