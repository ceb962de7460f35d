"""Which QEMU runs a lab where the configuration names none."""

import dataclasses
from pathlib import Path

import pytest

from harness.base.versions import VersionRange
from harness.images.cache import ImageCache
from harness.images.model import QemuImage
from harness.images.runner import rating, soundest
from harness.model import lab_faults
from harness.model.lab_faults import MeasuredFault

TEN = QemuImage("10.0.13", (10, 0, 13), Path("/q"), ("/q",), (), (), "here")
SEVEN = dataclasses.replace(TEN, name="system", version=(7, 2, 22))
ELEVEN = dataclasses.replace(TEN, name="11.1.3", version=(11, 1, 3))


@pytest.fixture
def measured(monkeypatch):
    def measured(*found):
        values = tuple(MeasuredFault(VersionRange.parse(q), *counts) for q, *counts in found)
        monkeypatch.setattr(lab_faults, "measured", lambda: values)

    return measured


def test_runner_with_fewer_known_faults_is_sounder_whatever_was_measured(measured):
    measured(("7.2", 1000, 0), ("10.0", 96, 1))
    assert soundest([SEVEN, TEN]).qemu is TEN


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([("10.0", 96, 0), ("11.1", 96, 1)], TEN),
        ([("10.0", 96, 1), ("11.1", 200, 1)], ELEVEN),
        ([("10.0", 96, 0), ("11.1", 200, 0)], ELEVEN),
        ([("10.0", 96, 0)], TEN),
        ([("11.1", 10, 0)], ELEVEN),
    ],
    ids=["fewer-hang", "rarer", "more-boots", "measured", "other-measured"],
)
def test_runner_of_as_many_faults_is_the_one_in_which_fewer_boots_hung(measured, found, best):
    measured(*found)
    assert soundest([ELEVEN, TEN]).qemu is best


def test_runner_that_is_not_measured_says_so(measured):
    measured(("10.0", 96, 2))
    faults = len(rating(TEN).faults)
    assert str(rating(TEN)) == f"{faults} known faults, 2 of 96 boots with two CPUs hung"
    assert str(rating(ELEVEN)) == f"{faults} known faults, boots with two CPUs not measured"


def test_cache_runs_labs_with_the_soundest_qemu_that_is_there_or_the_one_that_is_named(
    tmp_path, monkeypatch
):
    cache = ImageCache(tmp_path, offline=True)
    monkeypatch.setattr(cache, "qemus", lambda: (SEVEN, TEN))
    monkeypatch.setattr(cache, "qemu", lambda name: {"7.2": SEVEN}[name])
    assert cache.lab_qemu() is TEN
    assert cache.lab_qemu("7.2") is SEVEN


def test_runner_of_no_qemu_at_all_is_refused():
    with pytest.raises(ValueError, match="empty"):
        soundest([])
