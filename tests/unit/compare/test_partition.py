"""Groups of members, and the axes that separate them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.compare.partition import (
    AXES,
    NOTHING_MORE,
    distinguishing,
    grouped,
    in_order,
    separate,
    smallest,
)

MATRIX = [
    {"irqchip": mode, "QEMU": qemu, "Linux": linux if mode != "tcg" else "-", "smp": smp}
    for mode, qemu, linux, smp in itertools.product(
        ("on", "split", "off", "tcg"), ("7.2", "10.0"), ("6.1", "6.12"), ("1", "2")
    )
]


def groups_by(outcome):
    """The matrix in groups of the same ``outcome``, in the order of the matrix."""
    found = {}
    for member in MATRIX:
        found.setdefault(outcome(member), []).append(member)
    return list(found.values())


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (lambda m: m["irqchip"] == "on", "irqchip: on | split, off, tcg"),
        (lambda m: m["QEMU"], "QEMU: 7.2 | 10.0"),
        (lambda m: m["smp"], "smp: 1 | 2"),
        (
            lambda m: (m["irqchip"], m["Linux"]) == ("split", "6.1"),
            "Linux: 6.12 | 6.1, only in split",
        ),
        (
            lambda m: m["irqchip"] in ("on", "split") and m["QEMU"] == "7.2",
            "QEMU: 7.2 | 10.0, only in on, split",
        ),
        (
            lambda m: (m["irqchip"], m["QEMU"], m["smp"]) == ("on", "10.0", "2"),
            "QEMU: 7.2 | 10.0, only in on with smp 2",
        ),
        (lambda m: m["irqchip"] if m["irqchip"] in ("on", "split") else "x",
         "irqchip: on | split | off, tcg"),
        (
            lambda m: (m["irqchip"] == "on") == (m["QEMU"] == "7.2"),
            "irqchip and QEMU: the others"
            " | on QEMU 10.0; split QEMU 7.2; off QEMU 7.2; tcg QEMU 7.2",
        ),
    ],
)  # fmt: skip
def test_groups_are_separated_by_the_axis_that_a_person_would_name(outcome, text):
    assert separate(groups_by(outcome)).text == text


def test_group_of_a_scope_is_labelled_with_it_and_all_else_is_the_others():
    found = separate(groups_by(lambda m: (m["irqchip"], m["Linux"]) == ("split", "6.1")))

    assert found.labels == ("the others", "split, Linux 6.1")


def test_groups_within_a_scope_that_are_both_not_the_others_have_both_their_values():
    where = {("split", "6.1"): "lost", ("split", "6.12"): "twice"}
    found = separate(groups_by(lambda m: where.get((m["irqchip"], m["Linux"]), "fine")))

    assert found.labels == ("the others", "split, Linux 6.1", "split, Linux 6.12")
    assert found.text == "Linux: 6.1 | 6.12, only in split"


def test_groups_of_members_that_are_alike_have_no_axis():
    found = separate([[{"irqchip": "on"}], [{"irqchip": "on"}]])

    assert (found.axes, found.text, found.labels) == (None, "no axis", ("", ""))


def test_values_are_in_the_order_of_a_person():
    assert in_order(["tcg", "on", "off", "split"]) == ["on", "split", "off", "tcg"]
    assert in_order(["10.0", "7.2", "6.12", "6.1"]) == ["6.1", "6.12", "7.2", "10.0"]


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (("pass", "fail"), ["pass", "fail"]),
        (("a\nb\n", "a\nc\n"), ["b", "c"]),
        (("a\nb\n", "a\n"), ["b", NOTHING_MORE]),
        (("a\nb\nc\n", "a\nb\nd\n", "x\nb\nc\n"), ["a; c", "a; d", "x"]),
    ],
)
def test_texts_are_shown_by_the_lines_in_which_they_differ(texts, shown):
    assert distinguishing(texts) == shown


# --- Properties ---------------------------------------------------------------------------------

members = st.fixed_dictionaries(
    {axis: st.sampled_from(("a", "b", "c")) for axis in ("irqchip", "QEMU", "Linux", "smp")}
)
outcomes = st.lists(st.tuples(members, st.integers(0, 2)), min_size=1, max_size=20)


def partition(found):
    groups = {}
    for member, outcome in found:
        groups.setdefault(outcome, []).append(member)
    return list(groups.values())


def says(axes, groups):
    """Whether the values on ``axes`` say which group a member is in."""
    where = {}
    for number, group in enumerate(groups):
        for member in group:
            where.setdefault(tuple(member[axis] for axis in axes), set()).add(number)
    return all(len(numbers) == 1 for numbers in where.values())


@given(outcomes)
def test_smallest_set_separates_and_none_smaller_does(found):
    groups = partition(found)
    axes = smallest(groups)
    known = [axis for axis in AXES if axis in groups[0][0]]
    if axes is None:
        assert not says(known, groups)
        return
    assert says(axes, groups)
    smaller = itertools.combinations(known, len(axes) - 1) if axes else ()
    assert not any(says(each, groups) for each in smaller)


@given(outcomes)
def test_groups_that_an_axis_separates_have_labels_of_their_own(found):
    groups = partition(found)
    separation = separate(groups)
    if separation.axes and len(groups) > 1:
        assert len(set(separation.labels)) == len(groups)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=14), st.integers(0, 300))
def test_grouped_values_are_never_apart_and_none_is_left_out(values, band):
    groups = grouped(values, lambda a, b: abs(a - b) > band, float)

    assert sorted(index for group in groups for index in group) == list(range(len(values)))
    for group in groups:
        assert max(values[i] for i in group) - min(values[i] for i in group) <= band


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 5))
def test_grouped_values_of_clusters_that_are_far_apart_are_those_clusters(numbers, size):
    values = [1000 * number + offset for number in numbers for offset in range(size)]
    groups = grouped(values, lambda a, b: abs(a - b) > 100, float)

    assert len(groups) == len(set(numbers))


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=4), min_size=2, max_size=4))
def test_texts_of_lines_that_differ_are_shown_differently(texts):
    shown = distinguishing(["".join(f"{line}\n" for line in lines) for lines in texts])

    assert len(set(shown)) == len(set(map(tuple, texts)))
