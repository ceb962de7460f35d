"""Markdown for a CI job's page: what is first, and texts that would be markup."""

from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from harness.compare.diff import Status
from harness.compare.finding import Group
from harness.model.verdict import PartResult, Verdict
from harness.report.export import markdown
from harness.report.run_view import RunView
from support import runs
from support.stored import Nights, finding, night


def written(run=runs.EVERYTHING):
    return markdown.render(RunView.of(run))


def html(run):
    """As a page shows it, with GitHub's tables."""
    return MarkdownIt("commonmark").enable("table").render(written(run))


def test_markdown_begins_with_the_conclusion_and_the_findings():
    lines = [line for line in written().splitlines() if line]
    assert lines[0].endswith(" nightly")
    assert lines[1].startswith("**6 cases: 3 not as expected")
    assert lines[2] == "### Unexplained findings"


@pytest.mark.parametrize(
    "title",
    [
        *("Unexplained findings", "Not as expected", "Ran nowhere", "Explained differences"),
        *("XPASS: known bugs that no longer show", "Skipped"),
        "Differences by design that should have shown",
    ],
)
def test_markdown_of_a_run_in_which_everything_happens_has_all_sections(title):
    assert f"### {title}\n" in written()


def test_markdown_shows_what_each_group_of_a_finding_saw():
    assert "  on:    200\n  split: 150\n" in written()


def test_markdown_of_a_rule_links_to_its_reason():
    assert f'<a href="{runs.LINK}"><code>lost-pin</code></a>' in html(runs.EVERYTHING)


def test_markdown_verdicts_are_a_table_of_subjects_by_backends():
    page = html(runs.run_of(runs.GOOD, runs.LOSES))
    assert f"<td><code>{runs.SUBJECT}</code></td>\n<td>pass</td>" in page
    assert "<td><strong>lost !</strong></td>" in page


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "```\n<script>alert(1)</script>",
        "`|<script>|`",
        "a ``` b <script>",
    ],
)
def test_markdown_of_a_hostile_text_is_no_markup(text):
    finding = replace(
        runs.finding("idle", Status.UNEXPLAINED),
        groups=(Group(text, text, ()), Group("b", text, ())),
    )
    case = replace(runs.LOSES, parts=(PartResult(text, Verdict.FAIL, text),), detail=text)
    run = replace(runs.run_of(case, findings=(finding,)), name=text)

    assert "<script>" not in html(run)


def test_markdown_of_very_many_findings_is_cut_and_says_so():
    long = replace(
        runs.finding("idle", Status.UNEXPLAINED), groups=(Group("a", "x" * 50_000, ()),) * 2
    )

    page = written(runs.run_of(runs.GOOD, findings=(long,) * 99))

    assert len(page.encode()) < markdown.LONGEST + 100
    assert page.endswith("*The rest does not fit: see the report of the run.*\n")


def test_markdown_of_a_run_without_cases_has_its_name():
    assert written(runs.run_of()).splitlines()[0].endswith(" nightly")


def test_markdown_says_what_is_new_still_there_and_gone_since_the_baseline(tmp_path):
    nights = Nights(tmp_path / "store.sqlite")
    nights.enter(night(finding("eoi"), finding("poll")))
    nights.enter(night(finding("eoi"), finding("poll")))
    result = night(finding("eoi"), finding("mask"), checks=("eoi", "poll", "mask"))

    text = markdown.render(RunView.of(result, None, nights.enter(result)))

    assert "since run 2: 1 new, 1 still there, 1 gone" in text
    titles = [line for line in text.splitlines() if line.startswith("### ")]
    assert titles[:3] == ["### New", "### Still there", "### Gone"]
