"""Every backend against every other, for each subject of a run: measurements in, diffs out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.analyse.case_evidence import read_counters
from harness.analyse.conformance import read_logs
from harness.base.versions import Version
from harness.compare.diff import DiffResult, Measurement, Sample, diff
from harness.compare.expectations import Compared, RuleResult, rules_due
from harness.compare.known import BackendFacts, KnownDifferences
from harness.model.case import Accel, Backend, Case, Host
from harness.model.verdict import Blame, CaseResult, Verdict


@dataclass(frozen=True)
class Versions:
    """What the names of QEMUs and lab kernels stand for in this run, and this machine's kernel."""

    qemu: Mapping[str, Version]
    kernel: Mapping[str, Version]
    local_kernel: Version | None
    lab_qemu: Version | None = None
    """Of the QEMU whose TCG is the labs' hardware; None where a KVM runs them."""

    def facts(self, backend: Backend, case: Case) -> BackendFacts:
        """What rules may ask of ``backend``."""
        if backend.accel is Accel.TCG:
            linux = None
        elif backend.host is Host.LOCAL:
            linux = self.local_kernel
        else:
            linux = self.kernel.get(backend.kernel or "default")
        lab = self.lab_qemu if backend.host is Host.LAB else None
        qemu = self.qemu.get(backend.qemu)
        return BackendFacts(backend.irqchip, case.machine, qemu, linux, lab)


@dataclass(frozen=True)
class Comparison:
    """All differences of a run, and the known ones that were due in it."""

    diffs: tuple[DiffResult, ...]
    rules: tuple[RuleResult, ...]


def compare(
    cases: Iterable[Case],
    results: Iterable[CaseResult],
    versions: Versions,
    known: KnownDifferences,
    out: Path,
) -> Comparison:
    """Compare all pairs of backends that ran the same subject; repeats are samples of one."""
    by_id = {case.id: case for case in cases}
    subjects: dict[str, dict[str, list[CaseResult]]] = {}
    for result in results:
        died_with_lab = result.verdict is Verdict.CRASH and result.blame is Blame.LAB
        if result.verdict not in (Verdict.SKIP, Verdict.ERROR) and not died_with_lab:
            subjects.setdefault(result.subject, {}).setdefault(result.backend, []).append(result)
    compared: list[Compared] = []
    for subject, backends in subjects.items():
        measured = [
            _measurement(name, repeats, by_id, versions, out) for name, repeats in backends.items()
        ]
        guest = subject.split("/", 1)[0]
        for one, other in itertools.combinations(measured, 2):
            found = diff(subject, guest, one, other, known)
            compared.append(Compared(found, one.facts, other.facts, guest))
    return Comparison(tuple(each.diff for each in compared), rules_due(known, compared))


def _measurement(
    backend: str,
    repeats: Sequence[CaseResult],
    by_id: Mapping[str, Case],
    versions: Versions,
    out: Path,
) -> Measurement:
    case = by_id[repeats[0].id]
    samples: dict[str, list[Sample]] = {}
    for result in repeats:
        counters = read_counters(out / result.dir / "counters.json")
        for part in result.parts:
            if part.id in counters and part.metrics:
                sample = Sample(counters[part.id], part.metrics)
                samples.setdefault(part.id, []).append(sample)
    checks = _checks(repeats[0], out)
    return Measurement(backend, versions.facts(case.backend, case), samples, checks)


def _checks(result: CaseResult, out: Path) -> Mapping[str, str | None]:
    """The results of a flat image's checks or the logs of scenarios, and what the monitor told."""
    if result.guest == "probe":
        return read_logs(out / result.dir, conclusive=True)
    flat = {part.id: part.verdict.value for part in result.parts if result.guest == "flat"}
    return flat | dict(result.observations)
