"""The files that reports are made of, and those that they are written to.

Nothing else in this folder reads or writes one, but ``bundle``, which packs them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from harness.analyse.case_evidence import (
    RecordedCase,
    ScenarioLog,
    ioapics_of,
    read_case,
    read_counters,
    read_events,
    read_ledger,
    read_scenarios,
)
from harness.base.errors import HarnessError, StoreError
from harness.base.files import write_bytes
from harness.compare.chip_state import registers_around
from harness.compare.diff import Status
from harness.compare.finding import Finding
from harness.compare.known import KnownDifferences
from harness.compare.recordings import EventContext, diff_cases
from harness.fuzz import specification
from harness.ledger.ledger import Ledger
from harness.ledger.timeline import MAX_INTERRUPTS, Timeline, timeline
from harness.model import manifest
from harness.model.layout import CaseDir, RunDir
from harness.model.verdict import CaseResult
from harness.record.recording_file import written_scenarios
from harness.report.formats import FORMATS, Needs
from harness.report.pages import (
    AlignedPair,
    CaseFiles,
    Excerpt,
    LogParting,
    PartingSide,
    RunDetails,
    ScenarioWords,
    log_parting,
    pair_of,
)
from harness.report.run_view import RunView, by_subject, needs_a_table
from harness.report.subject import Account
from harness.store import baseline
from harness.store.baseline import BaselineComparison
from harness.store.database import chosen_path
from harness.store.queries import reading
from harness.store.record import token_of
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
    found = {path: rendered(view, directory, name) for name, path in files.items()}
    for path, content in found.items():
        write_bytes(path, content)


def rendered(view: RunView, directory: Path, form: str) -> bytes:
    """A run in the form of that name; errors as of :func:`write`."""
    needs = FORMATS[form].needs
    if needs is Needs.TIMELINES:
        view = replace(view, timelines=timelines_of(view.run, directory))
    elif needs is Needs.DETAILS:
        view = detailed(view, directory)
    content = FORMATS[form].render(view)
    return content if isinstance(content, bytes) else content.encode()


# --- Timelines ------------------------------------------------------------------------------------


INTERRUPTS_OF_A_FILE: Final = 400_000
"""Number of interrupts in all timelines of a run: a browser has to hold them."""


def timelines_of(run: RunResult, directory: Path) -> dict[str, Timeline]:
    """The interrupts of each case that has events, by the case's id; errors as of :func:`write`.

    :class:`~harness.base.errors.StoreError` where none has: an empty file would look like a run
    without interrupts.
    """
    recorded = {
        case.id: directory / case.dir
        for case in run.cases
        if CaseDir(directory / case.dir).events.is_file()
    }
    if not recorded:
        raise StoreError(
            f"no timeline of {directory}",
            "none of its cases has its events",
            f"irqmatrix judge {directory} --write makes them from recordings that were kept",
        )
    limit = min(MAX_INTERRUPTS, INTERRUPTS_OF_A_FILE // len(recorded))
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


# --- Pages ----------------------------------------------------------------------------------------

MAX_ALIGNED: Final = 2
"""Number of pairs of recordings that are aligned for a run's pages: that reads all their events."""
CONSOLES_BYTES: Final = 8 << 20
"""Of all consoles together: compressed, they have to fit into one file of a few MB."""
CONSOLE_BYTES: Final = 1 << 10, 32 << 10
"""Of one console: at least, and at most."""
COMMAND_BYTES: Final = 16 << 10


