"""How fast the probe runs scenarios in one boot, and how long a boot takes, under TCG."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from harness.backends.local import LocalSession
from harness.guests.plan import GuestPlan
from harness.images.cache import ImageCache
from harness.scenario.program import Program
from support import probe_programs as programs
from support.probe_boot import probe_case, write_programs

SCENARIOS = 1000


def boot(benchmark, folder: Path, made: list[Program]) -> str:
    """What the probe says; a bare QEMU, so that nothing but QEMU and the probe is measured."""
    cache = ImageCache()
    case = probe_case(made)
    file = write_programs(case, folder / "programs")
    plan = GuestPlan(case, cache.probe(), file, trace_log=False, paused=False)
    command = LocalSession(cache.qemu()).command(plan).replace("\\\n", " ")

    def run() -> str:
        return subprocess.run(
            shlex.split(command, comments=True),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout

    return benchmark.pedantic(run, rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("made", [programs.busy(), programs.ipis()], ids=["one CPU", "two CPUs"])
def test_bench_a_thousand_scenarios(benchmark, tmp_path, made):
    """Eight steps and three interrupts each; at least 8,000 a second of CPU time are wanted."""
    said = boot(benchmark, tmp_path, [programs.without_slow_prologue(made)] * SCENARIOS)
    benchmark.extra_info["scenarios"] = SCENARIOS
    assert said.count("\n. ") == SCENARIOS


def test_bench_launch_to_first_scenario(benchmark, tmp_path):
    """At most 0.3 s are wanted."""
    said = boot(benchmark, tmp_path, [programs.without_slow_prologue(programs.busy())])
    assert said.count("\n. ") == 1
