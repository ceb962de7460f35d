"""What the harness costs over a bare QEMU: a flat image under TCG, alone and among twenty.

Compare `case` and `twenty_cases` (divided by twenty) with `bare_qemu`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.backends.local import LocalSession
from harness.guests.plan import GuestPlan
from harness.images.cache import ImageCache
from harness.model.case import FlatGuest
from support import cases, flat_image
from support.live import execute, flat, write_config

CASES = 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flat_image.build(tmp_path_factory.mktemp("flat"), "ok", "PASS: one\n")


def test_bench_bare_qemu(benchmark, image):
    session = LocalSession(ImageCache().qemu())
    plan = GuestPlan(cases.case(FlatGuest(image)), image, None, trace_log=False, paused=False)
    command = session.command(plan).replace("\\\n", "")

    def bare() -> int:
        return subprocess.run(
            ["sh", "-c", f"exec {command}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        ).returncode

    assert benchmark.pedantic(bare, rounds=10, warmup_rounds=2) == 1


def _run(folder: Path, path: Path) -> int:
    result, _ = execute(folder, path, jobs=1)
    return result.summary.exit_status


def test_bench_case(benchmark, image, tmp_path):
    path = write_config(tmp_path, [flat(image)])
    assert benchmark.pedantic(_run, args=(tmp_path, path), rounds=10, warmup_rounds=2) == 0


def test_bench_twenty_cases(benchmark, image, tmp_path):
    path = write_config(tmp_path, [flat(image)], repeat=CASES)
    assert benchmark.pedantic(_run, args=(tmp_path, path), rounds=3, warmup_rounds=1) == 0
