"""The backends of one subject: in what they differ, who saw what, and which rules explain it.

A counter is compared as :mod:`harness.model.policy` says.  With several samples of a backend their
spread widens the noise band (:func:`noise_band`).  Of each thing that differs the backends fall
into groups; every two backends of different groups that are really apart have to be explained by
a rule of :mod:`harness.compare.known`.  :mod:`harness.compare.finding` puts together what several
subjects have in common.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import median
from typing import Final, TypeAlias

from harness.analyse.storm import Storm, find_storms
from harness.compare.known import BackendFacts, Kind, KnownDifferences, Rule, Scope
from harness.compare.partition import Axes, distinguishing, grouped
from harness.guests.kinds.base import Part
from harness.model import policy
from harness.model.counters import CounterKey, CounterSet, CounterSource, NotObservable
from harness.model.policy import CounterPolicy, Weight

SPREAD: Final = 1.5
"""A band is at least this many times the spread of either backend's own samples."""
TIMING_RATIO: Final = 2.0
TIMING_FLOOR: Final = 100.0
"""A counter that depends on time is shown where it differs by this factor and this number."""
ABSENT: Final = "absent"
"""The result of a check that another backend has and this one has not."""
END: Final = "end of the guest"
"""The check that stands for all those that a guest did not live to see."""
COMPLETE: Final = "every check was reached"


class Status(StrEnum):
    """The status of something that differs, from grave to harmless."""

    UNEXPLAINED = "unexplained"
    KNOWN_BUG = "known_bug"
    BY_DESIGN = "by_design"
    INFORMATIONAL = "informational"
    """It depends on time; nothing has to explain it."""


@dataclass(frozen=True)
class Subject:
    """What was run on several backends.

    ``family`` is the guest with everything but machine, CPU and smp, which are its ``axes``;
    ``guest`` its name, for the globs of rules, and ``part`` what its parts are.
    """

    name: str
    family: str
    guest: str
    axes: Axes = field(default_factory=dict)
    part: Part = Part.WORKLOAD


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
    """All of one backend for one subject: samples by workload, results of checks by id.

    ``sequence`` are those of the checks that the guest itself reports, in its order, and ``ended``
    says how it ended.
    """

    backend: str
    facts: BackendFacts
    samples: Mapping[str, Sequence[Sample]]
    checks: Mapping[str, str | None]
    """None where the backend lacks what the check needs: it is not compared."""
    axes: Axes = field(default_factory=dict)
    sequence: tuple[str, ...] = ()
    ended: str = ""


@dataclass(frozen=True)
class Thing:
    """What is compared: a check by its id, or of a workload a counter (or ``storm/`` and one)."""

    part: str
    counter: str | None = None
    source: CounterSource | None = None

    def __str__(self) -> str:
        source = f" [{self.source}]" if self.source else ""
        return f"{self.part} {self.counter}{source}" if self.counter else self.part


@dataclass(frozen=True)
class Difference:
    """One thing in which the backends of a subject differ.

    ``groups`` are backends, ``results`` what each group saw of a check, whole, ``saw`` what of it
    tells the group from the others, ``rules`` the rules that explain something of it, ``left`` the
    pairs of backends that none explains though one has to.
    """

    subject: Subject
    thing: Thing
    groups: tuple[tuple[str, ...], ...]
    results: tuple[str, ...]
    saw: tuple[str, ...]
    status: Status
    reason: str
    rules: tuple[Rule, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    first: bool = False
    """Whether it is where the backends part, among checks that follow one another in an image."""


@dataclass(frozen=True)
class Unseen:
    """A counter that was to be compared, and that one backend cannot see."""

    workload: str
    counter: str
    source: CounterSource
    backend: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What was compared in one subject; ``things`` counts it."""

    subject: str
    family: str
    backends: tuple[str, ...]
    things: int
    workloads: tuple[str, ...] = ()
    """Whose counters were compared."""
    checks: tuple[str, ...] = ()
    """Whose results were compared, by id."""
    not_observable: tuple[Unseen, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Two backends that were compared: what rules may ask of them, and those that showed."""

    a: str
    b: str
    facts: tuple[BackendFacts, BackendFacts]
    guest: str
    workloads: frozenset[str]
    checks: frozenset[str]
    rules: frozenset[str]


@dataclass(frozen=True)
class Alike:
    """Backends that all saw the same; ``result`` of a check."""

    result: str
    backends: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """All that :func:`diff` finds: ``alike`` are the things of which all backends saw the same."""

    subject: Subject
    members: Mapping[str, Axes]
    """The axes of each backend, the subject's with them."""
    comparison: Comparison
    differences: tuple[Difference, ...]
    alike: Mapping[Thing, Alike]
    pairs: tuple[Pair, ...]


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
    subject: Subject, measurements: Sequence[Measurement], known: KnownDifferences
) -> Compared:
    """What ``measurements`` differ in, over the workloads and checks that two of them have."""
    comparison = _Comparing(subject, _with_ends(measurements), known)
    for workload in dict.fromkeys(name for m in measurements for name in m.samples):
        comparison.workload(workload)
    comparison.checks()
    return comparison.result()


