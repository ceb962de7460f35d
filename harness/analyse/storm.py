"""Storms and losses: too many deliveries for the work that was done, or too few.

The thresholds are in :mod:`harness.model.policy`.  A storm is seen by the guest (its handler runs
again and again) or by the host alone (a line is driven again and again, and nothing comes of it).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from harness.model import policy
from harness.model.counters import Counter, CounterKey, CounterSet, CounterSource
from harness.model.policy import WorkPolicy
from userspace_chip.events import Event

TIMERS = ("handled/*:timer", "handled/*hpet*", "handled/cpu/LOC")
IPIS = ("handled/cpu/RES", "handled/cpu/CAL", "handled/cpu/TLB")


class HasMetrics(Protocol):
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
    def pin(self) -> int | None:
        """The pin of the IOAPIC, where it is one's."""
        match = re.fullmatch(r"\w+/ioapic/(\d+)(:.*)?", self.counter)
        return None if match is None else int(match[1])

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


def find_storm(workload: str, measured: HasMetrics, counters: CounterSet) -> Storm | None:
    """The worst storm that the guest saw during ``workload``, or None."""
    found = [storm for storm in find_storms(workload, measured, counters) if storm.guest_visible]
    return max(found, key=lambda storm: storm.rate_hz, default=None)


def find_storms(workload: str, measured: HasMetrics, counters: CounterSet) -> list[Storm]:
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


def find_lost(workload: str, measured: HasMetrics, counters: CounterSet) -> Lost | None:
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


def find_host_storm(duration_s: float, counters: CounterSet) -> Storm | None:
    """The worst storm that the host saw in a guest that gave no answer for ``duration_s``.

    What shows it is the stage that every level-triggered delivery goes through, whoever emulates
    the IOAPIC: the acknowledgement of its pin.
    """
    total = counters.without_cpus()
    found = [
        Storm(
            counter.key.path,
            counter.key.source,
            counter.value,
            duration_s,
            guest_visible=True,
            assertions=_assertions(counter.key, total),
        )
        for counter in total
        if counter.key.stage == "acknowledged"
        and counter.key.controller == "ioapic"
        and counter.key.number not in policy.TIMER_PINS
        and counter.value >= policy.STORM_DELIVERIES
        and counter.value >= policy.STORM_RATE_HZ * duration_s
    ]
    return max(found, key=lambda storm: storm.rate_hz, default=None)


_PIN_OF: Mapping[str, str] = {
    "kvm_ack_irq": "pin",
    "kvm_ioapic_set_irq": "pin",
    "ioapic_clear_remote_irr": "pin",
    "ioapic_set_irq": "pin",
}


class OnsetTracker:
    """Watches a stream of events for the first moment at which a pin has a storm's rate."""

    def __init__(self) -> None:
        self._recent: dict[tuple[str, int], deque[int]] = {}
        self._began_ns: int | None = None
        self.onset_s: dict[int, float] = {}
        """By pin: seconds from the first event to the beginning of the storm."""

    def add(self, event: Event) -> None:
        """Watch ``event``."""
        if self._began_ns is None:
            self._began_ns = event.time_ns
        field = _PIN_OF.get(event.name)
        if field is None or (event.name == "kvm_ack_irq" and event.arg("irqchip") != "IOAPIC"):
            return
        pin = int(event.arg(field))
        if pin in self.onset_s or pin in policy.TIMER_PINS:
            return
        needed = max(2, round(policy.STORM_RATE_HZ * policy.ONSET_WINDOW_S))
        recent = self._recent.setdefault((event.name, pin), deque(maxlen=needed))
        recent.append(event.time_ns)
        if len(recent) == needed and recent[-1] - recent[0] <= policy.ONSET_WINDOW_S * 1e9:
            self.onset_s[pin] = (recent[0] - self._began_ns) / 1e9


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
        storm = Storm(path, key.source, counter.value, duration_s, True, _assertions(key, total))
        repeats = storm.per_assertion or 0.0
        if storm.rate_hz >= limit_hz or (not timing and repeats >= policy.STORM_PER_ASSERTION):
            yield storm


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
    """Lines that are lowered without end, hardly ever raised, and not for another line's sake."""
    raised = {
        (key.source, key.number): value
        for key, value in total.values.items()
        if key.stage == "raised" and key.controller == "gsi"
    }
    for counter in total:
        key, downs = counter.key, counter.value
        if key.stage != "lowered" or key.controller != "gsi":
            continue
        ups = raised.get((key.source, key.number), 0)
        others = sum(
            value
            for (source, number), value in raised.items()
            if source == key.source and number not in (key.number, policy.CONSOLE_GSI)
        )
        explained = ups * policy.TOGGLE_RATIO + others * policy.TOGGLES_PER_RAISE
        if (
            downs >= policy.TOGGLE_COUNT
            and downs / duration_s >= policy.TOGGLE_RATE_HZ
            and downs > explained
        ):
            yield Storm(key.path, key.source, downs, duration_s, False, ups or None)
