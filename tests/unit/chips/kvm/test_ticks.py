"""When a tick of the PIT is too soon for a CPU that has not ended with the one before."""

from __future__ import annotations

from userspace_chip.kvm.ticks import MOST_LOST, Ticks

MS = 1_000_000


def handled(ticks):
    """The guest sends its EOI."""
    ticks.handled = True
    return ticks


def test_tick_after_one_that_was_not_handled_comes():
    assert not Ticks().is_too_soon(4 * MS, 0)


def test_tick_is_lost_until_the_cpu_was_inside_its_guest_for_a_quarter_of_the_time():
    ticks = handled(Ticks())

    lost = [ticks.is_too_soon(at * MS, inside * MS) for at, inside in ((4, 0), (8, 1), (12, 3))]

    assert lost == [True, True, False]


def test_tick_comes_once_many_in_a_row_were_lost():
    ticks = handled(Ticks())

    lost = [ticks.is_too_soon(4 * MS * n, 0) for n in range(1, MOST_LOST + 2)]

    assert lost == [*[True] * MOST_LOST, False]


def test_tick_after_one_that_came_is_measured_from_there():
    ticks = handled(Ticks())
    ticks.is_too_soon(100 * MS, 50 * MS)

    assert not handled(ticks).is_too_soon(104 * MS, 51 * MS)
    assert handled(ticks).is_too_soon(108 * MS, 51 * MS)
