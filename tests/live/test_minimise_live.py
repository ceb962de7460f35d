"""`irqmatrix minimise` on real backends: TCG against the Python chips, and the lab's split mode."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.scenario import compile as scenario_compile

pytestmark = pytest.mark.live

FORTY = Path(__file__).parents[1] / "support" / "scenarios" / "split-eoi-forty.yaml"


def minimised(folder: Path, *arguments: object, timeout_s: float = 300) -> dict:
    """What the command says as JSON."""
    result = ("--json", "--out", folder / "result.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "harness", "minimise", *map(str, (*arguments, *result))],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return json.loads(done.stdout)


def test_minimise_on_tcg_shows_what_is_left_on_qemu_itself(tmp_path):
    name = "ioapic-edge-raised-again-without-lowering"
    found = minimised(tmp_path, name, "--backend", "tcg", "--against", "model:on")

    assert found["finding"]["event"] == "irq 0x51"
    assert found["finding"]["what"] == "extra"
    assert (found["shown"], found["asked"]) == (3, 3)
    (scenario,) = scenario_compile.load(Path(found["path"]))
    assert scenario.steps == tuple(found["steps"])
    assert len(found["steps"]) < found["steps_before"]


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_minimise_forty_steps_in_the_lab_finds_the_eoi_that_split_loses(tmp_path):
    sides = ("--backend", "split,kernel=6.1", "--against", "on,kernel=6.1")
    found = minimised(tmp_path, "split-eoi-forty", "--file", FORTY, *sides, timeout_s=900)

    assert found["steps_before"] == 40
    assert len(found["steps"]) <= 12
    assert (found["finding"]["what"], found["finding"]["event"]) == ("missing", "irq 0x51")
    assert found["shown"] == found["asked"]
