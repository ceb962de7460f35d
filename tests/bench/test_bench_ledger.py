"""How fast the ledger is kept: at least 250 000 events a second on one core.

The events are a real recording's, over and over, with times that go on.
"""

import lzma
from pathlib import Path

import pytest

from harness.model.case import Irqchip
from harness.record.eventlog import EventLogReader
from support.books import account

GOLDEN = Path(__file__).parent.parent / "golden" / "ledger"
EVENTS = 100_000
TARGET_EVENTS_PER_S = 250_000


def prolonged(mode):
    """As many events as :data:`EVENTS`, in whole recordings one after the other."""
    with lzma.open(GOLDEN / f"linux-{mode}.jsonl.xz", "rt", encoding="utf-8") as file:
        recorded = list(EventLogReader().events(file))
    span_ns = recorded[-1].time_ns - recorded[0].time_ns + 1000
    rounds = EVENTS // len(recorded) + 1
    return [
        event._replace(time_ns=event.time_ns + number * span_ns)
        for number in range(rounds)
        for event in recorded
    ][:EVENTS]


@pytest.mark.parametrize("mode", list(Irqchip))
def test_bench_ledger(benchmark, mode):
    events = prolonged(mode)

    ledger = benchmark(lambda: account(events, mode))

    assert ledger.events == EVENTS
    assert EVENTS / benchmark.stats.stats.min >= TARGET_EVENTS_PER_S
