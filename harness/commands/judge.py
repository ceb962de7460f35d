"""``irqmatrix judge``: recorded runs and cases judged anew, reproducers among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.compare.known import KnownDifferences
from harness.config.lanes import Lane
from harness.model.case import Case
from harness.repro import catalogue, regressions
from harness.repro.regressions import Regression
from harness.run.rejudge import RejudgedRun, rejudge
from harness.store.result import RunResult


def judge(path: Path, known: KnownDifferences, *, write: bool) -> RejudgedRun:
    """Judge what is recorded in ``path``; errors as of :func:`harness.run.rejudge.rejudge`."""
    return rejudge(path, known, write=write, finish=_assessed)


def _assessed(found: RunResult, cases: Mapping[str, Case], out: Path) -> RunResult:
    """``found`` with what their entries say of the cases of reproducers.

    One that the run reproduced again keeps what was said then: that is a run of its own.
    """
    again = {case.id for case in found.cases if case.first_time is not None}
    once = [case for id_, case in cases.items() if case.group and id_ not in again]
    return regressions.judged(found, _regressions(once), out)


def _regressions(cases: Iterable[Case]) -> Iterable[Regression]:
    """The reproducers that ``cases`` are of, by entry and pair of versions."""
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        kernel = case.backend.kernel or "default"
        groups.setdefault((case.group, kernel, case.backend.qemu), []).append(case)
    shipped = catalogue.shipped()
    for (group, kernel, qemu), own in groups.items():
        name = group.removeprefix(regressions.GROUP)
        if name in shipped:
            yield Regression(catalogue.load(shipped[name]), Lane(kernel, qemu), tuple(own))