_RuleOf: TypeAlias = Callable[["_Seen", "_Seen"], Rule | None]


@dataclass(frozen=True)
class _Seen:
    """What one backend has of the thing that is compared."""

    backend: Measurement
    values: tuple[int, ...] = ()
    text: str = ""
    duration_s: float = 0.0


class _Comparing:
    """What one :func:`diff` finds, as it comes."""

    def __init__(
        self, subject: Subject, measurements: Sequence[Measurement], known: KnownDifferences
    ) -> None:
        self._subject = subject
        self._all = measurements
        self._known = known
        self._found: list[Difference] = []
        self._alike: dict[Thing, Alike] = {}
        self._unseen: list[Unseen] = []
        self._met: dict[tuple[str, str], set[str]] = {}
        self._workloads: list[str] = []
        self._checks: list[str] = []
        self._things = 0
        self._parted = False

    def result(self) -> Compared:
        """All that was found."""
        subject = self._subject
        comparison = Comparison(
            subject.name,
            subject.family,
            tuple(m.backend for m in self._all),
            self._things,
            tuple(self._workloads),
            tuple(self._checks),
            tuple(self._unseen),
        )
        members = {m.backend: {**subject.axes, **m.axes} for m in self._all}
        pairs = tuple(self._pair(a, b) for a, b in itertools.combinations(self._all, 2))
        return Compared(subject, members, comparison, tuple(self._found), self._alike, pairs)

    def workload(self, workload: str) -> None:
        """Compare the counters of a workload, and the storms in it."""
        having = [m for m in self._all if m.samples.get(workload)]
        if len(having) < 2:
            return
        self._workloads.append(workload)
        totals = {
            m.backend: [sample.counters.without_cpus() for sample in m.samples[workload]]
            for m in having
        }
        for key in _keys(itertools.chain.from_iterable(totals.values())):
            self._counter(workload, key, having, totals)
        self._storms(workload, having)

    def checks(self) -> None:
        """Compare the results of checks; one that is missing on a backend is :data:`ABSENT`."""
        for check in dict.fromkeys(name for m in self._all for name in m.checks):
            seen = [
                _Seen(m, text=text)
                for m in self._all
                if (text := m.checks.get(check, ABSENT)) is not None
            ]
            if len(seen) < 2:
                continue
            self._checks.append(check)
            self._things += 1
            groups = _by_text(seen)
            if len(groups) == 1:
                self._alike[Thing(check)] = _alike(seen)
            else:
                self._check(check, groups)

    def _check(self, check: str, groups: list[list[_Seen]]) -> None:
        def rule(a: _Seen, b: _Seen) -> Rule | None:
            return self._known.for_check(self._scope(a, b, ""), check, (a.text, b.text))

        in_order = any(check in m.sequence for m in self._all)
        first = in_order and self._subject.part is Part.CHECK and not self._parted
        self._parted |= in_order
        saw = distinguishing([group[0].text for group in groups])
        pairs = list(_across(groups))
        self._add(Thing(check), groups, saw, pairs, rule, Weight.COMPARED, "", first=first)

    def _scope(self, a: _Seen, b: _Seen, workload: str) -> Scope:
        return Scope(a.backend.facts, b.backend.facts, self._subject.guest, workload)

    def _counter(
        self,
        workload: str,
        key: CounterKey,
        having: Sequence[Measurement],
        totals: Mapping[str, Sequence[CounterSet]],
    ) -> None:
        policy_of = policy.counter_policy(workload, key.path, key.source)
        seen: list[_Seen] = []
        for m in having:
            values = _values(totals[m.backend], key)
            if isinstance(values, NotObservable):
                if policy_of.weight is Weight.COMPARED:
                    self._unseen.append(
                        Unseen(workload, key.path, key.source, m.backend, values.reason)
                    )
                continue
            duration_s = max(sample.duration_s for sample in m.samples[workload])
            seen.append(_Seen(m, values, duration_s=duration_s))
        if len(seen) < 2:
            return
        self._things += policy_of.weight is Weight.COMPARED

        def apart(a: _Seen, b: _Seen) -> bool:
            band = _band(policy_of, a, b)
            return abs(median(a.values) - median(b.values)) > band

        def rule(a: _Seen, b: _Seen) -> Rule | None:
            middle = median(a.values), median(b.values)
            return self._known.for_counter(
                self._scope(a, b, workload), key.path, key.source, middle
            )

        thing = Thing(workload, key.path, key.source)
        runs = grouped(seen, apart, lambda each: median(each.values))
        if len(runs) == 1:
            self._alike[thing] = _alike(seen)
            return
        groups = [[seen[index] for index in run] for run in sorted(runs)]
        pairs = [(a, b) for a, b in _across(groups) if apart(a, b)]
        saw = [_counted(group) for group in groups]
        self._add(thing, groups, saw, pairs, rule, policy_of.weight, policy_of.why)

    def _storms(self, workload: str, having: Sequence[Measurement]) -> None:
        storms = {m.backend: _storms_of(workload, m.samples[workload]) for m in having}
        for path in dict.fromkeys(path for found in storms.values() for path in found):
            one = next(found[path] for found in storms.values() if path in found)
            self._things += 1
            counts = {
                name: found[path].count if path in found else 0 for name, found in storms.items()
            }
            seen = [
                _Seen(m, (counts[m.backend],), "storm" * (path in storms[m.backend]))
                for m in having
            ]

            def rule(a: _Seen, b: _Seen, path: str = path, one: Storm = one) -> Rule | None:
                scope, values = self._scope(a, b, workload), (a.values[0], b.values[0])
                return self._known.for_counter(scope, path, one.source, values)

            thing = Thing(workload, path, one.source)
            groups = _by_text(seen)
            if len(groups) == 1:
                self._alike[thing] = _alike(seen)
                continue
            saw = [f"a storm: {_counted(g)}" if g[0].text else "no storm" for g in groups]
            why = f"a storm on some only: {one}"
            self._add(thing, groups, saw, list(_across(groups)), rule, Weight.COMPARED, why)

    def _add(
        self,
        thing: Thing,
        groups: Sequence[Sequence[_Seen]],
        saw: Sequence[str],
        pairs: Sequence[tuple[_Seen, _Seen]],
        rule_of: _RuleOf,
        weight: Weight,
        why: str,
        *,
        first: bool = False,
    ) -> None:
        """Explain every pair that is apart; what is inside a backend needs a rule to be shown."""
        rules: dict[str, Rule] = {}
        left: list[tuple[str, str]] = []
        for a, b in pairs:
            names = a.backend.backend, b.backend.backend
            rule = rule_of(a, b)
            if rule is None:
                left.append(names)
                continue
            rules[rule.id] = rule
            self._met.setdefault(names, set()).add(rule.id)
        if weight is Weight.MECHANISM and not rules:
            return
        if weight is not Weight.COMPARED:
            left = []
        status = _status(rules.values(), bool(left))
        ordered = tuple(sorted(rules.values(), key=lambda rule: rule.kind is Kind.BY_DESIGN))
        explained = ordered[0].reason if ordered and not left else why
        self._found.append(
            Difference(
                self._subject,
                thing,
                tuple(tuple(each.backend.backend for each in group) for group in groups),
                tuple(group[0].text for group in groups),
                tuple(saw),
                status,
                explained or "the results differ",
                ordered,
                tuple(left),
                first,
            )
        )

    def _pair(self, a: Measurement, b: Measurement) -> Pair:
        names = a.backend, b.backend
        both = {name for name in self._workloads if a.samples.get(name) and b.samples.get(name)}
        checks = {
            check
            for check in self._checks
            if a.checks.get(check, ABSENT) is not None and b.checks.get(check, ABSENT) is not None
        }
        met = self._met.get(names, set()) | self._met.get((b.backend, a.backend), set())
        facts = a.facts, b.facts
        guest = self._subject.guest
        return Pair(*names, facts, guest, frozenset(both), frozenset(checks), frozenset(met))


