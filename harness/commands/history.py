"""The commands ``history`` and ``baseline`` after option parsing."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.base.errors import ConfigError
from harness.base.streams import print_json
from harness.base.suggest import close
from harness.base.terminal import printer
from harness.report.text.history_report import (
    case_report,
    finding_report,
    history_json,
    overview_report,
)
from harness.report.text.render import show
from harness.store.database import chosen_path, opened
from harness.store.history import (
    Baseline,
    CaseHistory,
    FindingHistory,
    StoredRun,
    StoreOverview,
)
from harness.store.queries import StoreReader, reading

if TYPE_CHECKING:
    from harness.report.page import Page

OF_A_STORE: Final = "irqmatrix history lists the runs; irqmatrix report RUN_DIR names its cases"


def path_of(option: Path | None) -> Path:
    """The store that is asked; :class:`ConfigError` where there is to be none."""
    path = chosen_path(option)
    if path is None:
        raise ConfigError("no store", "IRQMATRIX_STORE or --store says none", "name a file")
    return path


def show_history(path: Path, what: str | None, last: int, *, json: bool) -> None:
    """Print the runs, or one case or finding."""
    with reading(path) as history:
        found = _found(history, what, last)
    if json:
        print_json(history_json(found, last))
    else:
        show(printer(), _page(found, last))


def _found(
    history: StoreReader, what: str | None, last: int
) -> StoreOverview | CaseHistory | FindingHistory:
    """What is asked for; :class:`ConfigError` for what the store does not have."""
    if what is None:
        return history.overview(last)
    if (case := history.case(what)) is not None:
        return case
    if (identity := history.finding_of(what)) is not None:
        finding = history.finding(identity)
        assert finding is not None
        return finding
    names = [*history.case_names(), *(each.key for each in history.findings())]
    raise ConfigError(
        f"the store has no case and no finding {what!r}",
        "expected the id of a case, or the key of a finding",
        close(what, names, count=3) or OF_A_STORE,
    )


def _page(found: StoreOverview | CaseHistory | FindingHistory, last: int) -> Page:
    if isinstance(found, CaseHistory):
        return case_report(found, last)
    if isinstance(found, FindingHistory):
        return finding_report(found, last)
    return overview_report(found)


# --- Baselines ------------------------------------------------------------------------------------


def accept(path: Path, run: str, name: str | None) -> Baseline:
    """Make a run, by its number or directory, the baseline ``name``, or that of its configuration.

    :class:`ConfigError` for one that the store does not have, or that did not end.
    """
    from harness.store import writing

    with opened(path) as connection:
        found = _run(StoreReader(connection), run)
        if not found.is_complete:
            raise ConfigError(
                f"run {found.number} cannot be a baseline", "it did not end", "accept another one"
            )
        return writing.accept(connection, name or found.name, found.number)


def _run(history: StoreReader, text: str) -> StoredRun:
    found = history.run(int(text)) if text.isdecimal() else None
    found = found or history.run_in(Path(text).absolute())
    if found is None:
        raise ConfigError(
            f"the store has no run {text!r}", "expected its number or its directory", OF_A_STORE
        )
    return found


# --- What changes the store -----------------------------------------------------------------------


def add(path: Path, directories: list[Path]) -> tuple[int, ...]:
    """Enter recorded runs, or replace what was entered of them; their numbers."""
    from harness.config import lanes
    from harness.model.layout import RunDir
    from harness.store import result, writing
    from harness.store.record import record_of

    numbers = []
    for directory in directories:
        found = result.read(RunDir(directory).result)
        if found.did_not_end:
            raise ConfigError(f"the run in {directory} did not end", "its cases were not compared")
        record = record_of(found, directory, lanes.names())
        with opened(path, create=True) as connection:
            numbers.append(writing.complete(connection, record, str(directory.absolute())))
    return tuple(numbers)


def prune(path: Path, days: int) -> tuple[int, ...]:
    """Remove the runs that are older, but baselines; their numbers."""
    from harness.store import writing

    limit = datetime.now().astimezone() - timedelta(days=days)
    with opened(path) as connection:
        old = tuple(
            run.number
            for run in StoreReader(connection).runs()
            if not run.baselines and datetime.fromisoformat(run.started) < limit
        )
        writing.prune(connection, old)
    return old


# --- For other tools ------------------------------------------------------------------------------

STORMS: Final = "storm/*"
_IMAGES: Final = ("svg", "png", "pdf")


def export(path: Path, table: str, file: Path) -> int:
    """Write a table of the store to a file; the number of rows."""
    from harness.store import tables

    with opened(path) as connection:
        return tables.export(connection, table, file)


def plot(path: Path, case: str | None, counter: str | None, file: Path) -> tuple[int, int]:
    """Plot counters over time; how many are shown, and of how many.

    Without ``counter`` the rates of storms, and where there are none all counters.
    :class:`ConfigError` for an unknown suffix, or where nothing matches.
    """
    from harness.base.files import write_bytes
    from harness.report.export import plot as plotting

    suffix = file.suffix.removeprefix(".")
    if suffix not in _IMAGES:
        raise ConfigError(f"cannot plot to {file}", f"expected one of: .{', .'.join(_IMAGES)}")
    with reading(path) as history:
        if case is not None and not history.has_case(case):
            raise ConfigError(
                f"the store has no case {case!r}",
                None,
                close(case, history.case_names()) or OF_A_STORE,
            )
        found = history.series(counter or STORMS, case)
        if not found and counter is None:
            found = history.series("*/*/*", case)
    if not found:
        raise ConfigError(
            f"no counter matches {counter or '*/*/*'!r}", "no run in the store has one"
        )
    found = tuple(series for series in found if series.has_any) or found
    write_bytes(file, plotting.render(found, suffix))
    return min(len(found), plotting.MOST), len(found)
