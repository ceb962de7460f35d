"""The backends of every subject of a run: results and files in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.analyse.case_evidence import read_counters
from harness.analyse.conformance import read_logs
from harness.base.versions import Version, parse_version
from harness.compare.diff import Comparison, Measurement, Sample, Subject, diff
from harness.compare.expectations import RuleResult, rules_due
from harness.compare.finding import Finding, findings
from harness.compare.known import BackendFacts, KnownDifferences
from harness.compare.partition import Axes
from harness.guests.kinds.base import Part
from harness.guests.kinds.table import kind_named, kind_of
from harness.model.case import Accel, Backend, Case, Host, Irqchip, Vmm
from harness.model.layout import CaseDir
from harness.model.verdict import Blame, CaseResult, Verdict
from userspace_chip.profile import profile, qemu_at

NO_KVM = "TCG"
"""What stands on the axis of Linux, whose KVM it is, where there is no KVM."""


_NOT_COMPARED: Final = frozenset({Verdict.SKIP, Verdict.ERROR, Verdict.INCOMPLETE})


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
        qemu = whose_chips(backend.vmm, backend.irqchip, self.qemu.get(backend.qemu))
        return BackendFacts(backend.irqchip, case.machine, qemu, linux, lab)

    def axes(self, backend: Backend) -> Axes:
        """The values of ``backend`` on the axes of a finding."""
        if backend.accel is Accel.TCG:
            linux = NO_KVM
        elif backend.host is Host.LOCAL:
            linux = "-" if self.local_kernel is None else short(self.local_kernel)
        else:
            linux = _called(backend.kernel or "default", self.kernel)
        return {
            "irqchip": backend.mode,
            "QEMU": _called(backend.qemu, self.qemu),
            "Linux": linux,
            "host": backend.host.value,
        }


def whose_chips(vmm: Vmm, irqchip: Irqchip, qemu: Version | None) -> Version | None:
    """The QEMU whose chips a case ran: the live ones are of the latest modelled that is not later,
    in ``off`` of the last that has it."""
    if vmm is Vmm.QEMU or qemu is None:
        return qemu
    modelled = profile("off").qemu if irqchip is Irqchip.OFF else qemu_at(qemu)
    return parse_version(modelled)


def short(version: Version) -> str:
    """A version as people speak of it: ``7.2``."""
    return ".".join(map(str, version[:2]))


def _called(name: str, versions: Mapping[str, Version]) -> str:
    """The version in ``name``, as long as it has to be; the name where that is not enough."""
    version = versions.get(name)
    if version is None:
        return name
    others = [found for other, found in versions.items() if other != name]
    if version[:2] not in [found[:2] for found in others]:
        return short(version)
    return name if version in others else ".".join(map(str, version))


@dataclass(frozen=True)
class RunComparison:
    """What a run's comparison gave: what was compared, what differs, the rules that were due."""

    comparisons: tuple[Comparison, ...]
    findings: tuple[Finding, ...]
    rules: tuple[RuleResult, ...]


def compare(
    cases: Iterable[Case],
    results: Iterable[CaseResult],
    versions: Versions,
    known: KnownDifferences,
    out: Path,
) -> RunComparison:
    """Compare all backends that ran the same subject; repeats are samples of one."""
    by_id = {case.id: case for case in cases}
    subjects: dict[str, dict[str, list[CaseResult]]] = {}
    for result in results:
        died_with_lab = result.verdict is Verdict.CRASH and result.blame is Blame.LAB
        if result.verdict not in _NOT_COMPARED and not died_with_lab:
            subjects.setdefault(result.subject, {}).setdefault(result.backend, []).append(result)
    compared = []
    for backends in subjects.values():
        if len(backends) > 1:
            first = by_id[next(iter(backends.values()))[0].id]
            measured = [
                _measurement(repeats, by_id, versions, out) for repeats in backends.values()
            ]
            compared.append(diff(subject_of(first), measured, known))
    pairs = [pair for each in compared for pair in each.pairs]
    return RunComparison(
        tuple(each.comparison for each in compared), findings(compared), rules_due(known, pairs)
    )


def subject_of(case: Case) -> Subject:
    """What of ``case`` has to be equal for two cases to be compared, with its axes."""
    own = {"machine": case.machine.value, "smp": str(case.smp), "CPU": case.cpu}
    part = kind_of(case.guest).part
    return Subject(case.subject, case.family, case.guest.name, own, part)


def _measurement(
    repeats: Sequence[CaseResult], by_id: Mapping[str, Case], versions: Versions, out: Path
) -> Measurement:
    first = repeats[0]
    case = by_id[first.id]
    samples: dict[str, list[Sample]] = {}
    for result in repeats:
        counters = read_counters(CaseDir(out / result.dir).counters)
        for part in result.parts:
            if part.id in counters and part.metrics:
                sample = Sample(counters[part.id], part.metrics)
                samples.setdefault(part.id, []).append(sample)
    reported = _reported(first, out)
    return Measurement(
        first.backend,
        versions.facts(case.backend, case),
        samples,
        {**reported, **first.observations},
        versions.axes(case.backend),
        tuple(reported),
        ended_text(first.verdict, first.status),
    )


def ended_text(verdict: Verdict, status: int | None) -> str:
    """How a guest ended, in a word or two."""
    return verdict.value if status is None else f"status {status}"


def _reported(result: CaseResult, out: Path) -> Mapping[str, str | None]:
    """The results of checks, or the logs of scenarios, in the guest's order."""
    part = kind_named(result.guest).part
    if part is Part.SCENARIO:
        return read_logs(out / result.dir, conclusive=True)
    if part is Part.CHECK:
        reported = (part for part in result.parts if part.verdict is not Verdict.ERROR)
        return {part.id: part.verdict.value for part in reported}
    return {}
