"""A rule of the known differences taken away: exactly the cases concerned fail, in every report."""

from __future__ import annotations

import pytest
from junitparser import JUnitXml

from harness.base import resources
from harness.compare.diff import Subject, diff
from harness.compare.expectations import rules_due
from harness.compare.finding import findings
from harness.compare.known import KnownDifferences
from harness.report import files
from harness.report.checks import groups_of
from harness.report.run_view import RunView
from support import runs, tap_reader
from support.recorded_run import MODES, WORKLOADS, recorded
from support.showing import shown_run

DISK = "handled/ioapic/20:virtio0"
DOUBLED = """
version: 1
rules:
  - id: disk-twice
    kind: known-bug
    reason: a disk that interrupts twice, for this test
    link: https://example.org/twice
    match:
      a: {irqchip: split}
      workload: block-intx
      counter: handled/ioapic/20:virtio0
"""
VERSION = "monitor.ioapic.version"


@pytest.fixture
def known(tmp_path):
    """Loads the shipped rules and that of the disk from copies in a folder, without one rule."""
    for path in (resources.configs() / "known").glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "disk.yaml").write_text(DOUBLED)

    def load(without):
        for path in tmp_path.glob("*.yaml"):
            head, *rules = path.read_text().split("\n  - id: ")
            kept = [rule for rule in rules if rule.split("\n", 1)[0] != without]
            text = "\n  - id: ".join([head, *kept])
            path.write_text(text if kept else text.replace("rules:", "rules: []"))
        return KnownDifferences.in_folders([tmp_path])

    return load


def recorded_run(known):
    """The recorded run of all modes, whose disk interrupts twice with split."""
    measured = [recorded(mode) for mode in MODES if mode != "split"]
    measured.insert(1, recorded("split", **{DISK: 400}))
    compared = diff(Subject(runs.SUBJECT, "linux", "linux"), measured, known)
    return runs.run_of(
        runs.GOOD,
        comparisons=(compared.comparison,),
        findings=findings([compared]),
        rules=rules_due(known, compared.pairs),
    )


def named(run, tmp_path):
    """What terminal, JUnit and TAP call failed."""
    text = shown_run(run, tmp_path, width=500)
    lines = [line for line in text.splitlines() if "UNEXPLAINED  " in line]
    files.write(RunView.of(run), tmp_path, {"junit": tmp_path / "x.xml", "tap": tmp_path / "x.tap"})
    junit = {
        (suite.name, case.name)
        for suite in JUnitXml.fromfile(str(tmp_path / "x.xml"))
        for case in suite
        if case.is_failure or case.is_error
    }
    return lines, junit, tap_reader.failing(tap_reader.read((tmp_path / "x.tap").read_text()))


def test_run_with_all_its_rules_fails_nothing(known, tmp_path):
    run = recorded_run(known(without=None))

    assert run.summary.exit_status == 0
    assert named(run, tmp_path) == ([], set(), set())


@pytest.mark.parametrize(
    ("rule", "what", "check", "axis"),
    [
        ("ioapic-version", VERSION, VERSION, "irqchip: on | split, off, tcg"),
        ("disk-twice", f"block-intx {DISK} [guest]", "block-intx", "irqchip: on, off, tcg | split"),
    ],
)
def test_run_without_a_rule_fails_and_names_exactly_the_finding_concerned(
    known, tmp_path, rule, what, check, axis
):
    run = recorded_run(known(without=rule))

    lines, junit, tap = named(run, tmp_path)

    assert run.summary.exit_status == 1
    (line,) = lines
    assert line.startswith(f"UNEXPLAINED  {runs.SUBJECT}  {what}  [{axis}]")
    assert junit == tap == {("linux: backends compared", check)}


def test_recorded_run_has_a_check_a_workload_in_its_comparison(known):
    groups = groups_of(recorded_run(known(without=None)))
    (comparison,) = [group for group in groups if group.name.endswith("compared")]

    assert {*WORKLOADS} < {check.name for check in comparison.checks}
