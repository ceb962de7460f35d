"""A vCPU with KVM's local APIC that is not entered: it keeps what it is given."""

from __future__ import annotations

from userspace_chip.kvm import abi


class IdleVcpu:
    """Its registers are always the same; what is written to it is an attribute."""

    index = 0

    def __init__(self) -> None:
        self.lapic = abi.KvmLapicState()

    def get_lapic(self) -> abi.KvmLapicState:
        return self.lapic

    def set_lapic(self, image: abi.KvmLapicState) -> None:
        self.lapic = image

    def report_tpr_accesses(self, enabled: bool) -> None:
        self.reports_tpr = enabled

    def get_sregs(self) -> abi.KvmSregs:
        return abi.KvmSregs(cr8=2)

    def set_sregs(self, sregs: abi.KvmSregs) -> None:
        self.sregs = sregs

    def get_regs(self) -> abi.KvmRegs:
        return abi.KvmRegs(rip=0x1234)

    def set_regs(self, regs: abi.KvmRegs) -> None:
        self.regs = regs
