"""How fast scenarios are predicted, on one core, by its CPU time: 1000 small ones a second."""

import time

import pytest

from harness.scenario.predict import predict
from support.scenario_programs import EOI, LEVEL, handler, ipi, line, program, rte
from userspace_chip.profile import profile

TARGET_PER_S = 1000
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
