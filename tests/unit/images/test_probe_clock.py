"""How fast the probe takes its time stamp counter to be (``images/probe/clock.c``)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.base import resources

SOURCE = Path(__file__).parents[2] / "support" / "probe_clock.c"
CYCLES_PER_US = 2596


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    target = tmp_path_factory.mktemp("clock") / "clock"
    folder = resources.images() / "probe"
    subprocess.run(["gcc", "-O1", f"-I{folder}", "-o", target, SOURCE], check=True)

    def measured(*stop: int) -> int:
        ran = subprocess.run([target, *map(str, stop)], check=True, capture_output=True, timeout=10)
        return int(ran.stdout)

    return measured


def test_clock_of_a_steady_guest_is_exact_to_a_percent(clock):
    assert clock() == pytest.approx(CYCLES_PER_US, rel=0.01)


@pytest.mark.parametrize("at", [2, 3, 4, 5, 6, 7, 50, 258, 700, 1200])
@pytest.mark.parametrize("stop_ms", [1, 1_000, 1_660, 1_700, 3_300, 4_290, 4_400, 9_000])
def test_clock_of_a_guest_that_is_stopped_once_is_not_disturbed(clock, at, stop_ms):
    assert clock(at, stop_ms * 1_000_000) == pytest.approx(CYCLES_PER_US, rel=0.01)


@pytest.mark.parametrize("at", [4, 5, 50, 258, 700, 1200])
@pytest.mark.parametrize("ahead_us", [100, 450, 5_000, 1_000_000])
def test_clock_of_a_host_whose_clock_catches_up_once_is_not_disturbed(clock, at, ahead_us):
    assert clock(at, 0, ahead_us * 1_000) == pytest.approx(CYCLES_PER_US, rel=0.01)


@pytest.mark.parametrize("before_us", [0, 30, 1_500, 6_000])
@pytest.mark.parametrize("after_us", [0, 30, 1_500, 6_000])
def test_clock_whose_yardstick_is_slow_to_read_is_not_disturbed(clock, before_us, after_us):
    slow = (before_us * 1_000, after_us * 1_000)
    assert clock(0, 0, 0, *slow) == pytest.approx(CYCLES_PER_US, rel=0.01)


def test_clock_whose_yardstick_takes_for_ever_to_read_is_about_right(clock):
    assert clock(0, 0, 0, 50_000_000, 50_000_000) == pytest.approx(CYCLES_PER_US, rel=0.3)
