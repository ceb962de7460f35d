"""The text of an issue: what is new, and nothing where nothing is."""

from __future__ import annotations

import dataclasses

import pytest

from harness.report.export import issue
from harness.report.run_view import RunView
from support import runs
from support.stored import finding, night, nights_since_a_problem


@pytest.fixture
def nights(tmp_path):
    """A store whose baseline has one problem."""
    return nights_since_a_problem(tmp_path / "store.sqlite")


def written(nights, result):
    return issue.render(RunView.of(result, baseline=nights.enter(result, "")))


def test_issue_has_what_is_new_and_not_what_the_baseline_has(nights):
    text = written(nights, night(finding("eoi"), finding("poll")))
    title, empty, *body = text.splitlines()

    assert title.startswith("irqmatrix ")
    assert title.count("poll") == 1
    assert empty == ""
    assert "eoi" not in text
    assert any(line.startswith("irqmatrix history ") for line in body)


def test_issue_of_a_night_with_nothing_new_is_empty(nights):
    assert written(nights, night(finding("eoi"))) == ""
    assert written(nights, night()) == ""


def test_issue_without_a_store_has_all_that_is_not_as_expected():
    text = issue.render(RunView.of(runs.EVERYTHING))
    assert text.startswith("irqmatrix nightly: ")
    assert "6 cases: 3 not as expected" in text
    assert issue.render(RunView.of(runs.run_of(runs.GOOD))) == ""


def test_issue_of_a_text_that_is_markup_keeps_it_in_its_block(nights):
    found = finding("poll")
    groups = tuple(dataclasses.replace(each, saw="```\n# mine\x1b[1m") for each in found.groups)
    text = written(nights, night(dataclasses.replace(found, groups=groups)))
    assert "\x1b" not in text
    assert text.splitlines()[0].isprintable()


def test_issue_of_many_problems_counts_those_that_it_does_not_show(monkeypatch):
    monkeypatch.setattr(issue, "SHOWN", 1)
    text = issue.render(RunView.of(runs.EVERYTHING))
    assert "\nAnd " in text
    assert "### 2" not in text
