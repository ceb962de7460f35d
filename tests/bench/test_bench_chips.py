"""How fast the chips are, on one core, by its CPU time.

At least 250 000 model events a second for raise, accept, inject and EOI; a chip's state saved and
restored within 50 us.  A model event is a stimulus that is fed in or a fact that comes out in the
log; ``traced_per_s`` counts the latter alone.
"""

import time

import pytest

from support.machines import SUBJECTS, name_of, program, ready, scanned

TARGET_EVENTS_PER_S = 250_000
TARGET_SNAPSHOT_S = 50e-6

ROUNDS = 500
STIMULI = 14
"""Calls of the machine in a round of :func:`mix`."""
LEVEL = 0x8000


def mixed_machine(subject, *, log=True):
    """Two CPUs, an edge and a level pin, and room for messages and IPIs."""
    machine = ready(subject, 2, log=log)
    program(machine, 20, 0x41)
    program(machine, 21, LEVEL | 0x51, 1 << 24)
    machine.mmio_write(0, 0xFEE00310, 4, 1 << 24)
    return scanned(machine)


def mix(machine):
    """One round: an edge line, a level line, a message and an IPI, each taken and ended."""
    machine.set_gsi(20, 1)
    machine.set_gsi(20, 0)
    assert machine.enter(0).vector == 0x41
    machine.eoi(0)
    machine.set_gsi(21, 1)
    assert machine.enter(1).vector == 0x51
    machine.set_gsi(21, 0)
    machine.eoi(1)
    machine.signal_msi(0xFEE00000, 0x61)
    assert machine.enter(0).vector == 0x61
    machine.eoi(0)
    machine.mmio_write(0, 0xFEE00300, 4, 0x4071)
    assert machine.enter(1).vector == 0x71
    machine.eoi(1)


def rounds(machine):
    machine.log.events.clear()
    for _ in range(ROUNDS):
        mix(machine)
    return len(machine.log.events)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("subject", SUBJECTS, ids=name_of)
def test_bench_raise_accept_inject_eoi(benchmark, subject):
    machine = mixed_machine(subject)
    traced = benchmark(rounds, machine)
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.min
        benchmark.extra_info["traced_per_s"] = round(traced / seconds)
        assert (traced + STIMULI * ROUNDS) / seconds >= TARGET_EVENTS_PER_S


@pytest.mark.benchmark(timer=time.process_time)
def test_bench_without_a_log(benchmark):
    """What a live VMM costs an interrupt."""
    machine = mixed_machine(SUBJECTS[0], log=False)
    assert benchmark(rounds, machine) == 0


@pytest.mark.parametrize("chip", ["lapics", "vcpus", "ioapics", "pic", "pit"])
@pytest.mark.parametrize("subject", [SUBJECTS[0], SUBJECTS[9]], ids=name_of)
def test_bench_snapshot_and_restore(benchmark, subject, chip):
    machine = mixed_machine(subject)
    machine.set_gsi(20, 1)
    found = getattr(machine, chip)
    one = found[0] if isinstance(found, list) else found
    before = one.save()

    benchmark(lambda: one.load(one.save()))

    assert one.save() == before
    if benchmark.stats is not None:
        assert benchmark.stats.stats.min <= TARGET_SNAPSHOT_S
