"""Reproducers as regression tests of a matrix: run with it, each judged by what its entry says.

The cases of an entry and a pair of versions form a group.  They are not compared with other cases,
and whatever they show is right where the entry as a whole is: what is known to be broken in these
versions shows, and what is not does not.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.base.errors import ConfigError, HarnessError
from harness.base.terminal import Printer
from harness.config.config import RunConfig
from harness.config.lanes import Lane
from harness.model.case import Case
from harness.model.layout import RunDir
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.repro import catalogue
from harness.repro.catalogue import Entry
from harness.repro.reproduce import Answer, Assessment, ReproRequest, assess, reproduce
from harness.run import pipeline as run_module
from harness.run.pipeline import RunRequest
from harness.store.result import RunResult

GROUP: Final = "repro-"
"""Before the entry's id: the name of a group."""


@dataclass(frozen=True)
class Regression:
    """One entry with one pair of versions, and its cases."""

    entry: Entry
    lane: Lane
    cases: tuple[Case, ...]


def planned(config: RunConfig) -> tuple[Regression, ...]:
    """The reproducers that ``config`` names; :class:`ConfigError` for a glob that matches none."""
    if config.repro is None:
        return ()
    files = catalogue.shipped()
    chosen: dict[str, Path] = {}
    for glob in config.repro.entries:
        names = fnmatch.filter(files, glob)
        if not names:
            there = f"there are: {', '.join(files)}"
            raise ConfigError(f"no reproducer matches {glob!r}", None, there, path=config.path)
        chosen |= {name: files[name] for name in names}
    entries = [catalogue.load(path) for path in chosen.values()]
    found = [_regression(entry, lane) for entry in entries for lane in config.repro.lanes]
    # A recipe for this machine alone is the same with every lab kernel.
    return tuple({tuple(case.id for case in one.cases): one for one in found}.values())


def _regression(entry: Entry, lane: Lane) -> Regression:
    group = f"{GROUP}{entry.id}"
    expanded = entry.config(kernel=lane.kernel, qemu=lane.qemu, only=entry.modes)
    cases = tuple(dataclasses.replace(case, group=group) for case in expanded.cases)
    return Regression(entry, lane, cases)


async def run(request: RunRequest, console: Printer, *, quiet: bool) -> tuple[RunResult, Path]:
    """As :func:`harness.run.pipeline.run`, with the reproducers that the configuration names."""
    regressions = planned(request.config)
    if not regressions:
        return await run_module.run(request, console, quiet=quiet)
    cases = {case.id: case for regression in regressions for case in regression.cases}
    config = dataclasses.replace(request.config, cases=(*request.config.cases, *cases.values()))

    async def finish(found: RunResult, out: Path) -> RunResult:
        final = judged(found, regressions, out)
        for regression in regressions:
            if request.config.retries or regression.entry.again:
                final = await _again(final, regression, request.jobs, out, console)
        return final

    request = dataclasses.replace(request, config=config)
    return await run_module.run(request, console, quiet=quiet, finish=finish)


async def _again(
    found: RunResult, regression: Regression, jobs: int, out: Path, console: Printer
) -> RunResult:
    """``found`` after one that is not as expected was reproduced again, as its entry says.

    What the answer was the first time stays with its cases.
    """
    own = {case.id for case in regression.cases}
    wrong = [case for case in found.cases if case.id in own and not case.as_expected]
    if not wrong:
        return found
    entry, lane = regression.entry, regression.lane
    folder = RunDir(out).again / "-".join(filter(None, (entry.id, lane.kernel, lane.qemu)))
    request = ReproRequest(entry, lane.kernel, lane.qemu, folder, jobs, decisive_only=True)
    try:
        assessment = (await reproduce(request, console, quiet=True)).assessment
    except HarnessError as error:
        console.print(f"{entry.id}: not run again: {error}", markup=False, soft_wrap=True)
        return found
    by_id = {case.id: case for case in found.cases}
    for case in wrong:
        *parts, answer = case.parts
        told = _with(dataclasses.replace(case, parts=tuple(parts)), entry, assessment)
        first = f"{answer.verdict}: {answer.detail}"
        by_id[case.id] = dataclasses.replace(told, first_time=first)
    return found.with_cases(by_id[case.id] for case in found.cases)


def judged(found: RunResult, regressions: Iterable[Regression], out: Path) -> RunResult:
    """``found`` with what the entries of ``regressions`` say of their cases in it."""
    by_id = {case.id: case for case in found.cases}
    for regression in regressions:
        own = tuple(by_id[case.id] for case in regression.cases if case.id in by_id)
        if not own:
            continue  # not selected
        assessment = assess(regression.entry, dataclasses.replace(found, cases=own), out)
        by_id |= {case.id: _with(case, regression.entry, assessment) for case in own}
    return found.with_cases(by_id[case.id] for case in found.cases)


def _with(case: CaseResult, entry: Entry, assessment: Assessment) -> CaseResult:
    """The case with the answer as one more part; all else is as the entry expects it."""
    answer = PartResult(entry.id, *_answer(assessment))
    seen = tuple(dataclasses.replace(part, expected=part.verdict) for part in case.parts)
    return dataclasses.replace(
        case, parts=(*seen, answer), expected=case.verdict, as_expected=answer.as_expected
    )


def _answer(assessment: Assessment) -> tuple[Verdict, str]:
    said = f"{assessment.outcome}: {assessment.reason}"
    if assessment.outcome is Answer.CANNOT_RUN:
        return Verdict.SKIP, said
    if assessment.as_expected:
        return Verdict.PASS, said
    if assessment.outcome is Answer.NOT_REPRODUCED:
        return Verdict.FAIL, f"XPASS, it should show in these versions; {said}"
    return Verdict.FAIL, f"it should not show in these versions; {said}"
