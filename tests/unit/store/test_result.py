import contextlib
import json
import resource
from dataclasses import replace

import pytest

from harness.base.errors import StoreError
from harness.compare.diff import Difference, DiffResult, DiffVerdict
from harness.model import verdict
from harness.model.case import GuestKind
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.store import result
from harness.store.result import RunResult
from support.cases import case

PASSED = CaseResult(
    id="linux/q35/qemu64/smp1/local-tcg",
    subject="linux/q35/qemu64/smp1",
    backend="local-tcg",
    axes={"host": "local", "smp": 1, "lab_kernel": None},
    guest=GuestKind.LINUX,
    verdict=Verdict.PASS,
    detail="",
    duration_s=1.5,
    dir="somewhere",
    parts=(
        PartResult("idle", Verdict.PASS, metrics={"units": 2, "elapsed_ms": 1.5, "irq": "RES"}),
    ),
)
SKIPPED = replace(PASSED, id="other", verdict=Verdict.SKIP, detail="no KVM")
STORMY = replace(PASSED, id="third", verdict=Verdict.STORM, as_expected=False)
UNEXPLAINED = DiffResult(
    "linux/q35/qemu64/smp1",
    "a",
    "b",
    1,
    unexplained=(
        Difference("idle", "x", None, (1,), (2,), None, DiffVerdict.UNEXPLAINED, "they differ"),
    ),
)


def run_result(*cases, diffs=()):
    return RunResult(
        result.SCHEMA, "quick", {"cpus": 2}, cases, diffs, (), result.summarised(cases, diffs)
    )


@pytest.mark.parametrize(
    ("cases", "diffs", "status"),
    [
        ((PASSED,), (), 0),
        ((PASSED, SKIPPED), (), 0),
        ((SKIPPED, SKIPPED), (), 3),
        ((PASSED, STORMY), (), 1),
        ((PASSED,), (UNEXPLAINED,), 1),
        ((replace(STORMY, as_expected=True),), (), 0),
    ],
)
def test_summary_exit_status_is_what_the_design_says(cases, diffs, status):
    assert result.summarised(cases, diffs).exit_status == status


def test_summary_names_what_is_not_as_expected():
    assert result.summarised((PASSED, STORMY), ()).not_as_expected == ("third",)


@pytest.mark.parametrize(
    ("verdicts", "judged"),
    [
        ((), Verdict.PASS),
        ((Verdict.PASS, Verdict.SKIP), Verdict.PASS),
        ((Verdict.SKIP, Verdict.SKIP), Verdict.SKIP),
        ((Verdict.PASS, Verdict.FAIL, Verdict.STORM), Verdict.STORM),
        ((Verdict.LOST, Verdict.HANG, Verdict.ERROR), Verdict.ERROR),
    ],
)
def test_judged_gravest_part_names_the_case(verdicts, judged):
    assert verdict.judged(PartResult("x", verdict) for verdict in verdicts) is judged


def test_result_written_and_read_back_is_the_same(tmp_path):
    path = tmp_path / "result.json"
    written = run_result(PASSED, STORMY, diffs=(UNEXPLAINED,))
    result.write(written, path)
    assert result.read(path) == written


def test_result_json_has_the_keys_of_the_schema(tmp_path):
    document = json.loads(result.dump(run_result(PASSED, diffs=(UNEXPLAINED,))))
    assert {"schema", "environment", "cases", "diffs", "summary"} <= document.keys()
    assert {"id", "axes", "guest", "verdict", "detail", "duration_s", "dir"} <= document["cases"][
        0
    ].keys()
    assert {"a", "b", "by_design", "known_bugs", "unexplained"} <= document["diffs"][0].keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 99}', "has schema 99"),
        ("[]", "has schema None"),
        ("{", "is not a result"),
        ('{"schema": 1}', "has schema 1: this irqmatrix reads 2"),
        ('{"schema": 2}', "is not a result"),
    ],
)
def test_result_of_another_kind_is_an_error_that_says_so(tmp_path, text, message):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=message):
        result.read(path)


def test_result_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="cannot read"):
        result.read(tmp_path / "result.json")


def test_result_of_a_case_with_nothing_more_to_say_is_written_and_read(tmp_path):
    skipped = verdict.of_case(case(), Verdict.SKIP, "no KVM", 0.0)
    path = tmp_path / "result.json"
    result.write(run_result(skipped), path)

    assert result.read(path).cases[0].detail == "no KVM"


@contextlib.contextmanager
def files_of_at_most(size):
    """As on a disk that is full: what is longer cannot be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_write_that_does_not_fit_is_an_error_that_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with files_of_at_most(10), pytest.raises(StoreError, match="File too large"):
        result.write(run_result(PASSED), path)
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_write_does_not_follow_a_link_in_the_place_of_its_partial_file(tmp_path):
    path, theirs = tmp_path / "result.json", tmp_path / "theirs"
    theirs.write_text("theirs")
    (tmp_path / "result.json.partial").symlink_to(theirs)
    result.write(run_result(PASSED), path)
    assert theirs.read_text() == "theirs"
    assert result.read(path).cases
