"""A run always ends with a result, and touches nothing of others: with real QEMUs, under TCG."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import flat_image
from support.live import flat, write_config

pytestmark = pytest.mark.live

IRQMATRIX = (sys.executable, "-m", "harness")


@contextmanager
def running(*arguments: object, **options) -> Iterator[subprocess.Popen[str]]:
    """``irqmatrix`` with its output in a pipe; ended with the block."""
    command = [*IRQMATRIX, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes | options) as process:
        try:
            yield process
        finally:
            process.kill()


def verdicts(out: Path) -> dict[str, str]:
    """By guest and repetition, from ``result.json``."""
    cases = json.loads((out / "result.json").read_text())["cases"]
    return {
        case["id"].split("/")[0] + case["id"].partition("#")[2]: case["verdict"] for case in cases
    }


def read_until(process: subprocess.Popen[str], text: str) -> None:
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it never said {text!r}: {process.stderr.read()}")


def test_guest_that_says_it_is_done_but_does_not_end_is_a_hang_and_the_others_run(tmp_path, flats):
    marks = flat_image.build(
        tmp_path, "marks", "PASS: a\n\x04irqmatrix: end of console\n", flat_image.HANG
    )
    guests = [flat(flats["passing"]), flat(marks, timeout_s=1), flat(flats["failing"])]
    out = tmp_path / "out"
    with running("run", write_config(tmp_path, guests), "--out", out, "--jobs", 1) as run:
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "Traceback" not in errors
    expected = {"flat-passing": "pass", "flat-marks": "hang", "flat-failing": "fail"}
    assert verdicts(out) == expected


def test_run_whose_reader_goes_away_goes_on_and_keeps_its_results(tmp_path, flats):
    config = write_config(tmp_path, [flat(flats["passing"])], repeat=3)
    out = tmp_path / "out"
    with running("run", config, "--out", out, "--jobs", 1) as run:
        run.stdout.readline()
        run.stdout.close()
        assert run.wait(60) == 0
        assert run.stderr.read() == ""
    assert [*verdicts(out).values()] == ["pass"] * 3


def test_run_that_is_killed_leaves_what_had_ended_and_the_next_one_is_clean(tmp_path, flats):
    out = tmp_path / "out"
    guests = [flat(flats["passing"]), flat(flats["hanging"], timeout_s=60)]
    first = write_config(tmp_path, guests)
    with running("run", first, "--out", out, "--jobs", 1) as run:
        read_until(run, "pass")
        run.kill()
        run.wait()
    assert verdicts(out) == {"flat-passing": "pass", "flat-hanging": "incomplete"}

    report = subprocess.run(
        [*IRQMATRIX, "report", out], capture_output=True, text=True, check=False
    )
    assert report.returncode == 0
    assert "1 pass, 1 incomplete" in report.stdout
    assert "the run did not end" in report.stdout
    assert json.loads((out / "result.json").read_text())["summary"]["exit_status"] == 1

    second = write_config(tmp_path, [flat(flats["failing"])])
    with running("run", second, "--out", out) as run:
        said, _ = run.communicate(timeout=60)
    assert "what an earlier run left there is in" in said
    assert verdicts(out) == {"flat-failing": "fail"}
    assert verdicts(out / "earlier" / "1")["flat-hanging"] == "incomplete"
    assert not list(out.glob("flat-passing*"))


def test_run_into_the_folder_of_a_run_that_goes_on_is_refused(tmp_path, flats):
    config = write_config(tmp_path, [flat(flats["hanging"], timeout_s=60)])
    out = tmp_path / "out"
    with running("run", config, "--out", out) as run:
        read_until(run, "results in")
        with running("run", config, "--out", out) as second:
            _, errors = second.communicate(timeout=60)
        assert second.returncode == 2
        assert "another run is in it" in errors
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 130
    assert verdicts(out) == {"flat-hanging": "incomplete"}


def test_run_that_is_ended_while_it_judges_ends_at_once_and_says_so(tmp_path):
    """Of a QEMU's trace there is a kilobyte for each character on the console."""
    talks = flat_image.build(tmp_path, "talks", "PASS: a\n" + "x" * 60_000 + "\n")
    out = tmp_path / "out"
    with running("run", write_config(tmp_path, [flat(talks)]), "--out", out) as run:
        wait_for(lambda: list(out.glob("flat-talks*/events.jsonl.partial")))
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 130
    assert verdicts(out) == {"flat-talks": "incomplete"}


def test_run_whose_judging_takes_too_long_is_an_error_with_its_recording_kept(tmp_path):
    talks = flat_image.build(tmp_path, "talks", "PASS: a\n" + "x" * 60_000 + "\n")
    out = tmp_path / "out"
    config = write_config(tmp_path, [flat(talks)])
    limited = os.environ | {"IRQMATRIX_LIMITS": "judging_s=1"}
    with running("run", config, "--out", out, env=limited) as run:
        said, _ = run.communicate(timeout=120)
    assert run.returncode == 1
    assert verdicts(out) == {"flat-talks": "error"}
    assert "looks like harness): judging took more than 1 s" in said
    (folder,) = out.glob("flat-talks*")
    assert (folder / "recording.json").exists()
    judged = subprocess.run(
        [*IRQMATRIX, "judge", folder], capture_output=True, text=True, check=False
    )
    assert "pass" in judged.stdout, judged.stderr


def wait_for(look):
    """What ``look`` finds once it finds something."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_run_leaves_folders_of_others_in_the_temporary_folder(tmp_path, flats):
    folder = tmp_path / "tmp"
    theirs = folder / "irqmatrix-20261129-results"
    theirs.mkdir(parents=True)
    config = write_config(tmp_path, [flat(flats["passing"])])
    environment = os.environ | {"TMPDIR": str(folder)}
    with running("run", config, "--out", tmp_path / "out", env=environment) as run:
        run.communicate(timeout=60)
    assert run.returncode == 0
    assert [*folder.iterdir()] == [theirs]


def test_run_of_a_case_with_a_long_id_has_a_result_and_a_report(tmp_path, flats):
    config = write_config(tmp_path, [flat(flats["passing"], append="a" * 240)])
    out = tmp_path / "out"
    with running("run", config, "--out", out) as run:
        said, errors = run.communicate(timeout=60)
    assert (run.returncode, errors) == (0, "")
    assert "1 case, as expected" in said
