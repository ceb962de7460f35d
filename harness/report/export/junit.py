"""JUnit XML, as Jenkins' xUnit plugin checks it (its ``junit-10.xsd``) and GitLab reads it.

``failure`` is what makes the run fail, and a known bug that no longer shows (``type="xpass"``):
it does not change the run's exit status, but it must not go unseen.  What fails as expected is
``skipped`` with ``type="xfail"``, as pytest writes it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Final

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from harness.report.checks import Check, CheckGroup, Outcome
from harness.report.views import baseline_headline
from harness.store.baseline import BaselineComparison, State
from harness.store.result import RunResult

_ILLEGAL: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even as a character reference (its section 2.2)."""

_ELEMENTS: Final[Mapping[Outcome, type[Skipped] | type[Failure] | type[Error]]] = {
    Outcome.SKIP: Skipped,
    Outcome.XFAIL: Skipped,
    Outcome.STALE: Skipped,
    Outcome.FLAKY: Skipped,
    Outcome.BASELINE: Skipped,
    Outcome.XPASS: Failure,
    Outcome.FAIL: Failure,
    Outcome.ERROR: Error,
}


def render(
    run: RunResult, groups: Iterable[CheckGroup], compared: BaselineComparison | None = None
) -> str:
    """The document: a suite a group, named like it, and a test case a check.

    What is new since the baseline is in the properties of its suite.
    """
    document = JUnitXml(_legal(run.name))
    suites = [_suite(run, group, compared) for group in groups]
    for suite in suites:
        document.add_testsuite(suite)
    document.tests = sum(suite.tests for suite in suites)
    document.failures = sum(suite.failures for suite in suites)
    document.errors = sum(suite.errors for suite in suites)
    file = io.BytesIO()
    document.write(file, pretty=True)
    return file.getvalue().decode()


def _suite(run: RunResult, group: CheckGroup, compared: BaselineComparison | None) -> TestSuite:
    suite = TestSuite(_legal(group.name))
    for name, value in run.environment.items():
        suite.add_property(_legal(name), _legal(_text(value)))
    if compared is not None:
        suite.add_property("baseline", _legal(baseline_headline(compared)))
        for state in State:
            names = [check.name for check in group.checks if check.state is state]
            if names:
                suite.add_property(state.value, _legal(", ".join(names)))
    # Jenkins takes what is before the last dot for a package.
    classname = f"{run.name}.{group.name.replace('.', '_')}"
    cases = [_case(check, _legal(classname)) for check in group.checks]
    if cases and group.duration_s is not None:
        cases[0].time = group.duration_s
    suite.add_testcases(cases)
    return suite


def _case(check: Check, classname: str) -> TestCase:
    case = TestCase(_legal(check.name), classname, 0.0)
    element = _ELEMENTS.get(check.outcome)
    if element is not None:
        own = (Outcome.XFAIL, Outcome.BASELINE)
        kind = check.outcome.value if check.outcome in own else check.kind
        blame = f" (looks like {check.blame})" if check.blame is not None else ""
        state = f" ({check.state}: {check.since})" if check.state is not None else ""
        found = element(_legal(check.message + blame + state), kind)
        found.text = _legal("\n".join(check.lines))
        case.result = found
    return case


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return str(value)


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", text)
