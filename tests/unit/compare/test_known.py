"""Rules of known differences: what they match, and what their files may say."""

import pytest

from harness.base.errors import ConfigError
from harness.compare.known import BackendFacts, Kind, KnownDifferences, Scope, load
from harness.model.case import Irqchip, Machine

ON = BackendFacts(Irqchip.ON, Machine.Q35, (7, 2, 22), (6, 1, 192))
SPLIT = BackendFacts(Irqchip.SPLIT, Machine.Q35, (7, 2, 22), (6, 1, 192))
TCG = BackendFacts(Irqchip.TCG, Machine.Q35, (7, 2, 22))

RULE = """\
version: 1
rules:
  - id: doubled
    kind: by-design
    reason: each line change is told twice
    link: https://example.org/doubled
    match:
      a: {irqchip: on}
      b: {irqchip: [split, off]}
      counter: raised/gsi/*
      source: kvm
    expect: {ratio: {min: 1.5, max: 2.5}}
"""


def known(tmp_path, text=RULE):
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    return KnownDifferences.load([path])


def rule_for(rules, a, b, values=(20, 10), path="raised/gsi/4", source="kvm"):
    found = rules.for_counter(Scope(a, b, "linux", "serial"), path, source, values)
    return None if found is None else found.id


def test_rule_has_its_words_and_its_line(tmp_path):
    (rule,) = known(tmp_path).rules

    assert rule.kind is Kind.BY_DESIGN
    assert rule.reason == "each line change is told twice"
    assert (rule.path.name, rule.line) == ("rules.yaml", 3)


def test_rule_with_bare_on_and_off_means_the_modes(tmp_path):
    (rule,) = known(tmp_path).rules

    assert rule.a.irqchip == {Irqchip.ON}
    assert rule.b.irqchip == {Irqchip.SPLIT, Irqchip.OFF}


def test_rule_explains_in_either_order(tmp_path):
    rules = known(tmp_path)

    assert rule_for(rules, ON, SPLIT, (20, 10)) == "doubled"
    assert rule_for(rules, SPLIT, ON, (10, 20)) == "doubled"


@pytest.mark.parametrize("values", [(10, 20), (10, 10), (30, 10), (None, 10), (20, None), (5, 0)])
def test_rule_with_other_values_than_expected_explains_nothing(tmp_path, values):
    assert rule_for(known(tmp_path), ON, SPLIT, values) is None


def test_rule_for_other_backends_explains_nothing(tmp_path):
    assert rule_for(known(tmp_path), ON, TCG) is None
    assert rule_for(known(tmp_path), ON, ON) is None


@pytest.mark.parametrize(("path", "source"), [("lowered/gsi/4", "kvm"), ("raised/gsi/4", "qemu")])
def test_rule_for_other_counters_explains_nothing(tmp_path, path, source):
    assert rule_for(known(tmp_path), ON, SPLIT, path=path, source=source) is None


def with_axis(text):
    return RULE.replace("{irqchip: on}", f"{{irqchip: on, {text}}}")


@pytest.mark.parametrize(
    ("axis", "explains"),
    [
        ('qemu: ">=9.1"', False),
        ('qemu: "<8"', True),
        ('qemu: "7.2"', True),
        ('linux: ">=6.1, <6.12"', True),
        ('linux: "6.12"', False),
        ("machine: q35", True),
        ("machine: [microvm, pc]", False),
    ],
)
def test_rule_holds_for_its_versions_and_machines_only(tmp_path, axis, explains):
    found = rule_for(known(tmp_path, with_axis(axis)), ON, SPLIT)

    assert (found == "doubled") is explains


def test_rule_with_range_does_not_hold_for_unknown_version(tmp_path):
    unknown = BackendFacts(Irqchip.ON, Machine.Q35)

    assert rule_for(known(tmp_path, with_axis('qemu: ">=1"')), unknown, SPLIT) is None


def test_rule_for_guest_and_workload_holds_for_those_only(tmp_path):
    text = RULE.replace(
        "      counter:", "      guest: linux*\n      workload: block-*\n      counter:"
    )
    rules = known(tmp_path, text)

    def found(guest, workload):
        return rules.for_counter(Scope(ON, SPLIT, guest, workload), "raised/gsi/4", "kvm", (2, 1))

    assert found("linux6.12", "block-intx") is not None
    assert found("linux", "serial") is None
    assert found("flat-x", "block-intx") is None


CHECK = RULE.replace(
    "      counter: raised/gsi/*\n      source: kvm\n", "      check: '*version'\n"
)


