"""What a recording says of its guest, whatever its kind: one class for each, and its defaults.

Those that there are stand in :data:`harness.analyse.results.table.RESULTS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic

from harness.analyse.case_evidence import CaseEvidence, ScenarioLog
from harness.analyse.ruling import Ruling
from harness.guests.kinds.base import GuestT
from harness.model.manifest import CaseFile
from harness.model.verdict import PartResult, Verdict
from harness.record.recording import Recording


class Results(ABC, Generic[GuestT]):
    """The results of one guest, as far as it was recorded."""

    def __init__(self, guest: GuestT, recording: Recording) -> None:
        self.guest = guest
        self.recording = recording

    @abstractmethod
    def parts(self, evidence: CaseEvidence, failure: Ruling | None) -> tuple[PartResult, ...]:
        """What became of each part; ``failure`` is what became of the guest as a whole."""

    def compared(self, described: CaseFile) -> Iterable[tuple[str, ScenarioLog, Ruling]]:
        """The logs of scenarios by name, and what each is, compared with its prediction."""
        return ()

    def ending(self, words: str, refusal: Ruling) -> Ruling | None:
        """Why it did not end well, where it did end; None where its parts decide.

        ``words`` are what QEMU said on stderr, and ``refusal`` the verdict where that ended by
        itself.
        """
        return None if self.recording.status in (None, 0) else refusal

    @property
    def reached(self) -> str | None:
        """How far it got, to be said of one that failed: ``3 of 5 checks``."""
        return None

    def expected(self, *names: str) -> Verdict | None:
        """What the configuration says that the first of ``names`` has to be, where it says so."""
        expect = self.guest.expect
        return next((Verdict(expect[name]) for name in names if name in expect), None)
