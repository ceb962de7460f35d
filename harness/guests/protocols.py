"""What an image says of its checks: a console's text, read by a result protocol.  Pure.

A check's id has to be the same from run to run.  Labels repeat, and may contain numbers that vary:
an id is the label with numbers as ``N``, and a count where the same label comes again.  A check
without a label is called by its number, or its place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Final, TypeAlias

from harness.model.protocol import LineKind, Protocol

MAX_LINE_CHARACTERS: Final = 500
"""Of a line; what is longer is cut before it is read, so that a pattern takes a bounded time."""
MAX_CHECKS: Final = 100_000
"""That are kept; results with more are not whole."""
MAX_INDENTATION: Final = 64
_MAX_DIGITS: Final = 18


class Result(StrEnum):
    """What a check says of itself.  An expected failure (XFAIL, ``# TODO``) passes."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


Metrics: TypeAlias = Mapping[str, int | float | str]
_Path: TypeAlias = tuple[str, ...]
_Flat: TypeAlias = tuple[str, str, "_Node"]


@dataclass(frozen=True)
class ReportedCheck:
    """One result; ``id`` is stable from run to run, ``label`` and ``line`` are what it said.

    ``metrics`` are the values that it measured, by name and unit.
    """

    id: str
    result: Result
    label: str
    line: str
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """How many checks were announced, of the image or of one of its checks, and how many came.

    ``planned`` is None where nothing was announced; ``failures`` of them failed as the image says.
    """

    planned: int | None
    done: int
    failures: int | None = None
    of: str = ""

    @property
    def fulfilled(self) -> bool:
        """Whether what was announced has come, and no more."""
        return self.planned is not None and self.planned == self.done

    def __str__(self) -> str:
        if self.planned is None:
            return f"{self.done} {'check' if self.done == 1 else 'checks'}"
        inside = f" in {self.of}" if self.of else ""
        return f"{self.done} of {self.planned} {'check' if self.planned == 1 else 'checks'}{inside}"


@dataclass(frozen=True)
class Said:
    """All that a console said by a protocol; ``protocol`` is None where none was recognised."""

    protocol: Protocol | None
    checks: tuple[ReportedCheck, ...] = ()
    plan: Plan = field(default_factory=lambda: Plan(None, 0))
    broken_subplans: tuple[Plan, ...] = ()
    """Of checks with parts of their own, where those are not as many as announced."""
    ended: bool = False
    """Whether the end line came."""
    aborted: str | None = None
    """Why it gave up, in its own words."""
    skipped: str | None = None
    """Why it checks nothing, in its own words."""
    rivals: tuple[str, ...] = ()
    """Where several protocols were recognised: all of them; then nothing was read."""

    @property
    def failed(self) -> tuple[ReportedCheck, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.result is Result.FAIL)

    def shortfall(self) -> str | None:
        """What is missing before the results are whole; None where nothing is."""
        if self.skipped is not None and not self.checks:
            return None
        if self.rivals:
            return f"several protocols at once: {', '.join(self.rivals)}"
        if self.protocol is None or (not self.checks and self.plan.planned is None):
            return "checked nothing"
        if len(self.checks) > MAX_CHECKS:
            return f"more than {MAX_CHECKS} checks, which were not all kept"
        if self.plan.planned is not None and not self.plan.fulfilled:
            return str(self.plan)
        if self.broken_subplans:
            return str(self.broken_subplans[0])
        if not self.checks:
            return "checked nothing"
        if self.plan.planned is None and self.protocol.plan_required:
            return f"{self.plan}, and no plan"
        if self.plan.planned is None and self.protocol.has(LineKind.END) and not self.ended:
            return f"{self.plan}, and no end line"
        failed = sum(check.result is Result.FAIL for check in self.checks)
        if self.plan.failures is not None and self.plan.failures > failed:
            return f"{failed} of {self.plan.failures} failed checks"
        return None


def read(console: str, protocol: Protocol) -> Said:
    """What ``console`` says by ``protocol``."""
    reader = _Reader(_items(console, protocol))
    suite = reader.suite(0)
    return Said(
        protocol,
        tuple(islice(_checks(suite), MAX_CHECKS + 1)),
        suite.plan(),
        tuple(_broken(suite)),
        reader.ended,
        reader.aborted,
        suite.skipped,
    )


def recognise(console: str, candidates: Sequence[Protocol]) -> Said:
    """What ``console`` says by the one of ``candidates`` whose lines it has.

    Lines of several would mean that some results are not looked at: then nothing is read, and
    :attr:`Said.rivals` names them.
    """
    found = _spoken(console, candidates)
    if not found:
        return Said(None)
    if len(found) > 1:
        return Said(None, rivals=tuple(protocol.name for protocol in found))
    return read(console, found[0])


def is_over(console: str, candidates: Sequence[Protocol]) -> bool:
    """Whether one of the protocols that ``console`` speaks has had its last line there."""
    said = (read(console, protocol) for protocol in _spoken(console, candidates))
    return any(results.ended or results.aborted is not None for results in said)


def end_pattern(candidates: Sequence[Protocol]) -> str | None:
    """A pattern for a whole line, anywhere in a text, with which results may end.

    None where none of ``candidates`` has such lines.
    """
    ends = [
        _ANY_GROUP.sub("(?:", line.pattern)
        for protocol in candidates
        for line in protocol.lines
        if line.kind in (LineKind.END, LineKind.ABORT)
    ]
    return rf"(?m)^[ \t]*(?:{'|'.join(ends)})[^\n]*\n" if ends else None


_ANY_GROUP: Final = re.compile(r"\(\?P<\w+>")
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\r")
"""Colours and the like, which some images print around their results."""
_NUMBER: Final = re.compile(r"(?<![A-Za-z_])(?:0x[0-9a-fA-F]+|\d+)|(?<=[A-Za-z_])\d{3,}")


def normalised(label: str) -> str:
    """``label`` with what may vary from run to run as ``N``: numbers that stand by themselves.

    Numbers that are part of a name (``IRQ4``, ``x2apic``) stay, unless they have three digits.
    """
    return _NUMBER.sub("N", label.strip())


def _lines(console: str) -> Iterator[str]:
    """The lines, without escape sequences, each at most so long that it can be read in no time.

    Only a line feed ends a line: what else Unicode takes for one may be in a label.
    """
    for line in console.split("\n"):
        yield _ESCAPES.sub("", line[: 2 * MAX_LINE_CHARACTERS])[:MAX_LINE_CHARACTERS]


@lru_cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _spoken(console: str, candidates: Sequence[Protocol]) -> list[Protocol]:
    """Those of ``candidates`` that have lines in ``console``; the only one there is, in any case.

    One that nothing is found by is spoken only where it was asked for.
    """
    if len(candidates) == 1:
        return list(candidates)
    patterns = [(protocol, protocol.found_by) for protocol in candidates]
    return [
        protocol
        for protocol, found_by in patterns
        if found_by is not None and any(_compiled(found_by).match(line) for line in _lines(console))
    ]


@dataclass
class _Item:
    """A line that means something; ``width`` is its indentation."""

    kind: LineKind
    said: Mapping[str, str | None]
    text: str
    width: int

    @property
    def name(self) -> str:
        return (self.said.get("name") or "").strip()


@dataclass
class _Node:
    """A check with its parts, whose lines came before its own."""

    result: Result
    key: str
    label: str
    line: str
    metrics: dict[str, int | float | str]
    parts: list[_Suite]


@dataclass
class _Suite:
    """The checks at one indentation: the image's own, or the parts of one check."""

    title: str | None
    planned: int | None = None
    failures: int | None = None
    skipped: str | None = None
    nodes: list[_Node] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    """Of its checks: the same number twice is one check."""
    highest: int = 0
    unclosed: list[_Suite] = field(default_factory=list)
    """Parts of a check whose own line never came."""

    def plan(self, of: str = "") -> Plan:
        return Plan(self.planned, len(self.numbers), self.failures, of)


def _items(console: str, protocol: Protocol) -> Iterator[_Item]:
    """The lines of ``console`` that mean something."""
    patterns = [(line.kind, _compiled(line.pattern)) for line in protocol.lines]
    for text, width in _unquoted(console, protocol):
        for kind, pattern in patterns:
            if (match := pattern.match(text)) is not None:
                yield _Item(kind, match.groupdict(), text.strip(), width)
                break


def _unquoted(console: str, protocol: Protocol) -> Iterator[tuple[str, int]]:
    """Lines and their indentation, without blocks that hold no results.

    A block ends with its last line, and at the latest where its indentation does.
    """
    block: int | None = None
    for line in _lines(console):
        text = line.lstrip(" \t") if protocol.subtests else line
        width = min(len(line) - len(text), MAX_INDENTATION)
        if protocol.quoted is not None and text:
            if block is not None and width >= block:
                if _compiled(protocol.quoted.end).match(text):
                    block = None
                continue
            begins = width > 0 and _compiled(protocol.quoted.begin).match(text)
            block = width if begins else None
            if begins:
                continue
        yield text, width


class _Reader:
    """The results of one console as a tree."""

    def __init__(self, items: Iterator[_Item]) -> None:
        self._items = items
        self._item = next(items, None)
        self.ended = False
        self.aborted: str | None = None

    def suite(self, width: int, title: str | None = None) -> _Suite:
        """The checks from here to where the indentation becomes less than ``width``."""
        suite = _Suite(title)
        parts: list[_Suite] = []
        values: dict[str, int | float | str] = {}
        part_title: str | None = None
        while (item := self._item) is not None and item.width >= width:
            if item.width > width:
                parts.append(self.suite(item.width, part_title))
                part_title = None
                continue
            self._item = next(self._items, None)
            match item.kind:
                case LineKind.PASS | LineKind.FAIL | LineKind.SKIP:
                    suite.nodes.append(_node(suite, item, parts, values))
                    parts, values = [], {}
                case LineKind.VALUE:
                    values |= _metric(item)
                case LineKind.SUBTEST if suite.nodes or suite.planned is not None or not width:
                    part_title = item.name
                case LineKind.SUBTEST:
                    suite.title = item.name
                case _:
                    self._note(suite, item)
        suite.unclosed = parts
        if values and suite.nodes:
            suite.nodes[-1].metrics |= values
        return suite

    def _note(self, suite: _Suite, item: _Item) -> None:
        """What a line says of the checks as a whole."""
        match item.kind:
            case LineKind.PLAN:
                failures = item.said.get("failures")
                suite.planned = _integer(item.said.get("count") or "0")
                suite.failures = None if failures is None else _integer(failures)
            case LineKind.SKIP_ALL:
                suite.planned = 0
                suite.skipped = item.name or "it gave no reason"
            case LineKind.END:
                self.ended = True
            case LineKind.ABORT:
                self.aborted = item.name or item.text


def _node(
    suite: _Suite, item: _Item, parts: list[_Suite], values: dict[str, int | float | str]
) -> _Node:
    said = item.said.get("number")
    number = suite.highest + 1 if said is None else _integer(said)
    suite.highest = max(suite.highest, number)
    suite.numbers.add(number)
    unnamed = f"check {number}"
    own = _metric(item) if item.said.get("value") is not None else {}
    return _Node(
        result=Result(item.kind.value),
        key=normalised(item.name) or unnamed,
        label=item.name or unnamed,
        line=item.text,
        metrics=values | own,
        parts=parts,
    )


def _metric(item: _Item) -> dict[str, int | float | str]:
    """What was measured, by its name and unit: ``{"latency (us)": 12}``."""
    text, unit = (item.said.get("value") or "").strip(), (item.said.get("unit") or "").strip()
    name = item.name or "value"
    return {f"{name} ({unit})" if unit else name: _quantity(text)}


def _quantity(text: str) -> int | float | str:
    """A number where ``text`` is one, and else the text."""
    if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"[+-]?\d{1,18}\.\d{1,18}", text, re.ASCII):
        return float(text)
    return text


