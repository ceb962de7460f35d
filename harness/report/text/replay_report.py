"""What a replay found, as a person reads it, or as JSON."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Final

from rich.console import Console

from harness.replay.lookahead import Line
from harness.replay.replay import Divergence, Outcome, Replayed

_OUTCOME_STYLES: Final = {
    Outcome.AGREED: "green",
    Outcome.DIVERGED: "bold red",
    Outcome.INCOMPLETE: "yellow",
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


def replay_report(console: Console, replayed: Replayed) -> None:
    """What was compared, and the first divergence with what stands around it."""
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for warning in replayed.warnings:
        say(f"warning: {warning}", style="yellow")
    found = replayed.divergence
    if found is not None:
        _divergence(say, found)
    say(
        f"{replayed.compared} events compared: {replayed.predicted} predicted, "
        f"{replayed.stimuli} stimuli; {replayed.skipped} before the first CPU's, "
        f"{replayed.not_compared} of QEMU's not compared; "
        f"{replayed.looks} times a chip's registers were as the monitor showed them"
    )
    words = {
        Outcome.AGREED: "0 divergences",
        Outcome.DIVERGED: "diverged: the events after this one were not compared",
        Outcome.INCOMPLETE: "incomplete: the recording has a gap or ends too early, "
        "see the warnings",
    }
    say(words[replayed.outcome], style=_OUTCOME_STYLES[replayed.outcome])


def _divergence(say: Callable[..., None], found: Divergence) -> None:
    for line in found.before:
        say(f"  {_line_text(line)}")
    if found.recorded is not None:
        say(f"> {_line_text(found.recorded)}", style="bold red")
    for line in found.after:
        say(f"  {_line_text(line)}")
    say(f"\n{found.why}", style="bold")
    say(f"recorded:  {_line_text(found.recorded) if found.recorded is not None else 'nothing'}")
    for text in found.predicted or ("nothing",):
        say(f"predicted: {text}")
    for rule in found.rules:
        say(f"rule: {rule}")
    for chip, state in found.states.items():
        say(f"model's {chip}: {state}")
        if chip in found.shown:
            say(f"shown of {chip}: {found.shown[chip]}")
        for line in found.seen.get(chip, ()):
            say(f"recorded of {chip}: {_line_text(line)}")
    say("")


def _line_text(line: Line) -> str:
    event = line.event
    thread = "-" if event.vcpu is None else str(event.vcpu)
    return f"{line.number:>7} {event.source:4} {thread:>2} {event.name}: {event.text}"


def _line_row(line: Line) -> dict[str, object]:
    event = line.event
    return {
        "line": line.number,
        "ns": event.time_ns,
        "source": event.source,
        "vcpu": event.vcpu,
        "name": event.name,
        "text": event.text,
    }
