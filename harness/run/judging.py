"""From a recording to its case's result, by way of the files of the case's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.analyse import judge
from harness.analyse.case_evidence import CaseEvidence
from harness.base.errors import HarnessError
from harness.model import manifest
from harness.model.layout import CaseDir
from harness.model.manifest import CaseFile
from harness.model.verdict import CaseResult
from harness.record import recording_file
from harness.record.recording import Recording
from harness.replay.replay import Replayed, replay_log
from harness.store import case_folder

MAX_REPLAYED_LINES: Final = 250_000
"""Of a case's events; about two seconds.  ``irqmatrix replay`` has no limit."""


def judge_folder(directory: Path, *, keep_raw: bool = True) -> CaseResult:
    """The result of the case that was recorded in ``directory``; its evidence is written there.

    Without ``keep_raw`` the raw traces, which were analysed, are removed then.  Errors are those of
    :func:`harness.record.recording_file.load` and :func:`harness.store.case_folder.analysed`.
    """
    recording = recording_file.load(directory)
    found = judged(recording, manifest.read(directory), directory)
    if not keep_raw:
        recording_file.drop_traces(recording)
    return found


def judged(recording: Recording, described: CaseFile, directory: Path) -> CaseResult:
    """The same with the evidence written to ``directory``, which may be any."""
    evidence = case_folder.analysed(recording, described, directory)
    replayed = None
    if judge.is_replayed(recording, evidence):
        replayed = _replayed(evidence, directory)
    return judge.judge(recording, evidence, replayed)


def _replayed(evidence: CaseEvidence, directory: Path) -> Replayed | HarnessError:
    path = CaseDir(directory).events
    try:
        return replay_log(path, evidence.described, evidence.looks, max_lines=MAX_REPLAYED_LINES)
    except HarnessError as error:
        return error
