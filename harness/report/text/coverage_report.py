"""What ``irqmatrix coverage`` prints: a table for each build of KVM, lists of lines; or JSON."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from harness.base.emphasis import Emphasis
from harness.coverage.account import BuildCoverage, Counts
from harness.model.coverage import LineTable, SourceLine
from harness.report.page import Cell, Column, ColumnKind, Page, Table, TextLine, cells

NOTHING = "-"
"""Where there is nothing to say a number of."""


def coverage_report(builds: Sequence[BuildCoverage], *, missing: bool) -> Page:
    """The tables; with ``missing`` also what was not reached."""
    for number, build in enumerate(builds):
        if number:
            yield TextLine()
        yield from _build(build, missing)


def _build(build: BuildCoverage, missing: bool) -> Page:
    table = build.table
    yield TextLine(f"Linux {table.kernel}, KVM {table.build_id[:12]}", Emphasis.TITLE)
    names = ["", "lines", "reached", "%", "of reachable", "floor", "functions", "reached", "floor"]
    names += ["more", "functions"] if build.other is not None else []
    kinds = [ColumnKind.NAME, *[ColumnKind.NUMBER] * (len(names) - 1)]
    rows = [_row(build, file) for file in (*table.files, None)]
    yield Table(tuple(map(Column, names, kinds)), tuple(rows))
    if build.floor is None:
        yield TextLine("no floor was recorded beside it", Emphasis.WARNING)
    if build.other is not None:
        yield from _lines("reached, and not by the other run", build.gained, table)
        yield from _lines("reached by the other run only", build.lost, table)
    if missing:
        yield from _lines("not reached", list(build.missing), table)
        yield from _cannot(build)


def _row(build: BuildCoverage, file: str | None) -> tuple[Cell, ...]:
    lines, functions = build.lines(file), build.functions(file)
    texts = [file or "all", str(lines.all), str(lines.reached)]
    texts += [_percent(lines.share), _percent(lines.share_of_reachable), _floor(lines)]
    texts += [str(functions.all), str(functions.reached), _floor(functions)]
    if build.other is not None:
        texts += [str(lines.gained), str(functions.gained)]
    return cells(*texts)


def _floor(counts: Counts) -> str:
    if counts.floor is None or not counts.all:
        return NOTHING
    return _percent(counts.floor / counts.all)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _lines(title: str, lines: Sequence[SourceLine], table: LineTable) -> Page:
    yield TextLine()
    yield TextLine(f"{title}: {len(lines)} lines", Emphasis.TITLE)
    yield Table(
        (Column("", ColumnKind.NAME), Column("", ColumnKind.NAME), Column()),
        tuple(cells(*row) for row in by_function(lines, table)),
    )


def _cannot(build: BuildCoverage) -> Page:
    """What no lab can reach, by the condition that it needs."""
    conditions = dict.fromkeys(build.cannot.values())
    for condition in conditions:
        lines = sorted(line for line, needed in build.cannot.items() if needed == condition)
        yield from _lines(f"cannot be reached: {condition.needs}", lines, build.table)
        yield TextLine(condition.why, Emphasis.FAINT)


def by_function(lines: Iterable[SourceLine], table: LineTable) -> list[tuple[str, str, str]]:
    """Lines as rows: the file's name, the function, the numbers."""
    groups = itertools.groupby(sorted(lines), key=lambda line: (line.file, table.function_at(line)))
    return [
        (PurePosixPath(file).name, function.name if function else "", ranges(own, table))
        for (file, function), own in groups
    ]


def ranges(lines: Iterable[SourceLine], table: LineTable) -> str:
    """Numbers of lines of one file: 98, 100-103; a range has no other line with code in it."""
    wanted = sorted(lines)
    order = table.order
    found: list[list[SourceLine]] = []
    for line in wanted:
        if found and order[line] == order[found[-1][-1]] + 1:
            found[-1].append(line)
        else:
            found.append([line])
    return ", ".join(
        str(each[0].number) if len(each) == 1 else f"{each[0].number}-{each[-1].number}"
        for each in found
    )


# --- JSON -----------------------------------------------------------------------------------------


def coverage_json(builds: Iterable[BuildCoverage]) -> str:
    """The same for programs, with all lists."""
    return json.dumps([_build_json(build) for build in builds], indent=1)


def _build_json(build: BuildCoverage) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kernel": build.table.kernel,
        "build_id": build.table.build_id,
        "files": {file or "all": _file_json(build, file) for file in (*build.table.files, None)},
        "missing": [list(line) for line in build.missing],
        "cannot_reach": [[*line, why.id] for line, why in sorted(build.cannot.items(), key=_line)],
    }
    if build.other is not None:
        found["gained"] = [list(line) for line in build.gained]
        found["lost"] = [list(line) for line in build.lost]
    return found


def _line(item: tuple[SourceLine, object]) -> SourceLine:
    return item[0]


def _file_json(build: BuildCoverage, file: str | None) -> dict[str, Any]:
    return {
        kind: {
            "all": counts.all,
            "reached": counts.reached,
            "floor": counts.floor,
            "cannot_reach": counts.beyond,
            "gained": counts.gained,
        }
        for kind, counts in (("lines", build.lines(file)), ("functions", build.functions(file)))
    }
