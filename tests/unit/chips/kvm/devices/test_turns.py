"""CPUs that wait for each other, and leave their turn to whom they wait for."""

from __future__ import annotations

import pytest

from userspace_chip.kvm.devices import turns


@pytest.fixture
def woken():
    return []


@pytest.fixture
def port(woken):
    return turns.Turns(3, 8, woken.append)


def give(port, cpu, to):
    port.write(cpu, turns.PORT, 1, to)


def test_port_read_tells_after_how_many_looks_to_write(port):
    assert port.read(0, turns.PORT, 1) == 8


def test_late_port_tells_whether_timers_are(woken):
    late = [True, False]
    port = turns.Turns(1, 8, woken.append, lambda: late.pop(0))

    assert [port.read(0, turns.LATE_PORT, 1) for _ in range(2)] == [1, 0]


def test_cpu_that_gives_its_turn_waits_and_the_other_is_woken(port, woken):
    give(port, 0, 1)

    assert [port.waits(cpu) for cpu in range(3)] == [True, False, False]
    assert woken == [1]


def test_cpu_that_waits_goes_on_with_its_turn(port, woken):
    give(port, 0, 1)
    give(port, 1, 0)

    # CPU 1 got its turn while it ran: what it waits for may have come since it looked.
    assert [port.waits(cpu) for cpu in range(3)] == [False, False, False]
    give(port, 1, 0)
    assert port.waits(1)


@pytest.mark.parametrize("to", [0, 3, 0xFF])
def test_turn_for_oneself_or_for_no_cpu_is_kept(port, woken, to):
    give(port, 0, to)

    assert not port.waits(0)
    assert woken == []


def test_cpu_with_an_interrupt_to_look_at_does_not_wait(port):
    port.take(1)  # before it gives its turn: its exit is not answered yet
    give(port, 1, 0)

    assert not port.waits(1)


def test_cpu_that_waited_for_long_enough_goes_on(port):
    give(port, 2, 0)
    port.end_wait(2)

    assert not port.waits(2)
