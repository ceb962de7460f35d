"""Recorded cases as a run leaves them: folders made from tests/golden/cases."""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.record.eventlog import EventLogReader, dump_events
from userspace_chip.events import Event

CASES = Path(__file__).parent.parent / "golden" / "cases"
MODES = ("on", "split", "off", "tcg")
NAMES = {mode: f"lab-kvm-{mode}" if mode != "tcg" else "local-tcg" for mode in MODES}


@cache
def events_of(mode: str) -> tuple[Event, ...]:
    """The events of the case of that mode."""
    with lzma.open(CASES / mode / "events.jsonl.xz", "rt", encoding="utf-8") as file:
        return tuple(EventLogReader().events(file))


@cache
def _text_of(mode: str) -> str:
    """The log of the case of that mode, as it was recorded."""
    return "".join(dump_events(events_of(mode)))


@cache
def _counters_of(mode: str) -> str:
    with lzma.open(CASES / mode / "counters.json.xz", "rt") as file:
        return file.read()


def case_folder(
    parent: Path,
    mode: str,
    *,
    alter: Callable[[tuple[Event, ...]], Iterable[Event]] | None = None,
    described: Mapping[str, Any] = MappingProxyType({}),
    verdict: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """The folder of that case below ``parent``, with its events altered and fields replaced."""
    source, folder = CASES / mode, parent / NAMES[mode]
    folder.mkdir(parents=True)
    for name, changes in (("case.json", described), ("verdict.json", verdict)):
        document = json.loads((source / name).read_text())
        (folder / name).write_text(json.dumps(document | dict(changes)))
    (folder / "counters.json").write_text(_counters_of(mode))
    events = _text_of(mode) if alter is None else "".join(dump_events(alter(events_of(mode))))
    (folder / "events.jsonl").write_text(events)
    return folder


def replaced(place: int, event: Event) -> Callable[[tuple[Event, ...]], Iterable[Event]]:
    """An alteration: ``event`` at ``place`` instead of what is there."""
    return lambda events: (*events[:place], event, *events[place + 1 :])


def removed(place: int) -> Callable[[tuple[Event, ...]], Iterable[Event]]:
    """An alteration: the event at ``place`` is missing."""
    return lambda events: (*events[:place], *events[place + 1 :])
