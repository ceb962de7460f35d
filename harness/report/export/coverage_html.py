"""Coverage as HTML: an overview, and a page for each file of each build of KVM.

A page shows the text of the lines where the kernel's source is at hand, else their numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from harness.coverage.account import BuildCoverage, Counts
from harness.model.case import folder_name
from harness.model.coverage import SourceLine
from harness.report.export.html import asset, policy, templates

INDEX: Final = "index.html"


@dataclass(frozen=True)
class ShownLine:
    """A line of a page; ``state`` is ``reached``, ``floor``, ``missed``, ``beyond``, or empty."""

    number: int
    state: str
    text: str
    function: str
    why: str


@dataclass(frozen=True)
class ShownFile:
    """A row of the overview, and where its page is."""

    name: str
    href: str
    lines: Counts
    functions: Counts


def pages(
    builds: Iterable[BuildCoverage], source: Mapping[str, Sequence[str]] | None = None
) -> Mapping[str, str]:
    """Every page, by the name of its file; ``source`` has the lines of each of KVM's files."""
    found: dict[str, str] = {}
    overview = []
    for build in builds:
        rows = []
        for file in build.table.files:
            href = f"{folder_name(build.table.kernel)}-{PurePosixPath(file).name}.html"
            found[href] = _page(
                "coverage_file.html",
                f"{file}, Linux {build.table.kernel}",
                lines=_lines(build, file, None if source is None else source[file]),
                has_source=source is not None,
            )
            rows.append(ShownFile(file, href, build.lines(file), build.functions(file)))
        rows.append(ShownFile("all", "", build.lines(), build.functions()))
        overview.append((build.table.kernel, build.table.build_id, rows))
    found[INDEX] = _page("coverage_index.html", "Coverage of KVM's chips", builds=overview)
    return found


def _lines(build: BuildCoverage, file: str, texts: Sequence[str] | None) -> list[ShownLine]:
    with_code = {line.number: line for line in build.table.lines if line.file == file}
    if texts is None:
        return [_shown(build, line, "") for _, line in sorted(with_code.items())]
    return [
        _shown(build, with_code[number], text)
        if number in with_code
        else ShownLine(number, "", text, "", "")
        for number, text in enumerate(texts, start=1)
    ]


def _shown(build: BuildCoverage, line: SourceLine, text: str) -> ShownLine:
    function = build.table.function_at(line)
    why = build.cannot[line].needs if line in build.cannot else ""
    name = function.name if function is not None else ""
    return ShownLine(line.number, _state(build, line), text, name, why)


def _state(build: BuildCoverage, line: SourceLine) -> str:
    if build.floor is not None and line in build.floor.lines:
        return "floor"
    if line in build.reached.lines:
        return "reached"
    return "beyond" if line in build.cannot else "missed"


def _page(template: str, title: str, **values: Any) -> str:
    found = templates().get_template(template)
    return found.render(title=title, style=asset("report.css"), policy=policy(), **values)
