"""The HTML file without a browser: what is in it, how large it is, and its colours."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from harness.analyse.case_evidence import read_ledger
from harness.base.errors import CollectError
from harness.compare.diff import Status
from harness.compare.finding import Member
from harness.model.counters import CounterSet
from harness.report import files
from harness.report.export import html
from harness.report.pages import FUNNEL, funnel_of, log_parting, pair_of, rates_of
from harness.report.run_view import RunView
from harness.report.subject import Account
from support import page_runs, runs
from support.page_runs import part


@pytest.fixture(scope="module")
def red(tmp_path_factory):
    """A run with findings, and its directory."""
    folder = tmp_path_factory.mktemp("run")
    return page_runs.red_run(folder), folder


@pytest.fixture(scope="module")
def page(red):
    return page_runs.html(*red)


def test_html_asks_for_nothing_outside_of_itself(page):
    whole = page + "".join(part(page, f"finding-{n}") for n in range(4))
    assert re.findall(r'(?:src|action|poster|srcset)="(?!data:)[^"]*"', whole) == []
    assert re.findall(r'<(?:link|iframe|object|embed|base)\b(?![^>]*href="data:,")', whole) == []
    assert 'content="default-src &#39;none&#39;; ' in page
    assert not re.search(r"@import|url\(", page)


def test_html_runs_no_script_but_its_own(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert policy.count("sha256-") == 2


def test_html_of_hostile_names_and_texts_has_none_of_them_as_markup(red):
    run, folder = red
    text = page_runs.HOSTILE
    finding = replace(
        run.findings[0], part=text, reason=text, axis=text, link="javascript:alert(1)"
    )
    case = replace(run.cases[0], detail=text, notes=(text,))
    hostile = replace(run, name=text, findings=(finding,), cases=(case, *run.cases[1:]))

    found = page_runs.html(hostile, folder)

    pages = [found, *(part(found, name) for name in ("finding-0", "case-0", "case-9"))]
    assert [re.findall(r"<script>document|<img|\x1b|\u202e", each) for each in pages] == [[]] * 4
    assert 'href="javascript:' not in "".join(pages)


def test_html_has_a_page_for_each_case_finding_and_subject(page, red):
    run, _ = red
    ids = re.findall(r'id="data-([a-z]+)-\d+"', page)
    subjects = {case.subject for case in run.cases}
    assert ids.count("case") == len(run.cases)
    assert ids.count("finding") == len(run.findings)
    assert ids.count("subject") == len(subjects)


def test_html_findings_come_before_the_heat_map(page):
    assert 0 < page.index('id="findings"') < page.index('id="heat"')


def test_html_of_the_same_run_is_the_same(page, red):
    assert page_runs.html(*red) == page


def test_html_takes_less_than_a_five_hundredth_of_5_mb_for_a_case(red, page):
    run, folder = red
    many = page_runs.html(page_runs.many_cases(run, 60), folder)
    assert (len(many.encode()) - len(page.encode())) / (60 - len(run.cases)) < 10_000


def test_html_of_a_case_whose_ledger_is_damaged_says_so_on_its_page(tmp_path):
    (tmp_path / runs.GOOD.dir).mkdir()
    (tmp_path / runs.GOOD.dir / "ledger.json").write_text("no ledger")
    run = runs.run_of(runs.GOOD)
    with pytest.raises(CollectError):
        files.view_of(run, tmp_path)

    assert "not a ledger" in part(page_runs.html(run, tmp_path), "case-0")


def test_html_of_a_finding_has_its_scenario_and_the_words_of_the_specification(page):
    text = re.sub(r"<[^>]+>", "", page_runs.part(page, "finding-1"))

    assert "a second rise without a fall is no edge to KVM" in text
    assert "line: {14: high}" in text
    assert "82093AA" in text
    assert "an edge-triggered input asks once a rise" in text


def test_html_of_a_finding_whose_scenarios_are_damaged_is_without_them(tmp_path):
    run = page_runs.red_run(tmp_path)
    for file in tmp_path.glob("*/probe.json.zst"):
        file.write_bytes(b"nothing of zstandard")

    assert "The scenario" not in page_runs.part(page_runs.html(run, tmp_path), "finding-1")


def test_html_shows_the_end_of_a_long_console(tmp_path):
    folder = tmp_path / runs.GOOD.dir
    folder.mkdir()
    (folder / "console.log").write_text("first\n" + "x" * 100_000 + "\nlast\n")

    shown = part(page_runs.html(runs.run_of(runs.GOOD), tmp_path), "case-0")

    assert "last" in shown
    assert "first" not in shown
    assert f"{100_000 + 12 - files.CONSOLE_BYTES[1]} bytes before" in shown


def test_html_aligns_no_more_pairs_than_it_has_time_for(red):
    run, folder = red
    many = page_runs.many_cases(run, 60)
    found = files.divergences_of(many, folder)
    assert sum(each.diff is not None for each in found.values()) == files.MAX_ALIGNED
    assert any("only the first" in each.problem for each in found.values())


def test_divergence_of_linux_guests_is_where_one_writes_another_value(red):
    run, folder = red
    found = files.divergences_of(run, folder)[0]

    assert found.diff.first.parting.subject == "lapic0/LVT1"
    assert found.diff.first.parting.values == ("0x8400", "0x8500")
    assert {register.name for register in found.a.registers} >= {"IRR", "ISR"}
    assert rates_of(found).a != rates_of(found).b
    assert 0 < found.a.at_ns < found.a.messages_ns[-1]


# --- Data ---------------------------------------------------------------------------------------


def test_funnel_of_a_recorded_boot_adds_up_to_its_ledger():
    ledger = read_ledger(page_runs.LINUX_TCG / "ledger.json")
    totals = dict(zip(FUNNEL, funnel_of(Account({}, ledger)).totals, strict=True))
    vectors = [row.counts for row in ledger.rows if row.kind == "vector"]

    assert totals["ended"] == sum(row.get("eoi", 0) for row in vectors)
    assert totals["accepted"] == sum(row.get("accepted", 0) for row in vectors)
    assert totals["raised"] >= totals["routed"] > 0


def test_funnel_of_a_case_without_a_ledger_is_empty():
    assert funnel_of(Account({"idle": CounterSet.of((), (), {})}, None)).rows == ()


def test_log_parting_marks_the_first_line_that_differs():
    same = [f"step {n}" for n in range(9)]
    state = "step 9, CPU 0: irq 0x51 (IRR none, ISR 0x51)"
    found = log_parting([*same, state, "end"], [*same, "end"], (True, False))

    assert (found.rows[found.first].a, found.rows[found.first].b) == (state, None)
    assert found.left_out[0] + found.first == len(same)
    assert found.before == ("-", "-")
    assert found.after == ("IRR none, ISR 0x51", "-")


def test_log_parting_of_equal_logs_is_none():
    assert log_parting(["a"], ["a"], (True, True)) is None


def test_pair_of_a_finding_is_of_one_subject_and_begins_with_the_larger_group(red):
    run, _ = red
    a, b = pair_of(run.findings[0], run)
    assert (a.backend, b.backend) == ("lab-kvm-on", "lab-kvm-split")
    assert a.subject == b.subject


def test_pair_of_a_finding_whose_cases_are_not_in_the_run_is_none(red):
    run, _ = red
    groups = tuple(
        replace(group, members=(Member("gone", "x"),)) for group in run.findings[0].groups
    )
    assert pair_of(replace(run.findings[0], groups=groups), run) is None


def test_heat_map_marks_who_is_outside_the_largest_group(red):
    run, _ = red
    page = html.render(RunView.of(replace(run, findings=run.findings[:1])))
    cells = dict(re.findall(r'class="heat-(\w+)"><a href="[^"]*" aria-label="([^":]*)', page))
    assert cells["bad"] == f"{page_runs.LINUX} on lab-kvm-split"


def test_heat_map_of_a_known_bug_is_not_red(red):
    run, _ = red
    known = replace(run.findings[0], status=Status.KNOWN_BUG)
    page = html.render(RunView.of(replace(run, findings=(known,))))
    assert '<td class="heat-bad"' not in page


# --- Colours ------------------------------------------------------------------------------------

CSS = str(html.asset("report.css"))
LEAST = 4.5
"""The contrast of text, WCAG 2.2, 1.4.3."""


def themes():
    """The colours of the light and of the dark theme, by their names."""
    blocks = re.findall(r":root[^{]*\{([^}]*--bg:[^}]*)\}", CSS)[:3]
    return [dict(re.findall(r"--([a-z-]+): (#\w+)", block)) for block in blocks]


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    values = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2])
def test_colours_of_text_can_be_read(theme):
    colours = themes()[theme]
    texts = {"fg": ("bg", "panel", "good-bg", "bad-bg", "known-bg", "skip-bg", "here")}
    texts |= dict.fromkeys(("faint", "link", "good", "bad", "notice", "news"), ("bg", "panel"))
    weak = {
        (text, ground): contrast(colours[text], colours[ground])
        for text, grounds in texts.items()
        for ground in grounds
        if contrast(colours[text], colours[ground]) < LEAST
    }
    assert weak == {}


def test_dark_theme_is_the_same_by_choice_and_by_the_system():
    _, by_system, by_choice = themes()
    assert by_system == by_choice
