"""What a person reads of a bisection; or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.repro.bisect import Bisection, Boundary, Search, Step
from harness.repro.reproduce import Outcome

_STYLES: Final = {
    Outcome.REPRODUCED: "red",
    Outcome.NOT_REPRODUCED: "green",
    Outcome.CANNOT_RUN: "dim",
}
_WORDS: Final = {
    Outcome.REPRODUCED: "bad",
    Outcome.NOT_REPRODUCED: "good",
    Outcome.CANNOT_RUN: "untestable",
}
"""As ``git bisect`` calls them."""


def bisection_report(console: Console, found: Bisection) -> None:
    """The table of each line, and where the answer changes."""
    steps = {(step.kernel, step.qemu): step for step in found.steps}
    for line in found.lines:
        console.print(f"\n{line.title}", style="bold", markup=False, highlight=False)
        console.print(_table(line, steps))
        style = "bold" if isinstance(line.found, Boundary) else "bold yellow"
        console.print(conclusion(line), style=style, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"\nsteps: {found.directory}", markup=False, highlight=False, soft_wrap=True, style="dim"
    )


def conclusion(line: Search) -> str:
    """``last good: 9.0; first bad: 9.1``, or why there is none."""
    names = [choice.version for choice in line.choices]
    if not isinstance(line.found, Boundary):
        if line.found.answer is None:
            return "no version could be tested: the reasons are in the table"
        word = _WORDS[line.found.answer]
        return (
            f"both ends are {word}: {names[0]} and {names[-1]}; "
            "there is nothing between them to find: take a wider range"
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


def _table(line: Search, steps: dict[tuple[str, str], Step]) -> Table:
    """The versions that were tested, in their order."""
    table = Table(box=None, pad_edge=False)
    for name in ("version", "", "seconds", "seen"):
        table.add_column(name, justify="right" if name == "seconds" else "left")
    for choice in line.choices:
        pair = (choice.version, line.fixed.version)
        step = steps.get(pair if line.axis == "kernel" else (pair[1], pair[0]))
        if step is not None:
            word = Text(_WORDS[step.outcome], style=_STYLES[step.outcome])
            table.add_row(choice.version, word, f"{step.duration_s:.1f}", step.reason)
    return table
