"""What ``irqmatrix diff`` prints: where two guests part, and every difference side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness.analyse import audit
from harness.base.emphasis import Emphasis
from harness.compare.align import Parting
from harness.compare.diff import Comparison, Status
from harness.compare.finding import Finding, Member
from harness.compare.guest_view import GuestStep
from harness.compare.recordings import (
    A,
    B,
    CaseDiff,
    ComparedCase,
    EventContext,
    FirstParting,
    RunDiff,
)
from harness.ledger.ledger import STAGES, Ledger, to_json
from harness.report.page import Cell, Page, Table, TextLine, cells, columns
from harness.report.views import EMPHASIS, WORDS, finding_view
from userspace_chip.events import Event


def diff_json(found: RunDiff) -> str:
    """The whole of it as JSON."""
    document = {
        "pairs": [_pair_json(pair) for pair in found.pairs],
        "findings": [asdict(finding) for finding in found.findings],
        "alone": found.alone,
        "exit_status": found.exit_status,
    }
    return json.dumps(document, indent=1)


def diff_report(found: RunDiff) -> Page:
    """One pair in full; of several, each in short and then what nothing explains."""
    if len(found.pairs) == 1 and not found.alone:
        return _pair(found.pairs[0])
    return _pairs(found)


# --- JSON ---------------------------------------------------------------------------------------


def _pair_json(pair: CaseDiff) -> dict[str, Any]:
    return {
        "a": _side_json(pair.a),
        "b": _side_json(pair.b),
        "compared": asdict(pair.comparison),
        "findings": [asdict(finding) for finding in pair.findings],
        "same": pair.alignment.same,
        "partings": [_parting_json(parting) for parting in pair.alignment.partings],
        "first": None if pair.first is None else _first_json(pair.first),
        "warnings": pair.warnings,
        "exit_status": pair.exit_status,
    }


def _side_json(side: ComparedCase) -> dict[str, Any]:
    return {
        "id": side.id,
        "dir": side.directory,
        "verdict": side.verdict,
        "detail": side.detail,
        "damage": side.damage,
        "ledger": to_json(side.ledger),
    }


def _parting_json(parting: Parting) -> dict[str, Any]:
    row: dict[str, Any] = {"subject": parting.subject, "pieces": parting.pieces}
    row |= {"a_event": parting.a_place, "b_event": parting.b_place}
    names = ("before", "a", "b", "a_after", "b_after")
    return row | {name: [s.what for s in getattr(parting, name)] for name in names}


def _first_json(first: FirstParting) -> dict[str, Any]:
    return {
        "subject": first.parting.subject,
        "status": first.finding.status,
        "rule": first.finding.rule,
        "a": None if first.a is None else _place_json(first.a),
        "b": None if first.b is None else _place_json(first.b),
    }


def _place_json(place: EventContext) -> dict[str, Any]:
    rows = [
        {"event": number, "ns": e.time_ns, "source": e.source, "name": e.name, "text": e.text}
        for number, e in enumerate(place.events, place.first)
    ]
    return {"event": place.at, "events": rows}


# --- Text ---------------------------------------------------------------------------------------


def _pairs(found: RunDiff) -> Page:
    names = columns("A", "B", "guests", "explained", "unexplained")
    yield Table(names, tuple(map(_pair_row, found.pairs)))
    for pair in found.pairs:
        yield from _warnings(pair)
        if pair.exit_status:
            yield TextLine()
            yield TextLine(f"{pair.a.id} / {pair.b.id}", Emphasis.TITLE)
            yield from _first(pair)
    for finding in found.findings:
        if finding.status is Status.UNEXPLAINED:
            view = finding_view(finding)
            yield TextLine()
            yield TextLine(f"{WORDS[finding.status]}  {view.headline}", EMPHASIS[finding.status])
            for text in view.groups:
                yield TextLine(f"    {text}")
    for case in found.alone:
        yield TextLine(f"no partner: {case}", Emphasis.NOTICE)
    yield from _conclusion([pair.comparison for pair in found.pairs], found.findings)


def _pair_row(pair: CaseDiff) -> tuple[Cell, ...]:
    explained = len(pair.of(Status.BY_DESIGN)) + len(pair.of(Status.KNOWN_BUG))
    unexplained = len(pair.of(Status.UNEXPLAINED))
    guests = f"{len(pair.alignment.same)} same, {len(pair.alignment.partings)} differ"
    emphasis = EMPHASIS[Status.UNEXPLAINED] if unexplained else Emphasis.GOOD
    own = cells(pair.a.id, pair.b.id, guests, str(explained))
    return (*own, Cell(str(unexplained), emphasis))


def _pair(pair: CaseDiff) -> Page:
    for name, side in (("A", pair.a), ("B", pair.b)):
        yield TextLine(f"{name}  {side.id}  {side.verdict}", Emphasis.TITLE)
        yield TextLine(f"   {side.directory}")
        yield TextLine(f"   ledger: {audit.summary(side.ledger)}")
    yield from _warnings(pair)
    yield from _first(pair)
    aligned = pair.alignment
    if aligned.same or aligned.partings:
        same, differ = len(aligned.same), len(aligned.partings)
        yield TextLine()
        yield TextLine(f"the guests: {same} subjects the same, {differ} not", Emphasis.TITLE)
    yield from _differences(pair.findings)
    yield from _ledgers(pair.a.ledger, pair.b.ledger)
    yield from _conclusion([pair.comparison], pair.findings)


def _warnings(pair: CaseDiff) -> Page:
    for warning in pair.warnings:
        yield TextLine(f"warning: {warning}", Emphasis.NOTICE)


def _first(pair: CaseDiff) -> Page:
    first = pair.first
    if first is None:
        return
    finding, parting = first.finding, first.parting
    label = WORDS[finding.status]
    why = f": {finding.rule}" if finding.rule else ""
    text = f"first divergent event: {parting.subject} ({label}{why})"
    yield TextLine()
    yield TextLine(text, EMPHASIS[finding.status])
    if parting.before:
        yield TextLine(f"   both: ... {_steps(parting.before)}")
    for name, own, after, place in (
        ("A", parting.a, parting.a_after, first.a),
        ("B", parting.b, parting.b_after, first.b),
    ):
        rest = f"; then {_steps(after)}" if after else ""
        yield TextLine(f"   {name}:    {_steps(own) or 'nothing'}{rest}")
        if place is not None:
            yield from _events(place, is_own=bool(own))


def _steps(steps: Iterable[GuestStep]) -> str:
    return " | ".join(step.what for step in steps)


def _events(place: EventContext, *, is_own: bool) -> Page:
    for number, event in enumerate(place.events, place.first):
        here = number == place.at
        mark = (">" if is_own else "|") if here else " "
        emphasis = Emphasis.ALARM if here and is_own else Emphasis.FAINT
        yield TextLine(f"   {mark} {_event_text(number, event)}", emphasis)


def _event_text(number: int, event: Event) -> str:
    thread = "-" if event.vcpu is None else str(event.vcpu)
    return f"{number:>7} {event.source:4} {thread:>2} {event.name}: {event.text}"


def _differences(found: Sequence[Finding]) -> Page:
    """Each with what either side saw; a rule's reason once."""
    if not found:
        return
    rows = []
    reasons: dict[str, Finding] = {}
    for finding in found:
        label = Cell(WORDS[finding.status], EMPHASIS[finding.status])
        saw = (_saw(finding, side) for side in (A, B))
        rows.append((label, *cells(finding.what, *saw, finding.rule or finding.reason)))
        if finding.rule is not None:
            reasons.setdefault(finding.rule, finding)
    yield Table(columns("", "", A, B, "why"), tuple(rows))
    for rule, finding in reasons.items():
        yield TextLine(f"{rule}: {finding.reason}\n    {finding.link}", Emphasis.FAINT)


