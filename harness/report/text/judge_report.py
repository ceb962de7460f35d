"""What ``irqmatrix judge`` prints: each case, what is not as in the run, and the findings."""

from __future__ import annotations

import json

from harness.model.verdict import Verdict
from harness.report.page import Page, TextLine
from harness.run.rejudge import Rejudged, RejudgedRun


def judge_report(found: RejudgedRun) -> Page:
    """A line for each case, with what changed below it."""
    for case in found.cases:
        yield TextLine(f"{case.verdict:11} {case.id}: {_said(case)}")
        for change in case.changes:
            yield TextLine(f"    {change}")
    for finding in found.findings:
        yield TextLine(finding)
    judged = sum(case.result is not None for case in found.cases)
    changed = sum(bool(case.changed) for case in found.cases)
    total = f"{judged} of {len(found.cases)} cases judged, {changed} changed"
    if found.before is not None:
        total += f"; {len(found.findings)} findings new or gone"
    yield TextLine(total + ("; written" if found.written else ""))


def _said(case: Rejudged) -> str:
    if case.before is not None and case.before.verdict is Verdict.SKIP and case.result is None:
        return f"not run: {case.before.detail}"
    if case.missing is not None:
        return f"not judged: {case.missing}"
    if case.before is None:
        return "the run gave no verdict"
    return f"changed: {', '.join(case.changed)}" if case.changed else "as in the run"


def judge_json(found: RejudgedRun) -> str:
    """Everything, as JSON."""
    document = {
        "cases": [
            {
                "id": case.id,
                "dir": str(case.directory),
                "verdict": case.verdict,
                "before": None if case.before is None else case.before.verdict.value,
                "missing": case.missing,
                "changed": list(case.changed),
                "changes": list(case.changes),
            }
            for case in found.cases
        ],
        "findings": list(found.findings),
        "written": found.written,
        "exit_status": found.exit_status,
    }
    return json.dumps(document, indent=1)
