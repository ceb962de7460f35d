"""Recorded boots, as events and as the ``events.jsonl`` that they would be."""

from __future__ import annotations

import gzip
from functools import cache
from itertools import islice
from pathlib import Path

from harness.eventlog import dump_events
from userspace_chip.events import Event, event_type

BOOTS = Path(__file__).parent.parent / "golden" / "chips"

FIRST_LINE = 2
"""Where the first event is in ``events.jsonl``: after the header."""


@cache
def recorded(name: str, count: int | None = None) -> tuple[Event, ...]:
    """The first ``count`` events of ``boot-<name>.txt.gz``, one a microsecond."""
    with gzip.open(BOOTS / f"boot-{name}.txt.gz", "rt") as lines:
        return tuple(_event(number, line) for number, line in enumerate(islice(lines, count)))


def _event(number: int, line: str) -> Event:
    vcpu, name, text = line.rstrip("\n").split(" ", 2)
    name = name.rstrip(":")
    who = None if vcpu == "-" else int(vcpu)
    return Event(number * 1000, "kvm", name, who, event_type(name).parse(text))


def log(events: list[Event] | tuple[Event, ...]) -> list[str]:
    """The lines of ``events.jsonl``."""
    return list(dump_events(events))
