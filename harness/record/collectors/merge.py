"""One stream from several: events of different sources in the order of their times."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from userspace_chip.events import Event


def merge(*streams: Iterable[Event]) -> Iterator[Event]:
    """The events of all ``streams``, each sorted by time on one clock, sorted by time.

    Stable: at equal times the earlier stream comes first, and each keeps its own order.
    """
    return heapq.merge(*streams, key=_time_ns)


def in_order(events: Iterable[Event]) -> list[Event]:
    """The events of one stream sorted by time, for a tracer whose threads write past each other.

    Stable: events of one thread at one time keep their order.
    """
    return sorted(events, key=_time_ns)


def _time_ns(event: Event) -> int:
    return event.time_ns
