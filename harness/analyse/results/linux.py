"""The workloads of a Linux guest: what each reported, and whether its interrupts add up."""

from __future__ import annotations

from harness.analyse.case_evidence import CaseEvidence
from harness.analyse.results.base import Results
from harness.analyse.ruling import Ruling
from harness.analyse.storm import Storm, find_host_storm, find_lost, find_storm
from harness.guests import linux
from harness.model.case import LinuxGuest
from harness.model.verdict import NOT_REACHED, PartResult, Verdict
from harness.record.recording import WorkloadRecord


class LinuxResults(Results[LinuxGuest]):
    """A part for each workload."""

    def parts(self, evidence: CaseEvidence, failure: Ruling | None) -> tuple[PartResult, ...]:
        """In their order; the first that was not run has the failure."""
        case = self.recording.case
        records = {record.name: record for record in self.recording.workloads}
        parts = []
        for name in self.guest.workloads:
            expected = self.expected(name)
            why_not = linux.why_not_runnable(name, case.machine.value, case.smp)
            if why_not is not None:
                parts.append(PartResult(name, Verdict.SKIP, why_not, expected))
            elif name in records:
                parts.append(_workload_part(records[name], evidence, expected, failure))
            elif failure is not None:
                parts.append(failure.part(name, expected))
                failure = Ruling(Verdict.ERROR, NOT_REACHED)
            else:
                parts.append(PartResult(name, Verdict.ERROR, "it was not run", expected))
        return tuple(parts)


def _workload_part(
    record: WorkloadRecord,
    evidence: CaseEvidence,
    expected: Verdict | None,
    failure: Ruling | None,
) -> PartResult:
    name, transcript = record.name, record.transcript
    counters = evidence.counters[name]
    if transcript is None:
        storm = find_host_storm(record.duration_s, counters)
        if storm is not None:
            text = f"{_storm_text(name, storm, evidence)}; the guest makes no progress"
            return PartResult(name, Verdict.STORM, text, expected)
        if failure is None:
            failure = Ruling(Verdict.HANG, f"no answer within {record.duration_s:.0f} s")
        return failure.part(name, expected)
    metrics = dict(transcript.metrics)
    if transcript.status == "skip":
        return PartResult(name, Verdict.SKIP, transcript.reason, expected, metrics)
    if transcript.status != "ok":
        return PartResult(name, Verdict.FAIL, transcript.reason, expected, metrics)
    if (storm := find_storm(name, transcript, counters)) is not None:
        text = _storm_text(name, storm, evidence)
        if transcript.metrics.get("nobody_cared") == 1:
            text += '; the guest\'s kernel says "nobody cared"'
        return PartResult(name, Verdict.STORM, text, expected, metrics)
    if (lost := find_lost(name, transcript, counters)) is not None:
        return PartResult(name, Verdict.LOST, str(lost), expected, metrics)
    return PartResult(name, Verdict.PASS, "", expected, metrics)


def _storm_text(workload: str, storm: Storm, evidence: CaseEvidence) -> str:
    """The storm, and when it began where a trace shows that."""
    onset_s = None
    if storm.pin is not None and evidence.sources is not None:
        onset_s = evidence.sources.onsets_s.get(workload, {}).get(storm.pin)
    return str(storm) if onset_s is None else f"{storm}, from {onset_s:.2f} s on"
