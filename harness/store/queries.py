"""Reading the store: every question that is asked of it, and its SQL."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw

from harness.store.database import opened
from harness.store.history import (
    WINDOW,
    BackendVersions,
    Baseline,
    CaseHistory,
    CaseNight,
    CounterHistory,
    FindingHistory,
    FindingNight,
    Point,
    Rate,
    Series,
    StoredRun,
    StoreOverview,
    as_problem,
    band_of,
)
from harness.store.identity import XPASS, FindingIdentity, Sighting

Key: TypeAlias = tuple[str, str, str, str]
"""A counter: case, part, name, source."""

_Row: TypeAlias = tuple[Any, ...]

_RUNS: Final = """
    SELECT number, name, directory, started, finished, irqmatrix, exit_status, cases,
           not_as_expected, unexplained,
           (SELECT group_concat(name, char(10)) FROM baseline WHERE run = number)
    FROM run"""


@contextmanager
def reading(path: Path) -> Iterator[StoreReader]:
    """The store in ``path``, to be asked; errors as of :func:`harness.store.database.opened`."""
    with opened(path) as connection:
        connection.pragma("query_only", 1)  # whoever reads does not write
        yield StoreReader(connection)


class StoreReader:
    """Answers from an open store."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._db = connection
        self._part_sets: dict[int, frozenset[str]] = {}

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[_Row]:
        return self._db.execute(statement, values).fetchall()

    def _row(self, statement: str, values: Sequence[object] = ()) -> _Row | None:
        return self._db.execute(statement, values).fetchone()

    # --- Runs -------------------------------------------------------------------------------------

    def runs(self, last: int | None = None, name: str | None = None) -> tuple[StoredRun, ...]:
        """The ``last`` runs, or all; of the configuration ``name``, or all."""
        rows = self._rows(
            f"{_RUNS} WHERE ?1 IS NULL OR name = ?1 ORDER BY number DESC LIMIT ?2",
            (name, -1 if last is None else last),
        )
        return tuple(map(_run, rows))[::-1]

    def run(self, number: int) -> StoredRun | None:
        """The run of that number."""
        row = self._row(f"{_RUNS} WHERE number = ?", (number,))
        return None if row is None else _run(row)

    def token(self, number: int) -> str | None:
        """What says of a run's directory that it is still that run's."""
        row = self._row("SELECT token FROM run WHERE number = ?", (number,))
        return None if row is None else str(row[0])

    def run_in(self, directory: Path) -> StoredRun | None:
        """The last run in that directory."""
        row = self._row(
            f"{_RUNS} WHERE directory = ? ORDER BY number DESC LIMIT 1", (str(directory),)
        )
        return None if row is None else _run(row)

    def before(self, number: int, name: str) -> StoredRun | None:
        """The last complete run of a configuration before the one of that number."""
        row = self._row(
            f"{_RUNS} WHERE name = ? AND number < ? AND finished IS NOT NULL"
            " ORDER BY number DESC LIMIT 1",
            (name, number),
        )
        return None if row is None else _run(row)

    def environment(self, number: int) -> dict[str, object]:
        """What a run ran on: full versions, build ids, the CPU; nothing of one that did not end."""
        row = self._row(
            "SELECT json FROM environment JOIN run ON environment = environment.id"
            " WHERE number = ?",
            (number,),
        )
        return {} if row is None else dict(json.loads(row[0]))

    def baselines(self) -> tuple[Baseline, ...]:
        """All baselines, by name."""
        rows = self._rows("SELECT name, run, accepted FROM baseline ORDER BY name")
        return tuple(Baseline(*row) for row in rows)

    def baseline(self, name: str) -> Baseline | None:
        """The baseline of that name."""
        return next((each for each in self.baselines() if each.name == name), None)

    def overview(self, last: int | None = None) -> StoreOverview:
        """The last runs, and what needs attention now."""
        runs = self.runs(last)
        newest = {run.name: run.number for run in runs if run.is_complete}
        problems = dict.fromkeys(
            each.identity for number in newest.values() for each in self.problems(number)
        )
        found = tuple(
            replace(each, nights=tuple(map(as_problem, each.nights)))
            for identity in problems
            if (each := self.finding(identity)) is not None
        )
        return StoreOverview(runs, found, self.baselines())

    # --- Cases ------------------------------------------------------------------------------------

    def case_names(self) -> tuple[str, ...]:
        """The ids of all cases."""
        return tuple(name for (name,) in self._rows("SELECT name FROM case_name ORDER BY 1"))

    def has_case(self, case: str) -> bool:
        """Whether a run had the case of that id."""
        return self._row("SELECT 1 FROM case_name WHERE name = ?", (case,)) is not None

    def case(self, case: str, last: int | None = None) -> CaseHistory | None:
        """A case in the ``last`` runs that had it, or in all."""
        row = self._row("SELECT id, subject, backend FROM case_name WHERE name = ?", (case,))
        if row is None:
            return None
        nights = self._rows(
            "SELECT run, started, verdict, as_expected, flaky, duration_s, blame, detail, qemu,"
            " linux FROM case_result JOIN run ON run.number = run"
            " JOIN versions ON versions.id = versions"
            " WHERE case_name = ? ORDER BY run DESC LIMIT ?",
            (row[0], -1 if last is None else last),
        )
        found = tuple(map(_case_night, nights))[::-1]
        return CaseHistory(case, row[1], row[2], found, self.counters(case))

    def nights_of_run(self, number: int) -> dict[str, CaseNight]:
        """All cases of a run, by their ids."""
        rows = self._rows(
            "SELECT case_name.name, run, started, verdict, as_expected, flaky, duration_s, blame,"
            " detail, qemu, linux FROM case_result JOIN run ON run.number = run"
            " JOIN versions ON versions.id = versions JOIN case_name ON case_name.id = case_name"
            " WHERE run = ? ORDER BY 1",
            (number,),
        )
        return {row[0]: _case_night(row[1:]) for row in rows}

    def flaky(self, case: str, before: int) -> Rate:
        """In how many of the last runs before that one a case was flaky."""
        rows = self._rows(
            "SELECT flaky FROM case_result WHERE run < ?"
            " AND case_name = (SELECT id FROM case_name WHERE name = ?)"
            " ORDER BY run DESC LIMIT ?",
            (before, case, WINDOW),
        )
        return Rate(sum(bool(flaky) for (flaky,) in rows), len(rows))

    # --- Findings ---------------------------------------------------------------------------------

    def findings(self) -> tuple[FindingIdentity, ...]:
        """All findings, those that were seen last first."""
        rows = self._rows(
            "SELECT subject, part, kind, groups FROM finding ORDER BY"
            " (SELECT max(run) FROM sighting WHERE finding = finding.id) DESC, id"
        )
        return tuple(map(_identity, rows))

    def finding_of(self, key: str) -> FindingIdentity | None:
        """The finding whose key begins so; None where there is none, or more than one."""
        rows = self._rows(
            "SELECT subject, part, kind, groups FROM finding"
            " WHERE substr(key, 1, length(?1)) = ?1 LIMIT 2",
            (key,),
        )
        return _identity(rows[0]) if len(rows) == 1 else None

    def finding(self, identity: FindingIdentity) -> FindingHistory | None:
        """A finding in all runs of the configurations that have looked for it."""
        first = [row[1] for row in self._same(identity)]
        if not first:
            return None
        return FindingHistory(identity, min(first), self.nights(identity))

    def nights(
        self, identity: FindingIdentity, before: int | None = None
    ) -> tuple[FindingNight, ...]:
        """A finding in all complete runs, or in those before that one."""
        seen = self._sightings(identity)
        looked = self._looked(identity)
        names = {run.name for run in self._complete if run.number in looked or run.number in seen}
        nights = []
        for run in self._complete:
            if run.name not in names or (before is not None and run.number >= before):
                continue
            night = seen.get(run.number)
            if night is None:
                was_looked = identity.was_looked_for(looked.get(run.number, {}))
                night = FindingNight(run.number, run.started, False if was_looked else None)
            nights.append(night)
        return tuple(nights)

    def problems(self, run: int) -> tuple[Sighting, ...]:
        """What needed attention in a run."""
        return tuple(each for each in self.sightings(run) if each.is_problem)

    def sightings(self, run: int) -> tuple[Sighting, ...]:
        """All findings that a run saw."""
        rows = self._rows(
            "SELECT subject, part, kind, sighting.groups, family, status, fails, text, cases, rule"
            " FROM sighting JOIN finding ON finding.id = finding WHERE run = ? ORDER BY finding",
            (run,),
        )
        return tuple(
            Sighting(
                FindingIdentity.of(subject, part, kind, groups),
                family,
                status,
                bool(fails),
                text,
                tuple(json.loads(cases)),
                rule,
            )
            for subject, part, kind, groups, family, status, fails, text, cases, rule in rows
        )

    def _same(self, identity: FindingIdentity) -> list[tuple[int, str]]:
        """The rows that are the same finding: their ids, and when they were first seen."""
        own = identity.subject, identity.part, identity.kind
        rows = self._rows(
            "SELECT id, first_seen, groups FROM finding"
            " WHERE subject = ? AND part = ? AND kind = ?",
            own,
        )
        return [
            (id_, first)
            for id_, first, groups in rows
            if FindingIdentity.of(*own, groups).same_as(identity)
        ]

    def _sightings(self, identity: FindingIdentity) -> dict[int, FindingNight]:
        found = {}
        for id_, _ in self._same(identity):
            rows = self._rows(
                "SELECT run, started, status, fails, text, rule, versions FROM sighting"
                " JOIN run ON run.number = run WHERE finding = ?",
                (id_,),
            )
            for run, started, status, fails, text, rule, versions in rows:
                found[run] = FindingNight(
                    run,
                    started,
                    was_seen=True,
                    status=status,
                    is_problem=bool(fails) or status == XPASS,
                    text=text,
                    rule=rule,
                    versions=tuple(BackendVersions(*each) for each in json.loads(versions)),
                )
        return found

    def _looked(
        self, identity: FindingIdentity
    ) -> dict[int, dict[tuple[str, str], frozenset[str]]]:
        """What runs looked at of the subject and the backends of a finding, by run."""
        found: dict[int, dict[tuple[str, str], frozenset[str]]] = {}
        for role in sorted(identity.roles):
            rows = self._rows(
                "SELECT run, part_set FROM looked"
                " WHERE place = (SELECT id FROM place WHERE subject = ? AND role = ?)",
                (identity.subject, role),
            )
            for run, part_set in rows:
                parts = self._parts(part_set)
                found.setdefault(run, {})[identity.subject, role] = parts
        return found

    def _parts(self, part_set: int) -> frozenset[str]:
        if part_set not in self._part_sets:
            ((text,),) = self._rows("SELECT names FROM part_set WHERE id = ?", (part_set,))
            self._part_sets[part_set] = frozenset(json.loads(text))
        return self._part_sets[part_set]

    @functools.cached_property
    def _complete(self) -> tuple[StoredRun, ...]:
        return tuple(run for run in self.runs() if run.is_complete)

    # --- Counters ---------------------------------------------------------------------------------

    def counters(self, case: str) -> tuple[CounterHistory, ...]:
        """The counters of a case, each with its last values and the band of all but the last."""
        keys = self._rows(
            "SELECT measure.id, part, measure.name, source FROM measure"
            " JOIN case_name ON case_name.id = case_name WHERE case_name.name = ?"
            " ORDER BY part, measure.name",
            (case,),
        )
        found = []
        for id_, part, name, source in keys:
            rows = self._rows(
                "SELECT run, started, value, floor FROM value JOIN run ON run.number = run"
                " WHERE measure = ? ORDER BY run DESC LIMIT ?",
                (id_, WINDOW + 1),
            )[::-1]
            *earlier, last = (Point(*row[:3]) for row in rows)
            floor = rows[-1][3]
            band = None if floor is None else band_of([point.value for point in earlier], floor)
            found.append(CounterHistory(case, part, name, source, (*earlier, last), band))
        return tuple(found)

    def values_before(self, number: int, keys: Iterable[Key]) -> dict[Key, list[float]]:
        """The last values of counters before a run, the oldest first."""
        found = {}
        for key in keys:
            rows = self._rows(
                "SELECT value FROM value WHERE run < ? AND measure = (SELECT measure.id"
                " FROM measure JOIN case_name ON case_name.id = case_name"
                " WHERE case_name.name = ? AND part = ? AND measure.name = ? AND source = ?)"
                " ORDER BY run DESC LIMIT ?",
                (number, *key, WINDOW),
            )
            found[key] = [value for (value,) in rows][::-1]
        return found

    def series(self, glob: str, case: str | None = None) -> tuple[Series, ...]:
        """All values of the counters whose name matches, of one case or of all."""
        rows = self._rows(
            "SELECT part || '  ' || measure.name, irqchip, run, started, avg(value) FROM measure"
            " JOIN case_name ON case_name.id = case_name JOIN value ON measure = measure.id"
            " JOIN run ON run.number = run WHERE measure.name GLOB ?1"
            " AND (?2 IS NULL OR case_name.name = ?2)"
            " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            (glob, case),
        )
        found: dict[str, dict[str, list[Point]]] = {}
        for name, irqchip, run, started, value in rows:
            point = Point(run, started, value)
            found.setdefault(name, {}).setdefault(irqchip, []).append(point)
        return tuple(
            Series(
                name,
                "Hz" if "  storm/" in name else "",
                {irqchip: tuple(points) for irqchip, points in modes.items()},
            )
            for name, modes in found.items()
        )


def _identity(row: _Row) -> FindingIdentity:
    return FindingIdentity.of(*row)


def _run(row: _Row) -> StoredRun:
    names = () if row[-1] is None else tuple(sorted(str(row[-1]).split("\n")))
    return replace(StoredRun(*row[:-1]), baselines=names)


def _case_night(row: _Row) -> CaseNight:
    run, started, verdict, as_expected, flaky, duration_s, blame, detail, qemu, linux = row
    return CaseNight(
        run,
        started,
        verdict,
        bool(as_expected),
        bool(flaky),
        duration_s,
        blame,
        detail,
        BackendVersions(qemu, linux),
    )
