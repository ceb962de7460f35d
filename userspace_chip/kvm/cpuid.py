"""CPUID as QEMU's ``qemu64`` shows it under KVM: the leaves that test guests look at.

Source: QEMU 7.2 ``target/i386/cpu.c`` (``builtin_x86_defs``, ``cpu_x86_cpuid``) and
``target/i386/kvm/kvm-cpu.c:kvm_default_props``; Linux ``Documentation/virt/kvm/x86/cpuid.rst``.
The vendor is the host's, as there, so that VMMCALL or VMCALL is right.  Everything is masked with
what KVM supports.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from userspace_chip.kvm import abi

_EDX_1: Final = 0x178BFBFF
_ECX_1: Final = 1 << 0 | 1 << 13 | 1 << 31  # SSE3, CX16, hypervisor
_X2APIC: Final = 1 << 21
_TSC_DEADLINE: Final = 1 << 24
_HTT: Final = 1 << 28
_EDX_8001: Final = _EDX_1 & 0x0183F3FF | 1 << 11 | 1 << 20 | 1 << 29  # SYSCALL, NX, LM
_ECX_8001: Final = 1 << 0  # LAHF
_SIGNATURE: Final = 0x00060FB1
"""Family 15, model 107, stepping 1."""
_HIGHEST: Final = 0xD
_HIGHEST_EXTENDED: Final = 0x80000008
_PV_FEATURES: Final = 0x40000001
_PV_IN_KERNEL_APIC: Final = 1 << 4 | 1 << 6  # async page faults, PV EOI
_PV_SHOWN: Final = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 24  # clocks, no I/O delay, steal time


def guest_cpuid(
    supported: Iterable[abi.KvmCpuidEntry2],
    cpu: int,
    cpus: int,
    *,
    kernel_lapic: bool,
    x2apic: bool,
    tsc_deadline: bool = False,
) -> list[abi.KvmCpuidEntry2]:
    """The leaves of CPU ``cpu`` of ``cpus``; ``tsc_deadline`` as of ``-cpu qemu64,+tsc-deadline``.

    Without the local APIC in the kernel there is nothing of KVM's paravirtual features that needs
    it.
    """
    leaves = []
    for leaf in supported:
        kept = abi.KvmCpuidEntry2.from_buffer_copy(leaf)
        if _HIGHEST < kept.function < 0x40000000 or kept.function > _HIGHEST_EXTENDED:
            continue
        _shape(kept, cpu, cpus, kernel_lapic=kernel_lapic)
        if kept.function == 1:
            kept.ecx |= x2apic * _X2APIC | tsc_deadline * _TSC_DEADLINE
        leaves.append(kept)
    return leaves


def _shape(leaf: abi.KvmCpuidEntry2, cpu: int, cpus: int, *, kernel_lapic: bool) -> None:
    match leaf.function:
        case 0:
            leaf.eax = _HIGHEST
        case 1:
            leaf.eax = _SIGNATURE
            leaf.ebx = cpu << 24 | cpus << 16 | 8 << 8
            leaf.ecx = leaf.ecx & _ECX_1 | 1 << 31
            leaf.edx = leaf.edx & _EDX_1 | (_HTT if cpus > 1 else 0)
        case 7 | 0xD | 6 | 0xA:
            leaf.eax = leaf.ebx = leaf.ecx = leaf.edx = 0
        case 0xB:
            leaf.edx = cpu
        case 0x40000001:
            shown = _PV_SHOWN | (_PV_IN_KERNEL_APIC if kernel_lapic else 0)
            leaf.eax &= shown
        case 0x80000000:
            leaf.eax = _HIGHEST_EXTENDED
        case 0x80000001:
            leaf.ecx &= _ECX_8001
            leaf.edx &= _EDX_8001
