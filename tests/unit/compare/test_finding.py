"""What several subjects and backends differ in, each thing once, with its axis."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter

from harness.compare.diff import Measurement, Status, Subject, diff
from harness.compare.finding import Finding, Member, findings
from harness.compare.known import BackendFacts, KnownDifferences
from harness.model.case import Irqchip, Machine
from support import seven

NOTHING = KnownDifferences(())
MODES = ("on", "split", "off", "tcg")
RULE = """\
version: 1
rules:
  - id: on-has-its-own
    kind: by-design
    reason: it is so because it was made so
    link: https://example.org/on
    match: {a: {irqchip: "on"}, check: "*"}
"""


@pytest.fixture
def rule(tmp_path):
    """Known differences: what ``on`` does otherwise than the others."""
    path = tmp_path / "rules.yaml"
    path.write_text(RULE)
    return KnownDifferences.load([path])


def compared(saw, *, machine="q35", smp=1, family="probe", known=NOTHING, modes=MODES):
    """A subject of which the mode says what was seen, check by check."""
    subject = Subject(
        f"{family}/{machine}/smp{smp}", family, family, {"machine": machine, "smp": str(smp)}
    )
    measured = [
        Measurement(
            f"lab-{mode}",
            BackendFacts(Irqchip(mode), Machine(machine)),
            {},
            {check: results.get(mode, results["*"]) for check, results in saw.items()},
            {"irqchip": mode},
        )
        for mode in modes
    ]
    return diff(subject, measured, known)


def test_28_cases_with_seven_scenarios_that_differ_are_seven_findings_with_their_axes():
    found = findings(seven.compared(NOTHING))

    assert len(seven.results()) == 28
    assert {finding.part: finding.axis for finding in found} == {
        "ioapic-version": "irqchip: on | split, off, tcg",
        "qemu-renamed": "QEMU: 7.2 | 10.0",
        "emulated-apic": "irqchip: on, split | off, tcg",
        "lost-eoi": "Linux: 6.12 | 6.1, only in split",
        "kernel-changed": "Linux: 6.1 | 6.12, TCG",
        "three-ways": "irqchip: on | split | off, tcg",
        "new-qemu-tcg": "QEMU: 7.2 | 10.0, only in tcg",
    }
    assert len(found) == 7
    assert {finding.status for finding in found} == {Status.UNEXPLAINED}


def test_finding_says_what_each_group_saw():
    (found,) = [f for f in findings(seven.compared(NOTHING)) if f.part == "lost-eoi"]

    assert {group.label: (group.saw, len(group.members)) for group in found.groups} == {
        "the others": ("step 1, CPU 0: irq 0x51", 12),
        "split, Linux 6.1": ("step 1, CPU 0: timeout 0x0", 2),
    }


def test_same_difference_in_several_subjects_is_one_finding():
    saw = {"version": {"on": "0x11", "*": "0x20"}}
    (found,) = findings(compared(saw, machine=m, smp=n) for m in ("q35", "pc") for n in (1, 2))

    assert found.axis == "irqchip: on | split, off, tcg"
    assert found.subject == "probe/*/*"
    assert [len(group.members) for group in found.groups] == [4, 12]


def test_difference_that_one_machine_alone_shows_says_so():
    differs = compared({"version": {"split": "0x11", "*": "0x20"}}, machine="pc")
    agrees = compared({"version": {"*": "0x20"}}, machine="q35")
    (found,) = findings([differs, agrees])

    assert found.axis == "machine: q35 | pc, only in split"
    assert sum(len(group.members) for group in found.groups) == 8


def test_difference_where_another_subject_saw_something_else_says_where_it_is():
    differs = compared({"version": {"split": "0x11", "*": "0x20"}}, machine="pc")
    agrees = compared({"version": {"*": "0x30"}}, machine="q35")
    (found,) = findings([differs, agrees])

    assert found.axis == "irqchip: on, off, tcg | split, only on pc"


def test_differences_that_part_the_backends_otherwise_are_findings_of_their_own():
    one = compared({"version": {"split": "0x11", "*": "0x20"}}, machine="pc")
    other = compared({"version": {"on": "0x11", "*": "0x20"}}, machine="q35")

    assert [finding.subject for finding in findings([one, other])] == [
        "probe/pc/smp1",
        "probe/q35/smp1",
    ]


def test_differences_that_are_each_others_reverse_are_not_put_together():
    one = compared({"version": {"on": "0x11", "*": "0x20"}}, machine="pc")
    other = compared({"version": {"on": "0x20", "*": "0x11"}}, machine="q35")

    assert [finding.axis for finding in findings([one, other])] == [
        "irqchip: on | split, off, tcg",
        "irqchip: on | split, off, tcg",
    ]


def test_subjects_of_other_guests_are_not_put_together():
    saw = {"version": {"on": "0x11", "*": "0x20"}}

    assert len(findings([compared(saw), compared(saw, family="linux")])) == 2


def test_rule_explains_the_finding_as_a_whole(rule):
    saw = {"version": {"on": "0x11", "*": "0x20"}}
    (found,) = findings([compared(saw, known=rule), compared(saw, machine="pc", known=rule)])

    assert (found.status, found.rule) == (Status.BY_DESIGN, "on-has-its-own")
    assert found.left == ()


def test_rule_that_explains_only_some_of_the_groups_leaves_a_finding_that_says_which(rule):
    saw = {"version": {"on": "0x11", "tcg": "0x30", "*": "0x20"}}
    (found,) = findings([compared(saw, known=rule)])

    assert (found.status, found.rules) == (Status.UNEXPLAINED, ("on-has-its-own",))
    assert found.left == ("split, off | tcg",)


def test_findings_that_nothing_explains_come_first(rule):
    saw = {"design": {"on": "0x11", "*": "0x20"}, "bug": {"tcg": "0x11", "*": "0x20"}}

    assert [finding.part for finding in findings([compared(saw, known=rule)])] == ["bug", "design"]


def test_backends_that_are_alike_on_all_axes_have_no_axis():
    measured = [
        Measurement(name, BackendFacts(Irqchip.ON, Machine.Q35), {}, {"x": name}, {})
        for name in ("once", "again")
    ]
    (found,) = findings([diff(Subject("probe", "probe", "probe"), measured, NOTHING)])

    assert found.axis == "no axis"


def test_finding_knows_the_group_of_a_member():
    (found,) = findings([compared({"version": {"on": "0x11", "*": "0x20"}})])

    assert found.saw(Member("probe/q35/smp1", "lab-on")).saw == "0x11"
    assert found.saw(Member("probe/q35/smp1", "elsewhere")) is None


def test_finding_survives_json():
    found = findings(seven.compared(NOTHING))
    adapter = TypeAdapter(tuple[Finding, ...])

    assert adapter.validate_python(json.loads(adapter.dump_json(found))) == found
