"""A run in the lab that is interrupted while its guest talks: everything goes down."""

from __future__ import annotations

import signal
import sys

import pexpect
import pytest

from support.live import write_config

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]


def test_run_in_the_lab_interrupted_while_the_guest_talks_is_status_130(tmp_path):
    guest = {"kind": "probe", "scenarios": ["configs/scenarios/*.yaml"]}
    config = write_config(tmp_path, [guest], matrix={"host": "lab", "irqchip": ["split"]})
    arguments = ["-m", "harness", "run", str(config), "--out", str(tmp_path / "out"), "--jobs", "1"]
    child = pexpect.spawn(sys.executable, arguments, timeout=120, encoding="utf-8")
    child.setwinsize(50, 200)
    try:
        child.expect(r"scenario \d+ of \d+")
        child.kill(signal.SIGTERM)
        child.expect("interrupted")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    assert child.exitstatus == 130
