"""KernelCI's report data: the schema of its database KCIDB, version 5.

A *checkout* and a *build* are a pair of Linux (whose KVM is tested) and QEMU; a *test* is a case,
a part of one, or a part whose backends were compared.  What a known bug explains is FAIL with an
*incident* of an *issue*, which is how KernelCI takes a failure for triaged; what differs by design
passes.  Both name their rule in ``misc``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from harness.base.text import plain, shortened
from harness.compare.diff import Comparison, Status
from harness.compare.finding import Finding
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.report.run_view import RunView
from harness.report.views import finding_view, since_text
from harness.store.baseline import BaselineComparison, Change
from harness.store.result import RunResult

ORIGIN: Final = "irqmatrix"
"""What KernelCI calls a CI system, which is the first word of every id of its."""
VERSION: Final = {"major": 5, "minor": 0}
LONGEST_EXCERPT: Final = 16384
"""Characters of a ``log_excerpt``, by the schema."""

STATUS: Final[Mapping[Verdict, str]] = {
    Verdict.PASS: "PASS",
    Verdict.SKIP: "SKIP",
    Verdict.ERROR: "ERROR",
    Verdict.TIMEOUT: "ERROR",
    Verdict.INCOMPLETE: "MISS",
}
"""All others are FAIL; a part that its case did not come to is MISS, too."""
_COMPARED: Final[Mapping[Status, str]] = {
    Status.UNEXPLAINED: "FAIL",
    Status.KNOWN_BUG: "FAIL",
}
"""All others are PASS."""

_Object = dict[str, Any]


def render(view: RunView) -> str:
    """The document, as JSON."""
    run = view.run
    builds = {build["id"]: build for case in run.cases for build in (_build(run, case),)}
    tests, issues, incidents = list(_case_tests(run, view.baseline)), {}, []
    if run.comparisons:
        whole = _whole_build(run)
        builds[whole["id"]] = whole
    for test, findings in _comparison_tests(run, view.baseline):
        tests.append(test)
        for finding in findings:
            for rule in finding.rules if finding.status is Status.KNOWN_BUG else ():
                issues[rule] = _issue(rule, finding)
                incidents.append(_incident(rule, test["id"]))
    checkouts = {build["checkout_id"]: _checkout(build) for build in builds.values()}
    document = {
        "version": VERSION,
        "checkouts": [*checkouts.values()],
        "builds": [*builds.values()],
        "tests": tests,
        "issues": [*issues.values()],
        "incidents": incidents,
    }
    filled = {name: value for name, value in document.items() if value}
    return json.dumps(filled, indent=1, ensure_ascii=False) + "\n"


def _id(*words: object) -> str:
    return f"{ORIGIN}:{_text(':'.join(map(str, words)))}"


def _text(text: str, limit: int = LONGEST_EXCERPT) -> str:
    """``text`` without what the schema or a database may refuse."""
    return shortened(plain(text), limit - 64) if len(plain(text)) > limit else plain(text)


def _path(*words: str) -> str:
    """A place in the tree of tests: words of letters, digits, ``-`` and ``_``."""
    cleaned = (re.sub(r"[^a-zA-Z0-9_-]+", "_", word) or "_" for word in words)
    return ".".join((ORIGIN, *cleaned))


def _run_id(run: RunResult) -> str:
    return f"{run.name}:{run.environment.get('finished') or 'unfinished'}"


# --- What was tested ------------------------------------------------------------------------------


def _version(run: RunResult, what: str, name: object) -> str:
    """``6.1.192`` for ``default``, with the package's version where that is known."""
    versions = run.environment.get(what)
    builds = run.environment.get("builds")
    package = None
    if isinstance(builds, Mapping):
        package = builds.get(what, {}).get(name, {}).get("package")
    known = versions.get(name) if isinstance(versions, Mapping) else None
    return str(package or known or name or "unknown")


def _build(run: RunResult, case: CaseResult) -> _Object:
    """The pair of Linux and QEMU that a case ran on; without a lab Linux is this machine's."""
    qemu = _version(run, "qemu", case.axes.get("qemu"))
    kernel = case.axes.get("lab_kernel")
    linux = str(run.environment.get("kernel", "unknown"))
    if kernel is not None:
        linux = _version(run, "lab_kernel", kernel)
    return {
        "id": _id(_run_id(run), "linux", linux, "qemu", qemu),
        "checkout_id": _id("linux", linux),
        "origin": ORIGIN,
        "architecture": "x86_64",
        "comment": f"Linux {linux}, QEMU {qemu}",
        "status": "PASS",
        "misc": {"linux": linux, "qemu": qemu},
    }


def _whole_build(run: RunResult) -> _Object:
    """All that a run compared, which is more than one Linux and one QEMU."""
    return {
        "id": _id(_run_id(run), "all"),
        "checkout_id": _id("linux", "all"),
        "origin": ORIGIN,
        "architecture": "x86_64",
        "comment": "every Linux and QEMU of the run",
        "status": "PASS",
        "misc": {},
    }


