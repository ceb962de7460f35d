"""Plots of the store: a panel for each counter, a line for each irqchip mode."""

from __future__ import annotations

import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from harness.base.errors import CannotRun, ConfigError
from harness.commands import history as command
from harness.report.export import plot
from harness.store import writing
from harness.store.database import opened
from harness.store.history import Point, Series
from harness.store.record import MeasuredValue, record_of
from support.stored import SUBJECT, night

POINTS = (Point(1, "2026-01-01T03:00:00+0000", 5.0), Point(2, "2026-01-02T03:00:00+0000", 900.0))


def texts(svg: bytes) -> set[str]:
    return {each.text for each in ElementTree.fromstring(svg).iter() if each.text}


def test_plot_names_counters_and_modes():
    series = Series("idle  storm/handled/21 $x", "Hz", {"on": POINTS, "split": POINTS[:1]})

    found = texts(plot.render([series], "svg"))

    assert {"idle  storm/handled/21 $x", "on", "split", "Hz"} <= found


def test_plot_is_the_same_each_time():
    series = Series("idle  handled/21", "", {"on": POINTS})

    assert plot.render([series], "svg") == plot.render([series], "svg")


def test_plot_without_matplotlib_is_a_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(CannotRun, match=r"irqmatrix\[plot\]"):
        plot.render([], "svg")


@pytest.fixture
def store(tmp_path):
    """Two runs with a storm in two modes, and a counter in one."""
    path = tmp_path / "store.sqlite"
    for rate in (100.0, 900.0):
        record = record_of(night(), tmp_path, {})
        measured = tuple(
            MeasuredValue(f"{SUBJECT}/lab-kvm-{mode}", "idle", name, "guest", rate)
            for mode, name in (
                ("on", "storm/handled/ioapic/21"),
                ("split", "storm/handled/ioapic/21"),
                ("off", "handled/ioapic/4"),
            )
        )
        with opened(path, create=True) as connection:
            writing.complete(connection, replace(record, measured=measured), "x")
    return path


def test_plot_of_the_store_shows_the_storms(store, tmp_path):
    assert command.plot(store, None, None, tmp_path / "x.svg") == (1, 1)

    assert {"idle  storm/handled/ioapic/21", "on", "split"} <= texts(
        (tmp_path / "x.svg").read_bytes()
    )


def test_plot_of_a_case_shows_its_counters_as_png(store, tmp_path):
    assert command.plot(store, f"{SUBJECT}/lab-kvm-off", None, tmp_path / "x.png") == (1, 1)

    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("case", "counter", "file", "said"),
    [
        (None, "no/such", "x.svg", "no counter matches 'no/such'"),
        ("no-case", None, "x.svg", "no case 'no-case'"),
        (None, None, "x.bmp", "expected one of"),
    ],
)
def test_plot_of_what_is_not_there_is_a_mistake(store, tmp_path, case, counter, file, said):
    with pytest.raises(ConfigError, match=said):
        command.plot(store, case, counter, tmp_path / file)
    assert not (tmp_path / file).exists()
