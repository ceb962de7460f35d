"""Whole recordings at once: their account, and what the guest saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from harness.compare.guest_view import GuestView, View
from harness.ledger.bookkeeper import Bookkeeper
from harness.ledger.ledger import Ledger
from harness.model.case import Irqchip
from harness.model.counters import CounterSet
from userspace_chip.events import Event

_Books = TypeVar("_Books", bound=Bookkeeper)


def account(
    events: Iterable[Event],
    irqchip: Irqchip,
    *,
    smp: int = 1,
    ioapics: int = 1,
    damage: str | None = None,
    handled: Mapping[str, CounterSet] | None = None,
) -> Ledger:
    """The ledger of ``events``; see :class:`Bookkeeper`."""
    books = _told(Bookkeeper(irqchip, smp=smp, ioapics=ioapics), events)
    return books.close(damage=damage, handled=handled)


def observe(events: Iterable[Event], irqchip: Irqchip, *, ioapics: int = 1) -> View:
    """The view of ``events``; see :class:`GuestView`."""
    return _told(GuestView(irqchip, ioapics=ioapics), events).view()


def _told(books: _Books, events: Iterable[Event]) -> _Books:
    for event in events:
        books.add(event)
    return books
