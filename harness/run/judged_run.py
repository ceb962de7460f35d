"""The cases of a run: recorded, judged, and recorded again where they are not as expected."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from harness.base.errors import CannotRun, HostError, StoreError
from harness.config.config import RunConfig
from harness.model.case import Case
from harness.model.layout import RunDir
from harness.model.verdict import Blame, CaseResult, Verdict, of_case
from harness.record.recording import Recording
from harness.run.executor import Recorder
from harness.run.progress import Progress
from harness.run.scheduler import Failed, Preparation, guarded
from harness.run.waiting import Prepared
from harness.store import case_folder

Judge: TypeAlias = Callable[[Recording], Coroutine[None, None, CaseResult]]


class JudgedRun:
    """One run, whose recordings ``recorder`` makes; ``settled`` is called for each result.

    Whatever happens to one case is its result.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        recorder: Recorder,
        progress: Progress,
        judge: Judge,
        settled: Callable[[CaseResult], None],
    ) -> None:
        self._config = config
        self._out = out
        self._recorder = recorder
        self._progress = progress
        self._judge = judge
        self._settled = settled
        self._judges = asyncio.Semaphore(len(os.sched_getaffinity(0)))
        self._first_times: dict[str, str] = {}
        self.results: dict[str, CaseResult] = {}

    async def run(self, preparation: Preparation) -> None:
        """Run everything; :attr:`results` has the result of every case then."""
        items = preparation.prepared
        for case in self._config.cases:
            if (error := preparation.failed.get(case.id)) is not None:
                self._settle(_without_run(Failed(case, error)))
        for item in items:
            if item.skip is not None:
                self._settle(of_case(item.case, Verdict.SKIP, item.skip, 0.0))
        await self._recorder.record(_able(items), self._take)
        for _ in range(self._config.retries):
            again = [item for item in items if self._is_for_another_time(item.case)]
            if not again:
                break
            self._progress.note(f"{len(again)} not as expected: run again")
            for item in again:
                self._set_aside(item.case)
            await self._recorder.record(again, self._take)

    def _is_for_another_time(self, case: Case) -> bool:
        return not self.results[case.id].as_expected and not self._recorder.ends_labs(case)

    def _set_aside(self, case: Case) -> None:
        """Keep what a case was and left the first time, which is the one that is of interest."""
        outcome = self.results[case.id]
        folder, kept = self._out / outcome.dir, RunDir(self._out).first_time / outcome.dir
        if outcome.id in self._first_times:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            self._first_times[outcome.id] = f"{outcome.verdict}: {outcome.detail}"
            with contextlib.suppress(OSError):
                kept.parent.mkdir(exist_ok=True)
                folder.rename(kept)
        again = replace(incomplete(case), first_time=self._first_times[case.id])
        self.results[case.id] = again
        self._settled(again)

    async def _take(self, recorded: Recording | Failed) -> None:
        """Judge what was recorded."""
        if isinstance(recorded, Failed):
            self._settle(_without_run(recorded))
            return
        case, started = recorded.case, time.monotonic()
        self._progress.step(case.id, "judging")
        async with self._judges:
            found = await guarded(case, self._out, self._judge(recorded))
        if isinstance(found, Failed):
            duration_s = recorded.duration_s + time.monotonic() - started
            found = _without_run(replace(found, duration_s=duration_s))
        self._settle(found)

    def _settle(self, outcome: CaseResult) -> None:
        outcome = replace(outcome, first_time=self._first_times.get(outcome.id))
        self.results[outcome.id] = outcome
        self._settled(outcome)
        directory = self._out / outcome.dir
        try:
            directory.mkdir(parents=True, exist_ok=True)
            case_folder.write_verdict(directory, outcome)
        except (OSError, StoreError) as error:
            self._progress.note(f"{outcome.id}: no verdict.json: {error}")
        self._progress.done(outcome)


def _able(items: Iterable[Prepared]) -> list[Prepared]:
    return [item for item in items if item.skip is None]


def incomplete(case: Case) -> CaseResult:
    """What is known of a case before it has ended."""
    why = "the run ended before it"
    return of_case(case, Verdict.INCOMPLETE, why, 0.0, as_expected=False, blame=Blame.HARNESS)


def _without_run(failed: Failed) -> CaseResult:
    """A case that could not be run or judged; that says nothing of its subject."""
    error = failed.error
    if isinstance(error, CannotRun):
        return of_case(failed.case, Verdict.SKIP, str(error), failed.duration_s)
    blame = Blame.LAB if isinstance(error, HostError) else Blame.HARNESS
    return of_case(
        failed.case,
        Verdict.ERROR,
        str(error),
        failed.duration_s,
        as_expected=False,
        blame=blame,
    )
