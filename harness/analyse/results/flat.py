"""What becomes of a flat image: from its console and its end to its parts and its verdict.

An image ends by the exit device, by the last line of its protocol, or by a reset or power-off.  It
passes only where its checks were reported, all that it announced of them, and no other status was
given: one that checked nothing is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

from harness.analyse.case_evidence import CaseEvidence
from harness.analyse.results.base import Results
from harness.analyse.ruling import Ruling
from harness.guests import flat, last_words, protocol_files, protocols
from harness.guests.protocols import ReportedCheck, Result, Said
from harness.model.case import WHOLE_CASE, FlatGuest
from harness.model.protocol import LineKind
from harness.model.verdict import Blame, PartResult, Verdict
from harness.record.recording import Recording

IMAGE: Final = "image"
"""The part of an image that skipped itself, or that reports by its exit status only."""
_VERDICTS: Final[Mapping[Result, Verdict]] = {
    Result.PASS: Verdict.PASS,
    Result.SKIP: Verdict.SKIP,
    Result.FAIL: Verdict.FAIL,
}
_ENDINGS: Final[Mapping[str | None, str]] = {
    "guest-reset": "reset",
    "guest-shutdown": "powered off",
    "guest-panic": "panicked",
}


class FlatResults(Results[FlatGuest]):
    """A part for each check that was reported."""

    @cached_property
    def said(self) -> Said:
        """What the image reported."""
        if not self.guest.has_checks:
            return Said(None)
        candidates = protocol_files.candidates(self.guest.protocol)
        return protocols.recognise(self.recording.console, candidates)

    @property
    def reached(self) -> str | None:
        """By its plan, where it reports at all."""
        return None if self.said.protocol is None else str(self.said.plan)

    def parts(self, evidence: CaseEvidence, failure: Ruling | None) -> tuple[PartResult, ...]:
        """The checks; of an image that ended well, those that are missing, too."""
        checks = self.said.checks
        found = [self._part(check) for check in checks]
        if not found and failure is None and (whole := self._whole()) is not None:
            found = [whole]
        if failure is None:
            names = {WHOLE_CASE} | {name for check in checks for name in (check.id, check.label)}
            names |= {part.id for part in found}
            found += [
                PartResult(
                    name,
                    Verdict.ERROR,
                    "the image did not report it",
                    Verdict(expected),
                    blame=Blame.GUEST,
                )
                for name, expected in self.guest.expect.items()
                if name not in names
            ]
        return tuple(found)

    def _part(self, check: ReportedCheck) -> PartResult:
        expected = self.expected(check.id, check.label)
        verdict = _VERDICTS[check.result]
        return PartResult(check.id, verdict, _detail(check), expected, check.metrics)

    def _whole(self) -> PartResult | None:
        """The one part of an image without checks that ended well."""
        expected = self.expected(IMAGE)
        if self.said.skipped is not None:
            return PartResult(IMAGE, Verdict.SKIP, self.said.skipped, expected)
        if self.recording.status == flat.STATUS_SKIP:
            return PartResult(IMAGE, Verdict.SKIP, "the image skipped itself", expected)
        if self.guest.has_checks:
            return None
        return PartResult(IMAGE, Verdict.PASS, "exit value 0", expected)

    def ending(self, words: str, refusal: Ruling) -> Ruling | None:
        """Why an image did not end well that ended, by whatever way."""
        recording, results, status = self.recording, self.said, self.recording.status
        if status is None:
            return _incomplete(results)
        value = flat.exit_value(status)
        if (value is None and status != 0) or _refused(recording, words):
            return refusal
        if value is None:
            return self._went_away()
        if not self.guest.has_checks:
            return _by_status_alone(status, value)
        if status == flat.STATUS_ABORT:
            what = f"the image aborted (exit value {value}) after {results.plan}"
            return Ruling(Verdict.FAIL, _in_its_words(what, recording))
        if status == flat.STATUS_SKIP and not results.checks:
            return None
        if (missing := _incomplete(results)) is not None or results.failed:
            return missing
        if status in (flat.STATUS_PASS, flat.STATUS_SKIP):
            return None
        if status == flat.STATUS_FAIL:
            return Ruling(
                Verdict.FAIL, f"the image ended with exit value {value}, though no check failed"
            )
        why = f"unknown exit value {value} after {results.plan}, of which none failed"
        return _nothing_sure(why)

    def _went_away(self) -> Ruling | None:
        """A reset or power-off: an end where the results are whole, and else a crash."""
        recording, results = self.recording, self.said
        how = _ENDINGS.get(recording.ended_by, "reset or powered off")
        if not self.guest.has_checks:
            return Ruling(Verdict.CRASH, f"{how} instead of using the exit device")
        if results.shortfall() is None and _may_end_so(recording, results):
            return _incomplete(results)
        if results.rivals:
            return _incomplete(results)
        if not results.checks and results.plan.planned is None:
            return Ruling(Verdict.CRASH, _in_its_words(f"{how} before its first check", recording))
        return Ruling(Verdict.CRASH, _in_its_words(f"{how} after {results.plan}", recording))


def _detail(check: ReportedCheck) -> str:
    """Its own line, and what it measured."""
    values = (f"{name} = {value}" for name, value in check.metrics.items())
    return "; ".join((check.line, *values))


def _nothing_sure(why: str) -> Ruling:
    """An image that does not say how it went, so that nothing can be said of the subject."""
    return Ruling(Verdict.ERROR, why, Blame.GUEST)


def _incomplete(results: Said) -> Ruling | None:
    """What the results lack, where they are not all that was announced."""
    if results.aborted is not None:
        return Ruling(Verdict.FAIL, f"gave up after {results.plan}: {results.aborted}")
    if (shortfall := results.shortfall()) is None:
        return None
    if results.rivals:
        return Ruling(Verdict.ERROR, f"{shortfall}; say which one counts, with protocol: NAME")
    if results.failed:
        first = results.failed[0]
        return Ruling(Verdict.FAIL, f"{first.id}: {first.line}; ended after {shortfall}")
    if not results.checks and not results.plan.planned:
        return _nothing_sure(f"{shortfall}: it reported no check")
    return _nothing_sure(f"ended after {shortfall}")


def _in_its_words(what: str, recording: Recording) -> str:
    """``what``, and why, where the image says so: an exception, an assertion."""
    said = last_words.phrases(recording.console)
    return f"{what}; the guest said: {' | '.join(said)}" if said else what


def _may_end_so(recording: Recording, results: Said) -> bool:
    """Whether nothing more was to come: by its plan or last line.

    With a protocol that has neither, an image may power off; a reset may be a triple fault.
    """
    if results.plan.fulfilled or results.ended or results.skipped is not None:
        return True
    protocol = results.protocol
    has_end = protocol is not None and any(map(protocol.has, (LineKind.PLAN, LineKind.END)))
    return not has_end and recording.ended_by == "guest-shutdown"


def _by_status_alone(status: int, value: int) -> Ruling | None:
    if status in (flat.STATUS_PASS, flat.STATUS_SKIP):
        return None
    return Ruling(Verdict.FAIL, f"the image ended with exit value {value}")


def _refused(recording: Recording, words: str) -> bool:
    """Whether QEMU ended before the image ran: it says why, or its monitor never answered.

    With ``--deterministic`` nothing asks a monitor.
    """
    if recording.status not in (0, 1) or recording.console.strip():
        return False
    return bool(words) or not (recording.vcpu_of_thread or recording.case.deterministic)
