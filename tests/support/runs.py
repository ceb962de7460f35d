"""Results of runs to test with: one in which everything happens that a report has to tell."""

from __future__ import annotations

from dataclasses import replace

from harness.compare.diff import Comparison, Status
from harness.compare.expectations import RuleResult
from harness.compare.finding import Finding, Group, Member
from harness.compare.known import Kind
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.store import result
from harness.store.result import Nowhere, RunResult

SUBJECT = "linux/q35/qemu64/smp1"
LINK = "https://example.org/bug"

GOOD = CaseResult(
    id=f"{SUBJECT}/lab-kvm-on",
    subject=SUBJECT,
    backend="lab-kvm-on",
    axes={"irqchip": "on"},
    guest="linux",
    verdict=Verdict.PASS,
    detail="",
    duration_s=12.5,
    dir="on",
    parts=(
        PartResult("idle", Verdict.PASS),
        PartResult("ipi", Verdict.SKIP, "it needs two CPUs"),
        PartResult("stuck-line", Verdict.STORM, "21: 9000 in 1.0 s", Verdict.STORM),
    ),
)
LOSES = replace(
    GOOD,
    id=f"{SUBJECT}/lab-kvm-split-qemu10.0",
    backend="lab-kvm-split-qemu10.0",
    verdict=Verdict.LOST,
    as_expected=False,
    parts=(
        PartResult("idle", Verdict.LOST, "IRQ 4: 3 interrupts for 5\nof <them> & \x1b[0m"),
        PartResult("ipi", Verdict.SKIP, "it needs two CPUs"),
        PartResult("stuck-line", Verdict.PASS, "", Verdict.STORM),
    ),
)
HANGS = replace(
    GOOD,
    id="flat-x/q35/qemu64/smp1/local-tcg#2",
    verdict=Verdict.HANG,
    detail="no answer within 5 s",
    as_expected=False,
    parts=(PartResult("one", Verdict.PASS),),
)
HANGS_AS_TOLD = replace(HANGS, id="flat-y", expected=Verdict.HANG, as_expected=True)
SKIPPED = replace(
    GOOD, id="flat-z", verdict=Verdict.SKIP, detail="no /dev/kvm", duration_s=0.0, parts=()
)
BROKEN = replace(SKIPPED, id="flat-b", verdict=Verdict.ERROR, detail="no QEMU", as_expected=False)


def finding(part: str, status: Status, rule: str | None = None, counter=None) -> Finding:
    """Something of a part that differs, or a check."""
    members = (Member(SUBJECT, "lab-kvm-on"), Member(SUBJECT, "lab-kvm-split-qemu10.0"))
    return Finding(
        SUBJECT,
        "linux",
        part,
        counter,
        None if counter is None else "guest",
        (Group("on", "200", members[:1]), Group("split", "150", members[1:])),
        "irqchip: on | split",
        status,
        "it should not",
        rule,
        () if rule is None else (rule,),
        None if rule is None else LINK,
    )


COMPARISON = Comparison(
    SUBJECT,
    "linux",
    ("lab-kvm-on", "lab-kvm-split-qemu10.0"),
    things=9,
    workloads=("idle", "stuck-line"),
    checks=("monitor.version", "monitor.pins"),
)
FINDINGS = (
    finding("idle", Status.UNEXPLAINED, counter="handled/ioapic/4:ttyS0"),
    finding("monitor.pins", Status.KNOWN_BUG, "lost-pin"),
    finding("monitor.version", Status.BY_DESIGN, "versions"),
)
RULES = (
    RuleResult("versions", Kind.BY_DESIGN, True, LINK, "lab-kvm-on", due=1, met=1),
    RuleResult("gone", Kind.BY_DESIGN, True, LINK, "lab-kvm-on", due=2, met=0),
    RuleResult("lost-pin", Kind.KNOWN_BUG, True, LINK, "lab-kvm-on", due=1, met=1),
    RuleResult("fixed-bug", Kind.KNOWN_BUG, True, LINK, "lab-kvm-on", due=1, met=0),
    RuleResult("rare-bug", Kind.KNOWN_BUG, False, LINK, "lab-kvm-on", due=1, met=0),
)


NOTHING = Nowhere()


def run_of(*cases: CaseResult, comparisons=(), findings=(), rules=(), nowhere=NOTHING) -> RunResult:
    """A run of ``cases``."""
    environment = {"irqmatrix": "1.2.3", "qemu": {"10.0": "10.0.2", "system": "7.2.22"}}
    summary = result.summarised(cases, findings, nowhere)
    return RunResult(
        result.SCHEMA,
        "nightly",
        environment,
        cases,
        comparisons,
        findings,
        tuple(rules),
        nowhere,
        summary,
    )


EVERYTHING = run_of(
    GOOD,
    LOSES,
    HANGS,
    HANGS_AS_TOLD,
    SKIPPED,
    BROKEN,
    comparisons=(COMPARISON,),
    findings=FINDINGS,
    rules=RULES,
    nowhere=Nowhere(("linux: ipi",), is_error=True),
)
