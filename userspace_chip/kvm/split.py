"""``split``, live: KVM has the local APICs; IOAPIC, PIC and PIT are the chips of this package.

This is QEMU's half of the mode.  An IOAPIC's message goes to KVM as an MSI, by the route of its pin
and ``KVM_IRQ_LINE`` as QEMU does it, or by ``KVM_SIGNAL_MSI``; the EOI of a level-triggered one
comes back as ``KVM_EXIT_IOAPIC_EOI``; the PIC's interrupts go by ``KVM_INTERRUPT`` to CPU 0.

Sources: QEMU 7.2 ``hw/intc/ioapic.c:ioapic_service``, ``accel/kvm/kvm-all.c``
(``kvm_irqchip_commit_routes``), ``target/i386/kvm/kvm.c`` (``kvm_arch_pre_run``,
``kvm_arch_handle_exit``), ``hw/i386/kvm/apic.c:kvm_apic_mem_write``; Linux
``Documentation/virt/kvm/api.rst``, KVM_CAP_SPLIT_IRQCHIP.
"""

from __future__ import annotations

import struct
from typing import Final

from userspace_chip import lapic_registers as reg
from userspace_chip.architecture import APIC_WINDOW, APIC_WINDOW_BYTES, IOAPIC_PINS, Board
from userspace_chip.chipset import Chipset, Emitter
from userspace_chip.info_lapic import InfoLapic, format_lapic
from userspace_chip.ioapic import Ioapic
from userspace_chip.kvm import abi, firmware, layout
from userspace_chip.kvm.devices.bus import Ports, Windows
from userspace_chip.kvm.fds import VcpuFd, VmFd
from userspace_chip.kvm.live import Kick, LiveLog, as_device, connect_chips
from userspace_chip.kvm.options import Delivery
from userspace_chip.messages import MsiMessage
from userspace_chip.pic import Pic
from userspace_chip.pit import Pit
from userspace_chip.profile import Profile
from userspace_chip.routing import Router, RoutingTable, split_msi
from userspace_chip.rtc import Rtc
from userspace_chip.wiring import IoapicWiring, PicPins, PitWiring, RtcWiring, hpet_of

_WORD: Final = struct.Struct("<I")


class SplitChips(Chipset):
    """QEMU's chips of ``split``, wired to a VM instead of to modelled local APICs."""

    def __init__(
        self,
        profile: Profile,
        vm: VmFd,
        kick: Kick,
        delivery: Delivery,
        *,
        board: Board = "q35",
        time_of_day_s: int = 0,
    ) -> None:
        self.profile = profile
        self.on, self.split = False, True
        self.now_ns = 0
        self.deadlines = {}
        self.resamplers = set()
        self.resampled = []
        self.staged = {}
        self.lapics = []
        self.vcpus = []
        self.vm = vm
        self.kick = kick
        self.intr = False
        """The PIC's INTR wire, until CPU 0 has acknowledged it (CPU_INTERRUPT_HARD)."""
        self.router = _KernelRouter(vm, split_msi())
        self.log = LiveLog(self)
        wiring = _ByRoute if delivery == "route" else _ByMsi
        self.ioapics = [Ioapic(profile, wiring(self))]
        self.pic = Pic(profile, _PicPins(self))
        self.pit = Pit(profile, PitWiring(self))
        self.hpet = hpet_of(self, board)
        self.rtc = Rtc(profile, RtcWiring(self), time_of_day_s)
        vm.set_gsi_routing(self.router.table.routes)

    @property
    def chips(self) -> list[Emitter]:
        """Those that emit events."""
        return [*self.ioapics, self.pic]

    def commit_routes(self) -> None:
        """``KVM_SET_GSI_ROUTING``; QEMU does it where nothing changed, too."""
        super().commit_routes()
        self.vm.set_gsi_routing(self.router.table.routes)


class _KernelRouter(Router):
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


class _ByRoute(IoapicWiring):
    """Messages by the pin's route, whatever it says by now: QEMU's way."""

    __slots__ = ("_chips",)

    def __init__(self, chips: SplitChips) -> None:
        super().__init__(chips, 0)
        self._chips = chips


