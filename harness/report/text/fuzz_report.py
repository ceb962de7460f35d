"""What a person reads of a campaign of random programs; or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.base.emphasis import Emphasis
from harness.fuzz.journal import History
from harness.report.page import Page, TextLine


def fuzz_report(history: History, findings: Path, refused: Mapping[tuple[str, str], int]) -> Page:
    """How much was run, every finding, and where its report is."""
    runs = history.executed.total()
    rate = f", {runs / history.seconds:.1f} a second" if history.seconds else ""
    number = f"seed {history.campaign.seed}: {history.programs} programs"
    yield TextLine(f"{number}, {runs} runs{rate}")
    for side in history.campaign.sides:
        yield TextLine(f"{history.executed[side]:>9} on {side}")
    if refused:
        by_grammar: Counter[str] = Counter()
        for (name, _), count in refused.items():
            by_grammar[name] += count
        shown = ", ".join(f"{name} {count}" for name, count in sorted(by_grammar.items()))
        yield TextLine(f"refused, because their logs are not defined: {shown}")
    if history.corpus:
        lines = sum(map(len, history.corpus.values()))
        yield TextLine(f"{len(history.corpus)} programs reached {lines} new lines of KVM: corpus/")
    for id_, one in history.finished.items():
        yield from _finding(one)
        yield TextLine(f"  {findings / id_ / 'report.md'}")
    unexplained = sum(not one["explained"] for one in history.finished.values())
    yield TextLine(f"{len(history.finished)} findings, {unexplained} unexplained")


def _finding(one: Mapping[str, Any]) -> Page:
    if one["flaky"]:
        yield TextLine(f"flaky: {one['text']}", Emphasis.NOTICE)
    elif one["rule"] is not None:
        yield TextLine(f"known ({one['rule']}): {one['text']}", Emphasis.EXPLAINED)
    else:
        yield TextLine(f"UNEXPLAINED: {one['text']}", Emphasis.ALARM)
    yield TextLine(f"  {one['steps']} steps; shown in {one['shown']} of {one['asked']}")
    yield TextLine(f"  {one['axis']}")
    if one["blame"]:
        yield TextLine(f"  looks like the fault of: {one['blame']}")
    if one["resembles"]:
        yield TextLine(f"  may be the same as: {', '.join(dict.fromkeys(one['resembles']))}")


def fuzz_json(history: History, findings: Path) -> str:
    """The same as JSON."""
    campaign = history.campaign
    return json.dumps(
        {
            "seed": campaign.seed,
            "sides": list(campaign.sides),
            "programs": history.programs,
            "runs": history.executed.total(),
            "seconds": round(history.seconds, 3),
            "executed": dict(history.executed),
            "corpus": {name: list(lines) for name, lines in history.corpus.items()},
            "findings": [
                {"id": id_, **one, "report": str(findings / id_ / "report.md")}
                for id_, one in history.finished.items()
            ],
        },
        indent=1,
    )
