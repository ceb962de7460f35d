"""A recording judged as a run judges it: with its evidence written to the case's folder."""

from __future__ import annotations

from harness.model import manifest
from harness.model.layout import CaseDir
from harness.model.verdict import CaseResult
from harness.record import recording_file
from harness.record.recording import Recording
from harness.run import judging


def judge(recording: Recording, *, keep_raw: bool = True) -> CaseResult:
    """The result of ``recording``; a ``case.json`` is written where the test wrote none."""
    folder = recording.directory
    if not (folder / CaseDir.manifest).exists():
        manifest.write(folder, manifest.describe(recording.case, qemu="7.2.22", linux="6.1.192"))
    (folder / CaseDir.console).write_text(recording.console)
    recording_file.write(recording)
    return judging.judge_folder(folder, keep_raw=keep_raw)
