"""What the pages of a run have beyond its tables: cases one by one, and where two backends part.

Plain data, made of what :mod:`harness.report.files` has read; ``report --html`` and ``irqmatrix
serve`` show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Final

from harness.compare.chip_state import ChipRegister
from harness.compare.finding import Finding, Member
from harness.compare.recordings import CaseDiff, EventContext
from harness.fuzz.specification import Passage
from harness.ledger.ledger import Ledger, Row, RowKind
from harness.model.counters import CounterSet
from harness.model.verdict import CaseResult, Verdict
from harness.report.subject import NOT_OBSERVABLE, Account
from harness.store.result import RunResult

NEIGHBOURS: Final = 6
"""Number of lines of a scenario's log shown on either side of the first that differs."""


# --- The funnel -----------------------------------------------------------------------------------

FUNNEL: Final = ("raised", "routed", "accepted", "merged", "injected", "handled", "ended")
"""The stages of an interrupt's life, in their order."""
_PIN_STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "raised": ("raised",),
    "routed": ("delivered", "redelivered"),
    "ended": ("acknowledged",),
}
_VECTOR_STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "accepted": ("accepted",),
    "merged": ("merged", "dropped"),
    "injected": ("injected",),
    "ended": ("eoi",),
}
_COUNTED: Final[Mapping[RowKind, frozenset[str]]] = {
    "ioapic": frozenset({"raised", "routed", "handled"}),
    "pic": frozenset(),
    "vector": frozenset(_VECTOR_STAGES),
}
"""What goes into the totals: a line is an input of both chips, and an EOI ends pin and vector."""


@dataclass(frozen=True)
class FunnelRow:
    """A pin or a vector: by stage a number, ``n/o``, or empty where it has no such stage."""

    name: str
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Funnel:
    """What became of a case's interrupts; ``totals`` is by stage, each interrupt once."""

    rows: tuple[FunnelRow, ...] = ()
    totals: tuple[int, ...] = ()

    @property
    def widest(self) -> int:
        """The largest of the totals."""
        return max(self.totals, default=0)


def funnel_of(account: Account) -> Funnel:
    """The funnel of a case: of its ledger, and of what its guest counted at each pin."""
    ledger = account.ledger
    if ledger is None or not ledger.rows:
        return Funnel()
    handled = _handled(account.counters.values())
    rows = tuple(_funnel_row(ledger, row, handled) for row in ledger.rows)
    totals = dict.fromkeys(FUNNEL, 0)
    for row, shown in zip(ledger.rows, rows, strict=True):
        for stage, text in zip(FUNNEL, shown.stages, strict=True):
            if text.isdigit() and stage in _COUNTED[row.kind]:
                totals[stage] += int(text)
    return Funnel(rows, tuple(totals.values()))


def _handled(sets: Iterable[CounterSet]) -> dict[int, int]:
    """How often the guest's handlers ran for each pin of the IOAPIC, over its workloads."""
    found: dict[int, int] = {}
    for counted in sets:
        for counter in counted.without_cpus():
            key = counter.key
            is_pin = (key.stage, key.controller, key.source) == ("handled", "ioapic", "guest")
            if is_pin and key.number is not None:
                found[key.number] = found.get(key.number, 0) + counter.value
    return found


def _funnel_row(ledger: Ledger, row: Row, handled: Mapping[int, int]) -> FunnelRow:
    columns = _VECTOR_STAGES if row.kind == "vector" else _PIN_STAGES
    if row.kind == "pic":
        columns = {"raised": ("raised",), "injected": ("injected",), "ended": ("acknowledged",)}
    cells = {stage: str(row.sum(names)) for stage, names in columns.items()}
    if row.kind == "ioapic" and row.number in handled:
        cells["handled"] = str(handled[row.number])
    unseen = any(law.status == "not observable" and "injected" in law.name for law in ledger.laws)
    if row.kind == "vector" and unseen and cells["injected"] == "0":
        cells["injected"] = NOT_OBSERVABLE
    return FunnelRow(row.name, tuple(cells.get(stage, "") for stage in FUNNEL))


# --- A case ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Excerpt:
    """A text, or its end; ``left_out`` counts the characters before it."""

    text: str = ""
    left_out: int = 0


@dataclass(frozen=True)
class CaseFiles:
    """What was read of a case's directory for its page; ``problems`` are files of another kind."""

    console: Excerpt = Excerpt()
    command: str = ""
    account: Account = field(default_factory=Account)
    problems: tuple[str, ...] = ()


# --- Where two backends part ----------------------------------------------------------------------


@dataclass(frozen=True)
class LogRow:
    """A line of a scenario's log on either side; None where that side lacks it."""

    a: str | None
    b: str | None

    @property
    def same(self) -> bool:
        """Whether both are the same."""
        return self.a == self.b


@dataclass(frozen=True)
class LogParting:
    """Two logs of a scenario around the first line in which they differ.

    ``first`` is its place in ``rows``; ``left_out`` counts the rows before and after them.
    ``agrees`` says of either whether it is what the Python chips predict.  ``before`` and ``after``
    are the registers that either logged last before that line, and first from it on.
    """

    rows: tuple[LogRow, ...]
    first: int
    left_out: tuple[int, int]
    agrees: tuple[bool, bool]
    before: tuple[str, str]
    after: tuple[str, str]


