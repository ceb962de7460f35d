"""Scenarios as somebody else's tests, on a real QEMU."""

from __future__ import annotations

import pytest

# What a pytest in this process imports it forgets again, but not what is there before.
import harness.run.pipeline
import harness.scenario.choice  # noqa: F401

SCENARIOS = """
version: 1
scenarios:
  right:
    about: an edge is delivered
    steps:
      - ioapic.redir.14: {vector: 0x51, dest: cpu0}
      - line: {14: pulse}
  wrong:
    about: an edge is expected twice, which no IOAPIC does
    steps:
      - ioapic.redir.14: {vector: 0x51, dest: cpu0}
      - line: {14: pulse}
    expect:
      - {vectors: [0x51, 0x51]}
"""
TEST = """
import pytest

@pytest.mark.irqchip_scenarios("two.yaml")
def test_mine(irqchip_result):
    irqchip_result.check()
"""


@pytest.mark.live
def test_plugin_on_tcg_passes_what_is_right_and_fails_what_is_wrong(pytester):
    (pytester.path / "two.yaml").write_text(SCENARIOS)
    pytester.makepyfile(TEST)
    found = pytester.runpytest_inprocess("-q")
    found.assert_outcomes(passed=1, failed=1)
    assert "expected vectors 0x51, 0x51; found 0x51" in found.stdout.str()
