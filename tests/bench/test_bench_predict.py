"""How fast scenarios are predicted, and random programs generated, on one core, by its CPU time.

Wanted are 3,000 small scenarios and 400 programs with their checks a second on a machine that does
nothing else; the limits here hold on a busy one.
"""

import time

import pytest

from harness.scenario.predict import predict
from support.fuzz_programs import fuzz_programs
from support.scenario_programs import EOI, LEVEL, handler, ipi, line, program, rte
from userspace_chip.profile import profile

TARGET_PER_S = 1000
PROGRAMS = 60
PROGRAMS_PER_S = 100
SCENARIOS = 200
SMALL = program(
    rte(14, 0x51 | LEVEL),
    line(14, 1),
    ipi(0x40, dest=1),
    cpus=2,
    handlers=(handler(0x51, pins=1 << 14),),
    blocks=[(line(14, 0), EOI)],
)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("mode", ["on", "split", "off", "tcg"])
def test_bench_small_scenarios_predicted(benchmark, mode):
    subject = profile(mode)

    def predict_many():
        for _ in range(SCENARIOS):
            predict(SMALL, subject)

    predict(SMALL, subject)  # the prologue is predicted once
    benchmark(predict_many)
    per_s = SCENARIOS / benchmark.stats.stats.min
    benchmark.extra_info["scenarios_per_s"] = round(per_s)
    assert per_s > TARGET_PER_S


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("mode", ["on", "split", "off", "tcg"])
def test_bench_random_programs_generated_with_their_checks(benchmark, mode):
    subject = profile(mode)
    fuzz_programs(0, 5, subject)  # the prologues are predicted once
    made = benchmark(lambda: fuzz_programs(1000, PROGRAMS, subject))
    per_s = len(made) / benchmark.stats.stats.min
    benchmark.extra_info["programs_per_s"] = round(per_s)
    assert per_s > PROGRAMS_PER_S
