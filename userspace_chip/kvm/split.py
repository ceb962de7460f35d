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

from userspace_chip.architecture import IOAPIC_PINS, Board
from userspace_chip.chipset import Emitter
from userspace_chip.info_pic import InfoPic
from userspace_chip.ioapic import Ioapic
from userspace_chip.kvm import abi
from userspace_chip.kvm.devices.bus import Ports, Windows
from userspace_chip.kvm.fds import VmFd
from userspace_chip.kvm.in_kernel import KernelLapics, KernelRouter
from userspace_chip.kvm.live import Kick, LiveChips, connect_chips, info_pic
from userspace_chip.kvm.options import Delivery
from userspace_chip.messages import MsiMessage
from userspace_chip.pic import Pic
from userspace_chip.pit import Pit
from userspace_chip.profile import Profile
from userspace_chip.routing import split_msi
from userspace_chip.rtc import Rtc
from userspace_chip.wiring import IoapicWiring, PicPins, PitWiring, RtcWiring, hpet_of


class SplitChips(LiveChips):
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
        super().__init__(profile)
        self.vm = vm
        self.kick = kick
        self.intr = False
        """The PIC's INTR wire, until CPU 0 has acknowledged it (CPU_INTERRUPT_HARD)."""
        self.router = KernelRouter(vm, split_msi())
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


class SplitIrqchip(KernelLapics):
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
        super().__init__(vm, profile)
        vm.enable_split_irqchip(IOAPIC_PINS)
        self.chips = SplitChips(
            profile, vm, kick, delivery, board=board, time_of_day_s=time_of_day_s
        )

    def connect(self, ports: Ports, windows: Windows) -> None:
        """QEMU's chips, and KVM's window."""
        connect_chips(self.chips, ports, windows)
        self.connect_window(windows)
        self.chips.log.take()

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

    def info_pic(self) -> InfoPic:
        """Of the chips in Python."""
        return info_pic(self.chips)

    def after_run(self, cpu: int) -> None:
        """CR8 and the base are the kernel's."""

    def handle(self, cpu: int, reason: abi.ExitReason) -> bool:
        """EOIs for the IOAPIC, the interrupt window, and accesses of TPR."""
        if reason is abi.ExitReason.IOAPIC_EOI:
            self.chips.log.vcpu = cpu
            self.chips.eoi_broadcast(self._vcpus[cpu].kvm_run.exit.eoi.vector)
            return True
        if reason is abi.ExitReason.TPR_ACCESS:
            self.tpr_accessed(cpu)
            return True
        return reason is abi.ExitReason.IRQ_WINDOW_OPEN

    def settle(self) -> None:
        """KVM kicks its CPUs itself, and the PIC's wire kicks CPU 0."""
