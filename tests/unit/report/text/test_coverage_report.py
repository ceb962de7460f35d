"""What is printed of coverage, and what other tools get."""

import json
from dataclasses import replace

from harness.coverage.account import BuildCoverage
from harness.coverage.cannot_reach import Condition
from harness.model.coverage import Reached, SourceLine
from harness.report.export import coverage_html
from harness.report.export.lcov import lcov
from harness.report.page import Table
from harness.report.text.coverage_report import coverage_json, coverage_report, ranges
from support.covered import LAPIC, TABLE, executed

AVIC = Condition("avic", "AVIC in hardware", "because TCG does not emulate it")


def reached(*offsets):
    return TABLE.reached(executed(*offsets))


BUILD = BuildCoverage(TABLE, reached(0, 8), reached(0), None, {SourceLine(LAPIC, 20): AVIC})


def printed(build, *, missing=False):
    """Every text, in order; a row of a table is one."""
    found = []
    for block in coverage_report([build], missing=missing):
        rows = block.rows if isinstance(block, Table) else ()
        found += [" ".join(cell.text for cell in row) for row in rows]
        found += [] if isinstance(block, Table) else [block.text]
    return found


def test_table_has_a_row_for_each_file_and_one_for_all():
    found = printed(BUILD)

    assert found[1] == "arch/x86/kvm/lapic.c 4 2 50.0 66.7 25.0 2 1 50.0"
    assert found[-1] == "all 5 2 40.0 50.0 20.0 3 1 33.3"


def test_table_without_a_floor_says_so():
    assert "no floor was recorded beside it" in printed(replace(BUILD, floor=None))


def test_missing_lists_what_was_not_reached_and_what_cannot_be_with_its_reason():
    found = printed(BUILD, missing=True)

    assert "not reached: 2 lines" in found
    assert "lapic.c apic_one 11" in found
    assert "cannot be reached: AVIC in hardware: 1 lines" in found
    assert "lapic.c apic_two 20" in found
    assert AVIC.why in found


def test_difference_has_both_directions():
    found = printed(replace(BUILD, other=reached(0, 4)))

    assert (
        "lapic.c apic_one 13" in found[found.index("reached, and not by the other run: 1 lines") :]
    )
    assert "lapic.c apic_one 11" in found[found.index("reached by the other run only: 1 lines") :]


def test_ranges_join_lines_between_which_there_is_no_code():
    lines = [SourceLine(LAPIC, number) for number in (10, 11, 13, 20)]

    assert ranges(lines, TABLE) == "10-20"
    assert ranges([lines[0], lines[2], lines[3]], TABLE) == "10, 13-20"


def test_json_has_counts_and_lists():
    (found,) = json.loads(coverage_json([BUILD]))

    assert found["files"]["all"]["lines"] == {
        "all": 5,
        "reached": 2,
        "floor": 1,
        "cannot_reach": 1,
        "gained": None,
    }
    assert found["missing"] == [[LAPIC, 11], ["virt/kvm/irqchip.c", 5]]
    assert found["cannot_reach"] == [[LAPIC, 20, "avic"]]


def test_lcov_has_a_record_for_each_file_whose_sums_are_right(tmp_path):
    records = lcov([BUILD], tmp_path).split("end_of_record\n")

    lapic = records[0].splitlines()
    assert lapic[:2] == ["TN:linux_6_1_192_3", f"SF:{tmp_path / LAPIC}"]
    assert {"FN:9,apic_one", "FNDA:1,apic_one", "FNDA:0,apic_two", "FNF:2", "FNH:1"} <= set(lapic)
    assert {"DA:10,1", "DA:11,0", "DA:13,1", "DA:20,0", "LF:4", "LH:2"} <= set(lapic)
    assert len(records) == 3


def test_html_has_a_page_for_each_file_and_marks_each_line():
    pages = coverage_html.pages([BUILD])

    assert set(pages) == {"index.html", "6.1.192-3-lapic.c.html", "6.1.192-3-irqchip.c.html"}
    assert 'href="6.1.192-3-lapic.c.html"' in pages["index.html"]
    page = pages["6.1.192-3-lapic.c.html"]
    states = ["floor", "missed", "reached", "beyond"]
    places = [page.index(f">{state}</td>") for state in states]
    assert places == sorted(places)
    assert "AVIC in hardware" in page
    assert "<script" not in page


def test_html_shows_the_source_where_it_is_and_escapes_it():
    text = [*[""] * 9, "if (a < b)", *[""] * 12]
    source = dict.fromkeys(TABLE.files, text)

    page = coverage_html.pages([BUILD], source)["6.1.192-3-lapic.c.html"]

    assert "if (a &lt; b)" in page
    assert page.count("<tr id=") == 22


def test_reached_of_nothing_is_nothing():
    assert TABLE.reached(executed()) == Reached()
