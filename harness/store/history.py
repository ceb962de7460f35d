"""What the store tells: runs, and what became of a case, a finding or a counter from run to run.

Frozen data for every view of it (terminal, HTML, ``serve``, plots); :mod:`harness.store.queries`
reads it.  Whatever is a series begins with the oldest run.  Times are ISO 8601 with their zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.store.identity import FindingIdentity

WINDOW: Final = 20
"""The number of last runs from which rates and bands are computed."""
MIN_VALUES: Final = 5
"""A band needs at least this number of earlier values."""
DEVIATIONS: Final = 4.0
"""Half the width of a band in standard deviations, as they are estimated from the MAD."""
SIGMA_OF_MAD: Final = 1.4826
"""A normal distribution's standard deviation in multiples of its median absolute deviation."""


@dataclass(frozen=True)
class Rate:
    """In how many runs something showed, of those that looked for it."""

    seen: int
    of: int

    def with_one_more(self, *, seen: bool) -> Rate:
        """The same with one more run."""
        return Rate(self.seen + seen, self.of + 1)

    def __str__(self) -> str:
        """``3 of 20 runs``."""
        return f"{self.seen} of {self.of} run{'' if self.of == 1 else 's'}"


@dataclass(frozen=True)
class StoredRun:
    """A run.

    One that was killed, or goes on, is not complete: its counts and ``exit_status`` are None.
    """

    number: int
    name: str
    """That of its configuration."""
    directory: str
    started: str
    finished: str | None
    irqmatrix: str
    """The version of irqmatrix."""
    exit_status: int | None
    cases: int | None
    not_as_expected: int | None
    unexplained: int | None
    baselines: tuple[str, ...] = ()
    """The baselines that it was accepted as."""

    @property
    def is_complete(self) -> bool:
        """Whether it ended by itself."""
        return self.finished is not None


@dataclass(frozen=True)
class BackendVersions:
    """What a backend was in one run: ``linux`` is None where no KVM ran the guest."""

    qemu: str | None
    linux: str | None

    def __str__(self) -> str:
        """``QEMU 10.0.13, Linux 6.12.57``."""
        words = (("QEMU", self.qemu), ("Linux", self.linux))
        return ", ".join(f"{word} {version}" for word, version in words if version is not None)


@dataclass(frozen=True)
class CaseNight:
    """A case in one run."""

    run: int
    started: str
    verdict: str
    as_expected: bool
    flaky: bool
    """As expected only when it was run again."""
    duration_s: float
    blame: str | None
    detail: str
    versions: BackendVersions


@dataclass(frozen=True)
class CaseHistory:
    """A case in all runs that had it."""

    case: str
    subject: str
    backend: str
    nights: tuple[CaseNight, ...]
    counters: tuple[CounterHistory, ...] = ()

    @property
    def since(self) -> CaseNight | None:
        """The first of the last runs in a row that gave the verdict that it has now."""
        first = None
        for night in reversed(self.nights):
            if first is not None and night.verdict != first.verdict:
                break
            first = night
        return first

    @property
    def flaky(self) -> Rate:
        """In how many of the last runs it was flaky."""
        last = self.nights[-WINDOW:]
        return Rate(sum(night.flaky for night in last), len(last))

    @property
    def unexpected(self) -> Rate:
        """In how many of the last runs it was not as expected."""
        last = self.nights[-WINDOW:]
        return Rate(sum(not night.as_expected for night in last), len(last))


@dataclass(frozen=True)
class FindingNight:
    """A finding in one run; ``was_seen`` is None where the run did not look for it."""

    run: int
    started: str
    was_seen: bool | None
    status: str | None = None
    is_problem: bool = False
    text: str = ""
    rule: str | None = None
    versions: tuple[BackendVersions, ...] = ()
    """Of the backends that it was seen in."""


def as_problem(night: FindingNight) -> FindingNight:
    """The same, where seen means seen as a problem: not what a rule explained then."""
    if not night.was_seen or night.is_problem:
        return night
    return FindingNight(night.run, night.started, was_seen=False)


@dataclass(frozen=True)
class Since:
    """When something was seen for the first time, without a run between that did not see it."""

    run: int
    started: str
    runs: int
    """The number of runs that have seen it since then."""


