"""Storms and losses: too many deliveries for the work that was done, or too few.

The thresholds are in :mod:`harness.policy`.  A storm is seen by the guest (its handler runs again
and again) or by the host alone (a line is driven again and again, and nothing comes of it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from harness import policy
from harness.counters import Counter, CounterKey, CounterSet, CounterSource
from harness.policy import WorkPolicy

TIMERS = ("handled/*:timer", "handled/*hpet*", "handled/cpu/LOC")
IPIS = ("handled/cpu/RES", "handled/cpu/CAL", "handled/cpu/TLB")


class Measured(Protocol):
    """A workload's own measurements: ``elapsed_ms``, ``units`` of work, and more."""

    @property
    def metrics(self) -> Mapping[str, float | str]:
        """By name."""
        ...


@dataclass(frozen=True)
class Storm:
    """A counter that ran away.

    ``assertions`` is how often the line was raised meanwhile, where that can be known.
    """

    counter: str
    source: CounterSource
    count: int
    duration_s: float
    guest_visible: bool
    assertions: int | None = None

    @property
    def rate_hz(self) -> float:
        """Deliveries a second."""
        return self.count / self.duration_s

    @property
    def per_assertion(self) -> float | None:
        """Deliveries for each time that the line was raised."""
        return self.count / self.assertions if self.assertions else None

    def __str__(self) -> str:
        text = f"{self.counter}: {self.count} in {self.duration_s:.1f} s ({self.rate_hz:.0f}/s)"
        if not self.guest_visible:
            text += ", with no interrupt for the guest"
        if self.per_assertion is not None:
            text += f", {self.per_assertion:.0f} for each of {self.assertions} assertions"
        return text


@dataclass(frozen=True)
class Lost:
    """Fewer deliveries than the work can be done with."""

    lines: str
    count: int
    required: int
    units: float

    def __str__(self) -> str:
        return (
            f"{self.lines}: {self.count} interrupts for {self.units:g} units of work, "
            f"which take at least {self.required}"
        )


def find_storm(workload: str, measured: Measured, counters: CounterSet) -> Storm | None:
    """The worst storm that the guest saw during ``workload``, or None."""
    found = [storm for storm in find_storms(workload, measured, counters) if storm.guest_visible]
    return max(found, key=lambda storm: storm.rate_hz, default=None)


def find_storms(workload: str, measured: Measured, counters: CounterSet) -> list[Storm]:
    """All storms during ``workload``, those that only the host saw too."""
    duration_s = policy.number(measured.metrics, "elapsed_ms") / 1000
    if duration_s <= 0:
        return []
    units = policy.number(measured.metrics, "units")
    total = counters.without_cpus()
    return [
        *_delivered(policy.work_policy(workload), units, duration_s, counters, total),
        *_toggled(duration_s, total),
    ]


def find_lost(workload: str, measured: Measured, counters: CounterSet) -> Lost | None:
    """The work's deliveries, where they are fewer than the work needs; else None."""
    work = policy.work_policy(workload)
    if work is None or "guest" not in counters.sources:
        return None
    units = policy.number(measured.metrics, "units")
    count = sum(c.value for c in counters if c.key.source == "guest" and work.owns(c.key.path))
    required = work.minimum(units)
    if count >= required:
        return None
    return Lost(", ".join(work.lines), count, required, units)


def onset_s(times_ns: Sequence[int], began_ns: int, rate_hz: float) -> float | None:
    """When a storm began: seconds after ``began_ns``, or None where the rate was never reached.

    ``times_ns`` are the deliveries in their order.
    """
    needed = max(2, round(rate_hz * policy.ONSET_WINDOW_S))
    window_ns = policy.ONSET_WINDOW_S * 1e9
    for first, last in zip(times_ns, times_ns[needed - 1 :], strict=False):
        if last - first <= window_ns:
            return (first - began_ns) / 1e9
    return None


def _delivered(
    work: WorkPolicy | None,
    units: float,
    duration_s: float,
    counters: CounterSet,
    total: CounterSet,
) -> Iterator[Storm]:
    """Lines whose handler ran too often."""
    cpus = len({key.cpu for key in counters.values if key.cpu is not None}) or 1
    for counter in total:
        key, path = counter.key, counter.key.path
        if key.source != "guest" or key.stage != "handled" or key.controller == "all":
            continue
        timing = any(fnmatchcase(path, glob) for glob in (*TIMERS, *IPIS))
        if key.controller == "cpu" and not timing:
            continue
        explained = work.maximum(units) if work is not None and work.owns(path) else 0.0
        if counter.value < policy.STORM_DELIVERIES + explained:
            continue
        limit_hz = policy.TIMER_STORM_RATE_HZ * cpus if timing else policy.STORM_RATE_HZ
        if counter.value / duration_s >= limit_hz:
            yield Storm(path, key.source, counter.value, duration_s, True, _assertions(key, total))


def _assertions(line: CounterKey, total: CounterSet) -> int | None:
    """How often the line's pin was raised, as far as the monitor or else KVM could see it."""
    if line.number is None or line.controller not in ("ioapic", "pic"):
        return None
    candidates = (
        CounterKey("raised", line.controller, "qmp", line.number),
        CounterKey("raised", "gsi", "kvm", line.number),
    )
    for key in candidates:
        found = total.lookup(key)
        if isinstance(found, Counter):
            return found.value
    return None


def _toggled(duration_s: float, total: CounterSet) -> Iterator[Storm]:
    """Lines that are lowered without end and hardly ever raised."""
    for counter in total:
        key = counter.key
        if key.stage != "lowered" or key.controller != "gsi":
            continue
        raised = total.lookup(CounterKey("raised", "gsi", key.source, key.number))
        ups = raised.value if isinstance(raised, Counter) else 0
        if (
            counter.value >= policy.TOGGLE_COUNT
            and counter.value / duration_s >= policy.TOGGLE_RATE_HZ
            and ups * policy.TOGGLE_RATIO < counter.value
        ):
            yield Storm(key.path, key.source, counter.value, duration_s, False, ups or None)
