"""Writing to the store: a run at its start and at its end, a baseline, and what is pruned."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple
from typing import Final

import apsw

from harness.base.machine import timestamp
from harness.store.database import transaction
from harness.store.history import Baseline
from harness.store.identity import FindingIdentity, Sighting
from harness.store.record import MeasuredValue, RunRecord

NOT_STORED: Final = ("finished", "started", "token")
"""What of an environment differs in every run; it has columns of its own."""


def begin(
    connection: apsw.Connection,
    token: str,
    name: str,
    directory: str,
    started: str,
    irqmatrix: str,
) -> int:
    """Enter a run that begins; its number.  ``token`` says which run it is when it ends."""
    with transaction(connection):
        return _entered(connection, token, name, directory, started, irqmatrix)


def complete(connection: apsw.Connection, record: RunRecord, directory: str) -> int:
    """Enter all of a run that has ended, or replace what was entered; its number.

    One that is not there yet, because the store could not be written when it began, is entered.
    """
    result = record.result
    environment = dict(result.environment)
    summary = result.summary
    with transaction(connection):
        number = _entered(
            connection,
            record.token,
            result.name,
            directory,
            str(environment.get("started") or environment.get("finished") or timestamp()),
            str(environment.get("irqmatrix", "")),
        )
        _forget(connection, [number])
        shared = {name: value for name, value in environment.items() if name not in NOT_STORED}
        connection.execute(
            "UPDATE run SET finished = ?, exit_status = ?, cases = ?, not_as_expected = ?,"
            " unexplained = ?, environment = ? WHERE number = ?",
            (
                str(environment.get("finished") or timestamp()),
                summary.exit_status,
                summary.cases,
                len(summary.not_as_expected),
                summary.unexplained_findings,
                _id(connection, "environment", json=json.dumps(shared, sort_keys=True)),
                number,
            ),
        )
        cases = _enter_cases(connection, number, record)
        _enter_looked(connection, number, record)
        _enter_sightings(connection, number, record)
        _enter_values(connection, number, record.measured, cases)
    return number


def _entered(connection: apsw.Connection, token: str, *columns: str) -> int:
    """The number of a run, which is entered where it is not there."""
    found = connection.execute("SELECT number FROM run WHERE token = ?", (token,)).fetchone()
    if found is not None:
        return int(found[0])
    connection.execute(
        "INSERT INTO run (token, name, directory, started, irqmatrix) VALUES (?, ?, ?, ?, ?)",
        (token, *columns),
    )
    return connection.last_insert_rowid()


def _id(connection: apsw.Connection, table: str, **columns: str) -> int:
    """The id of a row, which is entered where it is not there."""
    names, values = ", ".join(columns), tuple(columns.values())
    where = " AND ".join(f"{name} = ?" for name in columns)
    found = connection.execute(f"SELECT id FROM {table} WHERE {where}", values).fetchone()
    if found is not None:
        return int(found[0])
    marks = ", ".join("?" * len(columns))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)
    return connection.last_insert_rowid()


def _enter_cases(connection: apsw.Connection, number: int, record: RunRecord) -> dict[str, int]:
    """The cases of a run; the id of each in the store."""
    result = record.result
    connection.executemany(
        "INSERT OR IGNORE INTO case_name (name, subject, backend, irqchip, guest)"
        " VALUES (?, ?, ?, ?, ?)",
        (
            (case.id, case.subject, case.backend, str(case.axes.get("irqchip", "")), case.guest)
            for case in result.cases
        ),
    )
    ids: dict[str, int] = {}
    versions: dict[tuple[str | None, ...], int] = {}
    for case in result.cases:
        ids[case.id] = connection.execute("SELECT id FROM case_name WHERE name = ?", (case.id,)).get
        key = (record.roles[case.backend], *astuple(record.versions[case.id]))
        if key not in versions:
            versions[key] = _versions(connection, *key)
        connection.execute(
            "INSERT INTO case_result VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                ids[case.id],
                number,
                case.verdict.value,
                case.as_expected,
                case.flaky,
                case.duration_s,
                case.blame,
                case.full_detail,
                versions[key],
            ),
        )
    return ids


def _versions(connection: apsw.Connection, *key: str | None) -> int:
    connection.execute("INSERT OR IGNORE INTO versions (role, qemu, linux) VALUES (?, ?, ?)", key)
    found: int = connection.execute(
        "SELECT id FROM versions WHERE role = ? AND qemu IS ? AND linux IS ?", key
    ).get
    return found


def _enter_looked(connection: apsw.Connection, number: int, record: RunRecord) -> None:
    sets: dict[frozenset[str], int] = {}
    for (subject, role), parts in record.seen.looked.items():
        if parts not in sets:
            sets[parts] = _id(connection, "part_set", names=json.dumps(sorted(parts)))
        place = _id(connection, "place", subject=subject, role=role)
        connection.execute("INSERT INTO looked VALUES (?, ?, ?)", (place, number, sets[parts]))


def _enter_sightings(connection: apsw.Connection, number: int, record: RunRecord) -> None:
    started: str = connection.execute("SELECT started FROM run WHERE number = ?", (number,)).get
    for each in record.seen.sightings:
        finding = _finding(connection, each, started)
        versions = dict.fromkeys(
            astuple(record.versions[case]) for case in each.cases if case in record.versions
        )
        connection.execute(
            "INSERT OR REPLACE INTO sighting VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                finding,
                number,
                each.identity.groups_json,
                each.status,
                each.fails,
                each.text,
                each.rule,
                json.dumps(each.cases),
                json.dumps(list(versions)),
            ),
        )


def _finding(connection: apsw.Connection, seen: Sighting, started: str) -> int:
    """The finding that was seen: the one that has most backends in common with it, or a new one."""
    own = seen.identity
    rows = connection.execute(
        "SELECT id, groups FROM finding WHERE subject = ? AND part = ? AND kind = ? ORDER BY id",
        (own.subject, own.part, own.kind),
    )
    there: dict[FindingIdentity, int] = {
        FindingIdentity.of(own.subject, own.part, own.kind, text): id_ for id_, text in rows
    }
    same = [identity for identity in there if identity.same_as(own)]
    if same:
        return there[max(same, key=lambda identity: len(identity.roles & own.roles))]
    connection.execute(
        "INSERT INTO finding (key, subject, part, kind, groups, family, first_seen)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (own.key, own.subject, own.part, own.kind, own.groups_json, seen.family, started),
    )
    return connection.last_insert_rowid()


def _enter_values(
    connection: apsw.Connection,
    number: int,
    measured: Iterable[MeasuredValue],
    cases: dict[str, int],
) -> None:
    keys = {(cases[each.case], each.part, each.name, each.source): each for each in measured}
    connection.executemany(
        "INSERT OR IGNORE INTO measure (case_name, part, name, source) VALUES (?, ?, ?, ?)", keys
    )
    connection.executemany(
        "INSERT INTO value SELECT id, ?, ?, ? FROM measure"
        " WHERE case_name = ? AND part = ? AND name = ? AND source = ?",
        ((number, each.value, each.floor, *key) for key, each in keys.items()),
    )


# --- Baselines ------------------------------------------------------------------------------------


def accept(connection: apsw.Connection, name: str, run: int) -> Baseline:
    """Make a run the baseline ``name``, in place of the one before."""
    accepted = timestamp()
    with transaction(connection):
        connection.execute(
            "INSERT OR REPLACE INTO baseline VALUES (?, ?, ?)", (name, run, accepted)
        )
    return Baseline(name, run, accepted)


# --- Pruning --------------------------------------------------------------------------------------

_OF_A_RUN: Final = ("case_result", "looked", "sighting", "value")
_UNUSED: Final = (
    "DELETE FROM environment WHERE id NOT IN (SELECT environment FROM run"
    " WHERE environment IS NOT NULL)",
    "DELETE FROM measure WHERE id NOT IN (SELECT measure FROM value)",
    "DELETE FROM part_set WHERE id NOT IN (SELECT part_set FROM looked)",
    "DELETE FROM place WHERE id NOT IN (SELECT place FROM looked)",
    "DELETE FROM case_name WHERE id NOT IN (SELECT case_name FROM case_result)",
    "DELETE FROM versions WHERE id NOT IN (SELECT versions FROM case_result)",
)


def _forget(connection: apsw.Connection, runs: Iterable[int]) -> None:
    for table in _OF_A_RUN:
        connection.executemany(f"DELETE FROM {table} WHERE run = ?", ((run,) for run in runs))


def prune(connection: apsw.Connection, runs: Iterable[int]) -> None:
    """Remove runs with all that was entered of them.

    Findings stay, with the time when each was first seen.
    """
    runs = list(runs)
    with transaction(connection):
        _forget(connection, runs)
        connection.executemany("DELETE FROM run WHERE number = ?", ((run,) for run in runs))
        for statement in _UNUSED:
            connection.execute(statement)
    connection.execute("VACUUM")