def detailed(view: RunView, directory: Path) -> RunView:
    """``view`` in full, and what its pages need; what cannot be read is reported on its page."""
    run = view.run
    least, most = CONSOLE_BYTES
    console_bytes = max(least, min(most, CONSOLES_BYTES // max(1, len(run.cases))))
    cases = {case.id: _case_files(directory / case.dir, console_bytes) for case in run.cases}
    accounts = {id_: files.account for id_, files in cases.items()}
    nights = nights_of(run, view.baseline, chosen_path(None))
    divergences = divergences_of(run, directory)
    details = RunDetails(cases, divergences, scenarios_of(run, directory), nights)
    return replace(RunView.of(run, accounts, view.baseline, verbose=True), details=details)


def scenarios_of(run: RunResult, directory: Path) -> dict[int, ScenarioWords]:
    """The scenario of each finding that is about one, by the finding's place.

    Nothing for a case whose scenarios cannot be read: its page has no words then.
    """
    written = cache(written_scenarios)
    found = {}
    for number, finding in enumerate(run.findings):
        if (pair := pair_of(finding, run)) is None:
            continue
        with suppress(StoreError):
            scenario = written(directory / pair[0].dir).get(finding.part)
            if scenario is not None:
                passages = specification.of_steps(scenario.steps)
                found[number] = ScenarioWords(scenario.about, scenario.steps, passages)
    return found


SHOWN_NIGHTS: Final = 30
"""Number of last runs in a sparkline."""


def nights_of(
    run: RunResult, compared: BaselineComparison | None, store: Path | None
) -> dict[str, tuple[bool | None, ...]]:
    """Whether each problem of ``run`` was one in the last runs, from the store that has the run.

    Nothing where that is another store, or cannot be read: the report is whole without it.
    """
    if compared is None or store is None:
        return {}
    try:
        with reading(store) as history:
            if history.token(compared.run) != token_of(run):
                return {}
            return {
                change.key: tuple(
                    None if night.was_seen is None else night.was_seen and night.is_problem
                    for night in history.nights(change.identity)[-SHOWN_NIGHTS:]
                )
                for change in compared.changes
            }
    except HarnessError:
        return {}


def _case_files(directory: Path, console_bytes: int) -> CaseFiles:
    folder = CaseDir(directory)
    problems = []
    account = Account()
    try:
        account = _account(directory)
    except HarnessError as error:
        problems.append(str(error))
    console = _end_of(folder.console, console_bytes)
    return CaseFiles(console, _end_of(folder.command, COMMAND_BYTES).text, account, tuple(problems))


def _end_of(path: Path, limit: int) -> Excerpt:
    """The end of a text; nothing where there is no such file."""
    try:
        with path.open("rb") as file:
            left_out = max(0, file.seek(0, os.SEEK_END) - limit)
            file.seek(left_out)
            return Excerpt(file.read(limit).decode("utf-8", errors="replace"), left_out)
    except OSError:
        return Excerpt()


def divergences_of(run: RunResult, directory: Path) -> dict[int, AlignedPair]:
    """Where two backends part, by the place of each finding that does not depend on time."""
    reader = _Divergences(directory)
    found = {}
    for number, finding in enumerate(run.findings):
        pair = None if finding.status is Status.INFORMATIONAL else pair_of(finding, run)
        if pair is not None:
            found[number] = reader.divergence(finding, *pair)
    return found


class _Divergences:
    """Reads pairs of cases, each pair and each log once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known = cache(KnownDifferences.shipped)
        self._aligned: dict[tuple[str, str], AlignedPair] = {}
        self._logs = cache(self._read_logs)

    def divergence(self, finding: Finding, a: CaseResult, b: CaseResult) -> AlignedPair:
        pair = a.id, b.id
        if pair not in self._aligned:
            self._aligned[pair] = self._align(a, b)
        return replace(self._aligned[pair], log=self._log_parting(finding.part, a, b))

    def _align(self, a: CaseResult, b: CaseResult) -> AlignedPair:
        nothing = AlignedPair(PartingSide(a.id, a.backend), PartingSide(b.id, b.backend))
        folders = [self._directory / case.dir for case in (a, b)]
        if not all(CaseDir(folder).events.is_file() for folder in folders):
            return replace(nothing, problem="there are no events of one of them")
        if sum(each.diff is not None for each in self._aligned.values()) >= MAX_ALIGNED:
            return replace(nothing, problem=f"only the first {MAX_ALIGNED} pairs are aligned here")
        try:
            one, other = (read_case(folder) for folder in folders)
            found = diff_cases(one, other, self._known())
        except HarnessError as error:
            return replace(nothing, problem=str(error))
        first = found.first
        if first is None:
            problem = "; ".join(found.warnings) or "the guests did the same as far as events show"
            return replace(nothing, diff=found, problem=problem)
        return AlignedPair(_parting_side(one, a, first.a), _parting_side(other, b, first.b), found)

    def _log_parting(self, part: str, a: CaseResult, b: CaseResult) -> LogParting | None:
        one, other = self._logs(a.dir).get(part), self._logs(b.dir).get(part)
        if one is None or other is None or one.log is None or other.log is None:
            return None
        agrees = one.predicted is None, other.predicted is None
        return log_parting(one.log.splitlines(), other.log.splitlines(), agrees)

    def _read_logs(self, name: str) -> Mapping[str, ScenarioLog]:
        try:
            return read_scenarios(self._directory / name)
        except HarnessError:
            return {}


MESSAGES: Final = frozenset({"kvm_apic_accept_irq", "apic_deliver_irq", "apic_local_deliver"})
"""The events of messages to a local APIC, and of its own entries."""


def _parting_side(
    recorded: RecordedCase, case: CaseResult, context: EventContext | None
) -> PartingSide:
    events = tuple(read_events(recorded.directory))
    begin_ns = events[0].time_ns if events else 0
    messages_ns = tuple(e.time_ns - begin_ns for e in events if e.name in MESSAGES)
    side = PartingSide(case.id, case.backend, context, messages_ns=messages_ns)
    if context is None:
        return side
    registers = registers_around(
        events,
        context.at,
        recorded.described.irqchip,
        smp=recorded.described.smp,
        ioapics=recorded.ioapics,
    )
    return replace(side, registers=registers, at_ns=events[context.at].time_ns - begin_ns)
