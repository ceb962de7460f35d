"""What a person reads of a campaign of random programs; or JSON."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from harness.fuzz.journal import History


def fuzz_report(
    console: Console,
    history: History,
    findings: Path,
    refused: Mapping[tuple[str, str], int],
) -> None:
    """How much was run, every finding, and where its report is."""
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    rate = f", {history.programs / history.seconds:.1f} a second" if history.seconds else ""
    executed = ", ".join(f"{count} on {side}" for side, count in sorted(history.executed.items()))
    say(f"seed {history.campaign.seed}: {history.programs} programs{rate} ({executed or 'none'})")
    if refused:
        by_grammar: Counter[str] = Counter()
        for (name, _), count in refused.items():
            by_grammar[name] += count
        shown = ", ".join(f"{name} {count}" for name, count in sorted(by_grammar.items()))
        say(f"refused, because their logs are not defined: {shown}")
    for id_, one in history.finished.items():
        if one["flaky"]:
            word, style = "flaky", "yellow"
        elif one["rule"] is not None:
            word, style = f"known ({one['rule']})", "dim"
        else:
            word, style = "UNEXPLAINED", "bold red"
        say(f"{word}: {one['text']}", style=style)
        say(f"  {one['steps']} steps; shown in {one['shown']} of {one['asked']}; {one['axis']}")
        if one["blame"]:
            say(f"  looks like the fault of: {one['blame']}")
        if one["resembles"]:
            say(f"  may be the same as: {', '.join(one['resembles'])}")
        say(f"  {findings / id_ / 'report.md'}")
    unexplained = sum(not one["explained"] for one in history.finished.values())
    say(f"{len(history.finished)} findings, {unexplained} unexplained")


def fuzz_json(history: History, findings: Path) -> str:
    """The same as JSON."""
    campaign = history.campaign
    return json.dumps(
        {
            "seed": campaign.seed,
            "sides": list(campaign.sides),
            "programs": history.programs,
            "seconds": round(history.seconds, 3),
            "executed": dict(history.executed),
            "findings": [
                {"id": id_, **one, "report": str(findings / id_ / "report.md")}
                for id_, one in history.finished.items()
            ],
        },
        indent=1,
    )
