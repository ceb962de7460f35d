"""A rule of the known differences taken away: exactly the cases concerned fail, in every report."""

from __future__ import annotations

import io
import itertools

import pytest
from junitparser import JUnitXml
from rich.console import Console

from harness.base import resources
from harness.compare.diff import diff
from harness.compare.expectations import Compared, rules_due
from harness.compare.known import KnownDifferences
from harness.report import export
from harness.report.text.run_report import run_report
from support import runs, tap_reader
from support.recorded_run import MODES, WORKLOADS, recorded

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
    compared = [
        Compared(diff(runs.SUBJECT, "linux", a, b, known), a.facts, b.facts, "linux")
        for a, b in itertools.combinations(measured, 2)
    ]
    diffs = tuple(each.diff for each in compared)
    return runs.run_of(runs.GOOD, diffs=diffs, rules=rules_due(known, compared))


def named(run, tmp_path):
    """What terminal, JUnit and TAP call failed."""
    text = io.StringIO()
    run_report(Console(file=text, width=500), run, tmp_path)
    lines = [line for line in text.getvalue().splitlines() if "unexplained: " in line]
    export.write(run, junit=tmp_path / "x.xml", tap=tmp_path / "x.tap")
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
    ("rule", "what", "check", "others"),
    [
        ("ioapic-version", VERSION, VERSION, {"on": ("split", "off", "tcg")}),
        ("disk-twice", DISK, "block-intx", {"split": ("on", "off", "tcg")}),
    ],
)
def test_run_without_a_rule_fails_and_names_exactly_the_cases_concerned(
    known, tmp_path, rule, what, check, others
):
    run = recorded_run(known(without=rule))
    ((mode, partners),) = others.items()
    pairs = [
        f"{a} / {b}"
        for a, b in itertools.combinations(MODES, 2)
        if mode in (a, b) and {a, b} & {*partners}
    ]

    lines, junit, tap = named(run, tmp_path)

    assert run.summary.exit_status == 1
    assert lines == [f"  unexplained: {runs.SUBJECT}: {pair} ({what})" for pair in pairs]
    assert junit == tap == {(f"{runs.SUBJECT}: {pair}", check) for pair in pairs}


def test_recorded_run_has_a_check_a_workload_in_each_comparison(known):
    groups = export.groups_of(recorded_run(known(without=None)))
    comparisons = [group for group in groups if " / " in group.name]

    assert len(comparisons) == 6
    assert all({*WORKLOADS} < {check.name for check in group.checks} for group in comparisons)
