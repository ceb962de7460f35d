import contextlib
import json
import resource
from dataclasses import replace

import pytest

from harness.base.errors import StoreError
from harness.compare.diff import Status
from harness.model import verdict
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.store import result
from harness.store.result import Nowhere
from support import golden, runs
from support.cases import case

PASSED = CaseResult(
    id="linux/q35/qemu64/smp1/local-tcg",
    subject="linux/q35/qemu64/smp1",
    backend="local-tcg",
    axes={"host": "local", "smp": 1, "lab_kernel": None},
    guest="linux",
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
UNEXPLAINED = runs.finding("idle", Status.UNEXPLAINED, counter="x")
NOWHERE = Nowhere(("tsc-deadline",), is_error=True)


def run_result(*cases, findings=(), nowhere=runs.NOTHING):
    return replace(runs.run_of(*cases, findings=findings, nowhere=nowhere), name="quick")


@pytest.mark.parametrize(
    ("cases", "findings", "nowhere", "status"),
    [
        ((PASSED,), (), Nowhere(), 0),
        ((PASSED, SKIPPED), (), Nowhere(), 0),
        ((SKIPPED, SKIPPED), (), Nowhere(), 3),
        ((SKIPPED, SKIPPED), (), NOWHERE, 3),
        ((PASSED, STORMY), (), Nowhere(), 1),
        ((PASSED,), (UNEXPLAINED,), Nowhere(), 1),
        ((PASSED,), (replace(UNEXPLAINED, status=Status.INFORMATIONAL),), Nowhere(), 0),
        ((replace(STORMY, as_expected=True),), (), Nowhere(), 0),
        ((PASSED,), (), NOWHERE, 1),
        ((PASSED,), (), replace(NOWHERE, is_error=False), 0),
        ((PASSED,), (), Nowhere(is_error=True), 0),
    ],
)
def test_summary_exit_status_is_what_the_design_says(cases, findings, nowhere, status):
    assert result.summarised(cases, findings, nowhere).exit_status == status


def test_summary_names_what_is_not_as_expected():
    assert result.summarised((PASSED, STORMY), (), Nowhere()).not_as_expected == ("third",)


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
    written = run_result(PASSED, STORMY, findings=(UNEXPLAINED,), nowhere=NOWHERE)
    result.write(written, path)
    assert result.read(path) == written


def test_result_json_has_the_keys_of_the_schema(tmp_path):
    document = json.loads(result.dump(run_result(PASSED, findings=(UNEXPLAINED,))))
    assert document["schema"] == 3
    assert {"schema", "environment", "cases", "findings", "summary"} <= document.keys()
    assert {"id", "axes", "guest", "verdict", "detail", "duration_s", "dir"} <= document["cases"][
        0
    ].keys()
    (finding,) = document["findings"]
    assert {"subject", "part", "groups", "axis", "status", "rule"} <= finding.keys()
    assert {"label", "saw", "members"} == finding["groups"][0].keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 99}', "has schema 99"),
        ("[]", "has schema None"),
        ("{", "is not a result"),
        ('{"schema": 1}', "has schema 1: this irqmatrix reads 3"),
        ('{"schema": 2}', "is not a result"),
        ('{"schema": 3}', "is not a result"),
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


# --- Schema 2: a list of differences for each pair of backends -----------------------------------

OLD = golden.COLLECT.parent / "export" / "result-schema-2.json"


def test_result_of_schema_2_is_read_with_its_pairs_as_findings():
    run = result.read(OLD)

    (version,) = [finding for finding in run.findings if finding.part == "monitor.ioapic.version"]
    assert version.axis == "irqchip: on | split, off, tcg"
    assert [group.saw for group in version.groups] == ["0x11", "0x20"]
    assert (version.status, version.rule) == (Status.BY_DESIGN, "ioapic-version")


def test_result_of_schema_2_has_all_that_was_compared():
    (comparison,) = result.read(OLD).comparisons

    assert len(comparison.backends) == 4
    assert set(comparison.workloads) == {"idle", "serial"}
    assert "monitor.ioapic.version" in comparison.checks


def test_result_of_schema_2_that_failed_still_fails():
    run = result.read(OLD)

    assert run.summary.unexplained_findings == len(run.of(Status.UNEXPLAINED)) == 1
    assert run.summary.exit_status == 1
