"""Runs that are entered in a store: a night each."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

from harness.commands.history import accept
from harness.compare.diff import Comparison, Status
from harness.compare.finding import Finding, Group, Member
from harness.model.verdict import CaseResult, Verdict
from harness.store.baseline import BaselineComparison
from harness.store.entry import RunEntry, StoreRequest
from harness.store.result import RunResult
from support import runs

SUBJECT = "probe/q35/qemu64/smp1"
MODES = ("on", "split", "off")
_NIGHTS = count(1)


def case(mode: str, verdict: Verdict = Verdict.PASS, **changes: object) -> CaseResult:
    """A probe on a backend of the lab."""
    backend = f"lab-kvm-{mode}"
    found = replace(
        runs.GOOD,
        id=f"{SUBJECT}/{backend}",
        subject=SUBJECT,
        backend=backend,
        axes={
            "host": "lab",
            "accel": "kvm",
            "irqchip": mode,
            "qemu": "system",
            "lab_kernel": "default",
        },
        guest="probe",
        verdict=verdict,
        family="probe",
        parts=(),
    )
    return replace(found, **changes)


def finding(
    part: str, status: Status = Status.UNEXPLAINED, rule: str | None = None, modes=MODES
) -> Finding:
    """A check in which `on` differs from the other modes."""
    members = [Member(SUBJECT, f"lab-kvm-{mode}") for mode in modes]
    groups = (Group("on", "1", tuple(members[:1])), Group("others", "2", tuple(members[1:])))
    return replace(runs.finding(part, status, rule), subject=SUBJECT, family="probe", groups=groups)


def night(*found: Finding, cases=None, checks=("eoi", "poll"), **environment: object) -> RunResult:
    """A complete run, later than those before it; ``checks`` are what was compared."""
    number = next(_NIGHTS)
    cases = tuple(map(case, MODES)) if cases is None else tuple(cases)
    there = tuple(each.backend for each in cases if each.verdict is Verdict.PASS)
    compared = Comparison(SUBJECT, "probe", there, len(checks), (), checks)
    result = runs.run_of(*cases, comparisons=(compared,), findings=found)
    time = f"2026-{1 + number // 28 % 12:02}-{1 + number % 28:02}T03:00:00+0000"
    own = {
        "token": f"token-{number}",
        "started": time,
        "finished": time,
        "qemu": {"system": "7.2.22"},
        "lab_kernel": {"default": "6.1.170"},
    }
    return replace(result, environment={**result.environment, **own, **environment})


class Nights:
    """A store that runs are entered in, and what was noted meanwhile."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []

    def entry(self, baseline: str | None = None) -> RunEntry:
        return RunEntry(StoreRequest(self.path, {}, baseline), self.notes.append)

    def begin(self, result: RunResult) -> None:
        """Enter a run that does not end."""
        self.entry().begin(result.name, self.path.parent / "run", result.environment)

    def enter(
        self, result: RunResult, baseline: str | None = None, directory: Path | None = None
    ) -> BaselineComparison | None:
        """Enter a whole run; what became of its problems."""
        directory = directory or self.path.parent / "run"
        entry = self.entry(baseline)
        entry.begin(result.name, directory, result.environment)
        return entry.complete(result, directory)


def nights_since_a_problem(path: Path) -> Nights:
    """A store whose baseline is a run with one problem."""
    found = Nights(path)
    found.enter(night(finding("eoi")))
    accept(path, "1", None)
    return found
