"""Recorded boots, as events and as the ``events.jsonl`` that they would be."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Iterable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from harness.model import manifest
from harness.model.case import Vmm
from harness.model.manifest import CaseFile
from harness.record.eventlog import EventLogReader, dump_events
from harness.replay import snapshots
from harness.replay.profiles import profile_of
from harness.replay.replay import Replay, Replayed
from harness.replay.snapshots import Look
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


CASES = BOOTS.parent / "replay"


class RecordedCase(NamedTuple):
    """A case's folder: what it is of, its events, and the monitor's looks at its chips."""

    case: CaseFile
    events: tuple[Event, ...]
    looks: tuple[Look, ...]

    def replay(self, events: Iterable[Event] | None = None, looks: Iterable[Look] = ()) -> Replayed:
        """Replay ``events``, by default its own."""
        subject, warnings = profile_of(self.case)
        live = self.case.vmm is Vmm.PYCHIP
        replay = Replay(subject, self.case.smp, live=live, looks=looks, warnings=warnings)
        return replay.run(log(self.events if events is None else tuple(events)))


@cache
def recorded_case(name: str) -> RecordedCase:
    """A folder of ``golden/replay``."""
    folder = CASES / name
    with lzma.open(folder / "events.jsonl.xz", "rt") as lines:
        events = tuple(EventLogReader().events(lines))
    return RecordedCase(manifest.read(folder), events, snapshots.read(folder))
