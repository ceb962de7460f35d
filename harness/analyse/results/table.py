"""What the results are of which kind of guest."""

from __future__ import annotations

from typing import Any, Final

from harness.analyse.results.base import Results
from harness.analyse.results.flat import FlatResults
from harness.analyse.results.linux import LinuxResults
from harness.analyse.results.probe import ProbeResults
from harness.record.recording import Recording

RESULTS: Final[dict[str, type[Results[Any]]]] = {
    "linux": LinuxResults,
    "flat": FlatResults,
    "probe": ProbeResults,
}


def results_of(recording: Recording) -> Results[Any]:
    """The results of the guest that was recorded."""
    guest = recording.case.guest
    return RESULTS[guest.kind](guest, recording)
