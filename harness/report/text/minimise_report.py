"""What a person reads of a scenario that was made shorter; or JSON."""

from __future__ import annotations

import dataclasses
import json

from harness.base.emphasis import Emphasis
from harness.report.page import Page, TextLine
from harness.repro.minimise import Minimised


def minimised_report(found: Minimised) -> Page:
    """What is left, what it shows, and where it is."""
    yield TextLine(f"{found.name}: {found.steps_before} steps reduced to {len(found.steps)}")
    for number, step in enumerate(found.steps):
        yield TextLine(f"  {number}: {step}")
    yield TextLine(f"shows: {found.finding.text}")
    if found.shown < found.asked:
        text = f"shown in {found.shown} of {found.asked} executions: it is a race"
        yield TextLine(text, Emphasis.NOTICE)
    if others := len(found.all_findings) - 1:
        yield TextLine(
            f"the scenario showed {others} more differences; --finding selects another one"
        )
    yield TextLine(f"written to {found.path}")


def minimised_json(found: Minimised) -> str:
    """The same as JSON."""
    return json.dumps(dataclasses.asdict(found), indent=1, default=str)
