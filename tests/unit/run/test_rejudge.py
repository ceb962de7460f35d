"""Recordings judged anew: the same as the run said, where neither they nor the rules changed."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from harness.analyse.analyse import analyse
from harness.analyse.case_evidence import load
from harness.base import resources
from harness.base.errors import StoreError
from harness.compare.known import KnownDifferences
from harness.model import manifest
from harness.model.layout import CaseDir
from harness.model.verdict import Verdict
from harness.record import recording_file
from harness.run.judging import judge_folder
from harness.run.rejudge import rejudge
from harness.store import case_folder, result
from support import golden

RECORDINGS = golden.TESTS / "golden" / "recordings"
MATRIX = RECORDINGS / "matrix"
FOLDERS = sorted(path.parent for path in MATRIX.glob("*/recording.json"))
LINUX = RECORDINGS / "linux-tcg"
EVENTS = (CaseDir.events,)
"""All that is new: the fixtures have none."""
MODES = ("lab-kvm-on", "lab-kvm-split", "lab-kvm-off", "local-tcg")


def copy_of(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / source.name))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def known():
    return KnownDifferences.shipped()


@pytest.fixture(scope="module")
def matrix(known):
    """The run, judged anew where it lies."""
    return rejudge(MATRIX, known)


def test_golden_recordings_are_of_every_mode_and_of_two_kinds_of_guests(matrix):
    found = {(case.result.guest, case.result.backend) for case in matrix.cases}
    assert found == {(guest, mode) for guest in ("flat", "probe") for mode in MODES}


def test_recordings_of_all_modes_give_the_files_that_the_run_wrote_byte_for_byte(matrix):
    assert {case.id: case.changed for case in matrix.cases} == dict.fromkeys(
        (case.id for case in matrix.cases), EVENTS
    )
    assert not any(case.changes for case in matrix.cases)


def test_recordings_of_all_modes_give_the_findings_of_the_run_byte_for_byte(matrix):
    assert matrix.findings == ()
    assert result.dump(matrix.result) == (MATRIX / "result.json").read_text()


def test_recording_of_a_linux_guest_gives_its_ledger_replay_and_verdict(known):
    (case,) = rejudge(LINUX, known).cases
    assert (case.changed, case.changes) == (EVENTS, ())
    assert "ledger: balances" in case.result.full_detail
    assert "replay: 0 divergences in 18371 events" in case.result.full_detail


def test_judging_without_write_leaves_everything_as_it_was(tmp_path, known):
    folder = copy_of(MATRIX, tmp_path)
    before = contents(folder)
    rejudge(folder, known)
    assert contents(folder) == before


def test_run_without_a_rule_of_the_known_differences_has_new_findings(tmp_path):
    shutil.copytree(resources.configs() / "known", tmp_path / "known")
    path = tmp_path / "known" / "scenarios-ioapic.yaml"
    document = yaml.safe_load(path.read_text())
    document["rules"] = [
        rule for rule in document["rules"] if rule["id"] != "ioapic-no-edge-detection"
    ]
    path.write_text(yaml.safe_dump(document))

    found = rejudge(MATRIX, KnownDifferences.in_folders([tmp_path / "known"]))

    assert found.exit_status == 1
    assert len(found.result.comparisons) == len(found.before.comparisons)
    assert any(
        text.startswith("+ unexplained") and "ioapic-edge-raised-again-without-lowering" in text
        for text in found.findings
    )
    assert any(
        text.startswith("- known") and "ioapic-no-edge-detection" in text for text in found.findings
    )


def test_verdict_that_the_run_gave_otherwise_is_told_and_written_where_asked(tmp_path, known):
    folder = copy_of(FOLDERS[0], tmp_path)
    path = folder / "verdict.json"
    good = path.read_bytes()
    path.write_text(json.dumps(json.loads(good) | {"verdict": "pass", "detail": ""}))

    (case,) = rejudge(folder, known, write=True).cases

    assert set(case.changed) == {"events.jsonl", "verdict.json"}
    assert case.changes == ("pass -> fail: '' -> 'two: FAIL: two'",)
    assert path.read_bytes() == good
    assert rejudge(folder, known).exit_status == 0


def test_part_that_the_run_gave_otherwise_is_named(tmp_path, known):
    folder = copy_of(FOLDERS[0], tmp_path)
    path = folder / "verdict.json"
    document = json.loads(path.read_text())
    document["parts"][2]["verdict"] = "pass"
    path.write_text(json.dumps(document))
    (case,) = rejudge(folder, known).cases
    assert case.changes == ("three: pass -> skip",)


def test_case_of_a_killed_run_is_incomplete_and_the_others_are_judged(tmp_path, known):
    """As a kill leaves it: no recording and no verdict of what ran, none at all of the rest."""
    folder = copy_of(MATRIX, tmp_path)
    (folder / FOLDERS[0].name / CaseDir.recording).unlink()
    (folder / FOLDERS[0].name / "verdict.json").unlink()
    (folder / "result.json").unlink()

    found = rejudge(folder, known)

    assert [case.verdict for case in found.cases].count(Verdict.INCOMPLETE) == 1
    assert "has no recording.json" in found.cases[0].missing
    assert found.cases[0].id == "flat-three/q35/qemu64/smp1/lab-kvm-off"
    incomplete = found.result.cases[0]
    assert (incomplete.verdict, incomplete.as_expected) == (Verdict.INCOMPLETE, False)
    assert sum(case.result is not None for case in found.cases) == len(FOLDERS) - 1


def test_case_that_never_ran_keeps_what_the_run_said_of_it(tmp_path, known):
    folder = copy_of(MATRIX, tmp_path)
    shutil.rmtree(folder / FOLDERS[0].name)
    found = rejudge(folder, known)
    before = next(case for case in found.before.cases if case.dir == FOLDERS[0].name)
    assert before in found.result.cases
    assert found.findings == ()


def test_case_that_was_skipped_hides_no_finding(tmp_path):
    folder = copy_of(MATRIX, tmp_path)
    path = folder / "result.json"
    document = json.loads(path.read_text())
    skipped = document["cases"][-1] | {"id": "x", "dir": "x", "verdict": "skip"}
    path.write_text(json.dumps(document | {"cases": [*document["cases"], skipped]}))
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "none.yaml").write_text("version: 1\nrules: []\n")
    found = rejudge(folder, KnownDifferences.in_folders([tmp_path / "known"]))
    assert any(text.startswith("+ unexplained") for text in found.findings)
    assert any(text.startswith("- known-bug: ioapic") for text in found.findings)


def test_folder_of_an_older_irqmatrix_says_what_is_missing(tmp_path, known):
    folder = copy_of(FOLDERS[0], tmp_path)
    (folder / CaseDir.recording).unlink()
    with pytest.raises(StoreError, match=r"recording\.json.*older irqmatrix"):
        rejudge(folder, known)


def test_trace_that_was_cut_off_is_told_and_no_verdict(tmp_path, known):
    folder = copy_of(MATRIX, tmp_path)
    trace = folder / FOLDERS[0].name / "kernel.trace.zst"
    trace.write_bytes(trace.read_bytes()[:1000])
    found = rejudge(folder, known)
    case = next(case for case in found.cases if case.directory.name == FOLDERS[0].name)
    assert case.result is None
    assert "kernel.trace.zst: it is cut off" in case.missing


@pytest.mark.parametrize("source", [*FOLDERS[:4], LINUX], ids=lambda path: path.name)
def test_case_whose_raw_traces_were_not_kept_is_judged_by_its_events(tmp_path, known, source):
    folder = copy_of(source, tmp_path)
    judge_folder(folder, keep_raw=False)
    assert not list(folder.glob("*.trace.zst"))

    found = rejudge(folder, known)

    assert (found.exit_status, found.cases[0].changed) == (0, ())


def test_case_whose_events_are_all_there_is_and_were_cut_off_is_told(tmp_path, known):
    folder = copy_of(FOLDERS[0], tmp_path)
    judge_folder(folder, keep_raw=False)
    path = folder / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StoreError, match=r"damaged log of events.*cut off"):
        rejudge(folder, known)


def test_judging_asks_no_clock(known, monkeypatch):
    def asked(*_):
        raise AssertionError("a clock was asked")

    for name in ("time", "time_ns", "clock_gettime", "clock_gettime_ns"):
        monkeypatch.setattr(time, name, asked)
    recording = recording_file.load(FOLDERS[0])
    analyse(recording, manifest.read(FOLDERS[0]))


def test_case_with_neither_raw_traces_nor_events_says_so(tmp_path, known):
    folder = copy_of(LINUX, tmp_path)
    judge_folder(folder, keep_raw=False)
    (folder / "evidence.json").unlink()
    with pytest.raises(StoreError, match="has no traces"):
        rejudge(folder, known)


@pytest.mark.parametrize("source", [*FOLDERS, LINUX], ids=lambda path: path.name)
def test_evidence_that_is_read_back_is_what_was_made(tmp_path, source):
    folder = copy_of(source, tmp_path)
    made = case_folder.analysed(recording_file.load(folder), manifest.read(folder), folder)

    assert load(folder) == made


def test_judge_needs_no_qemu_no_kvm_and_no_program_at_all(tmp_path):
    """On the command line: nothing in PATH, and clocks that say something else."""
    folder = copy_of(MATRIX, tmp_path)
    command = [sys.executable, "-m", "harness", "judge", str(folder), "--json"]
    environment = {"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert {tuple(case["changed"]) for case in found["cases"]} == {EVENTS}
