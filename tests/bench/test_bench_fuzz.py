"""How fast random programs run in a lab, and what a second lab beside it brings; by the clock.

At least 60 programs a second of one lab are wanted, and 1.8 times as much of two side by side, on a
machine with two CPUs that does nothing else; the limits here hold on a busy one.  What a boot costs
is not counted in the first: of many programs it is little.
"""

from __future__ import annotations

import asyncio
import os
import time
from itertools import islice
from pathlib import Path

import pytest

from harness.fuzz import grammar
from harness.fuzz.campaign import DEFAULT_CPU
from harness.fuzz.programs import Source
from harness.fuzz.runner import Runner
from harness.images.cache import ImageCache
from harness.model.case import Machine
from harness.repro.bench import Bench, Stage, parse
from harness.scenario.program import Scenario
from userspace_chip.profile import profile

pytestmark = [pytest.mark.lab, pytest.mark.slow]

FEW, MANY = 20, 320
SIDES = tuple(parse(f"lab:{mode},kernel=6.12") for mode in ("on", "split"))


def scenarios(number: int) -> list[Scenario]:
    """Random programs of one CPU."""
    source = Source(1, grammar.selected("mixed"), (profile("on"), profile("split")))
    alone = (one.scenario for one in source.programs() if one.scenario.program.cpus == 1)
    return list(islice(alone, number))


def seconds(folder: Path, sides: tuple, jobs: int, wanted: list[Scenario]) -> float:
    """How long ``wanted`` take on ``sides``, boots and all."""
    stage = Stage(Machine.Q35, DEFAULT_CPU, jobs, folder)
    began = time.perf_counter()
    ran = asyncio.run(Runner(Bench(stage, ImageCache())).run(sides, wanted))
    took_s = time.perf_counter() - began
    assert all(one.whole is not None for of_side in ran.values() for one in of_side)
    return took_s


def test_bench_random_programs_in_a_lab(benchmark, tmp_path):
    wanted = scenarios(MANY)

    def measured() -> float:
        few, many = (seconds(tmp_path / f"{n}", SIDES[:1], 1, wanted[:n]) for n in (FEW, MANY))
        return (MANY - FEW) / (many - few)

    rate = benchmark.pedantic(measured, rounds=1)
    benchmark.extra_info["programs_per_s"] = round(rate, 1)
    assert rate > 3


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two labs want two CPUs")
def test_bench_two_labs_side_by_side(benchmark, tmp_path):
    """Two labs of one kernel each have half of the boots."""
    wanted = scenarios(MANY)

    def measured() -> float:
        one, two = (seconds(tmp_path / f"{jobs}", SIDES, jobs, wanted) for jobs in (1, 2))
        return one / two

    factor = benchmark.pedantic(measured, rounds=1)
    benchmark.extra_info["times_as_fast"] = round(factor, 2)
    assert factor > 0.8