def test_check_rule_compares_numbers_in_any_base(tmp_path):
    rules = known(tmp_path, CHECK.replace("ratio: {min: 1.5, max: 2.5}", "a: {max: 17}"))
    scope = Scope(SPLIT, ON, "linux", "")

    assert rules.for_check(scope, "monitor.version", ("0x20", "0x11")).id == "doubled"
    assert rules.for_check(scope, "monitor.version", ("0x20", "0x12")) is None
    assert rules.for_check(scope, "monitor.version", ("0x20", "absent")) is None
    assert rules.for_check(scope, "monitor.id", ("0x20", "0x11")) is None


def test_check_rule_without_expectation_takes_any_result(tmp_path):
    rules = known(tmp_path, CHECK.replace("    expect: {ratio: {min: 1.5, max: 2.5}}\n", ""))

    assert rules.for_check(Scope(ON, SPLIT, "flat-x", ""), "version", ("PASS", "FAIL")) is not None


def test_check_rule_is_no_counter_rule(tmp_path):
    assert rule_for(known(tmp_path, CHECK), ON, SPLIT, path="version") is None


@pytest.mark.parametrize(
    ("kind", "occurs", "always"),
    [
        ("by-design", "", False),
        ("by-design", "    occurs: always\n", True),
        ("known-bug", "", True),
        ("known-bug", "    occurs: sometimes\n", False),
    ],
)
def test_rule_of_a_bug_occurs_always_unless_it_says_otherwise(tmp_path, kind, occurs, always):
    (rule,) = known(tmp_path, RULE.replace("by-design", kind) + occurs).rules

    assert rule.always is always


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_folder_without_rules_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConfigError, match=f"{name}: no known differences there"):
        KnownDifferences.in_folders([tmp_path / name])


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("kind: by-design", "kind: by-chance", 4, "by-chance"),
        ("    kind: by-design\n", "", 3, "kind"),
        ("reason: each line change is told twice", "reason: so", 5, "reason"),
        ("https://example.org/doubled", "somewhere", 6, "link"),
        ("{irqchip: on}", "{irqchip: maybe}", 8, "maybe"),
        ("{irqchip: on}", "{irqchips: on}", 8, "did you mean 'irqchip'"),
        ("{irqchip: on}", "{irqchip: on, qemu: 6.10}", 8, "quotes"),
        ("{irqchip: on}", "{irqchip: on, qemu: new}", 8, "not a version term"),
        ("{irqchip: on}", "{irqchip: []}", 8, "irqchip"),
        ("source: kvm", "source: kvn", 11, "kvn"),
        ("counter: raised/gsi/*", "check: x", 7, "source is only for a counter"),
        ("      counter: raised/gsi/*\n      source: kvm\n", "", 7, "either counter or check"),
        ("{min: 1.5, max: 2.5}", "{min: 2.5, max: 1.5}", 12, "above max"),
        ("{min: 1.5, max: 2.5}", "{}", 12, "min, max or both"),
        ("version: 1", "version: 2", 1, "version"),
        ("- id: doubled", "- id: Doubled!", 3, "Doubled!"),
    ],
)
def test_file_with_mistake_is_refused_with_its_line(tmp_path, old, new, line, says):
    assert old in RULE

    with pytest.raises(ConfigError, match=says) as caught:
        known(tmp_path, RULE.replace(old, new))

    assert caught.value.path == tmp_path / "rules.yaml"
    assert caught.value.line == line


def test_file_with_rule_of_another_file_is_refused(tmp_path):
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(RULE)

    with pytest.raises(ConfigError, match=r"b\.yaml:3: duplicate rule 'doubled'"):
        KnownDifferences.load([tmp_path / "a.yaml", tmp_path / "b.yaml"])


def test_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_shipped_rules_are_valid_and_well_named():
    rules = KnownDifferences.shipped().rules

    assert {"ioapic-version", "isa-double-line", "hpet-ghost", "split-eoi-lost"} <= {
        rule.id for rule in rules
    }


def test_shipped_ioapic_version_is_explained_in_either_order():
    rules = KnownDifferences.shipped()

    def found(a, b, values):
        return rules.for_check(Scope(a, b, "linux", ""), "monitor.ioapic.version", values)

    assert found(ON, TCG, ("0x11", "0x20")).id == "ioapic-version"
    assert found(SPLIT, ON, ("0x20", "0x11")).id == "ioapic-version"
    assert found(ON, SPLIT, ("0x20", "0x11")) is None


def test_shipped_hpet_ghost_needs_qemu_9_1():
    rules = KnownDifferences.shipped()
    new = BackendFacts(Irqchip.ON, Machine.Q35, (10, 0, 13), (6, 12, 95))

    def found(on):
        scope = Scope(SPLIT, on, "linux", "idle")
        return rules.for_counter(scope, "storm/lowered/gsi/0", "kvm", (0, 2020))

    assert found(new).id == "hpet-ghost"
    assert found(ON) is None
