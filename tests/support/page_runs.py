"""Runs to make pages of: recorded cases in a run's directory, and what a run says of them."""

from __future__ import annotations

import base64
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.compare.diff import Status
from harness.compare.finding import Finding, Group, Member
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.report import files
from harness.report.run_view import RunView
from harness.store import result
from harness.store.result import RunResult
from support import golden, recorded_cases, runs
from userspace_chip.events import Event, event_type

MATRIX = golden.COLLECT.parent / "recordings" / "matrix"
LINUX_TCG = MATRIX.parent / "linux-tcg"
LINUX = "linux/q35/qemu64/smp1"
KIND = {"kind": "linux", "guest": "linux", "subject": LINUX, "schema": 2, "group": ""}
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\x1b[2J\u202e"
CONSOLE = f"Linux version 6.1\n{HOSTILE}\nreboot: Power down\n"


def _altered(events: tuple[Event, ...]) -> Iterable[Event]:
    """The guest writes another value to LVT1, once."""
    done = False
    for event in events:
        if not done and event.name == "kvm_apic" and event.args[:2] == ("write", "APIC_LVT1"):
            done = True
            args = event_type("kvm_apic").args(access="write", register="APIC_LVT1", value=0x8500)
            yield event._replace(args=args)
        else:
            yield event


def linux_cases(directory: Path, *, altered: str = "split") -> tuple[CaseResult, ...]:
    """The Linux guest in each mode, recorded; in one of them it does something else once."""
    found = []
    for mode in recorded_cases.MODES:
        name = recorded_cases.NAMES[mode]
        alter = _altered if mode == altered else None
        folder = recorded_cases.case_folder(
            directory, mode, alter=alter, described=KIND | {"backend": name}
        )
        if mode == "tcg":
            shutil.copy(LINUX_TCG / "ledger.json", folder)
        (folder / "console.log").write_text(CONSOLE)
        (folder / "command.txt").write_text(f"qemu-system-x86_64 -append '{HOSTILE}'\n")
        axes = {"irqchip": mode, "qemu": "system", "host": "lab", "machine": "q35", "smp": 1}
        parts = (PartResult("block-intx", Verdict.PASS), PartResult("block-msix", Verdict.PASS))
        case = replace(runs.GOOD, id=f"{LINUX}/{name}", subject=LINUX, backend=name, axes=axes)
        found.append(replace(case, dir=folder.name, parts=parts, family="linux"))
    return tuple(found)


def linux_finding(status: Status = Status.UNEXPLAINED) -> Finding:
    """``split`` read its disk with fewer interrupts than the others."""
    members = {mode: Member(LINUX, name) for mode, name in recorded_cases.NAMES.items()}
    others = tuple(member for mode, member in members.items() if mode != "split")
    groups = (Group("on, off, tcg", "200", others), Group("split", "150", (members["split"],)))
    return replace(
        runs.finding("block-intx", status, counter="handled/ioapic/20:virtio0"),
        subject=LINUX,
        groups=groups,
        axis="irqchip: on, off, tcg | split",
    )


def red_run(directory: Path) -> RunResult:
    """A flat image, a probe and Linux in four modes: two red findings."""
    shutil.copytree(MATRIX, directory, dirs_exist_ok=True)
    recorded = result.read(directory / "result.json")
    scenarios = tuple(
        replace(each, status=Status.UNEXPLAINED, rule=None, rules=(), link=None)
        if each.part == "ioapic-edge-raised-again-without-lowering"
        else each
        for each in recorded.findings
    )
    cases = (*recorded.cases, *linux_cases(directory))
    findings = (linux_finding(), *scenarios)
    summary = result.summarised(cases, findings, recorded.nowhere)
    found = replace(recorded, cases=cases, findings=findings, summary=summary)
    result.write(found, directory / "result.json")
    return found


def many_cases(run: RunResult, count: int) -> RunResult:
    """``run`` as often as gives ``count`` cases: the same folders, on other machines."""
    cases: list[CaseResult] = []
    findings: list[Finding] = []
    for number in range(-(-count // len(run.cases))):
        for case in run.cases:
            subject = f"{case.subject}-{number}"
            cases.append(replace(case, id=f"{subject}/{case.backend}", subject=subject))
        findings += (_moved(each, number) for each in run.findings)
    kept = tuple(cases[:count])
    summary = result.summarised(kept, findings, run.nowhere)
    return replace(run, cases=kept, findings=tuple(findings), summary=summary)


def _moved(finding: Finding, number: int) -> Finding:
    groups = (
        replace(
            group,
            members=tuple(
                Member(f"{member.subject}-{number}", member.backend) for member in group.members
            ),
        )
        for group in finding.groups
    )
    return replace(finding, subject=f"{finding.subject}-{number}", groups=tuple(groups))


def html(run: RunResult, directory: Path, **view: Any) -> str:
    """The page of ``run``, whose cases are in ``directory``."""
    return files.rendered(replace(RunView.of(run), **view), directory, "html").decode()


def part(page: str, name: str) -> str:
    """A page that is compressed in the file."""
    (data,) = re.findall(rf'id="data-{name}"[^>]*>([^<]*)<', page)
    return zlib.decompress(base64.b64decode(data)).decode()


def write_html(run: RunResult, directory: Path, path: Path, **view: Mapping[str, Any]) -> str:
    """Write the page; its address."""
    path.write_text(html(run, directory, **view), encoding="utf-8")
    return path.as_uri()
