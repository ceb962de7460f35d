"""How fast a foreign trace is read: 1 GB is 10 million lines, and takes 90 s, with its account 300.

The lines are a lab's, over and over, with times that go on; of each exit the address is new.
"""

import re
import resource
import subprocess
import sys
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


# --- The whole command, and a whole file ----------------------------------------------------------

GB = 10**9
MOST_MB = 500
_STAMP = re.compile(r"\d+\.\d{6}")
_ADDRESS = re.compile("rip 0x[0-9a-f]+")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trace of 1 GB; the file goes when its tests have run."""
    text = (GOLDEN / "field/trace-pipe-on-linux6.12.txt").read_text()
    recorded = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
    parts = [_STAMP.split(_ADDRESS.sub("rip 0x\0", line), maxsplit=1) for line in recorded]
    path = tmp_path_factory.mktemp("trace") / "trace.txt"
    number = size = 0
    with path.open("w") as file:
        while size < GB:
            block = []
            for before, after in parts:
                number += 1
                fresh = after.replace("\0", f"{number & 0xFFFFF:x}") if "\0" in after else after
                block.append(f"{before}{number // 58_000 + 1}.{number % 58_000 * 17:06d}{fresh}")
            size += file.write("".join(block))
    yield path
    path.unlink()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("events", "most_s"), [(("--events", "1"), 90), ((), 300)], ids=["rates", "account"]
)
def test_bench_whole_trace_of_a_gigabyte(events, most_s, benchmark, whole):
    argv = [sys.executable, "-m", "harness", "explain", *events, str(whole)]
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN)

    said = benchmark.pedantic(
        lambda: subprocess.run(argv, capture_output=True, text=True, check=False).stdout, rounds=1
    )

    after_s = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent_s = after_s.ru_utime + after_s.ru_stime - before_s.ru_utime - before_s.ru_stime
    largest_mb = after_s.ru_maxrss * 1024 / 1e6
    benchmark.extra_info |= {"CPU seconds": round(spent_s, 1), "MB": round(largest_mb)}
    assert "0 lost" in said
    assert "Account of trace.txt" in said
    assert spent_s <= most_s
    assert largest_mb <= MOST_MB
