"""KernelCI's report data: checked by KernelCI's own package, which nothing else imports."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from kcidb_io.schema import LATEST

from harness.compare.diff import Status
from harness.model.verdict import PartResult, Verdict
from harness.report.export.kcidb import LONGEST_EXCERPT, render
from harness.report.run_view import RunView
from support import runs
from support.stored import Nights, case, finding, night


def document(run=runs.EVERYTHING):
    """What is written of a run, which the schema accepts."""
    found = json.loads(render(RunView.of(run)))
    LATEST.validate(found)
    return found


def by_id(run):
    """The status of each test by what follows the run in its id."""
    return {test["id"].split(":", 3)[3]: test for test in document(run).get("tests", ())}


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (Verdict.PASS, "PASS"),
        (Verdict.SKIP, "SKIP"),
        (Verdict.ERROR, "ERROR"),
        (Verdict.TIMEOUT, "ERROR"),
        (Verdict.INCOMPLETE, "MISS"),
        *((each, "FAIL") for each in Verdict if each.value in ("fail", "storm", "hang", "lost")),
    ],
)
def test_kcidb_status_of_a_verdict(verdict, status):
    case = replace(runs.GOOD, verdict=verdict, parts=(PartResult("one", verdict),))

    found = by_id(runs.run_of(case))

    assert {test["status"] for test in found.values()} == {status}
    assert len(found) == 2


def test_kcidb_of_a_part_that_was_not_reached_is_miss():
    part = PartResult("last", Verdict.ERROR, "not reached")
    found = by_id(runs.run_of(replace(runs.GOOD, parts=(part,))))
    assert found[f"{runs.GOOD.id}:last"]["status"] == "MISS"


def test_kcidb_of_what_a_known_bug_explains_is_a_failure_with_an_issue():
    found = document()

    (issue,) = found["issues"]
    (incident,) = found["incidents"]
    failed = {test["id"]: test for test in found["tests"]}[incident["test_id"]]
    assert (issue["id"], issue["report_url"]) == ("irqmatrix:rule:lost-pin", runs.LINK)
    assert incident["issue_id"] == issue["id"]
    assert (failed["status"], failed["path"]) == ("FAIL", "irqmatrix.linux.compared.monitor_pins")


def test_kcidb_of_what_is_explained_carries_its_rule():
    found = by_id(runs.EVERYTHING)["linux:compared:monitor.version"]

    assert found["status"] == "PASS"
    (finding,) = found["misc"]["findings"]
    assert (finding["status"], finding["rules"]) == (Status.BY_DESIGN, ["versions"])


def test_kcidb_of_an_unexplained_finding_fails_without_an_issue():
    found = document()
    (failed,) = [test for test in found["tests"] if test["id"].endswith(":compared:idle")]

    assert failed["status"] == "FAIL"
    assert failed["log_excerpt"].splitlines()[1:] == ["    on:    200", "    split: 150"]
    assert failed["id"] not in {incident["test_id"] for incident in found["incidents"]}


def test_kcidb_ids_name_one_object_each():
    found = document()
    ids = [each["id"] for name, objects in found.items() if name != "version" for each in objects]
    assert len(ids) == len(set(ids))


def test_kcidb_tests_name_builds_that_are_there():
    found = document()
    builds = {build["id"]: build for build in found["builds"]}
    assert {test["build_id"] for test in found["tests"]} == builds.keys()
    checkouts = {checkout["id"] for checkout in found["checkouts"]}
    assert {build["checkout_id"] for build in builds.values()} == checkouts


def test_kcidb_of_a_long_and_hostile_text_is_valid():
    detail = "\0\x1b[2J" + "x" * 100_000
    case = replace(runs.LOSES, detail=detail, parts=(PartResult("a b\n\0", Verdict.FAIL, detail),))

    found = by_id(runs.run_of(case))

    assert all(len(test["log_excerpt"]) <= LONGEST_EXCERPT for test in found.values())


def test_kcidb_of_a_run_without_cases_is_valid():
    assert document(runs.run_of()) == {"version": {"major": 5, "minor": 0}}


def test_kcidb_says_what_is_new_since_the_baseline(tmp_path):
    nights, part = Nights(tmp_path / "store.sqlite"), PartResult("eoi", Verdict.STORM)
    wrong = case("off", Verdict.STORM, as_expected=False, parts=(part,))
    result = night(finding("poll"), cases=[case("on"), case("split"), wrong])

    found = json.loads(render(RunView.of(result, None, nights.enter(result))))

    LATEST.validate(found)
    states = {
        test["comment"]: [each["state"] for each in test["misc"]["baseline"]]
        for test in found["tests"]
        if "baseline" in test["misc"]
    }
    assert states == {
        f"{wrong.subject} on {wrong.backend}": ["new"],
        "probe: poll, backends compared": ["new"],
    }
