"""`irqmatrix run --deterministic`: two runs under TCG are the same, instruction by instruction."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.live import LOCAL_TCG, write_config

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(300)]

LINUX = {"kind": "linux", "workloads": ["idle", "serial"], "parameters": {"idle": {"seconds": "1"}}}
PROBE = {"kind": "probe", "scenarios": ["configs/scenarios/ipi.yaml"]}


def run(out: Path, config: Path) -> dict:
    """``result.json`` of a deterministic run."""
    command = [sys.executable, "-m", "harness", "run", config, "--deterministic", "--out", out]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode in (0, 3), done.stderr
    return json.loads((out / "result.json").read_text())


def record(folder: Path) -> dict[str, object]:
    """What a case recorded of its guest.  Times of events are this machine's, and left out."""
    found: dict[str, object] = {"console": (folder / "console.log").read_text()}
    for name in ("counters.json", "scenarios.json"):
        if (folder / name).exists():
            found[name] = json.loads((folder / name).read_text())
    if (folder / "events.jsonl").exists():
        lines = (folder / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        found["events"] = [{**event, "ns": None} for event in events]
    return found


def test_deterministic_linux_and_probe_record_the_same_twice(tmp_path):
    config = write_config(tmp_path, [LINUX, PROBE])
    results = [run(tmp_path / out, config) for out in ("one", "two")]

    assert {case["verdict"] for case in results[0]["cases"]} == {"pass"}
    for case in results[0]["cases"]:
        one, two = (record(tmp_path / out / case["dir"]) for out in ("one", "two"))
        assert one == two
        if case["guest"] == "linux":
            assert len(one["events"]) > 10_000
            assert {event.get("source") for event in one["events"]} == {None, "qemu"}  # the header
            assert one["counters.json"]["serial"]["counters"]
        else:
            assert len(one["scenarios.json"]) > 1


def test_deterministic_under_kvm_is_skipped_and_says_why(tmp_path):
    matrix = {"host": "local", "accel": "kvm", "irqchip": "on"}
    result = run(tmp_path / "out", write_config(tmp_path, [PROBE], matrix=LOCAL_TCG | matrix))

    assert {case["verdict"] for case in result["cases"]} == {"skip"}
    assert "--deterministic is for TCG" in result["cases"][0]["detail"]
    assert result["summary"]["exit_status"] == 3
