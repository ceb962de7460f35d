"""Logs of events: what every reader of one reports, and ``events.jsonl``, our own form.

``events.jsonl`` is a header line and a line an event; the text of an event is that of its tracer,
so that the file can be searched with the words of the kernel's and QEMU's documentation::

    {"schema": "irqmatrix-events", "version": 1}
    {"ns": 17000, "source": "kvm", "name": "kvm_eoi", "vcpu": 0, "text": "apicid 0 vector 49"}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias, get_args

from harness.base.errors import CollectError
from harness.base.files import parse_json
from userspace_chip.errors import EventError
from userspace_chip.events import EVENT_TYPES, Arg, Event, EventType, Source, event_type

SCHEMA: Final = "irqmatrix-events"
SCHEMA_VERSION: Final = 1

SHOWN_DAMAGE: Final = 5
"""Number of damaged lines kept as examples; all are counted."""
SHOWN_CHARACTERS: Final = 200

CACHE_SIZE: Final = 1 << 16
"""Interrupts repeat themselves: texts that were seen once are looked up, up to this number."""


@dataclass(frozen=True)
class DamagedLine:
    """A line that could not be read: its number (from 1) and its beginning."""

    number: int
    text: str


@dataclass(frozen=True)
class LogReport:
    """What a reader of a log met besides the events that it gave."""

    lines: int
    events: int
    lost: int
    """Events that the tracer reports as lost (at least that many)."""
    unknown: Mapping[str, int]
    """Events by name that :mod:`userspace_chip.events` does not know."""
    damaged: int
    examples: tuple[DamagedLine, ...]
    truncated: bool
    """The last line has no end: the log was cut off."""

    @property
    def complete(self) -> bool:
        """Nothing was lost, damaged or cut off; events of unknown types do not matter."""
        return not (self.lost or self.damaged or self.truncated)


@dataclass
class LogTally:
    """A :class:`LogReport` in the making."""

    lines: int = 0
    events: int = 0
    lost: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    damaged: int = 0
    examples: list[DamagedLine] = field(default_factory=list)
    truncated: bool = False

    def unknown_event(self, name: str) -> None:
        """An event of a type that is not ours."""
        self.unknown[name] = self.unknown.get(name, 0) + 1

    def damage(self, number: int, line: str) -> None:
        """Line ``number`` cannot be read; one without a line end is a log cut off."""
        if not line.endswith("\n"):
            self.truncated = True
            return
        self.damaged += 1
        if len(self.examples) < SHOWN_DAMAGE:
            self.examples.append(DamagedLine(number, line.rstrip("\n")[:SHOWN_CHARACTERS]))

    def report(self) -> LogReport:
        """As it stands."""
        return LogReport(
            self.lines,
            self.events,
            self.lost,
            dict(self.unknown),
            self.damaged,
            tuple(self.examples),
            self.truncated,
        )


Body: TypeAlias = tuple[str, tuple[Arg, ...]]
"""An event without time and thread: its name and fields."""


class Bodies:
    """Parses the texts of events of ``types``, each only once; :attr:`seen` by its text.

    What cannot be read goes to ``tally``.
    """

    def __init__(self, types: Mapping[str, EventType], tally: LogTally) -> None:
        self._types = types
        self._tally = tally
        self.seen: dict[str, Body] = {}

    def parse(self, key: str, name: str, text: str, *, number: int, line: str) -> Body | None:
        """The event ``name`` with this text, in ``line``; None, and a damage, where it is none."""
        try:
            body = name, self._types[name].parse(text)
        except EventError:
            self._tally.damage(number, line)
            return None
        if len(self.seen) >= CACHE_SIZE:
            self.seen.clear()
        self.seen[key] = body
        return body


def dump_events(events: Iterable[Event]) -> Iterator[str]:
    """The lines of ``events.jsonl``, each with its end."""
    yield json.dumps({"schema": SCHEMA, "version": SCHEMA_VERSION}) + "\n"
    texts: dict[tuple[str, tuple[Arg, ...]], str] = {}
    for event in events:
        what = (event.name, event.args)
        text = texts.get(what)
        if text is None:
            if len(texts) >= CACHE_SIZE:
                texts.clear()
            text = texts[what] = json.dumps(event.text)
        vcpu = "null" if event.vcpu is None else event.vcpu
        yield (
            f'{{"ns": {event.time_ns}, "source": "{event.source}", "name": "{event.name}", '
            f'"vcpu": {vcpu}, "text": {text}}}\n'
        )


class EventLogReader:
    """Reads ``events.jsonl``; :attr:`report` is complete when :meth:`events` has ended."""

    def __init__(self) -> None:
        self._tally = LogTally()
        self._rows: dict[str, tuple[Source, str, int | None, tuple[Arg, ...]]] = {}
        """By what follows its time in one of our lines: the rest of an event that was seen."""

    @property
    def report(self) -> LogReport:
        """What was read so far."""
        return self._tally.report()

    @property
    def lines(self) -> int:
        """How many lines were read: the number of the last event's."""
        return self._tally.lines

    def events(self, lines: Iterable[str]) -> Iterator[Event]:
        """The events of ``lines``, which have their line ends as a text file gives them.

        :class:`CollectError` for a file that is no log of events; a damaged line, or a last one
        that was cut off, is reported and left out.
        """
        tally = self._tally
        numbered = iter(enumerate(lines, 1))
        _check_header(next(numbered, (1, ""))[1])
        tally.lines = 1
        for number, line in numbered:
            tally.lines = number
            event = self._event(number, line)
            if event is not None:
                tally.events += 1
                if event.name == "lost":
                    tally.lost += int(event.arg("count"))
                yield event

    def _event(self, number: int, line: str) -> Event | None:
        head, _, tail = line.partition(", ")
        known = self._rows.get(tail)
        if known is not None and _KNOWN_HEAD.fullmatch(head) is not None:
            return Event(int(head[7:]), *known)
        event = self._parsed_event(number, line)
        if event is not None and head == f'{{"ns": {event.time_ns}':
            if len(self._rows) >= CACHE_SIZE:
                self._rows.clear()
            self._rows[tail] = event[1:]
        return event

    def _parsed_event(self, number: int, line: str) -> Event | None:
        if not line.endswith("\n"):
            self._tally.damage(number, line)
            return None
        try:
            row = parse_json(line)
            name = row["name"]
            if name not in EVENT_TYPES:
                self._tally.unknown_event(str(name))
                return None
            args = event_type(name).parse(row["text"])
            return _event(row["ns"], row["source"], name, row["vcpu"], args)
        except (ValueError, TypeError, KeyError, IndexError, EventError):
            self._tally.damage(number, line)
            return None


_KNOWN_HEAD: Final = re.compile(r'\{"ns": [0-9]{1,20}')
"""The beginning of one of our lines, up to its time."""

_SOURCES: Final = frozenset(get_args(Source))


def _event(ns: object, source: Source, name: str, vcpu: object, args: tuple[Arg, ...]) -> Event:
    if not isinstance(ns, int) or source not in _SOURCES:
        raise ValueError(f"bad time {ns!r} or source {source!r}")
    if vcpu is not None and not isinstance(vcpu, int):
        raise ValueError(f"bad vCPU {vcpu!r}")
    return Event(ns, source, name, vcpu, args)


def _check_header(line: str) -> None:
    try:
        header = parse_json(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise CollectError(
            "not a log of events", f"expected the schema {SCHEMA!r}, found {line.strip()[:80]!r}"
        )
    if header.get("version") != SCHEMA_VERSION:
        raise CollectError(
            f"a log of events of version {header.get('version')!r}",
            f"this program reads version {SCHEMA_VERSION}",
        )
