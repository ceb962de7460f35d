"""How fast a foreign trace is read: 1 GB is 10 million lines, and takes 90 s, with its account 300.

The lines are a lab's, over and over, with times that go on; of each exit the address is new.
"""

import re
from pathlib import Path

import pytest

from harness.model.case import Irqchip
from harness.record.collectors.foreign.trace_text import TraceReader

GOLDEN = Path(__file__).parents[1] / "golden"
LINES = 100_000
COUNTED_PER_S = 10_000_000 / 90
IN_BOOKS_PER_S = 10_000_000 / 300


@pytest.fixture(scope="module")
def lines():
    text = (GOLDEN / "field/trace-pipe-on-linux6.12.txt").read_text()
    recorded = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    stamp, fresh = re.compile(r"\d+\.\d{6}"), re.compile("rip 0x[0-9a-f]+")
    found = []
    for number in range(LINES):
        seconds, microseconds = divmod(number * 17, 1_000_000)
        line = stamp.sub(f"{seconds + 1}.{microseconds:06d}", recorded[number % len(recorded)], 1)
        found.append(fresh.sub(f"rip 0x{number % 65_536:x}", line))
    return found


@pytest.mark.parametrize(
    ("irqchip", "least"), [(None, COUNTED_PER_S), (Irqchip.ON, IN_BOOKS_PER_S)], ids=["sums", "on"]
)
def test_bench_foreign_trace(benchmark, lines, irqchip, least):
    tally = benchmark(lambda: TraceReader("trace", irqchip=irqchip).read(lines).content)

    assert sum(tally.events.values()) == LINES
    assert LINES / benchmark.stats.stats.min >= least