@dataclass(frozen=True)
class FindingHistory:
    """A finding in all runs since it was first seen."""

    identity: FindingIdentity
    first_seen: str
    """When it was seen for the first time ever, which may be before the oldest run that is left."""
    nights: tuple[FindingNight, ...]

    @property
    def rate(self) -> Rate:
        """Of the last runs that looked for it, in how many it was seen."""
        return rate_of(self.nights)

    @property
    def since(self) -> Since | None:
        """Since when it shows without interruption; None where the last run did not see it."""
        return since_of(self.nights)

    @property
    def is_flaky(self) -> bool:
        """Whether it comes and goes."""
        return comes_and_goes(self.nights)

    @property
    def versions(self) -> tuple[BackendVersions, ...]:
        """All versions in which it was seen."""
        return tuple(dict.fromkeys(each for night in self.nights for each in night.versions))


@dataclass(frozen=True)
class StoreOverview:
    """The last runs, and what needed attention in the last complete run of each configuration."""

    runs: tuple[StoredRun, ...]
    problems: tuple[FindingHistory, ...]
    baselines: tuple[Baseline, ...]


def rate_of(nights: Sequence[FindingNight]) -> Rate:
    """Of the last runs that looked for it, in how many a finding was seen."""
    looked = [night for night in nights if night.was_seen is not None][-WINDOW:]
    return Rate(sum(bool(night.was_seen) for night in looked), len(looked))


def comes_and_goes(nights: Sequence[FindingNight]) -> bool:
    """Whether a finding came back by itself in the last runs that looked for it.

    One that began to show, or was fixed, is not flaky.
    """
    looked = [night.was_seen for night in nights if night.was_seen is not None][-WINDOW:]
    if True not in looked:
        return False
    first, last = looked.index(True), len(looked) - looked[::-1].index(True)
    return False in looked[first:last]


def since_of(nights: Sequence[FindingNight]) -> Since | None:
    """Since when a finding shows without interruption, as of the last of ``nights``."""
    found: list[FindingNight] = []
    for night in reversed(nights):
        if night.was_seen is False:
            break
        if night.was_seen:
            found.append(night)
    return Since(found[-1].run, found[-1].started, len(found)) if found else None


@dataclass(frozen=True)
class Point:
    """A value in one run."""

    run: int
    started: str
    value: float


@dataclass(frozen=True)
class Band:
    """Where the values of a counter are: its median, and as far from it as is usual."""

    median: float
    low: float
    high: float
    runs: int
    """The number of values that it was computed from."""

    def has(self, value: float) -> bool:
        """Whether ``value`` is in it."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        """``100 (90 to 110 in 12 runs)``."""
        return f"{self.median:.6g} ({self.low:.6g} to {self.high:.6g} in {self.runs} runs)"


def band_of(values: Sequence[float], floor: float = 0.0) -> Band | None:
    """The band of earlier ``values``: median and MAD, at least ``floor`` on either side.

    None where there are fewer than :data:`MIN_VALUES`.
    """
    from statistics import median  # takes as long as all else that a look into the store needs

    last = values[-WINDOW:]
    if len(last) < MIN_VALUES:
        return None
    middle = median(last)
    mad = median(abs(value - middle) for value in last)
    half = max(floor, DEVIATIONS * SIGMA_OF_MAD * mad)
    lowest = 0.0 if min(last) >= 0 else middle - half  # what is counted is never negative
    return Band(middle, max(lowest, middle - half), middle + half, len(last))


@dataclass(frozen=True)
class CounterHistory:
    """A counter or a metric of a part of a case, with its last values.

    ``band`` is that of all but the last; None for what depends on timing.
    """

    case: str
    part: str
    name: str
    """A counter's path, or ``metric/NAME``."""
    source: str
    points: tuple[Point, ...]
    band: Band | None

    @property
    def left_its_band(self) -> bool:
        """Whether the last value is not where the earlier ones were."""
        return self.band is not None and not self.band.has(self.points[-1].value)


@dataclass(frozen=True)
class Series:
    """The values of a counter in all runs, by irqchip mode: the mean of the cases of a mode."""

    name: str
    """Its part and its path."""
    unit: str
    by_mode: Mapping[str, tuple[Point, ...]]

    @property
    def has_any(self) -> bool:
        """Whether a value is not 0."""
        return any(point.value for points in self.by_mode.values() for point in points)


@dataclass(frozen=True)
class Baseline:
    """A run that was accepted as what is known."""

    name: str
    run: int
    accepted: str
    """When."""
