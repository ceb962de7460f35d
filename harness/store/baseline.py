"""A run compared with what is known: an accepted run, and the runs before this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from harness.base.files import read_typed, write_text
from harness.store.history import (
    Band,
    Baseline,
    FindingNight,
    Rate,
    Since,
    as_problem,
    comes_and_goes,
    rate_of,
    since_of,
)
from harness.store.identity import FindingIdentity, RunSightings, Sighting
from harness.store.result import RunResult

SCHEMA: Final = 1


class State(StrEnum):
    """What became of a problem since the baseline."""

    NEW = "new"
    FLAKY = "flaky"
    """It comes and goes, and did before the baseline was accepted."""
    STILL = "still there"
    GONE = "gone"
    NOT_SEEN = "not seen"
    """Nothing looked for it: its cases did not run."""


@dataclass(frozen=True)
class Change:
    """A problem of this run, of the baseline or of the run before, and what became of it.

    ``since`` is when it began to show without interruption, None where it does not show now.
    ``rate`` is over the last runs, this one among them.
    """

    identity: FindingIdentity
    key: str
    family: str
    state: State
    fails: bool
    """Whether it makes, or made, a run fail."""
    text: str
    since: Since | None
    rate: Rate
    cases: tuple[str, ...] = ()
    reason: str = ""
    """Why it is gone or was not seen."""

    @property
    def is_regression(self) -> bool:
        """Whether it is new and makes the run fail."""
        return self.state is State.NEW and self.fails


@dataclass(frozen=True)
class OutOfBand:
    """A counter whose value is not where it was in the last runs."""

    case: str
    part: str
    name: str
    source: str
    value: float
    band: Band

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.case}  {self.part} {self.name} [{self.source}]: {self.value:.6g}, {self.band}"
        )


@dataclass(frozen=True)
class FlakyCase:
    """A case that was as expected only when it was run again, and how often that is so."""

    case: str
    rate: Rate


@dataclass(frozen=True)
class BaselineComparison:
    """A run and what is known: ``baseline.json``.

    Without a ``baseline`` it is compared with the run before of the same configuration.
    """

    schema: int
    run: int
    """The number of the run in the store."""
    baseline: Baseline | None
    previous: int | None
    """The number of the complete run before it, of the same configuration."""
    changes: tuple[Change, ...]
    counters: tuple[OutOfBand, ...] = ()
    flaky_cases: tuple[FlakyCase, ...] = ()
    decides: bool = False
    """Whether the run's exit status is by what is new (``--baseline``)."""

    def of(self, state: State) -> tuple[Change, ...]:
        """The changes of that state."""
        return tuple(change for change in self.changes if change.state is state)

    @property
    def regressions(self) -> tuple[Change, ...]:
        """What is new and makes a run fail."""
        return tuple(change for change in self.changes if change.is_regression)

    def change_of(self, identity: FindingIdentity) -> Change | None:
        """What became of a finding of this run."""
        return next((each for each in self.changes if each.identity == identity), None)

    def about(self, case: str, part: str) -> tuple[Change, ...]:
        """What shows now in a case, by its id, and one of its parts."""
        return tuple(
            each
            for each in self.changes
            if each.since is not None and each.identity.part == part and case in each.cases
        )

    def verdicts_of(self, case: str, part: str) -> tuple[Change, ...]:
        """Those of :meth:`about` that are verdicts, and nothing in which backends differ."""
        return tuple(each for each in self.about(case, part) if not each.identity.is_difference)

    def differences_of(self, family: str, part: str) -> tuple[Change, ...]:
        """What backends differ in now, in a part of a guest."""
        return tuple(
            each
            for each in self.changes
            if each.since is not None
            and each.identity.is_difference
            and (each.family, each.identity.part) == (family, part)
        )


Nights = Callable[[FindingIdentity], Sequence[FindingNight]]
"""What the earlier complete runs say of a finding, the oldest first."""


def compare(
    run: int,
    started: str,
    seen: RunSightings,
    nights: Nights,
    baseline: Baseline | None,
    previous: int | None,
    known: Iterable[Sighting] = (),
) -> BaselineComparison:
    """Compare what a run has ``seen`` with the baseline, or else with the ``previous`` run.

    ``known`` are the problems of the baseline and of the run before.
    """
    reference = previous if baseline is None else baseline.run
    changes = [
        _present(each, run, started, nights(each.identity), reference) for each in seen.problems
    ]
    now = [each.identity for each in seen.problems]
    absent: dict[FindingIdentity, Sighting] = {}
    for each in known:
        if not any(each.identity.same_as(other) for other in (*now, *absent)):
            absent[each.identity] = each
    changes += [
        _absent(each, run, started, seen, nights(each.identity)) for each in absent.values()
    ]
    order = list(State)
    changes.sort(key=lambda change: (order.index(change.state), not change.fails, change.identity))
    return BaselineComparison(SCHEMA, run, baseline, previous, tuple(changes))


def _present(
    each: Sighting, run: int, started: str, nights: Sequence[FindingNight], reference: int | None
) -> Change:
    """A problem that shows now."""
    problems = [as_problem(night) for night in nights if night.was_seen is not None]
    before = [night for night in problems if reference is not None and night.run <= reference]
    if before and before[-1].was_seen:
        state = State.STILL
    elif comes_and_goes(before):
        state = State.FLAKY
    else:
        state = State.NEW
    all_nights = [*problems, FindingNight(run, started, was_seen=True)]
    return Change(
        each.identity,
        each.identity.key,
        each.family,
        state,
        each.fails,
        each.text,
        since_of(all_nights),
        rate_of(all_nights),
        each.cases,
    )


def _absent(
    each: Sighting, run: int, started: str, seen: RunSightings, nights: Sequence[FindingNight]
) -> Change:
    """A problem that was there, and is not now."""
    problems = [as_problem(night) for night in nights]
    now = next((one for one in seen.sightings if one.identity.same_as(each.identity)), None)
    if now is not None:
        state, reason = State.GONE, f"{now.rule} explains it" if now.rule else now.status
    elif not each.identity.was_looked_for(seen.looked):
        state, reason = State.NOT_SEEN, "its cases did not run or did not get there"
    elif comes_and_goes(problems):
        state, reason = State.FLAKY, "not this time"
    else:
        state, reason = State.GONE, "it no longer shows"
    was_seen = None if state is State.NOT_SEEN else False
    rate = rate_of([*problems, FindingNight(run, started, was_seen)])
    identity = each.identity
    return Change(
        identity, identity.key, each.family, state, each.fails, each.text, None, rate, (), reason
    )


def exit_status(run: RunResult, compared: BaselineComparison | None) -> int:
    """The exit status of a run: where a baseline decides, only what is new fails it.

    A run that did not end fails in any case, and so does a part that ran nowhere where the
    configuration says so.
    """
    status = run.summary.exit_status
    if compared is None or not compared.decides or status != 1:
        return status
    nowhere = bool(run.nowhere.parts) and run.nowhere.is_error
    return int(bool(compared.regressions) or run.did_not_end or nowhere)


_ADAPTER: Final = TypeAdapter(BaselineComparison)


def write(comparison: BaselineComparison, path: Path) -> None:
    """Write ``baseline.json``; :class:`~harness.base.errors.StoreError` where that cannot be."""
    write_text(path, _ADAPTER.dump_json(comparison, indent=1).decode() + "\n")


def read(path: Path) -> BaselineComparison:
    """The comparison in ``path``; StoreError for a file of another kind or schema."""
    return read_typed(path, _ADAPTER, SCHEMA, "is not a comparison with a baseline")