def _saw(finding: Finding, side: str) -> str:
    group = finding.saw(Member(finding.subject, side))
    return "" if group is None else group.saw


def _ledgers(a: Ledger, b: Ledger) -> Page:
    """Both accounts: one number where they agree, ``A | B`` where they do not."""
    rows = {row.name: row for ledger in (a, b) for row in ledger.rows}
    names = sorted(rows, key=lambda name: (rows[name].kind, rows[name].cpu or 0, rows[name].number))
    counts_a, counts_b = ({row.name: row.counts for row in ledger.rows} for ledger in (a, b))
    for kinds in (("ioapic", "pic"), ("vector",)):
        own = [name for name in names if rows[name].kind in kinds]
        used = [
            stage
            for stage in STAGES
            if any(stage in side.get(name, {}) for side in (counts_a, counts_b) for name in own)
        ]
        if own and used:
            yield TextLine()
            yield Table(
                columns("ledger, A | B", *used),
                tuple(
                    (Cell(name), *_both(counts_a.get(name, {}), counts_b.get(name, {}), used))
                    for name in own
                ),
            )


def _both(a: Mapping[str, int], b: Mapping[str, int], stages: Iterable[str]) -> Iterator[Cell]:
    for one, other in ((a.get(stage, 0), b.get(stage, 0)) for stage in stages):
        if one == other:
            yield Cell(str(one or "-"), Emphasis.FAINT)
        else:
            yield Cell(f"{one or '-'} | {other or '-'}")


def _conclusion(compared: Sequence[Comparison], findings: Sequence[Finding]) -> Page:
    counts = {status: sum(f.status is status for f in findings) for status in Status}
    things = sum(comparison.things for comparison in compared)
    unexplained = counts[Status.UNEXPLAINED]
    yield TextLine()
    yield TextLine(
        f"{things} compared: {counts[Status.BY_DESIGN]} differ by design, "
        f"{counts[Status.KNOWN_BUG]} by known bugs, {unexplained} unexplained",
        Emphasis.ALARM if unexplained else Emphasis.GOOD,
    )
