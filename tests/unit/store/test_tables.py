"""The store as flat tables."""

from __future__ import annotations

import csv
import sys

import pytest

from harness.base.errors import CannotRun, ConfigError
from harness.commands import history as command
from harness.store.tables import TABLES
from support.stored import SUBJECT, Nights, finding, night


@pytest.fixture
def store(tmp_path):
    nights = Nights(tmp_path / "store.sqlite")
    nights.enter(night(finding("eoi")))
    nights.enter(night())
    return nights.path


@pytest.mark.parametrize(("table", "rows"), [("runs", 2), ("cases", 6), ("findings", 1)])
def test_table_as_csv_has_a_row_for_each(store, tmp_path, table, rows):
    file = tmp_path / "table.csv"

    assert command.export(store, table, file) == rows
    with file.open(newline="") as text:
        assert len(list(csv.DictReader(text))) == rows


def test_table_of_cases_says_what_each_was(store, tmp_path):
    command.export(store, "cases", tmp_path / "cases.csv")

    with (tmp_path / "cases.csv").open(newline="") as text:
        first = next(csv.DictReader(text))
    assert first["case"] == f"{SUBJECT}/lab-kvm-off"
    assert (first["verdict"], first["role"], first["linux"]) == ("pass", "off", "6.1.170")


@pytest.mark.parametrize("table", TABLES)
def test_every_table_as_parquet_has_the_rows_of_csv(store, tmp_path, table):
    parquet = pytest.importorskip("pyarrow.parquet")
    count = command.export(store, table, tmp_path / "t.csv")

    assert command.export(store, table, tmp_path / "t.parquet") == count
    assert parquet.read_table(tmp_path / "t.parquet").num_rows == count


def test_parquet_without_pyarrow_is_a_message_and_leaves_nothing(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(CannotRun, match=r"irqmatrix\[parquet\]"):
        command.export(store, "runs", tmp_path / "t.parquet")
    assert not list(tmp_path.glob("t.parquet*"))


def test_unknown_suffix_is_a_mistake(store, tmp_path):
    with pytest.raises(ConfigError, match=r"\.csv or \.parquet"):
        command.export(store, "runs", tmp_path / "t.xlsx")
