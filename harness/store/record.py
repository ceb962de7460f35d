"""What is entered of a run: computed from its result and its counters before the store is open."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.analyse.case_evidence import read_counters
from harness.analyse.storm import find_storms
from harness.base.errors import CollectError
from harness.compare.diff import Sample
from harness.model import policy
from harness.model.case import Accel, Host
from harness.model.counters import CounterSet
from harness.model.layout import CaseDir
from harness.model.policy import Weight
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.store.history import BackendVersions
from harness.store.identity import RunSightings
from harness.store.result import RunResult
from harness.store.sightings import Lanes, role_of, seen_in

METRIC: Final = "metric/"
"""Before the name of a metric."""
STORM: Final = "storm/"
"""Before the path of a counter that ran away; its value is the rate in hertz."""


@dataclass(frozen=True)
class MeasuredValue:
    """A value of a part of a case; ``floor`` is how far it may vary in any case.

    None where that depends on timing: then it has no band.
    """

    case: str
    part: str
    name: str
    source: str
    value: float
    floor: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """All that is entered of a run when it has ended."""

    result: RunResult
    seen: RunSightings
    roles: Mapping[str, str]
    """The role of each backend, by its name."""
    versions: Mapping[str, BackendVersions]
    """What each case ran on, by its id."""
    measured: tuple[MeasuredValue, ...]

    @property
    def token(self) -> str:
        """Which run it is."""
        return token_of(self.result)


def token_of(result: RunResult) -> str:
    """Which run it is: its own token, or a hash of what an older irqmatrix left of it."""
    token = result.environment.get("token")
    if isinstance(token, str):
        return token
    text = json.dumps([result.name, result.environment], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def record_of(result: RunResult, directory: Path, lanes: Lanes) -> RunRecord:
    """What is entered of ``result``, whose cases are in folders of ``directory``."""
    return RunRecord(
        result,
        seen_in(result, lanes),
        {case.backend: role_of(case.axes, lanes) for case in result.cases},
        {case.id: _versions(case, result.environment) for case in result.cases},
        tuple(each for case in result.cases for each in _measured(case, directory / case.dir)),
    )


def _versions(case: CaseResult, environment: Mapping[str, object]) -> BackendVersions:
    """What the names of QEMU and kernel stood for."""
    axes = case.axes
    qemu = _of(environment, "qemu", axes.get("qemu"))
    if axes.get("accel") == Accel.TCG:
        return BackendVersions(qemu, None)
    if axes.get("host") == Host.LOCAL:
        found = environment.get("kernel")
        return BackendVersions(qemu, None if found is None else str(found))
    return BackendVersions(qemu, _of(environment, "lab_kernel", axes.get("lab_kernel")))


def _of(environment: Mapping[str, object], key: str, name: str | int | None) -> str | None:
    versions = environment.get(key)
    if not isinstance(versions, Mapping):
        return None
    found = versions.get(name or "default")
    return None if found is None else str(found)


def _measured(case: CaseResult, directory: Path) -> Iterator[MeasuredValue]:
    """Metrics, the counters that work determines, and the rates of storms."""
    parts = [part for part in case.parts if part.metrics]
    if not parts:
        return
    try:
        sets = read_counters(CaseDir(directory).counters)
    except CollectError:
        sets = {}
    for part in parts:
        for name, value in part.metrics.items():
            if isinstance(value, int | float):
                yield MeasuredValue(case.id, part.id, METRIC + name, "guest", float(value))
        if part.id in sets:
            yield from _counted(case.id, part, sets[part.id])


def _counted(case: str, part: PartResult, counters: CounterSet) -> Iterator[MeasuredValue]:
    total = counters.without_cpus()
    sample = Sample(total, part.metrics)
    work = policy.work_policy(part.id)
    for key, value in total.values.items():
        rule = policy.counter_policy(part.id, key.path, key.source)
        if rule.weight is Weight.COMPARED:
            floor = max(
                rule.floor, rule.floor_hz * sample.duration_s, rule.tolerance * float(value)
            )
            yield MeasuredValue(case, part.id, key.path, key.source, value, floor)
        elif work is not None and key.source == "guest" and work.owns(key.path):
            yield MeasuredValue(case, part.id, key.path, key.source, value)
    if part.verdict is Verdict.STORM:
        for storm in find_storms(part.id, sample, total):
            yield MeasuredValue(case, part.id, STORM + storm.counter, storm.source, storm.rate_hz)
