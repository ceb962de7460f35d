"""A run as named checks: what is said of its cases, comparisons and known differences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.commands.history import accept
from harness.model.verdict import NOT_REACHED, PartResult, Verdict
from harness.report.checks import COVERAGE, EVERYWHERE, KNOWN, WHOLE, Outcome, groups_of
from harness.store.baseline import State
from support import runs
from support.stored import case, finding, night, nights_since_a_problem

COMPARED = "linux: backends compared"


def checks(run, name):
    """The checks of the group ``name``, by name."""
    (group,) = [group for group in groups_of(run) if group.name == name]
    return {check.name: check for check in group.checks}


def outcomes(run, name):
    return {check.name: check.outcome for check in checks(run, name).values()}


def of_case(case):
    return outcomes(runs.run_of(case), case.id)


def test_every_case_comparison_and_the_rules_are_a_group():
    names = [group.name for group in groups_of(runs.EVERYTHING)]

    assert names == [case.id for case in runs.EVERYTHING.cases] + [COMPARED, KNOWN, COVERAGE]


def test_run_without_rules_that_were_due_has_no_group_of_them():
    assert [group.name for group in groups_of(runs.run_of(runs.GOOD))] == [runs.GOOD.id, COVERAGE]


def test_part_that_fails_as_expected_is_an_xfail():
    assert of_case(runs.GOOD) == {
        WHOLE: Outcome.PASS,
        "idle": Outcome.PASS,
        "ipi": Outcome.SKIP,
        "stuck-line": Outcome.XFAIL,
    }


def test_part_that_passes_though_it_should_not_fails_and_says_xpass():
    found = checks(runs.run_of(runs.LOSES), runs.LOSES.id)["stuck-line"]

    assert (found.outcome, found.kind) == (Outcome.FAIL, "xpass")
    assert found.message == "XPASS: should be storm, and passed"


def test_part_of_another_verdict_than_expected_says_both():
    part = PartResult("idle", Verdict.HANG, "no answer", Verdict.STORM)
    case = replace(runs.LOSES, parts=(part,))
    found = checks(runs.run_of(case), case.id)["idle"]

    assert (found.outcome, found.message) == (Outcome.FAIL, "should be storm, is hang: no answer")


def test_case_whose_part_is_to_blame_fails_there_only():
    assert of_case(runs.LOSES) == {
        WHOLE: Outcome.PASS,
        "idle": Outcome.FAIL,
        "ipi": Outcome.SKIP,
        "stuck-line": Outcome.FAIL,
    }


def test_case_that_hangs_after_its_parts_passed_fails_as_a_whole():
    assert of_case(runs.HANGS) == {WHOLE: Outcome.FAIL, "one": Outcome.PASS}


def test_case_that_hangs_as_expected_is_an_xfail():
    assert of_case(runs.HANGS_AS_TOLD) == {WHOLE: Outcome.XFAIL, "one": Outcome.PASS}


def test_case_that_should_hang_and_passed_says_xpass():
    case = replace(runs.HANGS_AS_TOLD, verdict=Verdict.PASS, as_expected=False)
    found = checks(runs.run_of(case), case.id)[WHOLE]

    assert (found.outcome, found.message) == (Outcome.FAIL, "XPASS: should be hang, and passed")


def test_case_that_passed_when_it_was_run_again_is_unsteady_and_no_failure():
    flaky = replace(runs.GOOD, first_time="hang: nothing more within 60 s")
    check = checks(runs.run_of(flaky), flaky.id)[WHOLE]
    assert check.outcome is Outcome.FLAKY
    assert check.message == "the first time hang: nothing more within 60 s"


def test_case_that_failed_twice_is_a_failure():
    bad = replace(runs.GOOD, verdict=Verdict.HANG, as_expected=False, first_time="hang: again")
    assert of_case(bad)[WHOLE] is Outcome.FAIL


def test_case_that_could_not_be_run_is_an_error_or_a_skip_with_its_reason():
    skipped = checks(runs.run_of(runs.SKIPPED), runs.SKIPPED.id)[WHOLE]
    broken = checks(runs.run_of(runs.BROKEN), runs.BROKEN.id)[WHOLE]

    assert (skipped.outcome, skipped.message) == (Outcome.SKIP, "no /dev/kvm")
    assert (broken.outcome, broken.message) == (Outcome.ERROR, "no QEMU")


def test_part_that_was_not_reached_is_no_failure_of_its_own():
    hung = PartResult("idle", Verdict.HANG, "no answer")
    rest = PartResult("serial", Verdict.ERROR, f"{NOT_REACHED}: no answer")

    assert of_case(replace(runs.LOSES, parts=(hung, rest))) == {
        WHOLE: Outcome.PASS,
        "idle": Outcome.FAIL,
        "serial": Outcome.SKIP,
    }


def test_comparison_has_a_check_for_all_that_was_compared_and_fails_what_is_unexplained():
    assert outcomes(runs.EVERYTHING, COMPARED) == {
        "idle": Outcome.FAIL,
        "stuck-line": Outcome.PASS,
        "monitor.version": Outcome.PASS,
        "monitor.pins": Outcome.XFAIL,
    }


def test_comparison_says_what_differs_and_which_bug_is_known():
    found = checks(runs.EVERYTHING, COMPARED)

    assert found["idle"].message == (
        "linux/q35/qemu64/smp1  idle handled/ioapic/4:ttyS0 [guest]  [irqchip: on | split]"
        "  (it should not)"
    )
    assert found["idle"].lines == ("on:    200", "split: 150")
    assert found["monitor.pins"].message == "known bug: lost-pin"
    assert found["monitor.pins"].lines == ("on:    200", "split: 150", runs.LINK)


def test_what_ran_nowhere_fails_only_where_that_is_an_error():
    said = replace(runs.EVERYTHING.nowhere, is_error=False)

    assert outcomes(runs.EVERYTHING, COVERAGE) == {EVERYWHERE: Outcome.FAIL}
    assert outcomes(runs.run_of(runs.GOOD, nowhere=said), COVERAGE) == {EVERYWHERE: Outcome.SKIP}
    assert outcomes(runs.run_of(runs.GOOD), COVERAGE) == {EVERYWHERE: Outcome.PASS}


def test_what_ran_nowhere_because_nothing_could_be_run_is_no_failure():
    run = runs.run_of(runs.SKIPPED, nowhere=runs.EVERYTHING.nowhere)

    assert run.summary.exit_status == 3
    assert not any(group.failed for group in groups_of(run))


def test_rules_that_have_to_show_have_a_check_for_each_backend_they_were_due_in():
    assert outcomes(runs.EVERYTHING, KNOWN) == {
        "versions on lab-kvm-on": Outcome.PASS,
        "gone on lab-kvm-on": Outcome.STALE,
        "lost-pin on lab-kvm-on": Outcome.PASS,
        "fixed-bug on lab-kvm-on": Outcome.XPASS,
    }


@pytest.mark.parametrize("rule", runs.RULES, ids=lambda rule: rule.rule)
def test_rule_alone_never_fails_a_run(rule):
    run = runs.run_of(runs.GOOD, rules=(rule,))

    assert run.summary.exit_status == 0
    assert not any(group.failed for group in groups_of(run))


def test_checks_of_one_name_are_told_apart():
    names = ["the whole case", "", " ", "a\x00", "a\x01", "a  b", "a b", "a b~2", "a b"]
    case = replace(runs.GOOD, parts=tuple(PartResult(name, Verdict.PASS) for name in names))
    group, *_ = groups_of(runs.run_of(case))
    assert [check.name for check in group.checks] == [
        "the whole case", "the whole case~2", "(no name)", "(no name)~2", "a\\x00", "a\\x01",
        "a b", "a b~2", "a b~2~2", "a b~3",
    ]  # fmt: skip


# --- Since the baseline ---------------------------------------------------------------------------


@pytest.fixture
def nights(tmp_path):
    """A store whose baseline has one of two problems that a check shows, and a run after it."""
    return nights_since_a_problem(tmp_path / "store.sqlite")


def group_since(nights, result, baseline=""):
    (group,) = [
        group
        for group in groups_of(result, nights.enter(result, baseline))
        if group.name == "probe: backends compared"
    ]
    return {check.name: check for check in group.checks}


def test_check_that_the_baseline_has_does_not_fail_and_a_new_one_does(nights):
    found = group_since(nights, night(finding("eoi"), finding("poll")))

    assert {name: (check.outcome, check.state) for name, check in found.items()} == {
        "eoi": (Outcome.BASELINE, State.STILL),
        "poll": (Outcome.FAIL, State.NEW),
    }
    assert found["poll"].since == "for the first time; in 1 of 2 runs"


def test_check_fails_without_a_baseline_that_decides_and_says_what_is_new(nights):
    found = group_since(nights, night(finding("eoi")), baseline=None)

    assert (found["eoi"].outcome, found["eoi"].state) == (Outcome.FAIL, State.STILL)


def test_case_that_the_baseline_has_does_not_fail_and_another_verdict_does(nights):
    def storms(verdict):
        part = PartResult("idle", verdict)
        return night(cases=[case("on", verdict, as_expected=False, parts=(part,))])

    nights.enter(storms(Verdict.STORM))
    accept(nights.path, "2", None)
    again, other = storms(Verdict.STORM), storms(Verdict.HANG)

    same = groups_of(again, nights.enter(again, ""))[0]
    new = groups_of(other, nights.enter(other, ""))[0]

    assert [check.outcome for check in same.checks] == [Outcome.PASS, Outcome.BASELINE]
    assert [check.outcome for check in new.checks] == [Outcome.PASS, Outcome.FAIL]
    assert not same.failed
