"""A small catalogue entry, and runs of it that never happened."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.model import manifest
from harness.model.case import Case, Irqchip
from harness.model.counters import Counter, CounterKey, CounterSet
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.repro.catalogue import Entry
from harness.store import result
from harness.store.result import Nowhere, RunResult

ENTRY = """
version: 1
id: small
symptom: a symptom that fits on one line
kind: known-bug
modes: ["on"]
affected:
  - {qemu: ">=9.1"}
links: [https://example.org/thread]
about: what is behind it
recipe:
  matrix: {host: lab, irqchip: ["on", split]}
  guests:
    - {kind: linux, workloads: [idle]}
signs:
  - what: lines that go low, a second
    counter: lowered/gsi/[02]
    source: kvm
    part: idle
    per: second
    expect: {"on": {min: 100}, split: {max: 10}}
seen:
  - {qemu: "10.0.2", linux: "6.12.95", saw: {"on": "500/s", split: "0/s"}}
"""


def write_entry(folder: Path, text: str = ENTRY, name: str = "small") -> Path:
    """A file with ``text``."""
    path = folder / f"{name}.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def case_result(case: Case, verdict: Verdict = Verdict.PASS, **changes: Any) -> CaseResult:
    """What is said of ``case``; its workload took two seconds."""
    part = PartResult("idle", verdict, metrics={"elapsed_ms": 2000.0, "count": 4, "word": "yes"})
    fields: dict[str, Any] = {
        "id": case.id,
        "subject": case.subject,
        "backend": case.backend.name,
        "axes": case.axes,
        "guest": "linux",
        "verdict": verdict,
        "detail": "",
        "duration_s": 1.0,
        "dir": case.directory_name,
        "parts": (part,),
    }
    return CaseResult(**fields | changes)


def write_case(
    directory: Path, case: Case, lowered: int, *, qemu: str = "10.0.2", linux: str = "6.12.95"
) -> None:
    """The files of ``case`` in a run's directory: GSI 0 was lowered so often."""
    folder = directory / case.directory_name
    folder.mkdir(parents=True)
    manifest.write(folder, manifest.describe(case, qemu=qemu, linux=linux))
    number = 0 if case.backend.irqchip is Irqchip.ON else 2
    key = CounterKey("lowered", "gsi", "kvm", number)
    counters = CounterSet.of([Counter(key, lowered)], ["kvm"])
    (folder / "counters.json").write_text(json.dumps({"idle": counters.to_json(), "missing": {}}))


def run_result(*cases: CaseResult, environment: Mapping[str, Any] = {}) -> RunResult:
    """A run of ``cases``."""
    return RunResult(
        schema=result.SCHEMA,
        name="small",
        environment=dict(environment),
        cases=cases,
        comparisons=(),
        findings=(),
        rules=(),
        nowhere=Nowhere(),
        summary=result.summarised(cases, (), Nowhere()),
    )


def recorded(
    entry: Entry, directory: Path, lowered: Mapping[str, int], **versions: str
) -> RunResult:
    """A run of the entry's recipe in the modes of ``lowered``."""
    results = []
    for case in entry.config().cases:
        if case.backend.irqchip.value in lowered:
            write_case(directory, case, lowered[case.backend.irqchip.value], **versions)
            results.append(case_result(case))
    return run_result(*results)
