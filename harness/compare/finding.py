"""What a comparison finds, each once: a partition of all cases that saw a thing, and its axis.

:mod:`harness.compare.diff` says in what the backends of one subject differ.  What differs in the
same way in several subjects (other machines, CPUs, numbers of CPUs) is one finding; a subject in
which nothing differs joins the group that saw the same, so that the axis is over the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from harness.compare import partition
from harness.compare.diff import Compared, Difference, Status, Thing
from harness.compare.partition import Axes
from harness.model.counters import CounterSource

SHOWN_PAIRS: Final = 3
"""Number of unexplained pairs that are named."""
_GRAVITY: Final = {status: rank for rank, status in enumerate(Status)}


@dataclass(frozen=True)
class Member:
    """A subject on a backend: all repetitions of a case."""

    subject: str
    backend: str

    @property
    def id(self) -> str:
        """The id of the first of its cases."""
        return f"{self.subject}/{self.backend}"


@dataclass(frozen=True)
class Group:
    """Members that saw the same.

    ``label`` is what they have in common and no other group has: ``split, off``; empty where there
    is no such thing.  ``saw`` is a result, the lines of a log that no other group has, or counts.
    """

    label: str
    saw: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Finding:
    """One thing in which backends differ.

    ``subject`` has a ``*`` for what differs between its subjects.  ``part`` is a workload, of
    which ``counter`` is the path of a counter (or ``storm/`` and one), or a check's or scenario's
    id.  ``axis`` is what separates the groups: ``irqchip: on | split, off, tcg``, or ``no axis``.
    ``rule`` is the worst rule that explains something of it, ``rules`` are all of them; ``left``
    says between whom nothing explains it, where that makes it unexplained.
    """

    subject: str
    family: str
    part: str
    counter: str | None
    source: CounterSource | None
    groups: tuple[Group, ...]
    axis: str
    status: Status
    reason: str
    rule: str | None = None
    rules: tuple[str, ...] = ()
    link: str | None = None
    left: tuple[str, ...] = ()
    first: bool = False
    """Whether it is where the backends part, among checks that follow one another in an image."""

    @property
    def what(self) -> str:
        """What differs, in a few words."""
        return str(Thing(self.part, self.counter, self.source))

    def saw(self, member: Member) -> Group | None:
        """The group that ``member`` is in."""
        return next((group for group in self.groups if member in group.members), None)


def findings(compared: Iterable[Compared]) -> tuple[Finding, ...]:
    """Everything that differs, each thing once, the worst first."""
    subjects = list(compared)
    families: dict[str, list[Compared]] = {}
    for each in subjects:
        families.setdefault(each.subject.family, []).append(each)
    found = [
        _finding(cluster, thing, family)
        for family in families.values()
        for thing, same in _by_thing(family).items()
        for cluster in _clusters(same)
    ]
    return tuple(sorted(found, key=lambda finding: _GRAVITY[finding.status]))


def _by_thing(family: Iterable[Compared]) -> dict[Thing, list[tuple[Compared, Difference]]]:
    found: dict[Thing, list[tuple[Compared, Difference]]] = {}
    for each in family:
        for difference in each.differences:
            found.setdefault(difference.thing, []).append((each, difference))
    return found


_Key: TypeAlias = tuple[tuple[str, str], ...]
"""What a backend is, whatever its subject: its own axes."""


class _Cluster:
    """Differences of one thing in several subjects that part the backends in the same way."""

    def __init__(self, compared: Compared, difference: Difference) -> None:
        self.differences = [difference]
        self.compared = [compared]
        self.groups = [list(_members(difference, group)) for group in difference.groups]
        self.results = [{text} for text in difference.results]
        self.saw = [[text] for text in difference.saw]
        self._group_of: dict[_Key | str, int] = {}
        self._learn(compared, difference, range(len(self.groups)))

    def takes(self, compared: Compared, difference: Difference) -> bool:
        """Add a difference that parts the backends as the others do; whether it does."""
        ours = self.differences[0]
        if (ours.status, ours.rules) != (difference.status, difference.rules):
            return False
        matches = self._matched(compared, difference)
        if matches is None:
            return False
        for place, number in enumerate(matches):
            self.groups[number] += _members(difference, difference.groups[place])
            self.results[number].add(difference.results[place])
            if (saw := difference.saw[place]) not in self.saw[number]:
                self.saw[number].append(saw)
        self._learn(compared, difference, matches)
        self.differences.append(difference)
        self.compared.append(compared)
        return True

    def _learn(self, compared: Compared, difference: Difference, matches: Sequence[int]) -> None:
        for group, number in zip(difference.groups, matches, strict=True):
            for backend in group:
                self._group_of.setdefault(_key(compared, backend), number)
                self._group_of.setdefault(backend, number)

    def _matched(self, compared: Compared, difference: Difference) -> list[int] | None:
        """Our group that each group of ``difference`` is; None where that is not clear.

        By what the backends are, else by what they saw; counts are not comparable, so there by the
        backends' names.
        """
        numbers = []
        for group, result in zip(difference.groups, difference.results, strict=True):
            own = self._known(_key(compared, backend) for backend in group)
            if not own and difference.thing.counter is None:
                own = {n for n, results in enumerate(self.results) if result in results}
            if not own:
                own = self._known(group)
            if len(own) != 1:
                return None
            numbers.append(own.pop())
        if len(set(numbers)) < len(numbers) or self._contradicts(difference, numbers):
            return None
        return numbers

    def _known(self, keys: Iterable[_Key | str]) -> set[int]:
        return {self._group_of[key] for key in keys if key in self._group_of}

    def _contradicts(self, difference: Difference, numbers: Sequence[int]) -> bool:
        """Whether a group saw what another one saw in the subjects before."""
        if difference.thing.counter is not None:
            return False
        pairs = zip(difference.results, numbers, strict=True)
        return any(
            result in results and place != number
            for result, number in pairs
            for place, results in enumerate(self.results)
        )

    def joined_by(self, compared: Compared, thing: Thing) -> bool:
        """Add a subject that saw in all its backends what one of the groups saw."""
        alike = compared.alike[thing]
        own = [n for n, results in enumerate(self.results) if results == {alike.result}]
        if thing.counter is not None or len(own) != 1:
            return False
        name = compared.subject.name
        self.groups[own[0]] += [Member(name, backend) for backend in alike.backends]
        self.compared.append(compared)
        return True


def _members(difference: Difference, backends: Iterable[str]) -> Iterable[Member]:
    return (Member(difference.subject.name, backend) for backend in backends)


def _key(compared: Compared, backend: str) -> _Key:
    own = compared.members[backend].items() - compared.subject.axes.items()
    return tuple(sorted(own))


def _clusters(found: Iterable[tuple[Compared, Difference]]) -> list[_Cluster]:
    clusters: list[_Cluster] = []
    for compared, difference in found:
        if not any(cluster.takes(compared, difference) for cluster in clusters):
            clusters.append(_Cluster(compared, difference))
    return clusters


def _finding(cluster: _Cluster, thing: Thing, family: Sequence[Compared]) -> Finding:
    differing = list(cluster.compared)
    quiet = [each for each in family if thing in each.alike]
    apart = [each for each in quiet if not cluster.joined_by(each, thing)]
    axes = {
        Member(each.subject.name, backend): values
        for each in cluster.compared
        for backend, values in each.members.items()
    }
    separation = partition.separate(
        [[axes[member] for member in group] for group in cluster.groups]
    )
    groups = tuple(
        Group(label, _saw(texts), tuple(members))
        for label, texts, members in zip(
            separation.labels, cluster.saw, cluster.groups, strict=True
        )
    )
    first = cluster.differences[0]
    rules = tuple(rule.id for rule in first.rules)
    return Finding(
        pattern([each.subject.name for each in differing]),
        first.subject.family,
        thing.part,
        thing.counter,
        thing.source,
        groups,
        separation.text + _only(differing, apart),
        first.status,
        first.reason,
        rules[0] if rules else None,
        rules,
        first.rules[0].link if rules else None,
        _left(cluster, groups) if rules else (),
        any(difference.first for difference in cluster.differences),
    )


def _saw(texts: Sequence[str]) -> str:
    more = f" (in other subjects: {'; '.join(texts[1:])})" if len(texts) > 1 else ""
    return f"{texts[0]}{more}"


def pattern(names: Iterable[str]) -> str:
    """The names of subjects as one, with ``*`` for the words that differ."""
    columns = zip(*(name.split("/") for name in names), strict=False)
    return "/".join(words[0] if len(set(words)) == 1 else "*" for words in columns)


def _only(differing: Sequence[Compared], quiet: Sequence[Compared]) -> str:
    """What of their own axes sets the subjects that differ apart from those that do not."""
    if not quiet:
        return ""
    sides: list[list[Axes]] = [[each.subject.axes for each in side] for side in (differing, quiet)]
    axes = partition.smallest(sides)
    if axes is None:
        return ""
    said = [partition.only(axis, (axes_of.get(axis, "-") for axes_of in sides[0])) for axis in axes]
    return f", only {' '.join(said)}"


def _left(cluster: _Cluster, groups: Sequence[Group]) -> tuple[str, ...]:
    """Between whom no rule explains the finding: groups where that holds of all their pairs."""
    left = [
        (difference.subject.name, *pair)
        for difference in cluster.differences
        for pair in difference.left
    ]
    if not left:
        return ()
    number_of = {m: n for n, group in enumerate(groups) for m in group.members}
    by_groups: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for subject, a, b in left:
        one, other = number_of[Member(subject, a)], number_of[Member(subject, b)]
        by_groups.setdefault((min(one, other), max(one, other)), []).append((a, b))
    said = []
    for (one, other), pairs in by_groups.items():
        whole = _pairs_between(groups[one], groups[other]) == len(pairs)
        if whole and groups[one].label:
            said.append(f"{groups[one].label} | {groups[other].label}")
        else:
            said.append(_named(pairs))
    return tuple(said)


def _pairs_between(one: Group, other: Group) -> int:
    subjects = [member.subject for member in other.members]
    return sum(subjects.count(member.subject) for member in one.members)


def _named(pairs: Sequence[tuple[str, str]]) -> str:
    unique = [f"{a} / {b}" for a, b in dict.fromkeys(pairs)]
    more = f" and {len(unique) - SHOWN_PAIRS} more pairs" if len(unique) > SHOWN_PAIRS else ""
    return ", ".join(unique[:SHOWN_PAIRS]) + more
