"""Two guests' views side by side: where they part, subject by subject, and where first.

Streams are aligned by what the guest did, with the longest common subsequences of
:mod:`difflib`; times and counts take no part in it (:mod:`harness.compare.guest_view` says why).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from harness.compare.guest_view import GuestStep, Stream, View

RARE: Final = 8
"""What happened less often than this, on one side only, may be a race: it is not compared.  Probing
a PS/2 mouse that is not there takes Linux five interrupts, or none where they come too fast."""
NEIGHBOURS: Final = 5
"""Number of steps shown on either side of a parting."""
_EMPTY: Final = Stream(())


@dataclass(frozen=True)
class Parting:
    """The first place where two streams of a subject part.

    ``a`` and ``b`` are the steps that only that side has there, one of them may be empty;
    ``before`` the common ones before it.  ``pieces`` counts the places where they part.
    """

    subject: str
    a: tuple[GuestStep, ...]
    b: tuple[GuestStep, ...]
    before: tuple[GuestStep, ...]
    a_after: tuple[GuestStep, ...]
    b_after: tuple[GuestStep, ...]
    a_place: int | None
    """The event of the first side, from 0: of its first own step, or of the step before it."""
    b_place: int | None
    pieces: int

    @property
    def values(self) -> tuple[str | None, str | None]:
        """What either side did there; None for nothing."""
        return _text(self.a), _text(self.b)


@dataclass(frozen=True)
class Alignment:
    """``same`` are the subjects that agree; ``partings`` the others, the earliest first."""

    same: tuple[str, ...]
    partings: tuple[Parting, ...]

    def checks(self) -> tuple[dict[str, str], dict[str, str]]:
        """As results of checks, to be compared and explained as those of an image are."""
        sides: tuple[dict[str, str], dict[str, str]] = ({}, {})
        for subject in self.same:
            for side in sides:
                side[check_id(subject)] = "same"
        for parting in self.partings:
            for side, value in zip(sides, parting.values, strict=True):
                if value is not None:
                    side[check_id(parting.subject)] = value
        return sides


def check_id(subject: str) -> str:
    """The name under which rules speak of a subject."""
    return f"guest/{subject}"


def align(a: View, b: View) -> Alignment:
    """``a`` and ``b``, all subjects that either has."""
    coarse = not (a.sees_taking and b.sees_taking)
    same: list[str] = []
    partings: list[Parting] = []
    for subject in sorted({*a.streams, *b.streams}):
        one, other = a.streams.get(subject, _EMPTY), b.streams.get(subject, _EMPTY)
        if one.is_set or other.is_set:
            found = _set_parting(subject, _ways(one, coarse), _ways(other, coarse))
        else:
            found = _parting(subject, one.steps, other.steps)
        if found is None:
            same.append(subject)
        else:
            partings.append(found)
    return Alignment(tuple(same), tuple(sorted(partings, key=_place)))


def _place(parting: Parting) -> tuple[int, str]:
    places = [place for place in (parting.a_place, parting.b_place) if place is not None]
    return min(places, default=0), parting.subject


def _text(steps: tuple[GuestStep, ...]) -> str | None:
    return "; ".join(step.what for step in steps) or None


def _parting(subject: str, a: tuple[GuestStep, ...], b: tuple[GuestStep, ...]) -> Parting | None:
    matcher = SequenceMatcher(None, [s.what for s in a], [s.what for s in b], autojunk=False)
    pieces = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    if not pieces:
        return None
    _, a_from, a_to, b_from, b_to = pieces[0]
    return Parting(
        subject,
        a[a_from:a_to],
        b[b_from:b_to],
        a[max(0, a_from - NEIGHBOURS) : a_from],
        a[a_to : a_to + NEIGHBOURS],
        b[b_to : b_to + NEIGHBOURS],
        _at(a, a_from, a_to),
        _at(b, b_from, b_to),
        len(pieces),
    )


def _at(steps: tuple[GuestStep, ...], first: int, last: int) -> int | None:
    if first < last:
        return steps[first].place
    return steps[first - 1].place if first else None


_Ways = Mapping[str, tuple[GuestStep, int]]


def _ways(stream: Stream, coarse: bool) -> _Ways:
    """Each way once with its count; ``coarse``: handled at all, where one side sees no more.

    Where counts do not matter nothing is rare.
    """
    counts = dict.fromkeys((s.what for s in stream.steps), RARE) | dict(stream.counts or {})
    found: dict[str, tuple[GuestStep, int]] = {}
    for step in stream.steps:
        what = "ended" if coarse and step.what.endswith("ended") else step.what
        first, count = found.get(what, (GuestStep(step.place, what), 0))
        found[what] = first, count + counts[step.what]
    return found


def _set_parting(subject: str, a: _Ways, b: _Ways) -> Parting | None:
    only_a = tuple(step for what, (step, count) in a.items() if what not in b and count >= RARE)
    only_b = tuple(step for what, (step, count) in b.items() if what not in a and count >= RARE)
    if not only_a and not only_b:
        return None
    common = tuple(step for what, (step, _) in a.items() if what in b)
    return Parting(
        subject,
        only_a,
        only_b,
        common[:NEIGHBOURS],
        (),
        (),
        only_a[0].place if only_a else None,
        only_b[0].place if only_b else None,
        len(only_a) + len(only_b),
    )
