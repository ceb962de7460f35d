"""What a comparison finds, each once: a partition of all cases that saw a thing, and its axis.

:mod:`harness.compare.diff` says in what the backends of one subject differ.  What differs in the
same way in several subjects (other machines, CPUs, numbers of CPUs) is one finding; a subject in
which nothing differs joins the group that saw the same, so that the axis is over the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.compare import partition
from harness.compare.diff import Compared, Difference, Status, Thing
from harness.compare.partition import Axes
from harness.model.counters import CounterSource

SHOWN_PAIRS: Final = 3
"""So many pairs that no rule explains are named."""
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
    ``rule`` is the gravest rule that explains something of it, ``rules`` are all of them; ``left``
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
    """Everything that differs, each thing once, the gravest first."""
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


class _Cluster:
    """Differences of one thing in several subjects that part the backends in the same way."""

    def __init__(self, compared: Compared, difference: Difference) -> None:
        self.differences = [difference]
        self.compared = [compared]
        self.group_of = _group_of(difference)
        self.groups = [list(_members(difference, group)) for group in difference.groups]
        self.results = [{text} for text in difference.results]
        self.saw = [[text] for text in difference.saw]

    def takes(self, compared: Compared, difference: Difference) -> bool:
        """Add a difference that parts the backends as the others do; whether it does."""
        ours = self.differences[0]
        if (ours.status, ours.rules) != (difference.status, difference.rules):
            return False
        matches = self._matched(difference)
        if matches is None:
            return False
        for place, number in enumerate(matches):
            group, saw = difference.groups[place], difference.saw[place]
            self.groups[number] += _members(difference, group)
            self.group_of |= dict.fromkeys(group, number)
            self.results[number].add(difference.results[place])
            if saw not in self.saw[number]:
                self.saw[number].append(saw)
        self.differences.append(difference)
        self.compared.append(compared)
        return True

    def _matched(self, difference: Difference) -> list[int] | None:
        """The group of ours that each group of ``difference`` is; None where that is not clear."""
        numbers = []
        for group, result in zip(difference.groups, difference.results, strict=True):
            own = {self.group_of[backend] for backend in group if backend in self.group_of}
            own = own or {n for n, results in enumerate(self.results) if result in results}
            if len(own) != 1:
                return None
            numbers.append(own.pop())
        return numbers if len(set(numbers)) == len(numbers) else None

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


def _group_of(difference: Difference) -> dict[str, int]:
    return {b: number for number, group in enumerate(difference.groups) for b in group}


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
    more = f" and {len(unique) - SHOWN_PAIRS} pairs more" if len(unique) > SHOWN_PAIRS else ""
    return ", ".join(unique[:SHOWN_PAIRS]) + more
