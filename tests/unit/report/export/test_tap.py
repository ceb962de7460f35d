"""TAP 14: against a golden file, and read by a parser."""

from __future__ import annotations

from dataclasses import replace

from harness.model.verdict import Blame, PartResult, Verdict
from harness.report.checks import Check, CheckGroup, Outcome, groups_of
from harness.report.export.tap import render
from support import golden, runs, tap_reader

GOLDEN = golden.COLLECT.parent / "export" / "everything.tap"
COMPARED = "linux: backends compared"


def points(run=runs.EVERYTHING):
    """All test points by subtest and name."""
    return {
        (subtest.point.description.removeprefix("- "), point.description.removeprefix("- ")): point
        for subtest in tap_reader.read(render(groups_of(run)))
        for point in subtest.points
    }


def test_tap_of_a_run_is_the_golden_file():
    assert render(groups_of(runs.EVERYTHING)) == GOLDEN.read_text(encoding="utf-8")


def test_tap_has_a_subtest_a_group_that_fails_with_its_points():
    read = tap_reader.read(render(groups_of(runs.EVERYTHING)))

    assert [subtest.point.ok for subtest in read] == [
        True,
        False,
        False,
        True,
        True,
        False,
        False,
        True,
        False,
    ]


def test_tap_skips_with_the_reason():
    point = points()[runs.GOOD.id, "ipi"]

    assert (point.ok, point.skip, point.directive.reason) == (True, True, "it needs two CPUs")


def test_tap_of_what_fails_as_expected_is_todo():
    storm, bug = (
        points()[runs.GOOD.id, "stuck-line"],
        points()[COMPARED, "monitor.pins"],
    )

    assert (storm.ok, storm.todo, storm.directive.reason) == (False, True, "storm, as expected")
    assert (bug.ok, bug.todo, bug.directive.reason) == (False, True, "known bug: lost-pin")


def test_tap_of_a_bug_that_no_longer_shows_is_ok_and_todo():
    point = points()["known differences", "fixed-bug on lab-kvm-on"]

    assert (point.ok, point.todo) == (True, True)
    assert point.directive.reason.startswith("XPASS: the known bug no longer shows")


def test_tap_says_in_yaml_what_is_wrong():
    block = points()[COMPARED, "idle"].yaml_block

    assert block == {
        "severity": "unexplained",
        "message": "linux/q35/qemu64/smp1 idle handled/ioapic/4:ttyS0 [guest] "
        "[irqchip: on | split] (it should not)\n- on: 200\n- split: 150\n",
    }


def test_tap_escapes_what_would_begin_a_directive():
    group = CheckGroup("case#2", (Check(r"a \ b # SKIP me", Outcome.PASS),))

    assert render([group]).splitlines()[2:] == [
        r"# Subtest: case\#2",
        "    1..1",
        r"    ok 1 - a \\ b \# SKIP me",
        r"ok 1 - case\#2",
    ]


def test_tap_of_a_text_of_many_lines_forges_no_point():
    part = PartResult("idle", Verdict.FAIL, "first\nnot ok 7 - forged\n1..9\nBail out!")
    case = replace(runs.LOSES, parts=(part,))

    subtest, _ = tap_reader.read(render(groups_of(runs.run_of(case))))

    assert [point.ok for point in subtest.points] == [True, False]
    assert "not ok 7 - forged" in subtest.points[1].yaml_block["message"]


def test_tap_of_nothing_is_a_plan_of_0():
    assert render([]) == "TAP version 14\n1..0\n"


def test_tap_of_a_check_whose_message_is_blank_can_be_read():
    check = Check("silent", Outcome.FAIL, "fail", " ")
    (subtest,) = tap_reader.read(render([CheckGroup("case", (check,))]))
    assert [point.ok for point in subtest.points] == [False]


def test_tap_says_whose_fault_a_failure_looks_like():
    case = replace(runs.HANGS, blame=Blame.LAB)
    subtest, _ = tap_reader.read(render(groups_of(runs.run_of(case))))
    assert subtest.points[0].yaml_block["blame"] == "lab"
