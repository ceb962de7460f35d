"""The command ``coverage`` after option parsing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.base import files
from harness.base.errors import ConfigError, StoreError
from harness.base.streams import print_json
from harness.base.terminal import printer
from harness.coverage.account import BuildCoverage, Tables, account
from harness.images.cache import ImageCache
from harness.report.export import coverage_html
from harness.report.export.lcov import lcov
from harness.report.text.coverage_report import coverage_json, coverage_report
from harness.report.text.render import show


@dataclass(frozen=True)
class CoverageOptions:
    """What is asked for on the command line."""

    runs: Sequence[Path]
    minus: Path | None = None
    missing: bool = False
    lcov: Path | None = None
    html: Path | None = None
    source: Path | None = None
    json: bool = False


def run(asked: CoverageOptions, tables: Tables | None = None) -> tuple[BuildCoverage, ...]:
    """Print it, and write what else is asked for.

    :class:`ConfigError` for runs without coverage, :class:`ImageError` without debug information.
    """
    builds = account(asked.runs, asked.minus, tables or ImageCache().line_table)
    if asked.lcov is not None:
        files.write_text(asked.lcov, lcov(builds, asked.source))
    if asked.html is not None:
        _write_pages(builds, asked.html, asked.source)
    if asked.json:
        print_json(coverage_json(builds))
    else:
        show(printer(), coverage_report(builds, missing=asked.missing))
    return builds


def _write_pages(builds: Sequence[BuildCoverage], folder: Path, source: Path | None) -> None:
    names = {file for build in builds for file in build.table.files}
    texts = None if source is None else {name: _lines_of(source / name) for name in names}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {folder}", error.strerror, "choose another place") from None
    for name, text in coverage_html.pages(builds, texts).items():
        files.write_text(folder / name, text)


def _lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        fix = "--source takes the folder of exactly that kernel's source"
        raise ConfigError(f"cannot read {path}", error.strerror, fix) from None
