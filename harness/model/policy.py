"""What a fixed amount of work determines, and what it does not: the tables of the verdicts.

Backends differ in speed by an order of magnitude (a nested guest under TCG is slow), so a count
that depends on timing says nothing; a count determined by work has to be equal.  Which is which
stands here and nowhere else, with the reason.  Paths are those of
:class:`harness.model.counters.CounterKey`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from harness.model.counters import CounterSource

# --- Storms -------------------------------------------------------------------------------------

STORM_DELIVERIES: Final = 500
"""A storm has at least this many deliveries more than the work explains."""
STORM_PER_ASSERTION: Final = 5.0
"""... and either this many for each time that its line was raised, however slow the guest is: a
line is high for 100 ms, the slowest guest of all takes 14 ms for a delivery,"""
STORM_RATE_HZ: Final = 150.0
"""... or at least this many a second.  A guest that is nested in TCG takes 500 interrupts a second
on a busy machine, thousands on an idle one; a device at rest takes none."""
TIMER_STORM_RATE_HZ: Final = 10_000.0
"""The same for timers and IPIs, for each CPU: no kernel asks for this many ticks (HZ is 1000 at
most), and high-resolution timers of an idle guest stay far below."""
WORK_SLACK: Final = 2.0
"""The work explains this many times the deliveries that it needs at most."""
TOGGLE_COUNT: Final = 200
TOGGLE_RATE_HZ: Final = 100.0
"""A line that is lowered this often, and raised less than once in :data:`TOGGLE_RATIO` times, is
being driven for nothing.  Firmware that polls the keyboard lowers a line 58 times, then ends."""
TOGGLE_RATIO: Final = 20
CONSOLE_GSI: Final = 4
TOGGLES_PER_RAISE: Final = 6
"""... and this many times for each raising of other lines, the console's left aside.  q35 tells the
PIC line of a PIRQ, too, of every change of a PCI line: with the irqchip in the kernel, where each
is two calls, the line that is not routed there is lowered four times for one interrupt."""
TIMER_PINS: Final = frozenset({0, 2, 8})
"""Pins of the IOAPIC that timers drive (PIT, HPET, RTC): their rate is their work."""
ONSET_WINDOW_S: Final = 0.1
"""A storm begins with the first window of this length that has the rate."""


# --- Work ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkPolicy:
    """What a workload's units of work mean for the interrupts of its lines.

    ``min_per_unit``: fewer deliveries are a loss (None: nothing is required; one delivery is
    required in any case else).  ``max_per_unit``: what the work may need at most.
    ``tolerance``: how far two backends may be apart, relative to the greater count; None where the
    work does not determine the count.
    """

    workload: str
    lines: tuple[str, ...]
    max_per_unit: float
    min_per_unit: float | None
    tolerance: float | None
    why: str

    def owns(self, path: str) -> bool:
        """Whether the work is delivered on the line ``path``."""
        return any(fnmatchcase(path, line) for line in self.lines)

    def minimum(self, units: float) -> int:
        """The fewest deliveries that ``units`` of work can be done with."""
        if self.min_per_unit is None or units <= 0:
            return 0
        return max(1, math.ceil(self.min_per_unit * units))

    def maximum(self, units: float) -> float:
        """The most deliveries that ``units`` of work explain."""
        return WORK_SLACK * self.max_per_unit * units


WORK: Final[tuple[WorkPolicy, ...]] = (
    WorkPolicy(
        "serial",
        ("handled/*:ttyS0",),
        max_per_unit=1.0,
        min_per_unit=0.0,
        tolerance=None,
        why="a UART that empties its FIFO faster than the driver fills it needs one interrupt for "
        "many fillings: 4096 bytes took 4 under TCG",
    ),
    WorkPolicy(
        "block-intx",
        ("handled/*virtio*",),
        max_per_unit=1.0,
        min_per_unit=0.9,
        tolerance=0.1,
        why="one direct read at a time waits for one interrupt",
    ),
    WorkPolicy(
        "block-msix",
        ("handled/msi/virtio*",),
        max_per_unit=1.0,
        min_per_unit=0.9,
        tolerance=0.1,
        why="one direct read at a time waits for one message",
    ),
    WorkPolicy(
        "block-mmio",
        ("handled/*virtio*",),
        max_per_unit=1.0,
        min_per_unit=0.9,
        tolerance=0.1,
        why="one direct read at a time waits for one interrupt",
    ),
    WorkPolicy(
        "ipi",
        ("handled/cpu/RES", "handled/cpu/CAL"),
        max_per_unit=4.0,
        min_per_unit=None,
        tolerance=None,
        why="a CPU that polls while it is idle is woken without an IPI, and how long it polls "
        "depends on timing",
    ),
    WorkPolicy(
        "rtc",
        ("handled/*:rtc0",),
        max_per_unit=1.5,
        min_per_unit=0.7,
        tolerance=0.25,
        why="a tick is an interrupt; how many ticks fit into a sleep depends slightly on timing",
    ),
    WorkPolicy(
        "stuck-line",
        ("handled/*virtio*",),
        max_per_unit=1.0,
        min_per_unit=0.0,
        tolerance=None,
        why="how often a stuck line is delivered until the kernel gives up depends on timing",
    ),
)


def work_policy(workload: str) -> WorkPolicy | None:
    """The policy of ``workload``, or None where none of its interrupts are work."""
    return next((policy for policy in WORK if fnmatchcase(workload, policy.workload)), None)


# --- Counters -----------------------------------------------------------------------------------


class Weight(StrEnum):
    """What a difference of a counter means."""

    COMPARED = "compared"
    """It has to be explained."""
    TIMING = "timing"
    """It depends on timing: worth showing, never a failure."""
    MECHANISM = "mechanism"
    """It depends on how the backend works inside: shown only where a rule covers it."""


@dataclass(frozen=True)
class CounterPolicy:
    """How counters are compared whose path matches; the first policy that matches counts.

    Two values are equal within ``floor``, within ``floor_hz`` times the duration, and within
    ``tolerance`` times the greater of them: see :func:`harness.compare.diff.noise_band`.
    """

    counter: str
    source: CounterSource | None
    weight: Weight
    why: str
    floor: float = 0.0
    floor_hz: float = 0.0
    tolerance: float = 0.0
    workload: str = "*"

    def matches(self, workload: str, path: str, source: CounterSource) -> bool:
        """Whether this is the policy of that counter."""
        return (
            self.source in (None, source)
            and fnmatchcase(path, self.counter)
            and fnmatchcase(workload, self.workload)
        )


def _errors(name: str) -> CounterPolicy:
    return CounterPolicy(
        f"handled/cpu/{name}", "guest", Weight.COMPARED, "an error that no healthy guest has"
    )


COUNTERS: Final[tuple[CounterPolicy, ...]] = (
    *map(_errors, ("ERR", "MIS", "SPU", "MCE", "THR", "TRM", "DFR")),
    CounterPolicy(
        "handled/cpu/*", "guest", Weight.TIMING, "timers and IPIs of the guest's scheduler"
    ),
    CounterPolicy("handled/*:timer", "guest", Weight.TIMING, "ticks of the timer"),
    CounterPolicy("handled/*hpet*", "guest", Weight.TIMING, "ticks of the timer"),
    CounterPolicy("handled/*:ttyS0", "guest", Weight.TIMING, "the console, which is ours"),
    CounterPolicy("handled/all/*", "guest", Weight.TIMING, "the sum of all, timers too"),
    CounterPolicy(
        "handled/*",
        "guest",
        Weight.COMPARED,
        "a device at rest raises nothing",
        floor=20,
        floor_hz=5,
        tolerance=0.1,
    ),
    CounterPolicy("activity/*", "guest", Weight.TIMING, "what else the guest's kernel did"),
    CounterPolicy("time/*", "guest", Weight.TIMING, "where the guest's time went"),
    CounterPolicy(
        "raised/ioapic/[04]", "qmp", Weight.TIMING, "the timer, and the console, which is ours"
    ),
    CounterPolicy(
        "raised/ioapic/2", "qmp", Weight.TIMING, "the timer, where a device drives pin 2 itself"
    ),
    CounterPolicy(
        "raised/ioapic/8",
        "qmp",
        Weight.COMPARED,
        "ticks of the clock",
        floor=20,
        floor_hz=5,
        tolerance=0.25,
    ),
    CounterPolicy(
        "raised/ioapic*",
        "qmp",
        Weight.TIMING,
        "the line is raised until the time is over, or until the kernel gives up on it",
        workload="stuck-line",
    ),
    CounterPolicy(
        "raised/ioapic*",
        "qmp",
        Weight.COMPARED,
        "a device raises its line once for each interrupt",
        floor=20,
        floor_hz=5,
        tolerance=0.1,
    ),
    CounterPolicy(
        "*",
        None,
        Weight.MECHANISM,
        "who does what is what the backends differ in",
        floor=20,
        tolerance=0.25,
    ),
)

WORK_FLOOR: Final = 10.0
"""Two counts of work are equal within this, whatever the tolerance."""


def counter_policy(workload: str, path: str, source: CounterSource) -> CounterPolicy:
    """How a counter is compared: by the work where it is delivered there, else by the table."""
    work = work_policy(workload)
    if work is not None and source == "guest" and work.owns(path):
        if work.tolerance is None:
            return CounterPolicy(path, source, Weight.TIMING, work.why)
        return CounterPolicy(
            path, source, Weight.COMPARED, work.why, floor=WORK_FLOOR, tolerance=work.tolerance
        )
    return next(policy for policy in COUNTERS if policy.matches(workload, path, source))


def number(metrics: Mapping[str, float | str], name: str) -> float:
    """A metric of a workload that is a number; 0 where it is not there or none."""
    value = metrics.get(name, 0)
    try:
        return float(value)
    except ValueError:
        return 0.0
