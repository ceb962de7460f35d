"""A case that ran here as evidence: its recording through the readers of other people's files.

What is measured of it is measured by the same code, and so it can be compared with theirs.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from harness.backends.qemu_argv import Channels, qemu_argv
from harness.base.errors import CollectError
from harness.base.versions import parse_version
from harness.guests import linux
from harness.guests.kinds.base import Part
from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestFiles
from harness.model import manifest
from harness.model.case import Case
from harness.model.layout import CaseDir
from harness.model.marks import Mark, MarkKind
from harness.record import recording_file, trace_files
from harness.record.collectors.foreign.machine import read_command_line
from harness.record.collectors.foreign.model import (
    Evidence,
    ExitTable,
    FileKind,
    NamedVersions,
    Statistics,
)
from harness.record.collectors.foreign.read import ReadingFacts, read_lines
from harness.record.collectors.qmp import MonitorSnapshot
from harness.record.recording import Recording, WorkloadRecord

_TRACE: Final = "kernel_trace"
_MARK: Final = "tracing_mark_write: "
WHOLE: Final = "*"
"""The part of a case that has no others."""


def evidence_of(directory: Path) -> dict[str, list[Evidence]]:
    """What the case in ``directory`` left, by its parts: workloads that ran, or a whole probe.

    :class:`StoreError` where it has no recording.
    """
    recording = recording_file.load(directory)
    described = manifest.read(directory)
    kernel = None if described.linux is None else parse_version(described.linux)
    common = [
        Evidence(
            CaseDir.manifest,
            FileKind.VERSIONS,
            NamedVersions(qemu=parse_version(described.qemu), linux=kernel),
        ),
        _command_line(recording.case),
        *_read(CaseDir.console, FileKind.LOG, recording.console.splitlines(keepends=True)),
    ]
    if kind_of(recording.case.guest).part is not Part.WORKLOAD:
        return {WHOLE: [*common, *_trace(recording, None)]}
    return {
        work.name: [*common, *_workload(work), *_trace(recording, work.name)]
        for work in recording.workloads
    }


def _command_line(case: Case) -> Evidence:
    """Its command line, but for the paths of files."""
    files = GuestFiles(
        qemu=("qemu-system-x86_64",), data_dirs=(), kernel="vmlinuz", initrd="initrd"
    )
    return read_command_line(CaseDir.command, shlex.join(qemu_argv(case, files, Channels("null"))))


def _workload(work: WorkloadRecord) -> Iterator[Evidence]:
    told = work.transcript
    if told is not None and told.before is not None and told.after is not None:
        yield from _snapshots(told, told.before, told.after)
    yield from _exits(work)
    if (looked := work.monitor_after) is not None:
        if looked.controllers_text is not None:
            yield from _read("info pic", FileKind.INFO_PIC, [looked.controllers_text])
        if looked.lapic_texts:
            yield from _read("info lapic", FileKind.INFO_LAPIC, looked.lapic_texts)


_EXITS: Final = {
    "halt_exits": "halt",
    "io_exits": "io",
    "irq_exits": "host-interrupt",
    "irq_window_exits": "interrupt-window",
}
"""KVM's statistics that are exits of one reason (Linux ``arch/x86/kvm/svm/svm.c``)."""


def _exits(work: WorkloadRecord) -> Iterator[Evidence]:
    """Exits by reason, as KVM counted them between the monitor's two looks."""
    before, after = (_statistics(look) for look in (work.monitor_before, work.monitor_after))
    counts = {
        name: after[key] - before[key]
        for key, name in _EXITS.items()
        if key in before and key in after
    }
    if not counts or "exits" not in before or "exits" not in after:
        return
    counts["other"] = after["exits"] - before["exits"] - sum(counts.values())
    if min(counts.values()) >= 0 and sum(counts.values()) > 0:
        table = ExitTable("exit", counts, work.duration_s or None)
        yield Evidence("query-stats", FileKind.EXITS, table)


def _statistics(look: MonitorSnapshot | None) -> Counter[str]:
    """The statistics of all vCPUs together."""
    total: Counter[str] = Counter()
    if look is not None and look.stats:
        text = json.dumps(list(look.stats))
        for each in _read("query-stats", FileKind.STATISTICS, [text]):
            if isinstance(each.content, Statistics):
                for vcpu in each.content.vcpus:
                    total.update(vcpu)
    return total


def _snapshots(
    told: linux.Transcript, before: linux.Snapshot, after: linux.Snapshot
) -> Iterator[Evidence]:
    """The guest's two looks, with its own time between them."""
    elapsed_ms = told.metrics.get("elapsed_ms")
    if not isinstance(elapsed_ms, int | float) or elapsed_ms <= 0:
        return
    end_s = 1 + elapsed_ms / 1000
    text = f"1.0\n{before.interrupts}\n{end_s:.3f}\n{after.interrupts}"
    yield from _read("interrupts", FileKind.INTERRUPTS, text.splitlines(keepends=True))


def _trace(recording: Recording, part: str | None) -> Iterator[Evidence]:
    """The kernel's trace, of a workload between its marks."""
    path = recording.traces.get(_TRACE)
    if path is None or not path.exists():
        return
    facts = ReadingFacts(irqchip=recording.case.backend.irqchip, smp=recording.case.smp)
    with trace_files.lines_of(path) as lines:
        yield from _read(path.name, FileKind.TRACE, _between(lines, part), facts)


def _between(lines: Iterable[str], part: str | None) -> Iterator[str]:
    """The lines after the mark that ``part`` begins and before the one that it ends."""
    if part is None:
        yield from lines
        return
    begin, end = (f"{_MARK}{Mark(kind, part)}" for kind in (MarkKind.BEGIN, MarkKind.END))
    is_inside = False
    for line in lines:
        if _MARK in line:
            text = line.rstrip()
            is_inside = text.endswith(begin) or (is_inside and not text.endswith(end))
        elif is_inside:
            yield line


def _read(
    name: str, kind: FileKind, lines: Iterable[str], facts: ReadingFacts | None = None
) -> list[Evidence]:
    """What the reader of ``kind`` finds; nothing where there is nothing of that kind."""
    with suppress(CollectError):
        return read_lines(name, kind, lines, facts or ReadingFacts())
    return []
