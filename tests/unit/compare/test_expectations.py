"""Which known differences were due in a run, and which of them showed."""

from __future__ import annotations

import pytest

from harness.compare.diff import Pair
from harness.compare.expectations import rules_due
from harness.compare.known import BackendFacts, Kind, KnownDifferences
from harness.model.case import Irqchip, Machine

ON = BackendFacts(Irqchip.ON, Machine.Q35, (7, 2, 22), (6, 1, 192))
SPLIT = BackendFacts(Irqchip.SPLIT, Machine.Q35, (7, 2, 22), (6, 1, 192))
SPLIT_6_12 = BackendFacts(Irqchip.SPLIT, Machine.Q35, (7, 2, 22), (6, 12, 117))
SPLIT_QEMU_10 = BackendFacts(Irqchip.SPLIT, Machine.Q35, (10, 0, 2), (6, 1, 192))
TCG = BackendFacts(Irqchip.TCG, Machine.Q35, (7, 2, 22))

BUG = """\
version: 1
rules:
  - id: lost-eoi
    kind: known-bug
    reason: an EOI is lost
    link: https://example.org/lost
    match:
      a: {irqchip: split}
      guest: flat-*
      check: "*eoi*"
"""
COUNTED = BUG.replace(
    'guest: flat-*\n      check: "*eoi*"', "workload: serial\n      counter: eoi/*"
)


def rules(tmp_path, text=BUG):
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    return KnownDifferences.load([path])


def compared(
    a, b, *, met=False, checks=("one eoi",), workloads=(), guest="flat-x", names=("a", "b")
):
    shown = frozenset({"lost-eoi"} if met else ())
    return Pair(*names, (a, b), guest, frozenset(workloads), frozenset(checks), shown)


def test_bug_that_was_due_and_did_not_show_is_an_xpass_of_its_backend(tmp_path):
    (result,) = rules_due(rules(tmp_path), [compared(ON, SPLIT)])

    assert (result.rule, result.backend, result.due, result.met) == ("lost-eoi", "b", 1, 0)
    assert (result.xpass, result.stale) == (True, False)


def test_bug_that_showed_is_none(tmp_path):
    (result,) = rules_due(rules(tmp_path), [compared(SPLIT, ON, met=True)])

    assert (result.backend, result.met, result.xpass) == ("a", 1, False)


def test_bug_that_shows_in_one_comparison_of_its_backend_is_none(tmp_path):
    pairs = [compared(SPLIT, ON, met=True), compared(SPLIT, TCG)]

    (result,) = rules_due(rules(tmp_path), pairs)

    assert (result.due, result.met, result.xpass) == (2, 1, False)


def test_bug_that_is_fixed_in_one_version_is_an_xpass_there_only(tmp_path):
    pairs = [
        compared(SPLIT, ON, met=True, names=("old", "on")),
        compared(SPLIT_6_12, ON, names=("new", "on")),
    ]

    results = rules_due(rules(tmp_path), pairs)

    assert {result.backend: result.xpass for result in results} == {"old": False, "new": True}


@pytest.mark.parametrize(
    "pair",
    [
        compared(ON, TCG),
        compared(SPLIT, SPLIT_QEMU_10),
        compared(ON, SPLIT, checks=("something else",)),
        compared(ON, SPLIT, guest="linux"),
    ],
    ids=["other backends", "both have it", "its check did not run", "other guest"],
)
def test_bug_out_of_scope_is_not_due(tmp_path, pair):
    assert rules_due(rules(tmp_path), [pair]) == ()


def test_bug_of_a_version_is_not_due_in_another(tmp_path):
    narrow = rules(tmp_path, BUG.replace("{irqchip: split}", '{irqchip: split, linux: "6.1"}'))

    assert rules_due(narrow, [compared(ON, SPLIT_6_12)]) == ()
    assert len(rules_due(narrow, [compared(ON, SPLIT)])) == 1


@pytest.mark.parametrize(("workloads", "due"), [(("serial", "idle"), 1), (("idle",), 0)])
def test_bug_in_a_counter_is_due_where_its_workload_was_compared(tmp_path, workloads, due):
    results = rules_due(rules(tmp_path, COUNTED), [compared(ON, SPLIT, workloads=workloads)])

    assert len(results) == due


def test_bug_that_shows_sometimes_may_be_silent(tmp_path):
    (result,) = rules_due(rules(tmp_path, BUG + "    occurs: sometimes\n"), [compared(ON, SPLIT)])

    assert (result.xpass, result.stale) == (False, False)


def test_design_that_did_not_show_is_stale_and_no_xpass(tmp_path):
    text = BUG.replace("known-bug", "by-design") + "    occurs: always\n"

    (result,) = rules_due(rules(tmp_path, text), [compared(ON, SPLIT)])

    assert result.kind is Kind.BY_DESIGN
    assert (result.xpass, result.stale) == (False, True)
