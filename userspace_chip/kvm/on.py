"""``on``, live: every interrupt controller is KVM's; RTC, HPET and port 0x61 are in Python.

A device's line goes to KVM as QEMU's does, by ``KVM_IRQ_LINE_STATUS``, whose result the RTC sees.
With a trace, KVM's chips are shown after each exit to user space (``kvm/shown.py``), so that a
model which is fed from KVM's tracepoints can be compared with them there.

Sources: QEMU 7.2 ``hw/i386/x86.c:gsi_handler``, ``hw/i386/kvm/{i8259,ioapic,i8254}.c``,
``target/i386/kvm/kvm.c:kvm_arch_irqchip_create``, ``hw/audio/pcspk.c``; Linux
``Documentation/virt/kvm/api.rst``, KVM_CREATE_IRQCHIP.
"""

from __future__ import annotations

import time

from userspace_chip.architecture import PIC_PORTS, SPEAKER, Board
from userspace_chip.chipset import Emitter
from userspace_chip.info_pic import InfoPic
from userspace_chip.ioapic import Ioapic, IoapicState
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import abi, firmware, layout, shown
from userspace_chip.kvm.devices.bus import Ports, Windows
from userspace_chip.kvm.fds import VmFd
from userspace_chip.kvm.in_kernel import KernelLapics, KernelRouter
from userspace_chip.kvm.live import LiveChips, as_device, connect_clocks
from userspace_chip.pic import Pic
from userspace_chip.pit import Pit, PitChannelState
from userspace_chip.ports import Irqchip
from userspace_chip.profile import Profile
from userspace_chip.routing import DEFAULT_TABLES
from userspace_chip.rtc import Rtc
from userspace_chip.wiring import IoapicWiring, PicPins, PitWiring, RtcWiring, hpet_of


class OnChips(LiveChips):
    """What QEMU has beside KVM's chips; ``ioapics`` and ``pic`` only say what there is."""

    def __init__(
        self, profile: Profile, vm: VmFd, *, board: Board = "q35", time_of_day_s: int = 0
    ) -> None:
        super().__init__(profile)
        self.router = _LineRouter(vm, DEFAULT_TABLES[profile.route.default_routes]())
        self.ioapics = [Ioapic(profile, IoapicWiring(self, 0))]
        self.pic = Pic(profile, PicPins(self))
        self.pit = _KernelPit(profile, self, vm)
        self.hpet = hpet_of(self, board)
        self.rtc = Rtc(profile, RtcWiring(self), time_of_day_s)
        vm.set_gsi_routing(self.router.table.routes)

    @property
    def chips(self) -> list[Emitter]:
        """Those that emit events: KVM's are traced by the kernel."""
        return []


class _LineRouter(KernelRouter):
    """Lines of which KVM says what became of them."""

    def set_irq(self, gsi: int, level: int, source: int = 0, line_status: bool = True) -> int:
        """``KVM_IRQ_LINE_STATUS``."""
        return self._vm.irq_line_status(gsi, bool(level))


class _KernelPit(Pit):
    """KVM's 8254, as QEMU gets at it: for the HPET, and for port 0x61, whose channel 2 it asks."""

    def __init__(self, profile: Profile, chips: OnChips, vm: VmFd) -> None:
        super().__init__(profile, PitWiring(chips))
        self._vm = vm

    def read(self, port: int, now_ns: int, size: int = 1) -> int:
        """``pcspk_io_read``; KVM's counts began on the kernel's clock."""
        self._look()
        return super().read(port, time.monotonic_ns(), size)

    def write(self, port: int, value: int, now_ns: int, size: int = 1) -> None:
        """``pcspk_io_write``."""
        self._look()
        super().write(port, value, time.monotonic_ns(), size)

    def set_hpet_legacy(self, on: bool, now_ns: int) -> None:
        """``kvm_pit_irq_control``."""
        self._look()
        super().set_hpet_legacy(on, now_ns)

    def set_pit2(self, channels: list[PitChannelState], hpet_legacy: int, now_ns: int) -> None:
        """``kvm_pit_put``."""
        self._vm.set_pit2(layout.pit_to_kvm(channels, hpet_legacy=hpet_legacy))

    def _look(self) -> None:
        """``kvm_pit_get``."""
        channels, flags = layout.pit_from_kvm(self._vm.get_pit2())
        self.state.channels = channels
        self.state.hpet_legacy = int(abi.PitFlag.HPET_LEGACY in flags)


