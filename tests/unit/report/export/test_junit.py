"""JUnit XML: against a golden file, against the schema that Jenkins checks, and read back."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

from junitparser import JUnitXml

from harness.model.verdict import Blame, Verdict
from harness.report.checks import groups_of
from harness.report.export.junit import render
from support import golden, runs

GOLDEN = golden.COLLECT.parent / "export" / "everything.xml"

ALLOWED = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "time", "skipped", "timestamp", "hostname"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"name", "classname", "time"}, {"skipped", "error", "failure"}),
    "skipped": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "failure": ({"type", "message"}, set()),
}
"""Attributes and children by element: what we use of junit-10.xsd (Jenkins' xUnit plugin)."""
REQUIRED = {
    "testsuite": {"name", "tests", "failures", "errors"},
    "testcase": {"name"},
    "property": {"name", "value"},
}


def rendered(run=runs.EVERYTHING):
    return render(run, groups_of(run))


def failing(text):
    """Suite and case of all failures and errors."""
    return {
        (suite.name, case.name)
        for suite in JUnitXml.fromstring(text.encode())
        for case in suite
        if case.is_failure or case.is_error
    }


def test_junit_of_a_run_is_the_golden_file():
    assert rendered() == GOLDEN.read_text(encoding="utf-8")


def is_allowed(element):
    attributes, children = ALLOWED[element.tag]
    return (
        REQUIRED.get(element.tag, set()) <= element.attrib.keys() <= attributes
        and {child.tag for child in element} <= children
        and re.fullmatch(r"\d*(\.\d*)?", element.get("time", "")) is not None
    )


def test_junit_keeps_to_the_schema_that_jenkins_checks():
    elements = [*ET.fromstring(rendered().encode()).iter()]

    assert {element.tag for element in elements} == ALLOWED.keys()
    assert [element for element in elements if not is_allowed(element)] == []


def test_junit_counts_are_those_of_its_cases():
    suites = [*JUnitXml.fromstring(rendered().encode())]
    document = ET.fromstring(rendered().encode())

    assert int(document.get("tests", "")) == sum(len(suite) for suite in suites)
    assert int(document.get("failures", "")) + int(document.get("errors", "")) == 7
    assert all(suite.tests == len(suite) for suite in suites)


def test_junit_fails_what_makes_the_run_fail_and_the_bug_that_no_longer_shows():
    assert failing(rendered()) == {
        (runs.LOSES.id, "idle"),
        (runs.LOSES.id, "stuck-line"),
        (runs.HANGS.id, "the whole case"),
        (runs.BROKEN.id, "the whole case"),
        ("linux: backends compared", "idle"),
        ("known differences", "fixed-bug on lab-kvm-on"),
        ("what ran", "everything ran somewhere"),
    }


def test_junit_names_do_not_hang_on_what_was_seen():
    """A dashboard follows a test by class name and name from night to night."""

    def names(run):
        suites = JUnitXml.fromstring(rendered(run).encode())
        return [(case.classname, case.name) for suite in suites for case in suite]

    other_parts = tuple(
        replace(part, verdict=Verdict.FAIL, detail="9 of 12") for part in runs.GOOD.parts
    )
    other = replace(
        runs.GOOD, verdict=Verdict.FAIL, detail="9 of 12", as_expected=False, parts=other_parts
    )
    compared = (runs.COMPARISON,)

    assert names(runs.run_of(other, comparisons=compared)) == names(
        runs.run_of(runs.GOOD, comparisons=compared, findings=runs.FINDINGS)
    )


def test_junit_class_has_one_dot_so_that_jenkins_sees_no_package_in_a_version():
    suites = JUnitXml.fromstring(rendered().encode())

    assert {case.classname.count(".") for suite in suites for case in suite} == {1}


def test_junit_says_with_which_versions_the_run_was():
    suite = next(iter(JUnitXml.fromstring(rendered().encode())))

    assert {each.name: each.value for each in suite.properties()} == {
        "irqmatrix": "1.2.3",
        "qemu": "10.0=10.0.2, system=7.2.22",
    }


def test_junit_says_whose_fault_a_failure_looks_like():
    blamed = replace(runs.LOSES.parts[0], blame=Blame.IRQCHIP)
    case = replace(runs.LOSES, parts=(blamed,))
    suite, _ = JUnitXml.fromstring(rendered(runs.run_of(case)).encode())
    messages = [found.message for each in suite for found in each.result]
    assert messages == ["IRQ 4: 3 interrupts for 5 (looks like irqchip)"]