def _status(rules: Iterable[Rule], is_left: bool) -> Status:
    kinds = {rule.kind for rule in rules}
    if is_left:
        return Status.UNEXPLAINED
    if Kind.KNOWN_BUG in kinds:
        return Status.KNOWN_BUG
    return Status.BY_DESIGN if kinds else Status.INFORMATIONAL


def _alike(seen: Sequence[_Seen]) -> Alike:
    return Alike(seen[0].text, tuple(each.backend.backend for each in seen))


def _across(groups: Sequence[Sequence[_Seen]]) -> Iterator[tuple[_Seen, _Seen]]:
    """Every two of different groups."""
    for one, other in itertools.combinations(groups, 2):
        yield from itertools.product(one, other)


def _by_text(seen: Iterable[_Seen]) -> list[list[_Seen]]:
    groups: dict[str, list[_Seen]] = {}
    for each in seen:
        groups.setdefault(each.text, []).append(each)
    return list(groups.values())


def _counted(group: Sequence[_Seen]) -> str:
    """The medians of a group: one number, or from where to where."""
    middles = sorted({median(each.values) for each in group})
    return " to ".join(dict.fromkeys(f"{value:.10g}" for value in (middles[0], middles[-1])))


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


def _band(rule: CounterPolicy, a: _Seen, b: _Seen) -> float:
    band = noise_band(rule, a.values, b.values, max(a.duration_s, b.duration_s))
    if rule.weight is Weight.TIMING:
        greater = max(median(a.values), median(b.values))
        return max(band, TIMING_FLOOR, greater * (1 - 1 / TIMING_RATIO))
    return band


