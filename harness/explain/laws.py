"""The account of a trace that others recorded: what does not add up, and nothing more.

Such a trace begins and ends in the middle of a guest's life, and the ledger's rows are out by what
was on its way then.  A law is broken only where a row is out by more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from harness.explain.answer import BrokenLaw, Laws
from harness.ledger.ledger import LAWS, Law, Ledger, LedgerFinding, Row
from harness.record.collectors.foreign.model import Evidence, TraceTally

EDGE: Final = 8
"""How much a row may be out for the beginning and the end of a trace."""
EDGE_RATIO: Final = 0.02
_ROWS: Final = 4
_PROGRAMMED: Final = "what raises these was programmed before the trace began"


def laws_of(evidence: Iterable[Evidence]) -> tuple[Laws, ...]:
    """What each trace says."""
    return tuple(
        _of_trace(each.file, each.content)
        for each in evidence
        if isinstance(each.content, TraceTally)
    )


def _of_trace(file: str, tally: TraceTally) -> Laws:
    if tally.ledger is None:
        return Laws(file, (), (), (tally.ledger_why,))
    ledger = tally.ledger
    status = {each.name: each for each in ledger.laws}
    checked, broken, unseen = [], [], []
    for law in LAWS:
        result = status.get(law.name)
        if result is None:
            continue
        if result.status in ("not observable", "not checkable"):
            unseen.append(f"{law.name}: {result.reason}")
            continue
        if not result.left and not result.right:
            unseen.append(f"{law.name}: no event of it is in the trace")
            continue
        checked.append(law.name)
        off = tuple(_off(law, ledger))
        if "by_lvt" in law.right and (silent := [row.name for row, _, right in off if not right]):
            off = tuple(each for each in off if each[2])
            unseen.append(f"{law.name}: {_PROGRAMMED}: {', '.join(silent[:_ROWS])}")
        if off:
            rows = tuple(f"{row.name}: {left} against {right}" for row, left, right in off[:_ROWS])
            broken.append(BrokenLaw(law.name, rows, _first(ledger, [row for row, _, _ in off])))
    if tally.ledger_why:
        unseen.append(tally.ledger_why)
    return Laws(file, tuple(checked), tuple(broken), tuple(unseen))


def _off(law: Law, ledger: Ledger) -> Iterator[tuple[Row, int, int]]:
    for row in ledger.rows:
        left, right = row.sum(law.left), row.sum(law.right)
        if row.kind == law.rows and abs(left - right) > max(EDGE, EDGE_RATIO * max(left, right)):
            yield row, left, right


def _first(ledger: Ledger, rows: list[Row]) -> LedgerFinding | None:
    """A finding about one of ``rows``, for the event where to look."""
    names = {row.name for row in rows}
    return next((each for each in ledger.findings if each.subject in names), None)
