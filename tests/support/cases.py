"""Cases and recordings to test with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.guests import linux
from harness.model.case import (
    Accel,
    Backend,
    Case,
    FlatGuest,
    Guest,
    Host,
    Irqchip,
    LinuxGuest,
    Machine,
)
from harness.record.recording import Recording, WorkloadRecord

ON = Backend(Host.LAB, Accel.KVM, Irqchip.ON, kernel="default")
SPLIT = replace(ON, irqchip=Irqchip.SPLIT)
OFF = replace(ON, irqchip=Irqchip.OFF)
TCG = Backend(Host.LOCAL, Accel.TCG, Irqchip.TCG)
LOCAL_ON = Backend(Host.LOCAL, Accel.KVM, Irqchip.ON)

STAT = """cpu  1 0 1 9 0 0 0 0 0 0
cpu0 1 0 1 9 0 0 0 0 0 0
intr 0 0
ctxt 1
softirq 0 0 0 0 0 0 0 0 0 0 0
"""
"""/proc/stat of one CPU."""

FLAT = FlatGuest(Path("/images/ioapic.flat"))
LINUX = LinuxGuest(("idle",))


def case(guest: Guest = FLAT, backend: Backend = TCG, **changes: Any) -> Case:
    """A case on q35 with one CPU."""
    plain = Case(guest, backend, Machine.Q35, "qemu64", 1, 256, 60.0)
    return replace(plain, **changes)


def recording(directory: Path, case: Case, **changes: Any) -> Recording:
    """A recording without traces of a guest that ended well."""
    keys = [key for key in ("kernel_trace", "qemu_trace") if key in changes]
    changes["traces"] = {key: changes.pop(key) for key in keys}
    status = 0 if isinstance(case.guest, LinuxGuest) else 1
    plain = Recording(case, directory, 1.5, console="", status=status, failure=None)
    return replace(plain, **changes)


def interrupts(lines: Mapping[str, int]) -> str:
    """/proc/interrupts of one CPU: IO-APIC lines by ``NUMBER:NAME``."""
    rows = [
        f"{number:>4}: {count:10} IO-APIC {number:>3}-fasteoi   {name}\n"
        for (number, name), count in ((key.split(":"), count) for key, count in lines.items())
    ]
    return "            CPU0\n" + "".join(rows)


def snapshot(lines: Mapping[str, int]) -> linux.Snapshot:
    """What the guest keeps of one moment."""
    return linux.Snapshot(interrupts(lines), STAT)


def workload(
    name: str,
    before: Mapping[str, int] = {},
    after: Mapping[str, int] = {},
    *,
    status: linux.WorkloadStatus = linux.WorkloadStatus.OK,
    reason: str = "",
    **metrics: float,
) -> WorkloadRecord:
    """A workload as it was seen by a guest alone."""
    transcript = linux.Transcript(
        name, status, {"elapsed_ms": 1000.0, **metrics}, reason, snapshot(before), snapshot(after)
    )
    return WorkloadRecord(name, transcript, None, None, 1.0)


def unanswered(name: str, duration_s: float) -> WorkloadRecord:
    """A workload that the guest never answered."""
    return WorkloadRecord(name, None, None, None, duration_s)


def kernel_trace(path: Path, lines: Iterable[tuple[float, str]]) -> Path:
    """A file as tracefs gives it: ``(seconds, "event: text")`` of vCPU 0."""
    head = "# tracer: nop\n#\n"
    body = "".join(
        f"       CPU 0/KVM-100     [000] d..1. {seconds:12.6f}: {text}\n" for seconds, text in lines
    )
    path.write_text(head + body)
    return path
