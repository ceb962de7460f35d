"""What ``irqmatrix diff`` prints: where two guests part, and every difference side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analyse import audit
from harness.compare.align import Parting
from harness.compare.diff import Comparison, Status
from harness.compare.finding import Finding, Member
from harness.compare.guest_view import Step
from harness.compare.recordings import A, B, CaseDiff, FirstParting, Place, RunDiff, Side
from harness.ledger.ledger import STAGES, Ledger, to_json
from harness.report.views import WORDS, finding_view
from userspace_chip.events import Event

_STYLES: Final = {
    Status.UNEXPLAINED: "bold red",
    Status.KNOWN_BUG: "yellow",
    Status.BY_DESIGN: "cyan",
    Status.INFORMATIONAL: "dim",
}


def diff_json(found: RunDiff) -> str:
    """The whole of it as JSON."""
    document = {
        "pairs": [_pair_json(pair) for pair in found.pairs],
        "findings": [asdict(finding) for finding in found.findings],
        "alone": found.alone,
        "exit_status": found.exit_status,
    }
    return json.dumps(document, indent=1)


def diff_report(console: Console, found: RunDiff) -> None:
    """One pair in full; of several, each in short and then what nothing explains."""
    if len(found.pairs) == 1 and not found.alone:
        _pair(console, found.pairs[0])
    else:
        _pairs(console, found)


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


def _side_json(side: Side) -> dict[str, Any]:
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


def _place_json(place: Place) -> dict[str, Any]:
    rows = [
        {"event": number, "ns": e.time_ns, "source": e.source, "name": e.name, "text": e.text}
        for number, e in enumerate(place.events, place.first)
    ]
    return {"event": place.at, "events": rows}


# --- Text ---------------------------------------------------------------------------------------


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True, style=style)


def _pairs(console: Console, found: RunDiff) -> None:
    table = Table("A", "B", "guests", "explained", "unexplained", box=None, pad_edge=False)
    for pair in found.pairs:
        explained = len(pair.of(Status.BY_DESIGN)) + len(pair.of(Status.KNOWN_BUG))
        unexplained = len(pair.of(Status.UNEXPLAINED))
        style = _STYLES[Status.UNEXPLAINED] if unexplained else "green"
        guests = f"{len(pair.alignment.same)} same, {len(pair.alignment.partings)} differ"
        cells = (Text(pair.a.id), Text(pair.b.id), guests, str(explained))
        table.add_row(*cells, Text(str(unexplained), style=style))
    console.print(table)
    for pair in found.pairs:
        _warnings(console, pair)
        if pair.exit_status:
            _say(console, f"\n{pair.a.id} / {pair.b.id}", "bold")
            _first(console, pair)
    for finding in found.findings:
        if finding.status is Status.UNEXPLAINED:
            view = finding_view(finding)
            _say(console, f"\n{WORDS[finding.status]}  {view.headline}", _STYLES[finding.status])
            for line in view.groups:
                _say(console, f"    {line}")
    for case in found.alone:
        _say(console, f"no partner: {case}", "yellow")
    _conclusion(console, [pair.comparison for pair in found.pairs], found.findings)


def _pair(console: Console, pair: CaseDiff) -> None:
    for name, side in (("A", pair.a), ("B", pair.b)):
        _say(console, f"{name}  {side.id}  {side.verdict}", "bold")
        _say(console, f"   {side.directory}")
        _say(console, f"   ledger: {audit.summary(side.ledger)}")
    _warnings(console, pair)
    _first(console, pair)
    aligned = pair.alignment
    if aligned.same or aligned.partings:
        same, differ = len(aligned.same), len(aligned.partings)
        _say(console, f"\nthe guests: {same} subjects the same, {differ} not", "bold")
    _differences(console, pair.findings)
    _ledgers(console, pair.a.ledger, pair.b.ledger)
    _conclusion(console, [pair.comparison], pair.findings)


def _warnings(console: Console, pair: CaseDiff) -> None:
    for warning in pair.warnings:
        _say(console, f"warning: {warning}", "yellow")


def _first(console: Console, pair: CaseDiff) -> None:
    first = pair.first
    if first is None:
        return
    finding, parting = first.finding, first.parting
    label = WORDS[finding.status]
    why = f": {finding.rule}" if finding.rule else ""
    style = _STYLES[finding.status]
    _say(console, f"\nfirst divergent event: {parting.subject} ({label}{why})", style)
    if parting.before:
        _say(console, f"   both: ... {_steps(parting.before)}")
    for name, own, after, place in (
        ("A", parting.a, parting.a_after, first.a),
        ("B", parting.b, parting.b_after, first.b),
    ):
        rest = f"; then {_steps(after)}" if after else ""
        _say(console, f"   {name}:    {_steps(own) or 'nothing'}{rest}")
        if place is not None:
            _events(console, place, is_own=bool(own))


def _steps(steps: Iterable[Step]) -> str:
    return " | ".join(step.what for step in steps)


def _events(console: Console, place: Place, *, is_own: bool) -> None:
    for number, event in enumerate(place.events, place.first):
        here = number == place.at
        mark = (">" if is_own else "|") if here else " "
        style = "bold red" if here and is_own else "dim"
        _say(console, f"   {mark} {_event_text(number, event)}", style)


def _event_text(number: int, event: Event) -> str:
    thread = "-" if event.vcpu is None else str(event.vcpu)
    return f"{number:>7} {event.source:4} {thread:>2} {event.name}: {event.text}"


def _differences(console: Console, found: Sequence[Finding]) -> None:
    """Each with what either side saw; a rule's reason once."""
    if not found:
        return
    table = Table("", "", A, B, "why", box=None, pad_edge=False)
    reasons: dict[str, Finding] = {}
    for finding in found:
        label = Text(WORDS[finding.status], style=_STYLES[finding.status])
        sides = (_saw(finding, side) for side in (A, B))
        table.add_row(label, Text(finding.what), *sides, Text(finding.rule or finding.reason))
        if finding.rule is not None:
            reasons.setdefault(finding.rule, finding)
    console.print(table)
    for rule, finding in reasons.items():
        _say(console, f"{rule}: {finding.reason}\n    {finding.link}", "dim")