def log_parting(a: Sequence[str], b: Sequence[str], agrees: tuple[bool, bool]) -> LogParting | None:
    """Where two logs part; None where they are the same."""
    rows: list[LogRow] = []
    for tag, a_from, a_to, b_from, b_to in SequenceMatcher(
        None, a, b, autojunk=False
    ).get_opcodes():
        own, other = a[a_from:a_to], b[b_from:b_to]
        if tag == "equal":
            rows += map(LogRow, own, other)
            continue
        length = max(len(own), len(other))
        padded = ([*side, *[None] * (length - len(side))] for side in (own, other))
        rows += map(LogRow, *padded)
    first = next((place for place, row in enumerate(rows) if not row.same), None)
    if first is None:
        return None
    start, end = max(0, first - NEIGHBOURS), min(len(rows), first + 2 * NEIGHBOURS)
    return LogParting(
        tuple(rows[start:end]),
        first - start,
        (start, len(rows) - end),
        agrees,
        (
            _registers(row.a for row in rows[:first][::-1]),
            _registers(row.b for row in rows[:first][::-1]),
        ),
        (_registers(row.a for row in rows[first:]), _registers(row.b for row in rows[first:])),
    )


def _registers(lines: Iterable[str | None]) -> str:
    """The registers in the first of ``lines`` that has some: ``IRR none, ISR 0x51, TMR none``."""
    found = (_REGISTERS.search(line) for line in lines if line is not None)
    return next((match[1] for match in found if match is not None), "-")


_REGISTERS: Final = re.compile(r"\((IRR .*)\)")


@dataclass(frozen=True)
class PartingSide:
    """One of two recordings at their first divergent event: its events and its chips there."""

    case: str
    backend: str
    context: EventContext | None = None
    registers: tuple[ChipRegister, ...] = ()
    messages_ns: tuple[int, ...] = ()
    """When messages came to the local APICs, from the first event on."""
    at_ns: int = 0
    """When the divergent event was, from the first event on."""


@dataclass(frozen=True)
class AlignedPair:
    """Two cases of one subject, side by side: what their guests did, and a scenario's log.

    ``diff`` is None where a recording is missing; ``problem`` says then why.
    """

    a: PartingSide
    b: PartingSide
    diff: CaseDiff | None = None
    log: LogParting | None = None
    problem: str = ""


BINS: Final = 120
"""Number of points of a chart of rates."""


@dataclass(frozen=True)
class Rates:
    """How many messages a second came to the local APICs of two recordings, on one axis of time."""

    times_s: tuple[float, ...]
    a: tuple[float, ...]
    b: tuple[float, ...]


def rates_of(divergence: AlignedPair) -> Rates | None:
    """The rates of both recordings; None where there is nothing to show."""
    sides = divergence.a.messages_ns, divergence.b.messages_ns
    if not all(sides):
        return None
    width_ns = max(1, max(side[-1] for side in sides) // BINS + 1)
    series = []
    for side in sides:
        counts = [0] * BINS
        for time_ns in side:
            counts[min(BINS - 1, time_ns // width_ns)] += 1
        series.append(tuple(round(count * 1e9 / width_ns, 1) for count in counts))
    times = tuple(round(place * width_ns / 1e9, 6) for place in range(BINS))
    return Rates(times, *series)


def pair_of(finding: Finding, run: RunResult) -> tuple[CaseResult, CaseResult] | None:
    """Two cases that saw different things, of one subject if possible: the larger group first."""
    cases = {(case.subject, case.backend): case for case in run.cases if _has_run(case)}
    largest = max(finding.groups, key=lambda group: len(group.members), default=None)
    if largest is None:
        return None
    rest = [member for group in finding.groups if group is not largest for member in group.members]
    pairs = [(one, other) for other in rest for one in largest.members]
    pairs.sort(key=lambda pair: pair[0].subject != pair[1].subject)
    for one, other in pairs:
        if (key := _key(one)) in cases and _key(other) in cases:
            return cases[key], cases[_key(other)]
    return None


def _key(member: Member) -> tuple[str, str]:
    return member.subject, member.backend


def _has_run(case: CaseResult) -> bool:
    return case.verdict not in (Verdict.SKIP, Verdict.INCOMPLETE)


@dataclass(frozen=True)
class ScenarioWords:
    """A scenario in words: what it is about, its steps, what the specification says of them."""

    about: str
    steps: tuple[str, ...]
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class RunDetails:
    """What pages need of the cases' files: by a case's id, and by a finding's place in the run."""

    cases: Mapping[str, CaseFiles] = field(default_factory=dict)
    divergences: Mapping[int, AlignedPair] = field(default_factory=dict)
    scenarios: Mapping[int, ScenarioWords] = field(default_factory=dict)
    nights: Mapping[str, tuple[bool | None, ...]] = field(default_factory=dict)
    """By the key of a problem: whether it was one in each of the last runs, None where it was not
    looked for."""
