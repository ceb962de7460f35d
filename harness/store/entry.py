"""A run's place in the store: entered when it begins, completed when it ends.

A run never fails for its store: what cannot be written is a message, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.base.errors import ConfigError, StoreError
from harness.base.suggest import nearest
from harness.store import baseline as comparing
from harness.store import writing
from harness.store.baseline import BaselineComparison, FlakyCase, OutOfBand
from harness.store.database import StoreDamaged, opened, set_aside
from harness.store.history import band_of
from harness.store.identity import Sighting
from harness.store.queries import StoreReader, reading
from harness.store.record import RunRecord, record_of
from harness.store.result import RunResult
from harness.store.sightings import Lanes


@dataclass(frozen=True)
class StoreRequest:
    """Where a run is entered, and what it is compared with.

    ``baseline`` is None where the exit status is not by what is new; the empty name is the
    configuration's.
    """

    path: Path
    lanes: Lanes
    baseline: str | None = None


def check_baseline(request: StoreRequest) -> None:
    """:class:`ConfigError` where the baseline that is asked for by its name is not there."""
    if not request.baseline:
        return
    with reading(request.path) as history:
        names = [each.name for each in history.baselines()]
    if request.baseline not in names:
        raise ConfigError(
            f"no baseline {request.baseline!r}",
            f"there are: {', '.join(names)}" if names else f"{request.path} has none yet",
            nearest(request.baseline, names) or f"irqmatrix baseline accept RUN {request.baseline}",
        )


class RunEntry:
    """One run in the store ``request.path``; ``note`` shows what cannot be done."""

    def __init__(self, request: StoreRequest, note: Callable[[str], None]) -> None:
        self._request = request
        self._note = note

    def begin(self, name: str, directory: Path, environment: Mapping[str, object]) -> None:
        """Enter it as incomplete; ``name`` is that of its configuration."""

        def enter() -> None:
            with opened(self._request.path, create=True) as connection:
                writing.begin(
                    connection,
                    str(environment["token"]),
                    name,
                    str(directory),
                    str(environment["started"]),
                    str(environment["irqmatrix"]),
                )

        self._tried(enter)

    def complete(self, result: RunResult, directory: Path) -> BaselineComparison | None:
        """Enter all of it, and compare it; None where the store cannot be used."""
        record = record_of(result, directory, self._request.lanes)
        found: list[BaselineComparison] = []

        def enter() -> None:
            with opened(self._request.path, create=True) as connection:
                number = writing.complete(connection, record, str(directory))
                found.append(
                    compared(StoreReader(connection), number, record, self._request.baseline)
                )

        self._tried(enter)
        return found[-1] if found else None

    def _tried(self, enter: Callable[[], None]) -> None:
        """Do it; where the store is damaged, with a new one."""
        try:
            try:
                enter()
            except StoreDamaged as error:
                kept = set_aside(self._request.path)
                self._note(
                    f"the store {self._request.path} is damaged: {error.why}; it is kept as "
                    f"{kept}, and a new one begins"
                )
                enter()
        except StoreError as error:
            self._note(f"not in the store: {error}")


def compared(
    history: StoreReader, number: int, record: RunRecord, baseline: str | None
) -> BaselineComparison:
    """A run that is in the store, and what is known; ``baseline`` as of :class:`StoreRequest`."""
    run = history.run(number)
    assert run is not None
    base = None if baseline is None else history.baseline(baseline or run.name)
    before = history.before(number, run.name)
    previous = None if before is None else before.number
    known: list[Sighting] = []
    for other in dict.fromkeys((base.run if base is not None else None, previous)):
        if other is not None:
            known += history.problems(other)
    found = comparing.compare(
        number,
        run.started,
        record.seen,
        lambda identity: history.nights(identity, before=number),
        base,
        previous,
        known,
    )
    flaky = [
        FlakyCase(case.id, history.flaky(case.id, number).with_one_more(seen=True))
        for case in record.result.cases
        if case.flaky
    ]
    return replace(
        found,
        decides=baseline is not None,
        counters=_out_of_band(history, number, record),
        flaky_cases=tuple(flaky),
    )


def _out_of_band(history: StoreReader, number: int, record: RunRecord) -> tuple[OutOfBand, ...]:
    """The counters of a run that are not where they were in the runs before."""
    own = {
        (each.case, each.part, each.name, each.source): each
        for each in record.measured
        if each.floor is not None
    }
    found = []
    for key, values in history.values_before(number, own).items():
        each = own[key]
        band = band_of(values, each.floor or 0.0)
        if band is not None and not band.has(each.value):
            found.append(OutOfBand(*key, each.value, band))
    return tuple(found)
