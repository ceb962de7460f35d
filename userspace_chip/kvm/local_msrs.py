"""``off`` with more than QEMU's ``off`` has: x2APIC and TSC deadline of local APICs in user space.

KVM without its local APIC answers x2APIC's registers with #GP, which
``KVM_MSR_EXIT_REASON_INVAL`` turns into an exit; IA32_TSC_DEADLINE it would drop, and the APIC base
it would change on its own, so both are filtered.  Sources: Linux ``arch/x86/kvm/lapic.c``
(``kvm_x2apic_msr_read``, ``kvm_set_lapic_tscdeadline_msr``: nothing without ``lapic_in_kernel``),
``Documentation/virt/kvm/api.rst`` (KVM_X86_SET_MSR_FILTER).

On a CPU with the VMX preemption timer Linux 6.1 and 6.12 take a WRMSR of IA32_TSC_DEADLINE before
they look at the filter (``arch/x86/kvm/x86.c:handle_fastpath_set_msr_irqoff``); it is lost there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from userspace_chip.architecture import MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_X2APIC
from userspace_chip.irqchip import Machine
from userspace_chip.kvm.fds import VcpuFd, VmFd
from userspace_chip.profile import Profile, profile, tune

_MSR_TSC: Final = 0x10
_X2APIC_MSRS: Final = range(MSR_X2APIC, MSR_X2APIC + 0x100)


def off_profile(*, x2apic: bool = False, tsc_deadline: bool = False) -> Profile:
    """The chips of ``off``: QEMU 7.2's, but for what is asked for, and that no NMI is lost.

    To QEMU two NMIs are one that come before the CPU has left its guest (``cpu_interrupt`` sets a
    bit).  Two CPUs that send one at the same time see that soon, under ``on`` and ``split`` never.

    With ``x2apic`` its local APICs and their bus are QEMU 10.0's, whose x2APIC is for TCG; but in
    that mode their page does not answer (SDM volume 3A, "Detecting and Enabling x2APIC Mode").
    """
    chips = profile("off")
    if x2apic:
        later = profile("tcg", qemu="10.0")
        trace = chips.lapic.register_trace
        lapic = replace(later.lapic, register_trace=trace)
        chips = replace(chips, lapic=lapic, delivery=later.delivery)
        chips = tune(chips, lapic__reads_need_xapic_mode=True, lapic__writes_need_xapic_mode=True)
    return tune(chips, cpu__nmi_counted=True, lapic__tsc_deadline=tsc_deadline)


def leave_local_msrs(vm: VmFd, chips: Profile) -> None:
    """Ask KVM for exits at what ``chips`` has more than QEMU's; before there are vCPUs."""
    writes = [MSR_APIC_BASE] * chips.lapic.x2apic
    both = [MSR_TSC_DEADLINE] * chips.lapic.tsc_deadline
    if writes or both:
        vm.leave_msrs(writes=writes, both=both)


class LocalMsrs:
    """Answers the exits of one machine."""

    def __init__(self, chips: Machine) -> None:
        self._chips = chips
        self._deadlines = [0] * len(chips.lapics)
        """Of each CPU, as it wrote it."""

    def read(self, vcpu: VcpuFd) -> None:
        """``KVM_EXIT_X86_RDMSR``."""
        cpu, (msr, _) = vcpu.index, vcpu.msr_exit()
        value = None
        if self._has(msr):
            value = self._chips.msr_read(cpu, msr)
            if msr == MSR_TSC_DEADLINE and value:
                value = self._deadlines[cpu]
        vcpu.answer_msr(value)

    def write(self, vcpu: VcpuFd) -> None:
        """``KVM_EXIT_X86_WRMSR``."""
        msr, value = vcpu.msr_exit()
        if msr == MSR_TSC_DEADLINE:
            self._deadlines[vcpu.index] = value
            value = self._on_the_chips_clock(vcpu, value)
        done = self._has(msr) and self._chips.msr_write(vcpu.index, msr, value)
        if done and msr == MSR_APIC_BASE:
            vcpu.set_msr(msr, self._chips.lapics[vcpu.index].state.apic_base)
        vcpu.answer_msr(0 if done else None)

    def _has(self, msr: int) -> bool:
        knobs = self._chips.profile.lapic
        if msr == MSR_TSC_DEADLINE:
            return knobs.tsc_deadline
        return knobs.x2apic and (msr in _X2APIC_MSRS or msr == MSR_APIC_BASE)

    def _on_the_chips_clock(self, vcpu: VcpuFd, deadline: int) -> int:
        """A deadline of the guest's TSC as one of the chips', a tick of which is a nanosecond."""
        if not deadline:
            return 0  # none
        ticks = deadline - (vcpu.get_msr(_MSR_TSC) or 0)
        return max(self._chips.now_ns + ticks * 1_000_000 // vcpu.tsc_khz(), 1)
