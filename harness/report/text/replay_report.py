"""What a replay found, as a person reads it, or as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Final

from harness.base.emphasis import Emphasis
from harness.replay import lookahead
from harness.replay.replay import Divergence, Replayed, ReplayOutcome
from harness.report.page import Page, TextLine

_EMPHASIS: Final = {
    ReplayOutcome.AGREED: Emphasis.GOOD,
    ReplayOutcome.DIVERGED: Emphasis.ALARM,
    ReplayOutcome.INCOMPLETE: Emphasis.NOTICE,
}


def replay_json(replayed: Replayed) -> str:
    """A replay as JSON."""
    rows = {field.name: getattr(replayed, field.name) for field in dataclasses.fields(replayed)} | {
        "compared": replayed.compared,
        "divergence": None,
    }
    if (found := replayed.divergence) is not None:
        rows["divergence"] = {
            field.name: getattr(found, field.name) for field in dataclasses.fields(found)
        } | {
            "recorded": None if found.recorded is None else _line_row(found.recorded),
            "before": [_line_row(line) for line in found.before],
            "after": [_line_row(line) for line in found.after],
            "states": {chip: json.loads(state) for chip, state in found.states.items()},
            "shown": {chip: json.loads(shown) for chip, shown in found.shown.items()},
            "seen": {chip: [_line_row(line) for line in seen] for chip, seen in found.seen.items()},
        }
    return json.dumps(rows, indent=1)


def replay_report(replayed: Replayed) -> Page:
    """What was compared, and the first divergence with what stands around it."""
    for warning in replayed.warnings:
        yield TextLine(f"warning: {warning}", Emphasis.NOTICE)
    found = replayed.divergence
    if found is not None:
        yield from _divergence(found)
    yield TextLine(
        f"{replayed.compared} events compared: {replayed.predicted} predicted, "
        f"{replayed.stimuli} stimuli; {replayed.skipped} before the first CPU's, "
        f"{replayed.not_compared} of QEMU's not compared; "
        f"{replayed.looks} times a chip's registers were as the monitor showed them"
    )
    if replayed.snapshots:
        yield TextLine(f"after {replayed.snapshots} exits KVM's chips were as the model has them")
    if replayed.reordered:
        yield TextLine(
            f"{replayed.reordered} times the kernel stopped a thread before an event's effect"
        )
    words = {
        ReplayOutcome.AGREED: "0 divergences",
        ReplayOutcome.DIVERGED: "diverged: the events after this one were not compared",
        ReplayOutcome.INCOMPLETE: "incomplete: the recording has a gap or ends too early, "
        "see the warnings",
    }
    yield TextLine(words[replayed.outcome], _EMPHASIS[replayed.outcome])


def _divergence(found: Divergence) -> Page:
    for line in found.before:
        yield TextLine(f"  {_line_text(line)}")
    if found.recorded is not None:
        yield TextLine(f"> {_line_text(found.recorded)}", Emphasis.ALARM)
    for line in found.after:
        yield TextLine(f"  {_line_text(line)}")
    yield TextLine()
    yield TextLine(found.why, Emphasis.TITLE)
    yield TextLine(
        f"recorded:  {_line_text(found.recorded) if found.recorded is not None else 'nothing'}"
    )
    for text in found.predicted or ("nothing",):
        yield TextLine(f"predicted: {text}")
    for rule in found.rules:
        yield TextLine(f"rule: {rule}")
    for chip, state in found.states.items():
        yield TextLine(f"model's {chip}: {state}")
        if chip in found.shown:
            yield TextLine(f"shown of {chip}: {found.shown[chip]}")
        for line in found.seen.get(chip, ()):
            yield TextLine(f"recorded of {chip}: {_line_text(line)}")
    yield TextLine()


def _line_text(line: lookahead.NumberedEvent) -> str:
    event = line.event
    thread = "-" if event.vcpu is None else str(event.vcpu)
    return f"{line.number:>7} {event.source:4} {thread:>2} {event.name}: {event.text}"


def _line_row(line: lookahead.NumberedEvent) -> dict[str, object]:
    event = line.event
    return {
        "line": line.number,
        "ns": event.time_ns,
        "source": event.source,
        "vcpu": event.vcpu,
        "name": event.name,
        "text": event.text,
    }
