"""What a report calls failed is what makes the run fail, whatever became of the cases."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from junitparser import JUnitXml

from harness.model.verdict import NOT_REACHED, PartResult, Verdict
from harness.report.checks import groups_of
from harness.report.export import junit, tap
from support import runs, tap_reader

VERDICTS = st.sampled_from(Verdict)
EXPECTED = st.none() | VERDICTS
PARTS = st.builds(
    PartResult, st.text(min_size=1), VERDICTS, st.text() | st.just(NOT_REACHED), EXPECTED
)
CASES = st.builds(
    lambda verdict, detail, parts, as_expected, expected: replace(
        runs.GOOD,
        verdict=verdict,
        detail=detail,
        parts=tuple(parts),
        as_expected=as_expected,
        expected=expected,
    ),
    VERDICTS,
    st.text(),
    st.lists(PARTS, max_size=4),
    st.booleans(),
    EXPECTED,
)


@given(CASES)
def test_check_fails_if_and_only_if_its_case_is_not_as_expected(case):
    run = runs.run_of(case)
    groups = groups_of(run)

    assert any(group.failed for group in groups) is (not case.as_expected)


@given(CASES)
def test_report_of_any_text_is_read_back(case):
    run = runs.run_of(case)
    groups = groups_of(run)

    document = JUnitXml.fromstring(junit.render(run, groups).encode())
    suite, _ = document
    assert len(suite) == len(case.parts) + 1
    assert bool(suite.failures or suite.errors) is (not case.as_expected)
    subtest, _ = tap_reader.read(tap.render(groups))
    assert len(subtest.points) == len(case.parts) + 1
    assert bool(subtest.point.ok) is case.as_expected


@given(CASES)
def test_report_has_no_two_checks_of_one_name(case):
    run = runs.run_of(case)
    document = JUnitXml.fromstring(junit.render(run, groups_of(run)).encode())
    suite, *_ = list(document)
    names = [test.name for test in suite]
    assert len(set(names)) == len(names)
    assert all(name.strip() for name in names)
