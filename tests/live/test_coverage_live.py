"""Coverage of a real KVM in the lab: recorded, and as a table with the real debug package."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from rich.console import Console

from harness.base import resources
from harness.commands import coverage
from harness.commands.coverage import CoverageOptions
from harness.config import config
from harness.coverage.account import executed_in
from harness.images.cache import ImageCache
from harness.images.kernel import kernel_build
from harness.model.coverage import by_build
from harness.model.layout import RunDir
from harness.record import executed_file
from harness.run import pipeline
from support.live import write_config

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

SCENARIOS = resources.configs() / "scenarios" / "ioapic-edge.yaml"


def recorded(folder: Path, lane: str | None = None) -> Path:
    """A run of the scenarios of the IOAPIC's edges, with coverage: its folder."""
    path = write_config(
        folder,
        [{"kind": "probe", "scenarios": [str(SCENARIOS)]}],
        matrix={"host": "lab", "irqchip": "on"},
        defaults={"timeout_s": 240},
    )
    loaded = config.with_coverage(config.load(path, lane=lane))
    request = pipeline.RunRequest(loaded, folder / "out", None, 1)
    _, out = asyncio.run(pipeline.run(request, Console(quiet=True), quiet=True))
    return out


def test_lab_records_what_its_kvm_executes_and_the_floor(tmp_path):
    out = recorded(tmp_path)

    (executed,) = by_build(executed_in(out)).values()
    assert executed.build_id == kernel_build(ImageCache().kernel()).build_id
    (floor,) = executed_file.read(RunDir(out).floor)
    assert floor.build_id == executed.build_id
    # KVM has far more than that, and little of it runs whatever a guest does.
    assert 10_000 < len(floor.offsets[".text"]) < len((executed | floor).offsets[".text"]) < 100_000


@pytest.mark.nightly
@pytest.mark.parametrize("lane", ["oldest", "newest"])
def test_table_of_a_real_run_has_every_file_and_more_than_the_floor(tmp_path, lane, capsys):
    """With the debug package of that very kernel, which is downloaded where it is not cached."""
    coverage.run(CoverageOptions([recorded(tmp_path, lane)], json=True))

    (build,) = json.loads(capsys.readouterr().out)
    for name, counts in build["files"].items():
        if name not in ("virt/kvm/eventfd.c", "all"):
            assert counts["lines"]["floor"] / counts["lines"]["all"] > 0.3, name
    whole = build["files"]["all"]["lines"]
    assert whole["all"] > 2500
    assert whole["floor"] < whole["reached"] < whole["all"]
    assert build["files"]["arch/x86/kvm/ioapic.c"]["lines"]["reached"] > 150