def _integer(digits: str) -> int:
    """A number of any length: one with more digits than make sense is only very large."""
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _flattened(suite: _Suite, keys: _Path = (), labels: _Path = ()) -> Iterator[_Flat]:
    """Every check and part of a check, in the order of their lines."""
    for node in suite.nodes:
        inside = (*keys, node.key), (*labels, node.label)
        for part in node.parts:
            yield from _flattened(part, *inside)
        yield " / ".join(inside[0]), " / ".join(inside[1]), node
    for part in suite.unclosed:
        title = () if part.title is None else (part.title,)
        yield from _flattened(part, (*keys, *map(normalised, title)), (*labels, *title))


def _broken(suite: _Suite) -> Iterator[Plan]:
    """The plans below ``suite`` that were not fulfilled."""
    closed = [(node.label, part) for node in suite.nodes for part in node.parts]
    unclosed = [(part.title or "an unfinished check", part) for part in suite.unclosed]
    for label, part in closed + unclosed:
        yield from _broken(part)
        plan = part.plan(label)
        if plan.planned is not None and not plan.fulfilled:
            yield plan


def _checks(suite: _Suite) -> Iterator[ReportedCheck]:
    """Each with an id that no other has: what stands after a label's last ``~`` is never a number,
    since that would be ``N``."""
    seen: Counter[str] = Counter()
    for key, label, node in _flattened(suite):
        seen[key] += 1
        count = f"~{seen[key]}" if seen[key] > 1 else ""
        yield ReportedCheck(f"{key}{count}", node.result, label, node.line, node.metrics)