class _ByMsi(_ByRoute):
    """Messages as the entry says."""

    __slots__ = ()

    def send_msi(self, pin: int, message: MsiMessage, level: bool) -> None:
        """``KVM_SIGNAL_MSI``."""
        self._chips.router.send_msi(message)


class _PicPins(PicPins):
    """INTR goes to CPU 0."""

    __slots__ = ("_chips",)

    def __init__(self, chips: SplitChips) -> None:
        super().__init__(chips)
        self._chips = chips

    def intr(self, level: bool) -> None:
        """``pic_irq_request``."""
        chips = self._chips
        if chips.log.enabled:
            chips.log("x86_pic_interrupt", 0, int(level))
        chips.intr = level
        if level:
            chips.kick(0)


class SplitIrqchip:
    """The mode ``split`` of a VM."""

    def __init__(
        self,
        vm: VmFd,
        profile: Profile,
        kick: Kick,
        delivery: Delivery,
        *,
        board: Board = "q35",
        time_of_day_s: int = 0,
    ) -> None:
        vm.enable_split_irqchip(IOAPIC_PINS)
        self._vm = vm
        self._vcpus: list[VcpuFd] = []
        self.chips = SplitChips(
            profile, vm, kick, delivery, board=board, time_of_day_s=time_of_day_s
        )

    def connect(self, ports: Ports, windows: Windows) -> None:
        """The local APICs' window is KVM's but for stored messages."""
        connect_chips(self.chips, ports, windows)
        windows.add(APIC_WINDOW, APIC_WINDOW_BYTES, as_device(self._apic_read, self._apic_write))
        self.chips.log.take()

    # ------------------------------------------------------------------ registers

    def _apic_read(self, cpu: int, at: int, size: int) -> int:
        """``kvm_apic_mem_read``."""
        return (1 << 8 * size) - 1

    def _apic_write(self, cpu: int, at: int, size: int, value: int) -> None:
        """``kvm_apic_mem_write``: a message."""
        if size >= 4:
            self._vm.signal_msi(MsiMessage(at - APIC_WINDOW, value & 0xFFFFFFFF))

    # ------------------------------------------------------------------ CPUs

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
        vcpu.report_tpr_accesses(self.chips.profile.lapic.tpr_access_exits)
        self._vcpus.append(vcpu)

    def signal_msi(self, address: int, data: int, cpu: int) -> object:
        """``kvm_send_msi``."""
        return self._vm.signal_msi(MsiMessage(address, data))

    def before_run(self, cpu: int) -> bool:
        """``kvm_arch_pre_run``: the PIC is acknowledged where CPU 0 can take its vector."""
        if cpu == 0:
            chips = self.chips
            run = self._vcpus[0].kvm_run
            if chips.intr and run.ready_for_interrupt_injection and run.if_flag:
                chips.intr = False
                chips.log.vcpu = 0
                self._vcpus[0].interrupt(chips.pic.intack())
            run.request_interrupt_window = chips.intr
        return True

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

    def after_run(self, cpu: int) -> None:
        """CR8 and the base are the kernel's."""

    def handle(self, cpu: int, reason: abi.ExitReason) -> bool:
        """EOIs for the IOAPIC, the interrupt window, and accesses of TPR."""
        if reason is abi.ExitReason.IOAPIC_EOI:
            self.chips.log.vcpu = cpu
            self.chips.eoi_broadcast(self._vcpus[cpu].kvm_run.exit.eoi.vector)
            return True
        if reason is abi.ExitReason.TPR_ACCESS:
            # vapic_report_tpr_access looks at the registers, so that they are put back
            # (kvm_put_sregs): with CR8, which is TPR without its lower four bits.
            self._vcpus[cpu].set_sregs(self._vcpus[cpu].get_sregs())
            return True
        return reason is abi.ExitReason.IRQ_WINDOW_OPEN

    def settle(self) -> None:
        """KVM kicks its CPUs itself, and the PIC's wire kicks CPU 0."""


def _word(page: abi.KvmLapicState, offset: int) -> int:
    return int(_WORD.unpack_from(page, offset)[0])
