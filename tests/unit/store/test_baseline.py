"""What became of each problem since a baseline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.base.errors import StoreError
from harness.store import baseline
from harness.store.baseline import State
from harness.store.history import Baseline, FindingNight, band_of
from harness.store.identity import FindingIdentity, RunSightings, Sighting

IT = FindingIdentity("probe/q35", "eoi", "check", (("on",), ("split",)))
BASE = Baseline("nightly", 3, "2026-01-03")
BOTH = {("probe/q35", "on"): frozenset({"eoi"}), ("probe/q35", "split"): frozenset({"eoi"})}


def sighting(identity=IT, status="unexplained", rule=None):
    return Sighting(
        identity, "probe", status, status == "unexplained", "on: 1; split: 2", ("a",), rule
    )


def nights(text):
    """A run a letter: x a problem, e explained, . not seen, - not looked for."""
    return [
        FindingNight(
            number,
            f"2026-01-{number:02}",
            {"x": True, "e": True, ".": False, "-": None}[letter],
            is_problem=letter == "x",
        )
        for number, letter in enumerate(text, 1)
    ]


def compared(history, now=(), *, known=False, looked=BOTH, base=BASE):
    earlier = nights(history)
    run = len(earlier) + 1
    return baseline.compare(
        run,
        "2026-02-01",
        RunSightings(tuple(now), looked),
        lambda _: earlier,
        base,
        len(earlier),
        [sighting()] if known else [],
    )


@pytest.mark.parametrize(
    ("history", "state"),
    [
        ("...", State.NEW),
        ("....", State.NEW),
        ("...x", State.NEW),
        ("..x", State.STILL),
        ("..x.", State.STILL),
        ("eee", State.NEW),
        ("x..", State.NEW),
        ("x.x.", State.STILL),
        ("xx-", State.STILL),
        ("", State.NEW),
    ],
)
def test_problem_that_shows_is_new_unless_the_baseline_had_it(history, state):
    (change,) = compared(history, [sighting()]).changes

    assert change.state is state


def test_problem_that_came_and_went_before_the_baseline_is_flaky_with_its_rate():
    (change,) = compared("x.x.", [sighting()], base=replace(BASE, run=4)).changes

    assert change.state is State.FLAKY
    assert str(change.rate) == "3 of 5 runs"


def test_new_problem_says_since_when_it_shows():
    (change,) = compared("...xx", [sighting()]).changes

    assert (change.since.run, change.since.runs) == (4, 3)
    assert change.is_regression


@pytest.mark.parametrize(
    ("history", "looked", "state"),
    [
        ("xxx", BOTH, State.GONE),
        ("xxx", {}, State.NOT_SEEN),
        ("x.x", BOTH, State.FLAKY),
        ("..x", BOTH, State.GONE),
    ],
)
def test_problem_that_does_not_show_is_gone_if_it_was_looked_for(history, looked, state):
    (change,) = compared(history, known=True, looked=looked).changes

    assert change.state is state
    assert change.since is None


def test_problem_that_a_rule_explains_now_is_gone_and_says_by_which():
    (change,) = compared("xxx", [sighting(status="by_design", rule="by-rule")], known=True).changes

    assert change.state is State.GONE
    assert change.reason == "by-rule explains it"


def test_problem_without_a_backend_that_did_not_run_is_still_there():
    without_off = replace(IT, groups=(("on",), ("off", "split")))

    (change,) = compared("xxx", [sighting(without_off)], known=True).changes

    assert change.state is State.STILL


def test_without_a_baseline_the_run_before_is_what_is_known():
    assert compared("..x", [sighting()], base=None).changes[0].state is State.STILL
    assert compared("xx.", [sighting()], base=None).changes[0].state is State.NEW


def test_comparison_written_is_read_back(tmp_path):
    found = compared("..x.", [sighting()])
    baseline.write(found, tmp_path / "baseline.json")

    assert baseline.read(tmp_path / "baseline.json") == found


def test_comparison_of_another_schema_is_refused(tmp_path):
    (tmp_path / "baseline.json").write_text('{"schema": 99}')

    with pytest.raises(StoreError, match="schema 99"):
        baseline.read(tmp_path / "baseline.json")


def test_band_is_robust_against_one_wild_value():
    band = band_of([100, 102, 98, 101, 5000, 99])

    assert band.low < 95 < 105 < band.high < 200


def test_band_of_equal_values_is_as_wide_as_the_floor():
    band = band_of([100] * 6, floor=20)

    assert (band.low, band.high, band.runs) == (80, 120, 6)


def test_band_of_counts_does_not_begin_below_0():
    assert band_of([0, 1, 0, 2, 0, 3], floor=20).low == 0


def test_few_values_have_no_band():
    assert band_of([1, 2, 3, 4]) is None