def _checkout(build: _Object) -> _Object:
    linux = build["misc"].get("linux")
    comment = "several" if linux is None else f"Linux {linux}"
    return {"id": build["checkout_id"], "origin": ORIGIN, "comment": comment, "valid": True}


# --- Tests ----------------------------------------------------------------------------------------


def _case_tests(run: RunResult, compared: BaselineComparison | None) -> Iterator[_Object]:
    for case in run.cases:
        for part, test in (
            ("", _case_test(run, case)),
            *((part.id, _part_test(run, case, part)) for part in case.parts),
        ):
            changes = () if compared is None else compared.verdicts_of(case.id, part)
            yield _with_changes(test, changes)


def _with_changes(test: _Object, changes: Iterable[Change]) -> _Object:
    """``test`` with what became since the baseline of what is wrong in it."""
    found = [
        {"state": change.state, "finding": change.key, "since": since_text(change)}
        for change in changes
    ]
    return test | ({"misc": test["misc"] | {"baseline": found}} if found else {})


def _case_test(run: RunResult, case: CaseResult) -> _Object:
    found = _test(run, case, case, _path(case.family or case.guest), case.full_detail)
    return {"id": _id(_run_id(run), case.id), "duration": case.duration_s} | found


def _part_test(run: RunResult, case: CaseResult, part: PartResult) -> _Object:
    path = _path(case.family or case.guest, part.id)
    found = _test(run, case, part, path, part.detail)
    if not part.was_reached:
        found["status"] = "MISS"
    return {"id": _id(_run_id(run), case.id, part.id)} | found


def _test(
    run: RunResult, case: CaseResult, judged: CaseResult | PartResult, path: str, detail: str
) -> _Object:
    misc = {
        "verdict": judged.verdict,
        "as_expected": judged.as_expected,
        "expected": judged.expected,
        "blame": judged.blame,
    }
    found: _Object = {
        "build_id": _build(run, case)["id"],
        "origin": ORIGIN,
        "path": path,
        "comment": _text(f"{case.subject} on {case.backend}"),
        "status": STATUS.get(judged.verdict, "FAIL"),
        "environment": {
            "comment": _text(case.backend),
            "misc": {name: value for name, value in case.axes.items() if value is not None},
        },
        "misc": {name: value for name, value in misc.items() if value is not None},
    }
    return found | ({"log_excerpt": _text(detail)} if detail else {})


def _comparison_tests(
    run: RunResult, known: BaselineComparison | None
) -> Iterator[tuple[_Object, list[Finding]]]:
    """Each thing that backends were compared in, with the findings in it."""
    families: dict[str, list[Comparison]] = {}
    for comparison in run.comparisons:
        families.setdefault(comparison.family, []).append(comparison)
    for family, compared in families.items():
        names = dict.fromkeys(name for each in compared for name in (*each.workloads, *each.checks))
        for name in names:
            own = [f for f in run.findings if (f.family, f.part) == (family, name)]
            changes = () if known is None else known.differences_of(family, name)
            yield _with_changes(_comparison_test(run, family, name, own), changes), own


def _comparison_test(
    run: RunResult, family: str, name: str, findings: Sequence[Finding]
) -> _Object:
    statuses = {_COMPARED.get(finding.status, "PASS") for finding in findings}
    found: _Object = {
        "id": _id(_run_id(run), family, "compared", name),
        "build_id": _whole_build(run)["id"],
        "origin": ORIGIN,
        "path": _path(family, "compared", name),
        "comment": _text(f"{family}: {name}, backends compared"),
        "status": "FAIL" if "FAIL" in statuses else "PASS",
        "misc": {"findings": [_finding(finding) for finding in findings]},
    }
    lines = [line for finding in findings for line in _lines(finding)]
    return found | ({"log_excerpt": _text("\n".join(lines))} if lines else {})


def _finding(finding: Finding) -> _Object:
    found = {
        "status": finding.status,
        "axis": finding.axis,
        "rules": list(finding.rules),
        "link": finding.link,
    }
    return {name: value for name, value in found.items() if value}


def _lines(finding: Finding) -> Iterable[str]:
    view = finding_view(finding)
    yield f"{finding.status}: {view.headline}"
    yield from (f"    {line}" for line in view.groups)


# --- Known bugs -----------------------------------------------------------------------------------


def _issue(rule: str, finding: Finding) -> _Object:
    found: _Object = {
        "id": _id("rule", rule),
        "version": 1,
        "origin": ORIGIN,
        "culprit": {"code": True, "tool": False, "harness": False},
        "comment": _text(finding.reason if rule == finding.rule else rule),
        "misc": {"rule": rule},
    }
    is_own = rule == finding.rule and finding.link is not None
    return found | ({"report_url": finding.link} if is_own else {})


def _incident(rule: str, test: str) -> _Object:
    return {
        "id": f"{test}:{rule}",
        "origin": ORIGIN,
        "issue_id": _id("rule", rule),
        "issue_version": 1,
        "test_id": test,
        "present": True,
    }
