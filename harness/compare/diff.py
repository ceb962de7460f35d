"""Backend against backend: what differs in the same work, and whether anything explains it.

A counter is compared as :mod:`harness.model.policy` says.  With several samples of a backend their
spread widens the noise band (:func:`noise_band`).  A difference is explained by the first rule of
:mod:`harness.compare.known` that matches; one that is compared and that nothing explains fails a
run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import median
from typing import Final, TypeAlias

from harness.analyse.storm import Storm, find_storms
from harness.compare.known import BackendFacts, Kind, KnownDifferences, Rule, Scope
from harness.model import policy
from harness.model.counters import CounterKey, CounterSet, CounterSource, NotObservable
from harness.model.policy import CounterPolicy, Weight

SPREAD: Final = 1.5
"""A band is at least so many times the spread of either backend's own samples."""
TIMING_RATIO: Final = 2.0
TIMING_FLOOR: Final = 100.0
"""A counter that hangs on time is shown where it differs by this factor, and by so many."""
ABSENT: Final = "absent"
"""The result of a check that the other backend has and this one has not."""


class DiffVerdict(StrEnum):
    """What is said of a difference."""

    BY_DESIGN = "by_design"
    KNOWN_BUG = "known_bug"
    UNEXPLAINED = "unexplained"
    INFORMATIONAL = "informational"
    """It hangs on time; nothing has to explain it."""


Value: TypeAlias = int | str


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    ``what`` is a counter's path, ``storm/`` and a path, or a check's id; ``a`` and ``b`` are the
    values of the samples.  ``band`` is how far apart they might have been.
    """

    workload: str
    what: str
    source: CounterSource | None
    a: tuple[Value, ...]
    b: tuple[Value, ...]
    band: float | None
    verdict: DiffVerdict
    reason: str
    rule: str | None = None
    link: str | None = None
    first: bool = False
    """Whether it is where the two parted, among checks that follow one another in an image."""


@dataclass(frozen=True)
class Unseen:
    """A counter that was to be compared, and that one backend cannot see."""

    workload: str
    counter: str
    source: CounterSource
    backend: str
    reason: str


@dataclass(frozen=True)
class DiffResult:
    """Everything that two backends differ in, for one subject."""

    subject: str
    a: str
    b: str
    compared: int
    by_design: tuple[Difference, ...] = ()
    known_bugs: tuple[Difference, ...] = ()
    unexplained: tuple[Difference, ...] = ()
    informational: tuple[Difference, ...] = ()
    not_observable: tuple[Unseen, ...] = ()
    workloads: tuple[str, ...] = ()
    """Whose counters were compared."""
    checks: tuple[str, ...] = ()
    """Whose results were compared, by id."""

    @property
    def rules(self) -> frozenset[str]:
        """The rules that explained something."""
        return frozenset(
            diff.rule for diff in (*self.by_design, *self.known_bugs) if diff.rule is not None
        )


@dataclass(frozen=True)
class Sample:
    """One run of one workload: what was counted during it, and its own measurements."""

    counters: CounterSet
    metrics: Mapping[str, float | str]

    @property
    def duration_s(self) -> float:
        """How long it took in the guest."""
        return policy.number(self.metrics, "elapsed_ms") / 1000


@dataclass(frozen=True)
class Measurement:
    """All of one backend for one subject: samples by workload, results of checks by id."""

    backend: str
    facts: BackendFacts
    samples: Mapping[str, Sequence[Sample]]
    checks: Mapping[str, str | None]
    """None where the backend has not what the check needs: it is compared with nobody's."""


def noise_band(rule: CounterPolicy, a: Sequence[int], b: Sequence[int], duration_s: float) -> float:
    """How far apart the medians of ``a`` and ``b`` may be.

    The greatest of: the policy's floor; its rate times the duration; its tolerance times the
    greater median; :data:`SPREAD` times the greater spread (maximum less minimum) of the samples
    of one backend.  A single sample has no spread.
    """
    return max(
        rule.floor,
        rule.floor_hz * duration_s,
        rule.tolerance * max(median(a), median(b)),
        SPREAD * max(max(a) - min(a), max(b) - min(b)),
    )