def _storms_of(workload: str, samples: Sequence[Sample]) -> dict[str, Storm]:
    """The storms that most of the samples had, by ``storm/`` and the counter's path."""
    seen: dict[str, list[Storm]] = {}
    for sample in samples:
        for storm in find_storms(workload, sample, sample.counters):
            seen.setdefault(f"storm/{storm.counter}", []).append(storm)
    return {path: storms[0] for path, storms in seen.items() if 2 * len(storms) > len(samples)}


# --- Guests that ended early --------------------------------------------------------------------


def _with_ends(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The same, with one check for all those that a guest did not live to see.

    They are the ones that follow its last check in the guests that reported more.
    """
    if not any(m.sequence for m in measurements):
        return list(measurements)
    return [_with_end(m, _missed(m, measurements)) for m in measurements]


def _missed(measurement: Measurement, others: Iterable[Measurement]) -> list[str]:
    own = set(measurement.sequence)
    tails = (_after(measurement.sequence, other.sequence) for other in others)
    tails = (tail for tail in tails if not own & set(tail))
    return list(dict.fromkeys(itertools.chain.from_iterable(tails)))


def _after(own: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """What comes in ``other`` after the last check of ``own``."""
    if not own:
        return other
    return other[other.index(own[-1]) + 1 :] if own[-1] in other else ()


def _with_end(measurement: Measurement, missed: Sequence[str]) -> Measurement:
    if not missed:
        checks: dict[str, str | None] = {END: COMPLETE}
    else:
        where = f"after {measurement.sequence[-1]}" if measurement.sequence else "before any check"
        how = f" ({measurement.ended})" if measurement.ended else ""
        count = f"{len(missed)} check{'s' if len(missed) > 1 else ''}"
        checks = {**dict.fromkeys(missed), END: f"ended {where}{how}; {count} not reached"}
    return replace(measurement, checks={**measurement.checks, **checks})
