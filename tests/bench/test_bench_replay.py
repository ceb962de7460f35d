"""How fast a recording is replayed, on one core, by its CPU time: 50 000 events a second.

That is a recorded Linux boot of 100 000 events in two seconds, read from ``events.jsonl``.
"""

import itertools
import resource
import time

import pytest

from harness.replay.replay import Replay, ReplayOutcome
from support.recorded_boot import log, recorded, recorded_case
from userspace_chip.profile import profile

EVENTS = 100_000
TARGET_EVENTS_PER_S = 50_000
TARGET_GROWTH_MIB = 8
MANY_EVENTS = 1_000_000


def replay(mode, lines):
    return Replay(profile(mode, qemu="7.2", linux="6.1"), 2).run(lines)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("mode", ["on", "split"])
def test_bench_replay_of_a_boot(benchmark, mode):
    lines = log(recorded(f"{mode}-smp2-qemu7.2-linux6.1", EVENTS))

    replayed = benchmark.pedantic(replay, (mode, lines), rounds=3, warmup_rounds=1)

    assert replayed.outcome is not ReplayOutcome.DIVERGED
    assert EVENTS / benchmark.stats.stats.min >= TARGET_EVENTS_PER_S


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", ["off-smp1", "tcg-smp2"])
def test_bench_replay_of_qemus_trace(benchmark, name):
    case = recorded_case(name)
    lines = log(case.events)
    subject = profile(case.case.irqchip, qemu="7.2", linux="6.1")

    def run():
        return Replay(subject, case.case.smp, looks=case.looks).run(lines)

    replayed = benchmark.pedantic(run, rounds=3, warmup_rounds=1)

    assert replayed.outcome is ReplayOutcome.AGREED
    assert len(lines) / benchmark.stats.stats.min >= TARGET_EVENTS_PER_S


def idle_lines(count):
    """A boot, and then as many events that are all different."""
    boot = log(recorded("on-smp2-qemu7.2-linux6.1", 9000))
    line = (
        '{{"ns": {0}, "source": "kvm", "name": "kvm_mmio", "vcpu": 0, "text": '
        '"mmio unsatisfied-read len 4 gpa 0xfec00010 val {0:#x}"}}\n'
    )
    times = range(10**10, 10**10 + count)
    return itertools.chain(boot, map(line.format, times))


def toggling_lines(count):
    """A line that goes up and down, each time at another time."""
    yield from log(())
    event = '{{"ns": {0}, "source": "qemu", "name": "ioapic_set_irq", "vcpu": 0, "text": "{1}"}}\n'
    for number in range(count):
        yield event.format(number * 1000, f"vector: 20 level: {number & 1}")


@pytest.mark.parametrize(
    ("mode", "lines"), [("on", idle_lines), ("tcg", toggling_lines)], ids=["on", "tcg"]
)
def test_bench_replay_memory_of_many_events(benchmark, mode, lines):
    """Peak memory of the process beyond that of a tenth of them: what was seen is forgotten."""

    def peak_mib(count):
        assert replay(mode, lines(count)).outcome is ReplayOutcome.AGREED
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    less = peak_mib(MANY_EVENTS // 10)
    more = benchmark.pedantic(peak_mib, (MANY_EVENTS,), rounds=1)

    assert more - less < TARGET_GROWTH_MIB
