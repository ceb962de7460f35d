"""The store as flat tables for other tools: CSV, or Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import apsw
import apsw.ext

from harness.base.errors import CannotRun, ConfigError, StoreError

TABLES: Final[Mapping[str, str]] = {
    "runs": "SELECT number AS run, name AS configuration, directory, started, finished, irqmatrix,"
    " exit_status, cases, not_as_expected, unexplained FROM run ORDER BY number",
    "cases": "SELECT run, started, run.name AS configuration, case_name.name AS 'case', subject,"
    " backend, irqchip, guest, role, qemu, linux, verdict, as_expected, flaky, duration_s, blame,"
    " detail FROM case_result JOIN run ON run.number = run JOIN versions ON versions.id = versions"
    " JOIN case_name ON case_name.id = case_name ORDER BY run, case_name.name",
    "findings": "SELECT run, started, run.name AS configuration, key AS finding, subject, part,"
    " kind, sighting.groups AS groups, status, fails, rule, text FROM sighting"
    " JOIN finding ON finding.id = finding JOIN run ON run.number = run ORDER BY run, finding.id",
    "values": "SELECT run, started, case_name.name AS 'case', irqchip, part, measure.name AS name,"
    " source, value FROM value JOIN measure ON measure.id = measure"
    " JOIN case_name ON case_name.id = case_name JOIN run ON run.number = run"
    " ORDER BY run, case_name.name, part, measure.name",
}
"""What can be exported: a query each, whose columns are named as in the file."""

_Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class FlatTable:
    """A table of the store; its rows can be taken once."""

    columns: tuple[str, ...]
    rows: Iterator[_Row]


def table(connection: apsw.Connection, name: str) -> FlatTable:
    """The table of that name of :data:`TABLES`."""
    described = apsw.ext.query_info(connection, TABLES[name]).description
    columns = tuple(column[0] for column in described)
    return FlatTable(columns, iter(connection.execute(TABLES[name])))


def export(connection: apsw.Connection, name: str, path: Path) -> int:
    """Write a table to a file, by its suffix; the number of rows.

    :class:`ConfigError` for another suffix, :class:`CannotRun` where pyarrow is not installed,
    :class:`StoreError` where the file cannot be written, which stays as it was then.
    """
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    writer = writers.get(path.suffix)
    if writer is None:
        raise ConfigError(f"cannot export to {path}", "expected .csv or .parquet")
    partial = path.with_name(path.name + ".partial")
    try:
        count = writer(connection, name, partial)
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}", error.strerror, "choose another file") from None
    finally:
        partial.unlink(missing_ok=True)
    return count


def _write_csv(connection: apsw.Connection, name: str, path: Path) -> int:
    found = table(connection, name)
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(found.columns)
        for row in found.rows:
            writer.writerow(row)
            count += 1
    return count


def _write_parquet(connection: apsw.Connection, name: str, path: Path) -> int:
    try:
        pyarrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    except ModuleNotFoundError:
        raise CannotRun(
            "cannot write Parquet", "pyarrow is not installed", "pip install 'irqmatrix[parquet]'"
        ) from None
    found = table(connection, name)
    rows = list(found.rows)
    values = zip(*rows, strict=True) if rows else ((),) * len(found.columns)
    columns = {
        column: pyarrow.array(own) for column, own in zip(found.columns, values, strict=True)
    }
    parquet.write_table(pyarrow.table(columns), path)
    return len(rows)