class OnIrqchip(KernelLapics):
    """The mode ``on`` of a VM."""

    def __init__(
        self, vm: VmFd, profile: Profile, *, board: Board = "q35", time_of_day_s: int = 0
    ) -> None:
        super().__init__(vm, profile)
        vm.create_irqchip()
        vm.create_pit2()
        vm.set_pit_reinjection(profile.pit.reinject)
        self.chips = OnChips(profile, vm, board=board, time_of_day_s=time_of_day_s)
        _leave_firmware(vm, profile)  # the PIT ticks from here on: by the routes that it has now
        self._seen = shown.Changes()

    def connect(self, ports: Ports, windows: Windows) -> None:
        """RTC, HPET and port 0x61; of KVM's chips what reaches beyond the PICs' ports."""
        chips = self.chips
        connect_clocks(chips, ports, windows)

        def speaker_read(cpu: int, at: int, size: int) -> int:
            return chips.pit.read(at, chips.now_ns, size)

        def speaker_write(cpu: int, at: int, size: int, value: int) -> None:
            chips.pit.write(at, value, chips.now_ns, size)

        def pic_read(cpu: int, at: int, size: int) -> int:
            return chips.pic.read(at, size)

        def pic_write(cpu: int, at: int, size: int, value: int) -> None:
            pass  # a region without operations

        ports.add(PIC_PORTS, as_device(pic_read, pic_write))
        ports.add([SPEAKER], as_device(speaker_read, speaker_write))
        self.connect_window(windows)

    def before_run(self, cpu: int) -> bool:
        """KVM has it all."""
        return True

    def after_run(self, cpu: int) -> None:
        """Where events are wanted: what of KVM's chips has changed since they were last shown.

        The event's time is that of the first look: all of it was so then, or a little later.
        """
        log = self.chips.log
        if not log.enabled:
            return
        log.vcpu = cpu
        began_ns = time.time_ns()
        images = [self._vm.get_irqchip(chip) for chip in Irqchip]
        changed = self._seen.of(cpu, self._vcpus[cpu].get_lapic(), images)
        log.add(began_ns, "kvm_chips", cpu, changed)

    def handle(self, cpu: int, reason: abi.ExitReason) -> bool:
        """Accesses of TPR."""
        if reason is abi.ExitReason.TPR_ACCESS:
            self.tpr_accessed(cpu)
            return True
        return False

    def settle(self) -> None:
        """KVM kicks its CPUs itself."""

    def info_pic(self) -> InfoPic:
        """Of KVM's chips."""
        pics = (Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE)
        image = layout.ioapic_from_kvm(self._vm.get_irqchip(Irqchip.IOAPIC))
        state = IoapicState(
            ioregsel=image.ioregsel, id=image.id, irr=image.irr, rte=list(image.rte)
        )
        return InfoPic(
            [(self.chips.ioapics[0].knobs.version, state)],
            {int(pic): layout.pic_from_kvm(self._vm.get_irqchip(pic)) for pic in pics},
        )


def _leave_firmware(vm: VmFd, profile: Profile) -> None:
    """KVM's chips as the model's are when the firmware has ended."""
    model = Machine(profile, log=False)
    for port, value in firmware.LEGACY_SETUP:
        model.pio_write(0, port, value)
    for pic in (Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE):
        vm.set_irqchip(layout.pic_to_kvm(pic, model.pic.get_irqchip(pic)))
    vm.set_irqchip(layout.ioapic_to_kvm(model.ioapics[0].get_irqchip()))
    channels, _ = model.pit.get_pit2()
    vm.set_pit2(layout.pit_to_kvm(channels))
