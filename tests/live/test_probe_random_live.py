"""Random programs on the probe under TCG: each logs what the chips predict."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.backends.local import LocalSession
from harness.images.cache import ImageCache
from harness.scenario.compare import first_divergence
from support.probe_boot import logs_of, probe_case, run_here
from support.qemus import QEMUS, find_qemu
from support.random_programs import CPUS, random_programs

pytestmark = pytest.mark.live

PROGRAMS = 400
SEED = 1_000_000


@pytest.mark.parametrize("qemu", QEMUS)
def test_random_programs_log_on_tcg_what_the_chips_predict(qemu: str, tmp_path: Path):
    _, subject = find_qemu(qemu)
    predicted = random_programs(SEED, PROGRAMS, subject)
    programs = [program for program, _ in predicted]
    case = probe_case(programs, qemu=qemu, cpu="max", smp=CPUS)
    logs = logs_of(run_here(LocalSession(ImageCache(offline=True).qemu(qemu)), case, tmp_path))
    divergences = {
        program.name: divergence.describe(names=("model", "probe"))
        for program, log in predicted
        if (divergence := first_divergence(log, logs[program.name])) is not None
    }
    assert divergences == {}
    assert all(log.complete for log in logs.values())
