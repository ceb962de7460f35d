"""What a person reads of a scenario that was made shorter; or JSON."""

from __future__ import annotations

import dataclasses
import json

from harness.base.emphasis import Emphasis
from harness.report.page import Line, Page
from harness.repro.minimise import Minimised


def minimised_report(found: Minimised) -> Page:
    """What is left, what it shows, and where it is."""
    yield Line(f"{found.name}: {found.steps_before} steps reduced to {len(found.steps)}")
    for number, step in enumerate(found.steps):
        yield Line(f"  {number}: {step}")
    yield Line(f"shows: {found.finding.text}")
    if found.shown < found.asked:
        text = f"shown in {found.shown} of {found.asked} executions: it is a race"
        yield Line(text, Emphasis.NOTICE)
    if others := len(found.all_findings) - 1:
        yield Line(f"the scenario showed {others} more differences; --finding selects another one")
    yield Line(f"written to {found.path}")


def minimised_json(found: Minimised) -> str:
    """The same as JSON."""
    return json.dumps(dataclasses.asdict(found), indent=1, default=str)