def _saw(finding: Finding, side: str) -> Text:
    group = finding.saw(Member(finding.subject, side))
    return Text("" if group is None else group.saw)


def _ledgers(console: Console, a: Ledger, b: Ledger) -> None:
    """Both accounts: one number where they agree, ``A | B`` where they do not."""
    rows = {row.name: row for ledger in (a, b) for row in ledger.rows}
    names = sorted(rows, key=lambda name: (rows[name].kind, rows[name].cpu or 0, rows[name].number))
    rows_a, rows_b = ({row.name: row.counts for row in ledger.rows} for ledger in (a, b))
    for kinds in (("ioapic", "pic"), ("vector",)):
        own = [name for name in names if rows[name].kind in kinds]
        used = [
            stage
            for stage in STAGES
            if any(stage in side.get(name, {}) for side in (rows_a, rows_b) for name in own)
        ]
        if not own or not used:
            continue
        table = Table("ledger, A | B", *used, box=None, pad_edge=False)
        for name in own:
            counts = [
                (rows_a.get(name, {}).get(s, 0), rows_b.get(name, {}).get(s, 0)) for s in used
            ]
            table.add_row(name, *(_both(one, other) for one, other in counts))
        console.print()
        console.print(table)


def _both(a: int, b: int) -> Text:
    if a == b:
        return Text(str(a) if a else "-", style="dim")
    return Text(f"{a or '-'} | {b or '-'}")


def _conclusion(
    console: Console, compared: Sequence[Comparison], findings: Sequence[Finding]
) -> None:
    counts = {status: sum(f.status is status for f in findings) for status in Status}
    things = sum(comparison.things for comparison in compared)
    unexplained = counts[Status.UNEXPLAINED]
    _say(
        console,
        f"\n{things} compared: {counts[Status.BY_DESIGN]} differ by design, "
        f"{counts[Status.KNOWN_BUG]} by known bugs, {unexplained} unexplained",
        "bold red" if unexplained else "green",
    )
