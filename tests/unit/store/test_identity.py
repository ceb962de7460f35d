"""What makes a finding the same from run to run."""

from dataclasses import replace

import pytest

from harness.compare.diff import Status
from harness.compare.finding import Group, Member
from harness.model.verdict import NOT_REACHED, PartResult, Verdict
from harness.store.identity import FindingIdentity
from harness.store.sightings import looked_at, role_of, seen_in
from support import runs

LANES = {("6.1", "7.2"): "oldest", ("7", "11"): "newest"}
LAB = {"host": "lab", "accel": "kvm", "irqchip": "split", "qemu": "system", "lab_kernel": "default"}


def identity(*groups, part="eoi", kind="check"):
    return FindingIdentity("probe/q35", part, kind, groups)


@pytest.mark.parametrize(
    ("axes", "role"),
    [
        ({}, "split"),
        ({"qemu": "7.2", "lab_kernel": "6.1"}, "split oldest"),
        ({"qemu": "11", "lab_kernel": "7"}, "split newest"),
        ({"qemu": "10.0.13", "lab_kernel": "6.12.57-1"}, "split qemu 10.0 linux 6.12"),
        ({"host": "local", "lab_kernel": None}, "local split"),
        ({"host": "local", "accel": "tcg", "irqchip": "tcg", "lab_kernel": None}, "tcg"),
        (
            {"host": "local", "irqchip": "tcg", "accel": "tcg", "qemu": "7.2", "lab_kernel": None},
            "tcg oldest",
        ),
        ({"host": "lab", "accel": "tcg", "irqchip": "tcg"}, "lab tcg"),
    ],
)
def test_role_is_the_mode_and_the_lane(axes, role):
    assert role_of(LAB | axes, LANES) == role


def test_finding_without_a_backend_that_did_not_run_is_the_same():
    assert identity(("on",), ("off", "split")).same_as(identity(("on",), ("split",)))


@pytest.mark.parametrize(
    "other",
    [
        identity(("on", "split"), ("off",)),
        identity(("off",), ("split",)),
        identity(("on",), ("off", "split"), part="other"),
        identity(("on",), ("off", "split"), kind="counter handled/cpu/ERR [guest]"),
        identity(("tcg",), ("local on",)),
    ],
    ids=["parted elsewhere", "one group in common", "part", "kind", "nothing in common"],
)
def test_finding_in_other_groups_or_of_another_thing_is_another(other):
    assert not identity(("on",), ("off", "split")).same_as(other)


def test_verdict_on_another_backend_is_another_finding():
    assert not identity(("on",), kind="storm").same_as(identity(("split",), kind="storm"))
    assert identity(("on",), kind="storm").same_as(identity(("on",), kind="storm"))


def test_key_is_the_same_for_equal_identities_only():
    one, same = identity(("on",), ("split",)), identity(("on",), ("split",))
    other = identity(("on",), ("split",), part="other")

    assert one.key == same.key != other.key
    assert len(one.key) == 10


def test_difference_was_looked_for_where_two_of_its_groups_have_a_backend():
    found = identity(("on",), ("off", "split"))
    looked = {("probe/q35", "on"): frozenset({"eoi"}), ("probe/q35", "off"): frozenset({"eoi"})}

    assert found.was_looked_for(looked)
    assert not found.was_looked_for({("probe/q35", "on"): frozenset({"eoi"})})
    assert not found.was_looked_for(looked | {("probe/q35", "on"): frozenset({"other"})})


def difference(*members, part="eoi", saw=("1", "2"), status=Status.UNEXPLAINED):
    groups = tuple(
        Group("", text, tuple(Member(*m) for m in own))
        for text, own in zip(saw, members, strict=True)
    )
    return replace(runs.finding(part, status), groups=groups, subject="probe/*")


ON, SPLIT = "lab-kvm-on", "lab-kvm-split"
CASES = [
    replace(runs.GOOD, id=f"{s}/{b}", subject=s, backend=b, axes=LAB | {"irqchip": b[8:]})
    for s in ("probe/q35", "probe/pc")
    for b in (ON, SPLIT)
]


def seen(*findings, cases=CASES, **changes):
    run = replace(runs.run_of(*cases), findings=findings, **changes)
    return seen_in(run, LANES)


def test_finding_in_two_subjects_has_an_identity_in_each():
    both = difference(
        [("probe/q35", ON), ("probe/pc", ON)], [("probe/q35", SPLIT), ("probe/pc", SPLIT)]
    )

    assert {each.identity for each in seen(both).sightings} == {
        FindingIdentity("probe/q35", "eoi", "check", (("on",), ("split",))),
        FindingIdentity("probe/pc", "eoi", "check", (("on",), ("split",))),
    }


def test_subject_in_which_all_saw_the_same_has_no_identity():
    joined = difference(
        [("probe/q35", ON), ("probe/pc", ON), ("probe/pc", SPLIT)], [("probe/q35", SPLIT)]
    )

    assert [each.identity.subject for each in seen(joined).sightings] == ["probe/q35"]


def test_identity_has_nothing_that_was_measured():
    one = difference([("probe/q35", ON)], [("probe/q35", SPLIT)], saw=("1", "2"))
    other = difference([("probe/q35", SPLIT)], [("probe/q35", ON)], saw=("77", "3"))

    (first,), (second,) = seen(one).sightings, seen(other).sightings

    assert first.identity == second.identity
    assert first.text != second.text


def test_explained_finding_is_no_problem_and_an_unexplained_one_is():
    members = [("probe/q35", ON)], [("probe/q35", SPLIT)]
    found = seen(
        difference(*members, part="a", status=Status.BY_DESIGN), difference(*members, part="b")
    )

    assert [each.identity.part for each in found.problems] == ["b"]
    assert len(found.sightings) == 2


def test_part_that_is_not_as_expected_is_a_problem_of_its_backend():
    found = seen_in(runs.run_of(runs.LOSES), LANES).problems

    assert {(each.identity.part, each.identity.kind) for each in found} == {
        ("idle", "lost"),
        ("stuck-line", "xpass"),
    }


def test_known_bug_that_no_longer_shows_is_a_problem_that_does_not_fail():
    problems = {each.identity.part: each for each in seen_in(runs.EVERYTHING, LANES).problems}
    rules = [rule for rule in runs.EVERYTHING.rules if rule.xpass]

    assert rules
    assert not any(problems[rule.rule].fails for rule in rules)


def test_case_that_did_not_run_has_looked_at_nothing():
    skipped = replace(CASES[0], verdict=Verdict.SKIP)
    parts = (PartResult("a", Verdict.PASS), PartResult("b", Verdict.ERROR, NOT_REACHED))
    half = replace(CASES[1], parts=parts)

    found = looked_at(runs.run_of(skipped, half))

    assert found == {skipped.id: frozenset(), half.id: frozenset({"a", ""})}