def diff(
    subject: str, guest: str, a: Measurement, b: Measurement, known: KnownDifferences
) -> DiffResult:
    """What ``a`` and ``b`` differ in, over the workloads and checks that either has.

    ``subject`` names what was run, ``guest`` its guest (for the globs of the rules).
    """
    comparison = _Comparison(guest, a, b, known)
    shared = [name for name in a.samples if a.samples[name] and b.samples.get(name)]
    for workload in shared:
        comparison.workload(workload, a.samples[workload], b.samples[workload])
    checks = tuple(comparison.checks())
    return replace(comparison.result(subject), workloads=tuple(shared), checks=checks)


class _Comparison:
    """The findings of one :func:`diff` as they come."""

    def __init__(self, guest: str, a: Measurement, b: Measurement, known: KnownDifferences) -> None:
        self._guest = guest
        self._a, self._b = a, b
        self._known = known
        self._found: list[Difference] = []
        self._unseen: list[Unseen] = []
        self._compared = 0

    def result(self, subject: str) -> DiffResult:
        """Sorted by verdict."""
        by_verdict = {
            verdict: tuple(diff for diff in self._found if diff.verdict is verdict)
            for verdict in DiffVerdict
        }
        return DiffResult(
            subject,
            self._a.backend,
            self._b.backend,
            self._compared,
            by_verdict[DiffVerdict.BY_DESIGN],
            by_verdict[DiffVerdict.KNOWN_BUG],
            by_verdict[DiffVerdict.UNEXPLAINED],
            by_verdict[DiffVerdict.INFORMATIONAL],
            tuple(self._unseen),
        )

    def workload(self, workload: str, a: Sequence[Sample], b: Sequence[Sample]) -> None:
        """Compare the counters of a workload, and the storms in it."""
        totals_a = [sample.counters.without_cpus() for sample in a]
        totals_b = [sample.counters.without_cpus() for sample in b]
        duration_s = max(sample.duration_s for sample in (*a, *b))
        for key in _keys((*totals_a, *totals_b)):
            self._counter(workload, key, totals_a, totals_b, duration_s)
        self._storms(workload, a, b)

    def checks(self) -> Iterator[str]:
        """Compare the results of checks, and give the ids of those that could be compared.

        One that is missing on a side is :data:`ABSENT`.
        """
        scope = self._scope("")
        parted = not self._guest.startswith("flat")
        for check in dict.fromkeys((*self._a.checks, *self._b.checks)):
            a, b = self._a.checks.get(check, ABSENT), self._b.checks.get(check, ABSENT)
            if a is None or b is None:
                continue
            yield check
            self._compared += 1
            values = a, b
            if a != b:
                rule = self._known.for_check(scope, check, values)
                shown = _first_difference(*values)
                self._add(
                    _explained(rule, "the results differ"),
                    workload="",
                    what=check,
                    a=shown[:1],
                    b=shown[1:],
                    first=not parted,
                )
                parted = True

    def _scope(self, workload: str) -> Scope:
        return Scope(self._a.facts, self._b.facts, self._guest, workload)

    def _counter(
        self,
        workload: str,
        key: CounterKey,
        totals_a: Sequence[CounterSet],
        totals_b: Sequence[CounterSet],
        duration_s: float,
    ) -> None:
        rule = policy.counter_policy(workload, key.path, key.source)
        values: list[tuple[int, ...]] = []
        for backend, totals in ((self._a, totals_a), (self._b, totals_b)):
            seen = _values(totals, key)
            if isinstance(seen, NotObservable):
                if rule.weight is Weight.COMPARED:
                    self._unseen.append(
                        Unseen(workload, key.path, key.source, backend.backend, seen.reason)
                    )
                return
            values.append(seen)
        seen_a, seen_b = values
        self._compared += rule.weight is Weight.COMPARED
        band = _band(rule, seen_a, seen_b, duration_s)
        middle = median(seen_a), median(seen_b)
        if abs(middle[0] - middle[1]) <= band:
            return
        known = self._known.for_counter(self._scope(workload), key.path, key.source, middle)
        if known is None and rule.weight is Weight.MECHANISM:
            return
        explained = _explained(known, rule.why)
        if known is None and rule.weight is Weight.TIMING:
            explained = _Explanation(DiffVerdict.INFORMATIONAL, rule.why)
        self._add(
            explained,
            workload=workload,
            what=key.path,
            source=key.source,
            a=seen_a,
            b=seen_b,
            band=band,
        )

    def _storms(self, workload: str, a: Sequence[Sample], b: Sequence[Sample]) -> None:
        storms_a, storms_b = _storms_of(workload, a), _storms_of(workload, b)
        for path in dict.fromkeys((*storms_a, *storms_b)):
            sides = storms_a.get(path), storms_b.get(path)
            one = sides[0] or sides[1]
            self._compared += 1
            if one is None or all(sides):
                continue
            counts = tuple(0 if storm is None else storm.count for storm in sides)
            rule = self._known.for_counter(
                self._scope(workload), path, one.source, (counts[0], counts[1])
            )
            self._add(
                _explained(rule, f"a storm on one side only: {one}"),
                workload=workload,
                what=path,
                source=one.source,
                a=counts[:1],
                b=counts[1:],
            )

    def _add(
        self,
        explained: _Explanation,
        *,
        workload: str,
        what: str,
        a: tuple[Value, ...],
        b: tuple[Value, ...],
        source: CounterSource | None = None,
        band: float | None = None,
        first: bool = False,
    ) -> None:
        self._found.append(
            Difference(
                workload,
                what,
                source,
                a,
                b,
                band,
                explained.verdict,
                explained.reason,
                explained.rule,
                explained.link,
                first,
            )
        )


