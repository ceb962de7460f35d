"""How fast a recording is replayed, on one core, by its CPU time: 50 000 events a second.

That is a recorded Linux boot of 100 000 events in two seconds, read from ``events.jsonl``.
"""

import itertools
import time
import tracemalloc

import pytest

from harness.replay import Outcome, Replay
from support.recorded_boot import log, recorded
from userspace_chip.profile import profile

EVENTS = 100_000
TARGET_EVENTS_PER_S = 50_000
TARGET_GROWTH_MIB = 8


def replay(mode, lines):
    return Replay(profile(mode, qemu="7.2", linux="6.1"), 2).run(lines)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("mode", ["on", "split"])
def test_bench_replay_of_a_boot(benchmark, mode):
    lines = log(recorded(f"{mode}-smp2-qemu7.2-linux6.1", EVENTS))

    replayed = benchmark.pedantic(replay, (mode, lines), rounds=3, warmup_rounds=1)

    assert replayed.outcome is not Outcome.DIVERGED
    assert EVENTS / benchmark.stats.stats.min >= TARGET_EVENTS_PER_S


def idle_lines(count):
    """A boot, and then as many events that are all different."""
    boot = log(recorded("on-smp2-qemu7.2-linux6.1", 9000))
    line = (
        '{{"ns": {0}, "source": "kvm", "name": "kvm_mmio", "vcpu": 0, "text": '
        '"mmio unsatisfied-read len 4 gpa 0xfec00010 val {0:#x}"}}\n'
    )
    times = range(10**10, 10**10 + count)
    return itertools.chain(boot, map(line.format, times))


def test_bench_replay_memory_of_many_events(benchmark):
    """Peak memory beyond that of a third of them: what was seen is forgotten."""

    def peak_mib(count):
        tracemalloc.start()
        try:
            replay("on", idle_lines(count))
            return tracemalloc.get_traced_memory()[1] / 2**20
        finally:
            tracemalloc.stop()

    less = peak_mib(100_000)
    more = benchmark.pedantic(peak_mib, (300_000,), rounds=1)

    assert more - less < TARGET_GROWTH_MIB
