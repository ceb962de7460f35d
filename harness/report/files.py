"""The files that reports are made of, and those that they are written to.

Nothing else in this folder reads or writes one, but ``bundle``, which packs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.analyse.case_evidence import read_counters, read_ledger
from harness.base.errors import HarnessError
from harness.base.files import write_text
from harness.ledger.ledger import Ledger
from harness.model.layout import CaseDir, RunDir
from harness.report.formats import FORMATS
from harness.report.run_view import RunView, by_subject, needs_a_table
from harness.report.subject import Account
from harness.store import baseline
from harness.store.baseline import BaselineComparison
from harness.store.result import RunResult


def view_of(
    run: RunResult, directory: Path, *, verbose: bool = False, repeats: bool = False
) -> RunView:
    """The view of ``run``, whose cases are in folders of ``directory``.

    Read is what its tables show; with ``repeats`` also of cases that were run again for the noise.
    :class:`~harness.base.errors.CollectError` for a file of another kind,
    :class:`~harness.base.errors.StoreError` for a ``baseline.json`` of another one.
    """
    accounts = {
        case.id: _account(directory / case.dir)
        for cases in by_subject(run).values()
        if needs_a_table(run, cases, verbose=verbose)
        for case in cases
        if repeats or not case.axes.get("repeat")
    }
    return RunView.of(run, accounts, baseline_of(directory), verbose=verbose)


def baseline_of(directory: Path) -> BaselineComparison | None:
    """What is new in the run in ``directory``; None where it was not in a store."""
    file = RunDir(directory).baseline
    return baseline.read(file) if file.exists() else None


def _account(directory: Path) -> Account:
    folder = CaseDir(directory)
    return Account(read_counters(folder.counters), read_ledger(folder.ledger))


def ledgers_of(run: RunResult, directory: Path) -> dict[str, Ledger | HarnessError]:
    """The ledger of each case that has one, or why it cannot be read, by the case's id."""
    found: dict[str, Ledger | HarnessError] = {}
    for case in run.cases:
        try:
            ledger = read_ledger(CaseDir(directory / case.dir).ledger)
        except HarnessError as error:
            found[case.id] = error
        else:
            if ledger is not None:
                found[case.id] = ledger
    return found


def write(view: RunView, files: Mapping[str, Path]) -> None:
    """Write a run to the files asked for, by the form of each; each whole or not at all.

    Raises :class:`~harness.base.errors.StoreError` where one cannot be written.
    """
    texts = {path: FORMATS[name].render(view) for name, path in files.items()}
    for path, text in texts.items():
        write_text(path, text)