def _first_difference(a: str, b: str) -> tuple[str, str]:
    """Of two texts of several lines, such as the logs of a scenario, where they part."""
    if "\n" not in a and "\n" not in b:
        return a, b
    pairs = itertools.zip_longest(a.splitlines(), b.splitlines(), fillvalue="(nothing more)")
    return next((one, other) for one, other in pairs if one != other)


@dataclass(frozen=True)
class _Explanation:
    verdict: DiffVerdict
    reason: str
    rule: str | None = None
    link: str | None = None


def _explained(rule: Rule | None, otherwise: str) -> _Explanation:
    if rule is None:
        return _Explanation(DiffVerdict.UNEXPLAINED, otherwise)
    verdict = DiffVerdict.BY_DESIGN if rule.kind is Kind.BY_DESIGN else DiffVerdict.KNOWN_BUG
    return _Explanation(verdict, rule.reason, rule.id, rule.link)


def _keys(sets: Iterable[CounterSet]) -> Iterator[CounterKey]:
    keys = {key for counters in sets for key in counters.values}
    return iter(sorted(keys, key=lambda key: key.order))


def _values(totals: Sequence[CounterSet], key: CounterKey) -> tuple[int, ...] | NotObservable:
    """The values of the samples, or why one of them has none."""
    values = []
    for counters in totals:
        found = counters.lookup(key)
        if isinstance(found, NotObservable):
            return found
        values.append(found.value)
    return tuple(values)


def _band(rule: CounterPolicy, a: Sequence[int], b: Sequence[int], duration_s: float) -> float:
    band = noise_band(rule, a, b, duration_s)
    if rule.weight is Weight.TIMING:
        greater = max(median(a), median(b))
        return max(band, TIMING_FLOOR, greater * (1 - 1 / TIMING_RATIO))
    return band


def _storms_of(workload: str, samples: Sequence[Sample]) -> dict[str, Storm]:
    """The storms that most of the samples had, by ``storm/`` and the counter's path."""
    seen: dict[str, list[Storm]] = {}
    for sample in samples:
        for storm in find_storms(workload, sample, sample.counters):
            seen.setdefault(f"storm/{storm.counter}", []).append(storm)
    return {path: storms[0] for path, storms in seen.items() if 2 * len(storms) > len(samples)}
