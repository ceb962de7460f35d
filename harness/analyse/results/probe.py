"""The scenarios of a probe: what each logged, compared with what the Python chips predict."""

from __future__ import annotations

from collections.abc import Iterable

from harness.analyse import conformance
from harness.analyse.case_evidence import CaseEvidence, ScenarioLog
from harness.analyse.results.base import Results
from harness.analyse.ruling import Ruling, busy
from harness.base.errors import GuestHang
from harness.guests import probe
from harness.model.case import ProbeGuest
from harness.model.manifest import CaseFile
from harness.model.verdict import NOT_REACHED, PartResult, Verdict
from harness.record.recording import Recording


class ProbeResults(Results[ProbeGuest]):
    """A part for each scenario."""

    def compared(self, described: CaseFile) -> Iterable[tuple[str, ScenarioLog, Ruling]]:
        """Each scenario that ran."""
        return conformance.compared(self.recording, self.guest, described)

    def ending(self, words: str, refusal: Ruling) -> Ruling | None:
        """One that came to its end ended well, whatever its QEMU says."""
        return None if probe.is_done(self.recording.console) else super().ending(words, refusal)

    def parts(self, evidence: CaseEvidence, failure: Ruling | None) -> tuple[PartResult, ...]:
        """In their order; what a boot ended in says so itself."""
        rulings = {} if evidence.sources is None else evidence.sources.rulings
        parts: list[PartResult] = []
        for index, scenario in enumerate(self.guest.scenarios):
            found = rulings.get(scenario.name)
            if found is None:
                found = _stalled(self.recording, index, "") or _unreached(self.recording)
            else:
                found = _stalled(self.recording, index, found.detail) or found
            parts.append(found.part(scenario.name, self.expected(scenario.name)))
        return tuple(parts)


def _stalled(recording: Recording, index: int, detail: str) -> Ruling | None:
    """What to say of a scenario that a boot of the probe ended in; None of others."""
    error = recording.stalled.get(index)
    if error is None:
        return None
    verdict = Verdict.HANG if isinstance(error, GuestHang) else Verdict.CRASH
    said = f"{error}{busy(recording)}"
    return Ruling(verdict, f"{said}; {detail}" if detail else said)


def _unreached(recording: Recording) -> Ruling:
    why = "" if recording.failure is None else f": {recording.failure}"
    return Ruling(Verdict.ERROR, f"{NOT_REACHED}{why}")
