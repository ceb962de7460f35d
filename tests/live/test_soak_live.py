"""The short form of `make soak`: every fault once, on small images, and some cases in a row."""

import subprocess
import sys

import pytest

from support import golden

pytestmark = [pytest.mark.live, pytest.mark.slow]


def test_soak_every_fault_once_leaves_results_and_nothing_else():
    done = subprocess.run(
        [sys.executable, "-m", "soak", "--minutes", "0", "--cases", "100", "--no-labs"],
        cwd=golden.TESTS,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
