"""The newest lane: Linux and every scenario of one CPU, in on and split; more every night."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.base.errors import ImageError
from harness.compare.diff import Status
from harness.config import lanes
from harness.images import ImageCache
from harness.replay.replay import replay_case
from support.live import execute, write_config

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]

SCENARIOS = Path(__file__).parents[2] / "configs" / "scenarios"
LINUX = {"kind": "linux", "workloads": ["block-intx", "block-msix"]}
PROBE = {"kind": "probe", "scenarios": [str(SCENARIOS / "*.yaml")]}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What ran, and where it is."""
    lane = lanes.named("newest")
    try:
        cache = ImageCache(offline=True)
        cache.kernel(lane.kernel), cache.qemu(lane.qemu)
    except ImageError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("newest")
    path = write_config(
        folder,
        [LINUX, PROBE],
        lane="newest",
        matrix={"host": "lab", "irqchip": ["on", "split"], "smp": 1},
        defaults={"timeout_s": 300},
        retries=1,
    )
    return execute(folder, path, only="*/smp1/*")


def test_newest_lane_shows_nothing_that_is_not_as_expected(ran):
    result, _ = ran

    assert [case.id for case in result.cases if not case.as_expected] == []
    assert len(result.cases) == 4
    assert [str(f) for f in result.findings if f.status is Status.UNEXPLAINED] == []


@pytest.mark.parametrize("irqchip", ["on", "split"])
def test_newest_lane_is_modelled_and_its_traces_are_read(ran, irqchip):
    result, out = ran
    (case,) = (
        case
        for case in result.cases
        if case.id.startswith("linux") and case.axes["irqchip"] == irqchip
    )

    replayed = replay_case(out / case.dir)

    assert replayed.warnings == ()
    assert replayed.compared > 10_000
    assert replayed.looks > 0 or replayed.divergence is not None
    assert "not modelled" not in case.full_detail
