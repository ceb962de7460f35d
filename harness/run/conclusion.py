"""From the results of the cases to the result of their run: pure on what is in the folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from harness.base.versions import parse_version
from harness.compare import subjects
from harness.compare.known import KnownDifferences
from harness.compare.subjects import RunComparison, Versions
from harness.model.case import Accel, Case, Host
from harness.model.manifest import CaseFile
from harness.model.verdict import CaseResult
from harness.store import result
from harness.store.result import Nowhere, RunResult


def compare_matrix(
    cases: Iterable[Case],
    results: Iterable[CaseResult],
    versions: Versions,
    known: KnownDifferences,
    out: Path,
) -> RunComparison:
    """What differs between the backends of the matrix, whose folders are in ``out``."""
    # What belongs to a reproducer is judged by that, and meant to differ.
    matrix = {case.id: case for case in cases if not case.group}
    of_matrix = [found for found in results if found.id in matrix]
    return subjects.compare(matrix.values(), of_matrix, versions, known, out)


NOT_COMPARED: Final = RunComparison((), (), ())
NOT_ASKED: Final = Nowhere()


def run_result(
    name: str,
    environment: Mapping[str, object],
    cases: tuple[CaseResult, ...],
    compared: RunComparison = NOT_COMPARED,
    nowhere: Nowhere = NOT_ASKED,
) -> RunResult:
    """The result of a run of ``cases``."""
    return RunResult(
        schema=result.SCHEMA,
        name=name,
        environment=dict(environment),
        cases=cases,
        comparisons=compared.comparisons,
        findings=compared.findings,
        rules=compared.rules,
        nowhere=nowhere,
        summary=result.summarised(cases, compared.findings, nowhere),
    )


def recorded_versions(cases: Iterable[tuple[Case, CaseFile]]) -> Versions:
    """What the names of QEMUs and kernels stood for when ``cases`` ran."""
    found = Versions({}, {}, None)
    for case, described in cases:
        backend = case.backend
        qemu = {**found.qemu, backend.qemu: parse_version(described.qemu)}
        kernel, local = dict(found.kernel), found.local_kernel
        if described.linux is not None and backend.accel is Accel.KVM:
            version = parse_version(described.linux.split("-")[0])
            if backend.host is Host.LOCAL:
                local = version
            else:
                kernel[backend.kernel or "default"] = version
        found = Versions(qemu, kernel, local)
    return found
