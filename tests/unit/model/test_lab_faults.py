"""Known faults of labs: the file that ships with us, versions, patterns, globs."""

import dataclasses

import pytest

from harness.base import resources
from harness.base.errors import ConfigError
from harness.compare.known import BackendFacts, KnownDifferences, Scope
from harness.model import lab_faults
from harness.model.case import Irqchip, Machine

FAULT = """
  - id: one
    what: something goes wrong
    cause: for a reason that is known
    link: docs/lab-faults.md
    avoid: another version of it
"""


def load(tmp_path, *more: str):
    path = tmp_path / "lab.yaml"
    path.write_text("version: 1\nfaults:" + FAULT + "".join(f"    {line}\n" for line in more))
    return lab_faults.load(path)


def test_shipped_faults_are_readable_and_say_what_avoids_them():
    faults = {fault.id: fault for fault in lab_faults.shipped()}
    assert set(faults) >= {"svm-cr8-window", "svm-int-n-again", "svm-shadow-lost", "tcg-no-ext-bit"}
    assert all(fault.avoid and fault.cause and fault.link for fault in faults.values())


LAB_ON = BackendFacts(Irqchip.ON, Machine.Q35, (7, 2, 22), (6, 1, 192), lab=(10, 0, 2))
TCG = BackendFacts(Irqchip.TCG, Machine.Q35, (7, 2, 22))


@pytest.mark.parametrize(
    ("backend", "rule"),
    [(LAB_ON, "svm-int-n-again"), (dataclasses.replace(LAB_ON, lab=None), None)],
)
def test_check_that_a_fault_fails_is_a_known_difference_from_tcg_in_such_labs_only(backend, rule):
    known = KnownDifferences.in_folders([resources.configs() / "known"])
    scope = Scope(TCG, backend, "flat-eventinj", "")
    found = known.for_check(scope, "NP exception", ("pass", "fail"))
    assert (None if found is None else found.id) == rule


@pytest.mark.parametrize(
    ("qemu", "linux", "is_there"),
    [
        ((7, 2, 22), (6, 12, 1), True),
        ((10, 0, 2), (6, 12, 1), False),
        ((7, 2, 22), (6, 1, 192), False),
        (None, None, True),
    ],
)
def test_fault_is_of_a_lab_of_its_versions(tmp_path, qemu, linux, is_there):
    (fault,) = load(tmp_path, 'qemu: "<10.0"', 'linux: ">=6.12"')
    assert fault.is_of(qemu, linux) is is_there


def test_fault_fails_the_checks_of_its_guest_only(tmp_path):
    (fault,) = load(tmp_path, "guest: flat-*inj*", "checks: [NP *]")
    assert fault.fails("flat-eventinj", "NP exception")
    assert not fault.fails("flat-eventinj", "PF exception")
    assert not fault.fails("flat-apic", "NP exception")


def test_fault_without_checks_fails_none(tmp_path):
    (fault,) = load(tmp_path)
    assert not fault.fails("flat-eventinj", "NP exception")


def test_death_is_of_the_fault_whose_words_were_said(tmp_path):
    faults = load(tmp_path, "aborts: f.* failed")
    assert lab_faults.of_death(faults, "x\nfoo has failed\n") is faults[0]
    assert lab_faults.of_death(faults, "something else") is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("aborts: '['", "not a regular expression"),
        ("qemu: 6.10", "in quotes"),
        ("guest: flat-a", "guest and checks go together"),
        ("fixed: yes", "unknown key 'fixed'"),
    ],
)
def test_fault_that_is_wrong_is_refused_with_its_line(tmp_path, line, why):
    with pytest.raises(ConfigError, match=rf"lab.yaml:\d+: .*{why}"):
        load(tmp_path, line)


def test_fault_of_an_id_that_another_has_is_refused(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text("version: 1\nfaults:" + FAULT + FAULT)
    with pytest.raises(ConfigError, match="duplicate fault 'one'"):
        lab_faults.load(path)
