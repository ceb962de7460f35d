"""28 cases in which seven scenarios differ: 2 kernels, 2 QEMUs, 3 modes, TCG, 1 and 2 CPUs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

from harness.compare.diff import Compared, Measurement, diff
from harness.compare.known import KnownDifferences
from harness.compare.subjects import Versions, subject_of
from harness.model.case import Accel, Backend, Case, Host, Irqchip, ProbeGuest
from harness.model.verdict import CaseResult, PartResult, Verdict, of_case
from support import cases

VERSIONS = Versions(
    {"7.2": (7, 2, 22), "10.0": (10, 0, 2)}, {"6.1": (6, 1, 192), "6.12": (6, 12, 95)}, (6, 18, 1)
)
Seen = Callable[[Backend], object]


def _is(backend: Backend, mode: str, kernel: str) -> bool:
    return (backend.irqchip, backend.kernel) == (mode, kernel)


ONE_CPU: Mapping[str, Seen] = {
    "all-agree": lambda _: "irq 0x51",
    "ioapic-version": lambda b: "read 0x11" if b.irqchip is Irqchip.ON else "read 0x20",
    "qemu-renamed": lambda b: "read 0x7" if b.qemu == "7.2" else "read 0xa",
    "emulated-apic": lambda b: "gp" if b.irqchip in (Irqchip.OFF, Irqchip.TCG) else "read 0x0",
    "lost-eoi": lambda b: "timeout 0x0" if _is(b, "split", "6.1") else "irq 0x51",
}
TWO_CPUS: Mapping[str, Seen] = {
    "all-agree-too": lambda _: "irq 0x61",
    "kernel-changed": lambda b: "irq 0x52" if b.kernel == "6.1" else "irq 0x53",
    "three-ways": lambda b: {"on": "irq 0x31", "split": "irq 0x32"}.get(b.irqchip, "irq 0x33"),
    "new-qemu-tcg": lambda b: "woke" if (b.irqchip, b.qemu) == (Irqchip.TCG, "10.0") else "asleep",
}


def backends() -> Iterator[Backend]:
    """14: three modes of two kernels and two QEMUs, and TCG of both QEMUs."""
    for kernel, qemu in itertools.product(("6.1", "6.12"), ("7.2", "10.0")):
        for mode in ("on", "split", "off"):
            yield Backend(Host.LAB, Accel.KVM, Irqchip(mode), qemu, kernel)
    for qemu in ("7.2", "10.0"):
        yield Backend(Host.LOCAL, Accel.TCG, Irqchip.TCG, qemu)


def _case(backend: Backend, smp: int) -> Case:
    return cases.case(ProbeGuest(()), backend, smp=smp)


def compared(known: KnownDifferences) -> list[Compared]:
    """Both subjects compared."""
    found = []
    for smp, scenarios in ((1, ONE_CPU), (2, TWO_CPUS)):
        measured = []
        for backend in backends():
            logs = {
                name: f"step 0, CPU 0: up 0x1\nstep 1, CPU 0: {saw(backend)}\n"
                for name, saw in scenarios.items()
            }
            facts = VERSIONS.facts(backend, _case(backend, smp))
            axes = VERSIONS.axes(backend)
            measured.append(Measurement(backend.name, facts, {}, logs, axes, tuple(logs)))
        found.append(diff(subject_of(_case(backend, smp)), measured, known))
    return found


def results() -> list[CaseResult]:
    """Each case passed."""
    return [
        of_case(
            _case(backend, smp),
            Verdict.PASS,
            "",
            1.0,
            parts=tuple(PartResult(name, Verdict.PASS) for name in scenarios),
        )
        for smp, scenarios in ((1, ONE_CPU), (2, TWO_CPUS))
        for backend in backends()
    ]
