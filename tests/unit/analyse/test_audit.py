"""What is said of a case by its ledger: words, and verdicts where nothing is in doubt."""

import lzma
from dataclasses import replace
from typing import get_args

import pytest

from harness.analyse.audit import audit, incomplete, state, summary
from harness.ledger.ledger import Kind, LedgerFinding
from harness.model import manifest
from harness.model.case import Irqchip, LinuxGuest
from harness.model.verdict import Verdict
from harness.record.eventlog import EventLogReader
from support import cases, golden
from support.books import account

GOLDEN = golden.TESTS / "golden" / "ledger"
CASE = cases.case(LinuxGuest(("idle",)), cases.ON)
RECORDED = manifest.describe(CASE, qemu="7.2.22", linux="6.1.192")


def ledger_of(mode, **changes):
    with lzma.open(GOLDEN / f"linux-{mode}.jsonl.xz", "rt", encoding="utf-8") as file:
        return account(EventLogReader().events(file), Irqchip(mode), **changes)


BALANCED = ledger_of("on")


def finding(kind, subject="ioapic pin 20"):
    return LedgerFinding(kind, subject, 7, 1000, "kvm_eoi: apicid 0 vector 38", "because")


def found(*kinds):
    return replace(BALANCED, findings=tuple(map(finding, kinds)))


def test_ledger_that_balances_has_its_totals_and_no_verdict():
    said = audit(BALANCED, CASE, RECORDED)

    assert said.verdict is None
    assert said.text.startswith("ledger: balances, ")
    for word in ("lines raised", "accepted", "injected", "ended"):
        assert word in said.text


def test_finding_in_a_lab_of_several_cpus_is_no_verdict():
    said = audit(found("spurious"), CASE, replace(RECORDED, lab_cpus=2))

    assert said.verdict is None
    assert "no verdict: the lab's CPUs trace concurrently" in said.text


def test_finding_with_what_is_not_modelled_is_no_verdict():
    said = audit(found("lost"), CASE, replace(RECORDED, arguments=("-machine kernel-irqchip=off",)))

    assert said.verdict is None
    assert "no verdict: -machine kernel-irqchip=off: its options choose another" in said.text


def test_ledger_in_tcg_has_no_total_of_injections():
    assert "injected" not in summary(ledger_of("tcg"))


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("lost", Verdict.LOST),
        ("stuck", Verdict.STUCK),
        ("misrouted", Verdict.MISROUTED),
        ("storm", Verdict.STORM),
        ("spurious", Verdict.DIVERGED),
    ],
)
def test_finding_of_complete_ledger_is_its_verdict(kind, verdict):
    said = audit(found(kind), CASE, RECORDED)

    assert said.verdict is verdict
    assert f"ledger: {kind}: ioapic pin 20: because (event 7: kvm_eoi: " in said.text


def test_every_kind_of_finding_has_a_verdict():
    assert all(audit(found(kind), CASE, RECORDED).verdict for kind in get_args(Kind))


def test_first_of_several_findings_is_the_verdict():
    said = audit(found("stuck", "lost", "storm"), CASE, RECORDED)

    assert said.verdict is Verdict.STUCK
    assert "(and 2 more)" in said.text


def test_law_that_is_broken_without_a_finding_is_diverged():
    laws = (replace(BALANCED.laws[0], status="broken", left=9), *BALANCED.laws[1:])
    said = audit(replace(BALANCED, laws=laws), CASE, RECORDED)

    assert said.verdict is Verdict.DIVERGED
    assert f"does not balance: {laws[0].name}: 9 = " in said.text


@pytest.mark.parametrize(
    ("case", "recorded", "why"),
    [
        (cases.case(cases.FLAT, cases.ON), RECORDED, "only a Linux guest"),
        (replace(CASE, backend=cases.LOCAL_ON), RECORDED, "trace concurrently"),
        (CASE, replace(RECORDED, linux="7.3.4"), "Linux 7.3.4 may stop a thread between"),
        (CASE, None, "versions are not known"),
        (CASE, replace(RECORDED, qemu="9.1.0"), "QEMU 9.1.0 is not modelled"),
        (CASE, replace(RECORDED, linux="6.6.9"), "Linux 6.6.9 is not modelled"),
        (CASE, replace(RECORDED, linux="unknown"), "Linux unknown is not modelled"),
    ],
)
def test_finding_where_something_is_in_doubt_is_told_and_no_verdict(case, recorded, why):
    said = audit(found("lost"), case, recorded)

    assert said.verdict is None
    assert "no verdict: " in said.text
    assert why in said.text


def test_finding_of_ledger_with_a_warning_is_no_verdict():
    doubtful = replace(found("lost"), warnings=("times go back",))

    assert audit(doubtful, CASE, RECORDED).verdict is None


def test_ledger_of_damaged_recording_says_what_is_missing_and_has_no_verdict():
    damaged = ledger_of("on", damage="kernel trace: 5 lost, 0 damaged")
    said = audit(damaged, CASE, RECORDED)

    assert said.verdict is None
    assert said.text == "ledger: cannot be closed: kernel trace: 5 lost, 0 damaged"
    assert incomplete(damaged) is not None


@pytest.mark.parametrize(
    ("ledger", "word"),
    [
        (BALANCED, "balances"),
        (found("lost", "lost"), "2 findings"),
        (ledger_of("on", damage="cut off"), "incomplete"),
        (account((), Irqchip.ON), "incomplete"),
    ],
    ids=["balanced", "findings", "damaged", "no events"],
)
def test_state_is_a_word_for_a_table(ledger, word):
    assert state(ledger) == word
