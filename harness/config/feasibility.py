"""Which cases cannot be run here, and why: decided before anything is booted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.guests.kinds.table import kind_of
from harness.model.case import Accel, Case, Host, Irqchip, Machine, Vmm
from userspace_chip.kvm.abi import Cap
from userspace_chip.kvm.options import MAX_CPUS
from userspace_chip.kvm.probe import EMULATING_MODULE, KvmProbe

LIVE_MACHINES: Final = frozenset({Machine.PC, Machine.Q35})
"""What the VMM of the live chips can be."""
LIVE_CPU: Final = frozenset({"qemu64", "+x2apic", "+tsc-deadline"})
USERSPACE_LAPIC_REMOVED: Final = (8, 0)
"""QEMU ``docs/about/removed-features.rst``, "Userspace local APIC with KVM"."""
USERSPACE_LAPIC_KEEPS_SIPI: Final = (7, 2, 22)
"""Only TCG clears CPU_INTERRUPT_SIPI: ``hw/intc/apic.c:apic_sipi`` of 7.2.0 did, in 7.2.22
only ``x86_cpu_exec_interrupt`` does.  A CPU that halts after a SIPI then spins with QEMU's lock."""


@dataclass(frozen=True)
class LocalFacts:
    """What this machine's KVM can do; ``instructions_per_s`` is measured, None where it is not."""

    kvm: KvmProbe
    instructions_per_s: float | None

    @property
    def emulates(self) -> bool:
        """Whether it runs guests instruction by instruction, and some instructions not at all."""
        return self.kvm.module == EMULATING_MODULE

    @property
    def lab_accel(self) -> Accel:
        """Who runs a lab here: the local KVM where it can nest, else TCG."""
        nests = self.kvm.usable and bool(self.kvm.nested) and self.kvm.cpu_flag is not None
        return Accel.KVM if nests else Accel.TCG


def lab_accel(local: LocalFacts | None, *, coverage: bool = False) -> Accel:
    """Who runs a lab here; TCG where the local KVM was not asked.

    It is always TCG where ``coverage`` is recorded, for only TCG sees what executes.
    """
    return Accel.TCG if local is None or coverage else local.lab_accel


def why_not(case: Case, qemu_version: tuple[int, ...], local: LocalFacts | None) -> str | None:
    """Why ``case`` cannot be run with a QEMU of that version; None where it can.

    ``local`` is asked only for cases on the local KVM.
    """
    backend = case.backend
    if case.deterministic and backend.accel is not Accel.TCG:
        return (
            "--deterministic is for TCG: under KVM the CPU's own clock decides when things happen"
        )
    if case.deterministic and kind_of(case.guest).is_moved:
        return "--deterministic excludes migration: it is triggered from outside the guest"
    if backend.accel is Accel.TCG:
        return _why_nothing_to_do(case)
    if backend.vmm is Vmm.PYCHIP:
        if (problem := _why_not_live(case)) is not None:
            return problem
    elif (
        backend.irqchip is Irqchip.OFF
        and qemu_version >= USERSPACE_LAPIC_REMOVED
        and "-apic" not in case.cpu.split(",")
    ):
        version = ".".join(map(str, qemu_version))
        return (
            f"QEMU {version} refuses kernel-irqchip=off for a CPU with a local APIC "
            "(KVM does not support userspace APIC; removed in 8.0); QEMU 7.2 would do"
        )
    keeps_sipi = qemu_version >= USERSPACE_LAPIC_KEEPS_SIPI and backend.vmm is Vmm.QEMU
    if backend.irqchip is Irqchip.OFF and case.smp > 1 and keeps_sipi:
        version = ".".join(map(str, qemu_version))
        return (
            f"QEMU {version} hangs in the firmware with kernel-irqchip=off and more than one CPU "
            "(a SIPI stays pending for ever); one CPU works, and QEMU 7.2.0 does not have this bug"
        )
    if backend.host is Host.LOCAL and local is not None:
        return _why_not_local(case, local) or _why_nothing_to_do(case)
    return _why_nothing_to_do(case)


def _why_not_live(case: Case) -> str | None:
    """What the VMM of the live chips lacks for ``case``."""
    if (missing := kind_of(case.guest).live.missing) is not None:
        return f"the live chips' machine does not have {missing}; use on, split or off"
    if case.machine not in LIVE_MACHINES:
        names = " and ".join(sorted(LIVE_MACHINES))
        return f"the live chips are those of {names}, not of {case.machine}"
    if case.smp > MAX_CPUS:
        return f"the live chips have at most {MAX_CPUS} CPUs"
    if extra := [*case.devices, *case.options]:
        return f"the live chips' machine has no {extra[0]}"
    if not set(case.cpu.split(",")) <= LIVE_CPU:
        return f"the live chips' CPU is qemu64, with +x2apic and +tsc-deadline, not {case.cpu}"
    return None


def _why_not_local(case: Case, local: LocalFacts) -> str | None:
    irqchip = case.backend.irqchip
    if irqchip is Irqchip.OFF:
        problem = local.kvm.error
    else:
        problem = local.kvm.why_not("on" if irqchip is Irqchip.ON else "split")
    if problem is not None:
        return f"this machine's KVM: {problem}"
    if _wants_hyperv(case.cpu) and not local.kvm.caps.get(Cap.HYPERV.name):
        return "this machine's KVM has no Hyper-V interface (CONFIG_KVM_HYPERV): QEMU would abort"
    boot_instructions = kind_of(case.guest).boot_instructions
    if boot_instructions is not None and local.instructions_per_s is not None:
        boot_s = boot_instructions / local.instructions_per_s
        if boot_s > case.timeout_s:
            return (
                f"this machine's KVM runs {local.instructions_per_s / 1e6:.1f} million guest "
                f"instructions a second (measured): {case.guest.kind.capitalize()} would take "
                f"about {boot_s:.0f} s to boot, more than the case's {case.timeout_s:g} s; "
                "use host: lab"
            )
    return None


def _wants_hyperv(cpu: str) -> bool:
    return any(flag.lstrip("+").startswith(("hv-", "hv_")) for flag in cpu.split(","))


def _why_nothing_to_do(case: Case) -> str | None:
    """Why the guest can do nothing in this case."""
    return kind_of(case.guest).why_not(case.machine, case.smp)


def needs_local_speed(case: Case) -> bool:
    """Whether the speed of the local KVM decides if ``case`` is run."""
    backend = case.backend
    is_local_kvm = backend.host is Host.LOCAL and backend.accel is Accel.KVM
    return is_local_kvm and kind_of(case.guest).boot_instructions is not None
