"""Whose fault a verdict looks like: of a case alone, and over a run."""

import dataclasses

import pytest

from harness.analyse import blame
from harness.analyse.blame import Facts
from harness.model.case import Accel, Backend, Host, Irqchip
from harness.model.verdict import Blame, CaseResult, PartResult, Verdict, of_case
from support import cases

TCG = Backend(Host.LOCAL, Accel.TCG, Irqchip.TCG, "system", None)


def lab(irqchip: Irqchip, kernel: str = "6.1") -> Backend:
    return Backend(Host.LAB, Accel.KVM, irqchip, "system", kernel)


ON, SPLIT = lab(Irqchip.ON), lab(Irqchip.SPLIT)


def result(backend: Backend, verdict: Verdict, *parts: PartResult, **more) -> CaseResult:
    return of_case(cases.case(backend=backend), verdict, "", 1.0, parts=parts, **more)


@pytest.mark.parametrize(
    ("verdict", "facts", "expected"),
    [
        (Verdict.PASS, Facts(lab_died=True), None),
        (Verdict.SKIP, Facts(), None),
        (Verdict.CRASH, Facts(in_lab=True, lab_died=True), Blame.LAB),
        (Verdict.ERROR, Facts(in_lab=True, lab_died=True), Blame.LAB),
        (Verdict.CRASH, Facts(killed_by="SIGABRT"), Blame.QEMU),
        (Verdict.CRASH, Facts(killed_by="SIGKILL", in_lab=True), Blame.LAB),
        (Verdict.CRASH, Facts(killed_by="SIGKILL"), Blame.HARNESS),
        (Verdict.CRASH, Facts(asserted=True), Blame.QEMU),
        (Verdict.CRASH, Facts(killed_by="SIGABRT", live=True), Blame.HARNESS),
        (Verdict.ERROR, Facts(refused=True, live=True), Blame.HARNESS),
        (Verdict.HANG, Facts(kvm_error=True), Blame.IRQCHIP),
        (Verdict.HANG, Facts(complains=True), Blame.IRQCHIP),
        (Verdict.HANG, Facts(starved=True, complains=True), Blame.HARNESS),
        (Verdict.TIMEOUT, Facts(starved=True, probe=True, in_lab=True), Blame.HARNESS),
        (Verdict.HANG, Facts(starved=True, kvm_error=True), Blame.IRQCHIP),
        (Verdict.FAIL, Facts(starved=True), Blame.GUEST),
        (Verdict.HANG, Facts(deaf=True, probe=True, in_lab=True), Blame.LAB),
        (Verdict.HANG, Facts(deaf=True, live=True), Blame.HARNESS),
        (Verdict.HANG, Facts(deaf=True, probe=True), Blame.QEMU),
        (Verdict.CRASH, Facts(), Blame.GUEST),
        (Verdict.ERROR, Facts(refused=True), Blame.QEMU),
        (Verdict.ERROR, Facts(by_guest=True), Blame.GUEST),
        (Verdict.ERROR, Facts(), Blame.HARNESS),
        (Verdict.INCOMPLETE, Facts(), Blame.HARNESS),
        (Verdict.STORM, Facts(), Blame.IRQCHIP),
        (Verdict.LOST, Facts(), Blame.IRQCHIP),
        (Verdict.DIVERGED, Facts(probe=True), Blame.IRQCHIP),
        (Verdict.FAIL, Facts(), Blame.GUEST),
        (Verdict.FAIL, Facts(probe=True), Blame.IRQCHIP),
        (Verdict.HANG, Facts(), Blame.GUEST),
        (Verdict.TIMEOUT, Facts(), Blame.GUEST),
    ],
)
def test_blame_of_a_case_alone_follows_from_how_it_ended(verdict, facts, expected):
    assert blame.of(verdict, facts) is expected


@pytest.mark.parametrize("verdict", [each for each in Verdict if each not in blame.GOOD])
def test_blame_is_there_for_every_verdict_that_is_not_good(verdict):
    assert blame.row_of(verdict, Facts()).why


def test_assigned_blame_is_of_the_parts_and_of_the_whole():
    found = blame.assigned(
        result(ON, Verdict.FAIL, PartResult("a", Verdict.PASS), PartResult("b", Verdict.FAIL)),
        Facts(),
    )
    assert (found.blame, [part.blame for part in found.parts]) == (Blame.GUEST, [None, Blame.GUEST])


