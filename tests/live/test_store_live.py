"""The store under runs that are killed, with real QEMUs under TCG."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.store.database import opened
from harness.store.queries import reading
from support.live import flat, write_config

pytestmark = pytest.mark.live

MOMENTS = 10


def start(config: Path, folder: Path, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness", "run", config, "--out", folder / f"out-{number}"]
    command += ["--store", folder / "store.sqlite", "--baseline"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_runs_killed_at_ten_moments_leave_a_whole_store_and_the_next_is_clean(tmp_path, flats):
    config = write_config(tmp_path, [flat(flats["passing"])], name="killed")
    moments = random.Random(17)
    started = time.monotonic()
    with start(config, tmp_path, 0) as whole:
        assert whole.wait(120) == 0
    duration_s = time.monotonic() - started

    for number in range(1, MOMENTS + 1):
        with start(config, tmp_path, number) as run:
            try:
                run.wait(moments.uniform(0.2, 1.0) * duration_s)
            except subprocess.TimeoutExpired:
                run.kill()
            run.wait()

    with start(config, tmp_path, MOMENTS + 1) as clean:
        assert (clean.wait(120), clean.stderr.read()) == (0, b"")
    with opened(tmp_path / "store.sqlite") as connection:
        assert connection.pragma("integrity_check") == "ok"
    with reading(tmp_path / "store.sqlite") as history:
        first, *killed, last = history.runs()
        rows = {run.number: len(history.nights_of_run(run.number)) for run in killed}
        assert first.is_complete
        assert last.is_complete
        assert len(history.nights_of_run(last.number)) == 1
        assert any(not run.is_complete for run in killed)
        assert rows == {run.number: int(run.is_complete) for run in killed}
