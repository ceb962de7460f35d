"""What a person reads at the end: tables with rich, or JSON where it is asked for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.doctor import Finding
from harness.images.model import ImageInfo
from harness.progress import DEFAULT_STYLE, STYLES
from harness.result import CaseResult, PartResult, RunResult, Verdict

NOT_OBSERVABLE: Final = "n/o"
_MARKS: Final = {True: ("yes", "green"), False: ("no", "yellow"), None: ("", "dim")}


def run_report(console: Console, run: RunResult, directory: Path) -> None:
    """The table of a run, the differences, and where everything is."""
    for subject, cases in groupby(
        sorted(run.cases, key=lambda case: case.subject), key=lambda case: case.subject
    ):
        _subject_table(console, subject, list(cases), directory)
    _differences(console, run)
    _summary(console, run, directory)


def doctor_json(findings: Iterable[Finding]) -> str:
    """The findings as JSON."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1)


def doctor_tables(console: Console, findings: Iterable[Finding]) -> None:
    """The findings by area; every "no" with its reason and what to do."""
    for area, group in groupby(findings, key=lambda finding: finding.area):
        console.print(f"\n{area}", style="bold", markup=False, highlight=False)
        table = Table.grid(padding=(0, 2))
        for finding in group:
            _, style = _MARKS[finding.can]
            words = [finding.value]
            if finding.why:
                words.append(finding.why)
            if finding.fix:
                words.append(f"-> {finding.fix}")
            table.add_row("", finding.name, Text("\n".join(words), style=style))
        console.print(table)


def images_json(infos: Iterable[ImageInfo]) -> str:
    """The cache's entries as JSON."""
    rows = [dataclasses.asdict(info) | {"path": str(info.path)} for info in infos]
    return json.dumps(rows, indent=1)


def images_table(console: Console, infos: Sequence[ImageInfo]) -> None:
    """The cache's entries."""
    if not infos:
        console.print("the image cache is empty: irqmatrix images build", highlight=False)
        return
    table = Table("kind", "name", "version", "from", "MiB", "intact", box=None, pad_edge=False)
    for info in infos:
        intact = Text("yes" if info.intact else "NO", style="green" if info.intact else "red")
        size = f"{info.size_bytes / 2**20:.1f}"
        table.add_row(info.kind, info.name, info.version, info.source, size, intact)
    console.print(table)


def _subject_table(
    console: Console, subject: str, cases: Sequence[CaseResult], directory: Path
) -> None:
    """One guest on all its backends."""
    firsts = [case for case in cases if not case.axes.get("repeat")]
    table = Table(
        "", *(case.backend for case in firsts), title=subject, title_justify="left", box=None
    )
    table.add_row("verdict", *(_verdict_text(case.verdict, case.as_expected) for case in firsts))
    table.add_row("seconds", *(f"{case.duration_s:.1f}" for case in firsts))
    _part_rows(table, firsts)
    console.print()
    console.print(table)
    for case in firsts:
        if case.detail:
            console.print(f"  {case.backend}: {case.detail}", markup=False, highlight=False)


def _part_rows(table: Table, cases: Sequence[CaseResult]) -> None:
    """One row a workload or check; where all checks pass everywhere, one row for all of them."""
    parts = {case.id: {part.id: part for part in case.parts} for case in cases}
    names = list(dict.fromkeys(part.id for case in cases for part in case.parts))
    interesting = [
        name for name in names if _is_interesting([parts[c.id].get(name) for c in cases])
    ]
    shown = names if cases and cases[0].guest == "linux" else interesting
    for name in shown:
        table.add_row(name, *(_part_text(parts[case.id].get(name)) for case in cases))
    if len(shown) < len(names):
        table.add_row(f"{len(names) - len(shown)} checks that agree", *("pass" for _ in cases))


def _is_interesting(found: Sequence[PartResult | None]) -> bool:
    return any(part is None or part.verdict is not Verdict.PASS for part in found)


def _part_text(part: PartResult | None) -> Text:
    if part is None:
        return Text("-", style="dim")
    return _verdict_text(part.verdict, part.as_expected)


def _verdict_text(verdict: Verdict, as_expected: bool) -> Text:
    if not as_expected:
        return Text(f"{verdict.value} !", style="bold red")
    return Text(verdict.value, style=STYLES.get(verdict, DEFAULT_STYLE))