def test_assigned_blame_that_is_known_stays_and_is_the_wholes():
    known = PartResult("b", Verdict.FAIL, blame=Blame.LAB)
    found = blame.assigned(result(ON, Verdict.FAIL, known), Facts())
    assert (found.blame, found.parts[0].blame) == (Blame.LAB, Blame.LAB)


def test_assigned_blame_of_a_case_that_passes_is_nobodys():
    known = PartResult("b", Verdict.PASS, blame=Blame.LAB)
    assert blame.assigned(result(ON, Verdict.PASS, known), Facts()).blame is None


def guilty(*results: CaseResult, emulated_lab: bool = True) -> list[Blame | None]:
    """Who is blamed for each, with all in view."""
    assigned = [blame.assigned(each, Facts()) for each in results]
    return [each.blame for each in blame.over_run(assigned, emulated_lab=emulated_lab)]


FAILS = Verdict.FAIL


def test_what_all_modes_of_a_lab_show_and_plain_tcg_does_not_is_the_labs():
    found = guilty(result(ON, FAILS), result(SPLIT, FAILS), result(TCG, Verdict.PASS))
    assert found == [Blame.LAB, Blame.LAB, None]


def test_what_a_lab_on_a_real_kvm_shows_is_not_the_labs():
    run = [result(ON, FAILS), result(SPLIT, FAILS), result(TCG, Verdict.PASS)]
    assert guilty(*run, emulated_lab=False) == [Blame.IRQCHIP, Blame.IRQCHIP, None]


def test_what_tcg_shows_too_stays_the_guests():
    run = [result(ON, FAILS), result(SPLIT, FAILS), result(TCG, FAILS)]
    assert guilty(*run) == [Blame.GUEST] * 3


def test_what_one_mode_shows_is_the_irqchips():
    run = [result(ON, FAILS), result(SPLIT, Verdict.PASS), result(TCG, Verdict.PASS)]
    assert guilty(*run) == [Blame.IRQCHIP, None, None]


def test_what_the_only_mode_shows_is_not_called_the_labs():
    assert guilty(result(ON, FAILS), result(TCG, Verdict.PASS)) == [Blame.IRQCHIP, None]


def test_what_was_not_run_says_nothing_of_a_lab():
    run = [result(ON, FAILS), result(SPLIT, Verdict.SKIP), result(TCG, Verdict.PASS)]
    assert guilty(*run) == [Blame.IRQCHIP, None, None]


def test_what_only_one_of_two_labs_shows_is_that_labs():
    other = [result(lab(irqchip, "6.12"), Verdict.PASS) for irqchip in (Irqchip.ON, Irqchip.SPLIT)]
    run = [result(ON, FAILS), result(SPLIT, FAILS), *other, result(TCG, Verdict.PASS)]
    assert guilty(*run) == [Blame.LAB, Blame.LAB, None, None, None]


def test_a_repetition_that_passes_on_the_same_backend_proves_nothing():
    again = dataclasses.replace(cases.case(backend=ON), repeat=1)
    passed = of_case(again, Verdict.PASS, "", 1.0)
    assert guilty(result(ON, FAILS), passed) == [Blame.GUEST, None]


def test_blame_that_was_found_in_what_happened_stays():
    crashed = result(ON, Verdict.CRASH, blame=Blame.QEMU)
    assert guilty(crashed, result(SPLIT, Verdict.PASS)) == [Blame.QEMU, None]


def test_parts_are_blamed_each_for_itself():
    def run(backend: Backend, one: Verdict, two: Verdict) -> CaseResult:
        return result(backend, FAILS, PartResult("one", one), PartResult("two", two))

    results = [
        run(ON, FAILS, FAILS),
        run(SPLIT, FAILS, Verdict.PASS),
        run(TCG, Verdict.PASS, Verdict.PASS),
    ]
    assigned = [blame.assigned(each, Facts()) for each in results]
    first = blame.over_run(assigned, emulated_lab=True)[0]
    assert [part.blame for part in first.parts] == [Blame.LAB, Blame.IRQCHIP]
