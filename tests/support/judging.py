"""A recording judged as a run judges it: with its evidence written to the case's folder."""

from __future__ import annotations

from harness.compare.expectations import RuleResult
from harness.compare.known import Kind
from harness.model import manifest
from harness.model.layout import CaseDir
from harness.model.verdict import CaseResult
from harness.record import recording_file
from harness.record.recording import Recording
from harness.run import judging
from support import cases, runs


def judge(recording: Recording, *, keep_raw: bool = True) -> CaseResult:
    """The result of ``recording``; a ``case.json`` is written where the test wrote none."""
    folder = recording.directory
    if not (folder / CaseDir.manifest).exists():
        manifest.write(folder, manifest.describe(recording.case, qemu="7.2.22", linux="6.1.192"))
    (folder / CaseDir.console).write_text(recording.console)
    recording_file.write(recording)
    return judging.judge_folder(folder, keep_raw=keep_raw)


def run_of(directory, *, found=()):
    """Two backends that read a disk, 200 interrupts on one and 150 on the other."""
    outcomes = []
    for backend, count in ((cases.ON, 200), (cases.TCG, 150)):
        case = cases.case(cases.LinuxGuest(("block-intx",)), backend)
        folder = directory / case.directory_name
        folder.mkdir()
        work = cases.workload("block-intx", {}, {"20:virtio0": count}, units=150)
        outcomes.append(judge(cases.recording(folder, case, workloads=(work,))))
    rules = (
        RuleResult("some-rule", Kind.BY_DESIGN, True, "docs/x", "lab-kvm-on", due=2, met=0),
        RuleResult("some-bug", Kind.KNOWN_BUG, True, "docs/x", "local-tcg", due=1, met=0),
        RuleResult("other-bug", Kind.KNOWN_BUG, True, "docs/x", "local-tcg", due=1, met=1),
    )
    return runs.run_of(*outcomes, findings=found, rules=rules)
