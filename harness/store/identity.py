"""What makes a finding the same in every run: subject, part, kind, and groups by their roles.

Nothing of an identity is measured: no number, no text, no version of a package.  A finding of a
comparison has an identity in each subject that it is in, so that the same on another machine type
is new; a verdict that is not as expected has one for each backend.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

KEY_DIGITS: Final = 10
CHECK: Final = "check"
"""The kind of a difference in a check, a scenario or what the monitor reported."""
XPASS: Final = "xpass"
"""The kind of an expected failure that passes, and of a known bug that no longer shows."""
NOT_AS_EXPECTED: Final = "not_as_expected"
"""The status of a verdict."""


@dataclass(frozen=True, order=True)
class FindingIdentity:
    """What a finding is, whenever it shows.

    ``kind`` is ``check``, ``counter PATH [SOURCE]`` or ``storm PATH [SOURCE]`` for what backends
    differ in, else a verdict.  ``groups`` are roles of backends, each group sorted, and the groups
    too; a verdict has one group of one role.
    """

    subject: str
    part: str
    """Empty for a case as a whole."""
    kind: str
    groups: tuple[tuple[str, ...], ...]

    @property
    def key(self) -> str:
        """A short name for it, the same everywhere."""
        text = json.dumps([self.subject, self.part, self.kind, self.groups])
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_DIGITS]

    @classmethod
    def of(cls, subject: str, part: str, kind: str, groups_json: str) -> FindingIdentity:
        """One whose groups are JSON, as :attr:`groups_json` has them."""
        groups = tuple(tuple(group) for group in json.loads(groups_json))
        return cls(subject, part, kind, groups)

    @property
    def groups_json(self) -> str:
        """The groups, as the store has them."""
        return json.dumps(self.groups)

    @property
    def roles(self) -> frozenset[str]:
        """All roles of its groups."""
        return frozenset(role for group in self.groups for role in group)

    @property
    def is_difference(self) -> bool:
        """Whether it is something in which backends differ; else it is a verdict."""
        return len(self.groups) > 1

    def same_as(self, other: FindingIdentity) -> bool:
        """Whether both are one finding: no backend that is in both is in another group.

        A backend that did not run one time does not make it another finding; where fewer than two
        groups have a backend in common, nothing says that it is the same.
        """
        if (self.subject, self.part, self.kind) != (other.subject, other.part, other.kind):
            return False
        if self.groups == other.groups or not (self.is_difference and other.is_difference):
            return self.groups == other.groups
        common = self.roles & other.roles
        ours, theirs = self._of(common), other._of(common)
        return len(ours) > 1 and ours == theirs

    def was_looked_for(self, looked: Looked) -> bool:
        """Whether a run that looked at that much would have seen it.

        Of a difference, backends of two of its groups have to be there.
        """
        there = {
            role
            for role in self.roles
            if self.part in looked.get((self.subject, role), frozenset())
        }
        return len(self._of(frozenset(there))) >= min(2, len(self._of(self.roles)))

    def _of(self, roles: frozenset[str]) -> set[frozenset[str]]:
        """The groups without all other roles."""
        return {left for group in self.groups if (left := roles.intersection(group))}

    def __str__(self) -> str:
        """One line."""
        kind = "" if self.kind == CHECK else f"  {self.kind}"
        groups = " | ".join(", ".join(group) for group in self.groups)
        return f"{self.subject}  {self.part or 'the whole case'}{kind}  [{groups}]"


@dataclass(frozen=True)
class Sighting:
    """A finding as one run saw it.

    ``status`` is that of the finding, or ``not_as_expected`` or ``xpass``; ``fails`` is whether it
    makes the run fail.
    """

    identity: FindingIdentity
    family: str
    status: str
    fails: bool
    text: str
    """What was seen, in one line."""
    cases: tuple[str, ...]
    """The ids of its cases."""
    rule: str | None = None
    """The known difference that explains it."""

    @property
    def is_problem(self) -> bool:
        """Whether it needs attention: it fails, or a known bug no longer shows."""
        return self.fails or self.status == XPASS


Looked: TypeAlias = Mapping[tuple[str, str], frozenset[str]]
"""The parts that were looked at, by subject and role; an empty name is the case as a whole."""


@dataclass(frozen=True)
class RunSightings:
    """What a run saw, and what it looked at."""

    sightings: tuple[Sighting, ...]
    looked: Looked = field(default_factory=dict)

    @property
    def problems(self) -> tuple[Sighting, ...]:
        """Those that need attention."""
        return tuple(each for each in self.sightings if each.is_problem)
