"""The files that reports are made of, and those that they are written to.

Nothing else in this folder reads or writes one, but ``bundle``, which packs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.analyse.case_evidence import ioapics_of, read_counters, read_events, read_ledger
from harness.base.errors import HarnessError
from harness.base.files import write_bytes
from harness.ledger.ledger import Ledger
from harness.ledger.timeline import MAX_INTERRUPTS, Timeline, timeline
from harness.model import manifest
from harness.model.layout import CaseDir, RunDir
from harness.report.formats import FORMATS, Needs
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


def write(view: RunView, directory: Path, files: Mapping[str, Path]) -> None:
    """Write a run to the files asked for, by the form of each; each whole or not at all.

    ``directory`` is the run's: what a form needs beyond ``view`` is read there.  Raises
    :class:`~harness.base.errors.StoreError` where a file cannot be written, or read.
    """
    needs = {FORMATS[name].needs for name in files}
    if Needs.TIMELINES in needs:
        view = replace(view, timelines=timelines_of(view.run, directory))
    found = {path: FORMATS[name].render(view) for name, path in files.items()}
    for path, content in found.items():
        write_bytes(path, content if isinstance(content, bytes) else content.encode())


INTERRUPTS_OF_A_FILE: Final = 400_000
"""Number of interrupts in all timelines of a run: a browser has to hold them."""


def timelines_of(run: RunResult, directory: Path) -> dict[str, Timeline]:
    """The interrupts of each case that has events, by the case's id; errors as of :func:`write`."""
    recorded = {
        case.id: directory / case.dir
        for case in run.cases
        if CaseDir(directory / case.dir).events.is_file()
    }
    limit = min(MAX_INTERRUPTS, INTERRUPTS_OF_A_FILE // max(1, len(recorded)))
    return {id_: _timeline(folder, limit) for id_, folder in recorded.items()}


def _timeline(folder: Path, limit: int) -> Timeline:
    described = manifest.read(folder)
    return timeline(
        read_events(folder),
        described.irqchip,
        smp=described.smp,
        ioapics=ioapics_of(described),
        limit=limit,
    )
