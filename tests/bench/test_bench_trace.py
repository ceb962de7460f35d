"""How fast traces are read: at least 300 000 lines a second on one core.

The lines are a real recording's, over and over, with times that go on; one text in nine was never
seen before, as in a real boot (11 % of the texts of one were new).
"""

import re

import pytest

from harness.model.counters import EventTally
from harness.record.collectors.ftrace import FtraceReader
from harness.record.collectors.qemu_log import QemuLogReader
from harness.record.eventlog import EventLogReader, dump_events
from support import golden

LINES = 100_000
TARGET_LINES_PER_S = 300_000


def prolonged(recorded, stamp, fresh):
    """As many lines as :data:`LINES`, with times that go on and values that are new."""
    lines = []
    for number in range(LINES):
        line = recorded[number % len(recorded)]
        seconds, microseconds = divmod(number * 17, 1_000_000)
        line = stamp.sub(f"{seconds + 1:5d}.{microseconds:06d}", line, count=1)
        lines.append(fresh.sub(f"val 0x{number:x}", line) if number % 9 < 5 else line)
    return lines


@pytest.fixture(scope="module")
def ftrace_lines():
    stamp, fresh = re.compile(r"\d+\.\d{6}"), re.compile("val 0x[0-9a-f]+")
    return prolonged(golden.lines("ftrace-split-linux6.1.txt"), stamp, fresh)


def drain(stream):
    """Read all; the events are LINES, which shows that none was left out."""
    assert sum(1 for _ in stream) == LINES


def lines_per_s(benchmark):
    return LINES / benchmark.stats.stats.min


def test_bench_ftrace_reading(benchmark, ftrace_lines):
    benchmark(lambda: drain(FtraceReader().events(ftrace_lines)))

    assert lines_per_s(benchmark) >= TARGET_LINES_PER_S


def test_bench_ftrace_counting(benchmark, ftrace_lines):
    def count():
        tally = EventTally()
        for event in FtraceReader().events(ftrace_lines):
            tally.add(event)
        return tally.counters()

    benchmark(count)


def test_bench_qemulog_reading(benchmark):
    stamp, fresh = re.compile(r"(?<=@)\d+\.\d{6}"), re.compile("val 0x[0-9a-f]+")
    recorded = golden.lines("qemulog-split-qemu7.2.txt")
    lines = [line.replace("@    ", "@") for line in prolonged(recorded, stamp, fresh)]

    benchmark(lambda: drain(QemuLogReader().events(lines)))


def test_bench_events_written_and_read_back(benchmark, ftrace_lines):
    events = list(FtraceReader().events(ftrace_lines))

    benchmark(lambda: drain(EventLogReader().events(dump_events(events))))
