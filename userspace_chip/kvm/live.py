"""What a mode of the live machine is to the VMM: the chips in Python, and their side of a vCPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from userspace_chip.architecture import (
    HPET_BASE,
    HPET_BYTES,
    IOAPIC_BASES,
    IOAPIC_PAGE_BYTES,
    PIC_PORTS,
    PIT_PORTS,
    RTC_PORTS,
)
from userspace_chip.chipset import Chipset, EventLog
from userspace_chip.events import QEMU_EVENTS, Arg, Event
from userspace_chip.info_pic import InfoPic
from userspace_chip.kvm import abi, firmware
from userspace_chip.kvm.devices.bus import Device, Ports, Windows
from userspace_chip.kvm.fds import VcpuFd, VmFd
from userspace_chip.profile import Profile

Kick = Callable[[int], None]
"""Make CPU n look at its interrupts: it leaves its guest, or wakes up."""


class LiveIrqchip(Protocol):
    """One irqchip mode.  Every method is called with the machine's lock held.

    ``chips`` has the time, the timers' deadlines, the lines and the event log.
    """

    @property
    def chips(self) -> Chipset:
        """The chips that are in Python."""

    def connect(self, ports: Ports, windows: Windows) -> None:
        """Let the chips answer at their ports and in their windows."""

    def add_cpu(self, vcpu: VcpuFd) -> None:
        """A vCPU was made, with its CPUID set: as a PC's firmware leaves its local APIC."""

    def signal_msi(self, address: int, data: int, cpu: int) -> object:
        """A device's message."""

    def before_run(self, cpu: int) -> bool:
        """All that has to be done before ``KVM_RUN``; False where the CPU sleeps on."""

    def external_nmi(self, cpu: int) -> None:
        """The monitor's NMI, by the local APIC's LINT1; in the vCPU's own thread."""

    def lapic_text(self, cpu: int) -> str:
        """The monitor's ``info lapic``; in the vCPU's own thread."""

    def info_pic(self) -> InfoPic:
        """The monitor's ``info pic``."""

    def is_halted(self, cpu: int) -> bool:
        """Whether it sleeps; in the vCPU's own thread."""

    def after_run(self, cpu: int) -> None:
        """What every exit has to say: CR8 and the APIC's base address."""

    def handle(self, cpu: int, reason: abi.ExitReason) -> bool:
        """An exit that is neither port nor memory; False where it is none of this mode's."""

    def settle(self) -> None:
        """After something has changed: kick the CPUs that it concerns."""


class Maker(Protocol):
    """Makes a mode's chips in a fresh VM, before it has vCPUs."""

    def __call__(self, vm: VmFd, cpus: int, kick: Kick) -> LiveIrqchip:
        """The chips for ``cpus`` CPUs."""


class LiveLog(EventLog):
    """The events of live chips: those that QEMU's chips would trace, as if QEMU did.

    What the kernel does itself only its own tracepoints tell, and so the time is that of the wall
    clock, not the guest's: what a timer does that is late comes late in both.
    """

    def __call__(self, name: str, *args: Arg) -> None:
        """One event, if it is one of QEMU's."""
        if name in QEMU_EVENTS:
            self.add(time.time_ns(), name, *args)

    def add(self, time_ns: int, name: str, *args: Arg) -> None:
        """One event of that time."""
        self.events.append(Event(time_ns, "qemu", name, self.vcpu, args))


class LiveChips(Chipset):
    """A chipset without local APICs or CPUs in Python, which KVM has."""

    log: LiveLog

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.on, self.split = profile.mode == "on", profile.mode == "split"
        self.now_ns = 0
        self.deadlines = {}
        self.resamplers = set()
        self.resampled = []
        self.staged = {}
        self.lapics = []
        self.vcpus = []
        self.log = LiveLog(self)


def info_pic(chips: Chipset) -> InfoPic:
    """What the monitor shows of IOAPICs and PICs in Python."""
    ioapics = [(chip.knobs.version, chip.state) for chip in chips.ioapics]
    return InfoPic(ioapics, dict(enumerate(chips.pic.state.chips)))


def connect_chips(chips: Chipset, ports: Ports, windows: Windows) -> None:
    """PICs, PIT, RTC, HPET and IOAPIC, where all of them are in Python."""

    def pic_read(cpu: int, at: int, size: int) -> int:
        chips.log.vcpu = cpu
        return chips.pic.read(at, size)

    def pic_write(cpu: int, at: int, size: int, value: int) -> None:
        chips.log.vcpu = cpu
        chips.pic.write(at, value, size)

    def pit_read(cpu: int, at: int, size: int) -> int:
        chips.log.vcpu = cpu
        return chips.pit.read(at, chips.now_ns, size)

    def pit_write(cpu: int, at: int, size: int, value: int) -> None:
        chips.log.vcpu = cpu
        chips.pit.write(at, value, chips.now_ns, size)

    def ioapic_read(cpu: int, at: int, size: int) -> int:
        chips.log.vcpu = cpu
        ioapic, offset = chips.ioapics[0], at - IOAPIC_BASES[0]
        return ioapic.read(offset, size) if offset < ioapic.knobs.range_bytes else 0

    def ioapic_write(cpu: int, at: int, size: int, value: int) -> None:
        chips.log.vcpu = cpu
        ioapic, offset = chips.ioapics[0], at - IOAPIC_BASES[0]
        if offset < ioapic.knobs.range_bytes:
            ioapic.write(offset, size, value, chips.now_ns)

    ports.add(PIC_PORTS, as_device(pic_read, pic_write))
    ports.add(PIT_PORTS, as_device(pit_read, pit_write))
    windows.add(IOAPIC_BASES[0], IOAPIC_PAGE_BYTES, as_device(ioapic_read, ioapic_write))
    connect_clocks(chips, ports, windows)
    for port, value in firmware.LEGACY_SETUP:
        ports.write(0, port, 1, value)


def connect_clocks(chips: Chipset, ports: Ports, windows: Windows) -> None:
    """RTC and HPET, which KVM never has."""

    def rtc_read(cpu: int, at: int, size: int) -> int:
        chips.log.vcpu = cpu
        return chips.rtc.read(at, size, chips.now_ns)

    def rtc_write(cpu: int, at: int, size: int, value: int) -> None:
        chips.log.vcpu = cpu
        chips.rtc.write(at, value, size, chips.now_ns)

    ports.add(RTC_PORTS, as_device(rtc_read, rtc_write))
    if (hpet := chips.hpet) is not None:

        def hpet_read(cpu: int, at: int, size: int) -> int:
            chips.log.vcpu = cpu
            return chips.hpet_read(hpet, at - HPET_BASE, size)

        def hpet_write(cpu: int, at: int, size: int, value: int) -> None:
            chips.log.vcpu = cpu
            chips.hpet_write(hpet, at - HPET_BASE, size, value)

        windows.add(HPET_BASE, HPET_BYTES, as_device(hpet_read, hpet_write))


class ChipPorts:
    """Two functions as a device on the bus."""

    def __init__(
        self, read: Callable[[int, int, int], int], write: Callable[[int, int, int, int], None]
    ) -> None:
        self.read = read
        self.write = write


def as_device(
    read: Callable[[int, int, int], int], write: Callable[[int, int, int, int], None]
) -> Device:
    """Two functions, (CPU, place, size) and (CPU, place, size, value), as a device on a bus."""
    return ChipPorts(read, write)
