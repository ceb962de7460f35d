"""What a person reads of a scenario that was made shorter; or JSON."""

from __future__ import annotations

import dataclasses
import functools
import json

from rich.console import Console

from harness.repro.minimise import Minimised


def minimised_report(console: Console, found: Minimised) -> None:
    """What is left, what it shows, and where it is."""
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    say(f"{found.name}: {found.steps_before} steps made {len(found.steps)}")
    for number, step in enumerate(found.steps):
        say(f"  {number}: {step}")
    say(f"shows: {found.finding.text}")
    if found.shown < found.asked:
        say(f"shown in {found.shown} of {found.asked} executions: it is a race", style="yellow")
    if others := len(found.all_findings) - 1:
        say(f"the scenario showed {others} more differences; --finding chooses another one")
    say(f"written to {found.path}")


def minimised_json(found: Minimised) -> str:
    """The same as JSON."""
    return json.dumps(dataclasses.asdict(found), indent=1, default=str)
