"""The plugin as pytest sees it, in a pytest of its own."""

from __future__ import annotations

import pytest

# What a pytest in this process imports it forgets again, but not what is there before.
import harness.run.pipeline
import harness.scenario.choice  # noqa: F401

SCENARIOS = """
version: 1
scenarios:
  edge:
    about: an edge is delivered
    steps:
      - ioapic.redir.14: {vector: 0x51, dest: cpu0}
      - line: {14: pulse}
  edge-of-two:
    about: an edge is delivered twice
    steps:
      - ioapic.redir.14: {vector: 0x51, dest: cpu0}
      - line: {14: pulse}
      - line: {14: pulse}
"""
TEST = """
import pytest

@pytest.mark.irqchip_scenarios({arguments})
def test_mine(irqchip_result):
    irqchip_result.check()
"""


@pytest.fixture
def suite(pytester):
    """A suite with two scenarios; give it the marker's arguments."""
    (pytester.path / "two.yaml").write_text(SCENARIOS)

    def make(arguments='"two.yaml"'):
        pytester.makepyfile(TEST.format(arguments=arguments))
        return pytester

    return make


def collected(pytester, *options):
    return pytester.runpytest_inprocess("--collect-only", "-q", *options)


def test_plugin_marker_gives_a_test_for_each_irqchip_and_scenario(suite):
    found = collected(suite(), "--irqchip", "on,tcg")
    names = [line.split("[")[1][:-1] for line in found.outlines if "[" in line]
    assert names == ["on-edge", "on-edge-of-two", "tcg-edge", "tcg-edge-of-two"]


def test_plugin_only_keeps_the_scenarios_that_match(suite):
    found = collected(suite('"*.yaml", only="*-two"'))
    (name,) = (line for line in found.outlines if "[" in line)
    assert name.endswith("[tcg-edge-of-two]")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ('"two.yaml"', ["--irqchip", "in,tcg"], "in is not a backend"),
        ('"two.yaml"', ["--irqchip", ","], "nothing is not a backend"),
        ('"none.yaml"', [], "no file of scenarios matches 'none.yaml'"),
    ],
)
def test_plugin_with_a_mistake_says_which_before_any_test(suite, arguments, options, message):
    found = collected(suite(arguments), *options)
    assert found.ret in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED)
    assert message in found.stdout.str() + found.stderr.str()


def test_plugin_scenario_with_a_mistake_names_file_and_step(suite):
    pytester = suite()
    path = pytester.path / "two.yaml"
    path.write_text(SCENARIOS.replace("14: pulse", "99: pulse", 1))
    found = collected(pytester)
    assert "two.yaml" in found.stdout.str()
    assert "step 1" in found.stdout.str()


def test_plugin_fixture_without_the_marker_says_what_is_missing(suite):
    pytester = suite()
    pytester.makepyfile("def test_mine(irqchip_result): pass")
    assert "needs @pytest.mark.irqchip_scenarios" in collected(pytester).stdout.str()
