"""What KVM has in ``on`` and in ``split``: the local APICs, and where GSIs lead.

Sources: QEMU 7.2 ``hw/i386/kvm/apic.c`` (``kvm_apic_mem_write``, ``do_inject_external_nmi``,
``kvm_send_msi``), ``hw/i386/kvmvapic.c``, ``accel/kvm/kvm-all.c:kvm_set_irq``.
"""

from __future__ import annotations

import struct
from typing import Final

from userspace_chip import lapic_registers as reg
from userspace_chip.architecture import APIC_WINDOW, APIC_WINDOW_BYTES
from userspace_chip.info_lapic import InfoLapic, format_lapic
from userspace_chip.kvm import abi, firmware, layout
from userspace_chip.kvm.devices.bus import Windows
from userspace_chip.kvm.fds import VcpuFd, VmFd
from userspace_chip.kvm.live import as_device
from userspace_chip.messages import MsiMessage
from userspace_chip.profile import Profile
from userspace_chip.routing import Router, RoutingTable

_WORD: Final = struct.Struct("<I")


class KernelRouter(Router):
    """The routing table, whose routes KVM follows."""

    def __init__(self, vm: VmFd, table: RoutingTable) -> None:
        self.table = table
        self.emit = None
        self._vm = vm

    def set_irq(self, gsi: int, level: int, source: int = 0, line_status: bool = True) -> int:
        """``KVM_IRQ_LINE``."""
        self._vm.irq_line(gsi, bool(level))
        return 0

    def send_msi(self, message: MsiMessage) -> int:
        """``KVM_SIGNAL_MSI``."""
        return self._vm.signal_msi(message)


class KernelLapics:
    """KVM's local APICs, as far as user space has to do with them."""

    def __init__(self, vm: VmFd, profile: Profile) -> None:
        self._vm = vm
        self._knobs = profile.lapic
        self._vcpus: list[VcpuFd] = []

    def connect_window(self, windows: Windows) -> None:
        """The local APICs' window is KVM's but for stored messages."""
        windows.add(APIC_WINDOW, APIC_WINDOW_BYTES, as_device(self._apic_read, self._apic_write))

    def _apic_read(self, cpu: int, at: int, size: int) -> int:
        """``kvm_apic_mem_read``."""
        return (1 << 8 * size) - 1

    def _apic_write(self, cpu: int, at: int, size: int, value: int) -> None:
        """``kvm_apic_mem_write``: a message."""
        if size >= 4:
            self._vm.signal_msi(MsiMessage(at - APIC_WINDOW, value & 0xFFFFFFFF))

    def add_cpu(self, vcpu: VcpuFd) -> None:
        """Its page as SeaBIOS leaves it; loading it also gets the vCPU into KVM's APIC map."""
        image = vcpu.get_lapic()
        for offset, value in (
            (reg.SPIV, firmware.SPIV_ENABLED if vcpu.index == 0 else 0xFF),
            (reg.LVT_OFFSETS[reg.LVT_LINT0], firmware.LINT0_EXTINT),
            (reg.LVT_OFFSETS[reg.LVT_LINT1], firmware.LINT1_NMI),
        ):
            _WORD.pack_into(image, offset, value)
        vcpu.set_lapic(image)
        # As the option ROM of QEMU's kvmvapic does; what it would patch is above 0x80000000.
        vcpu.report_tpr_accesses(self._knobs.tpr_access_exits)
        self._vcpus.append(vcpu)

    def signal_msi(self, address: int, data: int, cpu: int) -> object:
        """``kvm_send_msi``."""
        return self._vm.signal_msi(MsiMessage(address, data))

    def external_nmi(self, cpu: int) -> None:
        """``do_inject_external_nmi``: where LINT1 is not masked, and in NMI mode."""
        lvt = _word(self._vcpus[cpu].get_lapic(), reg.LVT_OFFSETS[reg.LVT_LINT1])
        if lvt & 0x10700 == 0x400:
            self._vcpus[cpu].nmi()

    def lapic_text(self, cpu: int) -> str:
        """Of KVM's local APIC; the current count is as KVM has it."""
        page = self._vcpus[cpu].get_lapic()
        base = self._vcpus[cpu].get_sregs().apic_base
        state = layout.lapic_from_kvm(page, vcpu_id=cpu, apic_base=base)
        return format_lapic(InfoLapic(cpu, state, current_count=_word(page, reg.TMCCT)))

    def is_halted(self, cpu: int) -> bool:
        """As KVM has it."""
        return self._vcpus[cpu].get_mp_state() is abi.MpState.HALTED

    def tpr_accessed(self, cpu: int) -> None:
        """``vapic_report_tpr_access``: the registers are put back, because it looks at them.

        With CR8, which is TPR without its lower four bits (``kvm_put_sregs``), and with the
        general ones, after which KVM looks what may be injected (Linux ``x86.c:__set_regs``).
        """
        vcpu = self._vcpus[cpu]
        vcpu.set_sregs(vcpu.get_sregs())
        vcpu.set_regs(vcpu.get_regs())


def _word(page: abi.KvmLapicState, offset: int) -> int:
    return int(_WORD.unpack_from(page, offset)[0])
