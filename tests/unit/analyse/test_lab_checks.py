"""Checks that a known fault of the lab fails: as expected there, and nowhere else."""

import dataclasses

import pytest

from harness.analyse import lab_checks
from harness.model import manifest
from harness.model.lab_faults import LabFault
from harness.model.verdict import NOT_REACHED, Blame, PartResult, Verdict
from support import cases

CASE = dataclasses.replace(
    manifest.describe(cases.case(), qemu="7.2.22", linux="6.1.192", lab_qemu="10.0.2"),
    guest="flat-eventinj",
)
FAULT = LabFault("int-n", "INT n", "there", "docs/x", "a KVM", guest="flat-*inj*", checks=("NP *",))
FAILED = PartResult("NP exception", Verdict.FAIL, "FAIL: NP exception")


def test_check_that_a_fault_of_its_lab_fails_is_as_expected_and_the_labs():
    (part,) = lab_checks.explained([FAILED], CASE, [FAULT])
    assert (part.as_expected, part.blame) == (True, Blame.LAB)
    assert "known fault of labs int-n" in part.detail


@pytest.mark.parametrize(
    "case",
    [
        None,
        dataclasses.replace(CASE, lab_qemu=None),
        dataclasses.replace(CASE, guest="flat-apic"),
    ],
)
def test_check_of_another_guest_or_without_such_a_lab_stays(case):
    assert lab_checks.explained([FAILED], case, [FAULT]) == (FAILED,)


@pytest.mark.parametrize(
    "part",
    [
        PartResult("NP exception", Verdict.PASS),
        PartResult("NP exception", Verdict.ERROR, NOT_REACHED),
        PartResult("NP exception", Verdict.ERROR, f"{NOT_REACHED}: the guest hung"),
        PartResult("other", Verdict.FAIL),
    ],
)
def test_check_that_passes_or_is_another_or_was_not_reached_stays(part):
    assert lab_checks.explained([part], CASE, [FAULT]) == (part,)


def test_check_that_the_configuration_wants_to_pass_is_blamed_and_not_excused():
    wanted = dataclasses.replace(FAILED, expected=Verdict.PASS)
    (part,) = lab_checks.explained([wanted], CASE, [FAULT])
    assert (part.as_expected, part.blame) == (False, Blame.LAB)
