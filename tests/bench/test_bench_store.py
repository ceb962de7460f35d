"""The store: `history CASE` among a million case rows, and what it adds to a run.

Compare `entering_a_run` with how long such a run takes: half a minute a case in a lab.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.store.database import opened
from harness.store.queries import reading
from support.stored import SUBJECT, Nights, case, finding, night

CASES = 500
RUNS = 2000
NAME = "probe/q35/qemu64/smp1/lab-kvm-on-250"

MILLION = f"""
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {RUNS})
    INSERT INTO run SELECT i, 'token' || i, 'nightly', '/runs/' || i,
        strftime('%Y-%m-%dT03:00:00+0000', '2020-01-01', i || ' days'),
        strftime('%Y-%m-%dT05:00:00+0000', '2020-01-01', i || ' days'), '1', 0, {CASES}, 0, 0, NULL
    FROM n;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {CASES})
    INSERT INTO case_name SELECT i, 'probe/q35/qemu64/smp1/lab-kvm-on-' || i,
        'probe/q35/qemu64/smp1', 'lab-kvm-on-' || i, 'on', 'probe' FROM n;
    INSERT INTO versions VALUES (1, 'on', '10.0.13', '6.12.57');
    INSERT INTO case_result SELECT case_name.id, number, iif(number % 97, 'pass', 'storm'),
        number % 97 > 0, number % 31 = 0, 12.5, NULL, '', 1 FROM case_name JOIN run;
"""


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.sqlite"
    with opened(path, create=True) as connection:
        connection.execute(f"BEGIN; {MILLION} COMMIT")
        assert connection.execute("SELECT count(*) FROM case_result").get == CASES * RUNS
    return path


def test_bench_history_of_a_case(benchmark, million):
    """The whole command, as a user types it."""
    command = [sys.executable, "-m", "harness", "history", NAME, "--store", million]

    def history() -> bytes:
        return subprocess.run(command, capture_output=True, check=True, env=os.environ).stdout

    assert b"pass since run" in benchmark.pedantic(history, rounds=5, warmup_rounds=2)


def test_bench_query_of_a_case(benchmark, million):
    def query() -> int:
        with reading(million) as history:
            return len(history.case(NAME).nights)

    assert benchmark.pedantic(query, rounds=20, warmup_rounds=2) == RUNS


def test_bench_entering_a_run(benchmark, tmp_path):
    """A run of 500 cases with 100 findings, compared with the one before."""
    nights = Nights(tmp_path / "store.sqlite")
    parts = [f"part-{number}" for number in range(100)]

    def results() -> tuple[tuple[object], dict[str, object]]:
        cases = [case("on", id=f"{SUBJECT}/lab-kvm-on-{number}") for number in range(CASES)]
        found = [finding(part) for part in parts]
        return (night(*found, cases=[*map(case, ("on", "split", "off")), *cases]),), {}

    nights.enter(results()[0][0])
    assert benchmark.pedantic(nights.enter, setup=results, rounds=5) is not None
