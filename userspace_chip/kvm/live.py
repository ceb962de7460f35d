"""What a mode of the live machine is to the VMM: the chips in Python, and their side of a vCPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from userspace_chip.chipset import Chipset, EventLog
from userspace_chip.events import QEMU_EVENTS, Arg
from userspace_chip.kvm import abi
from userspace_chip.kvm.devices.bus import Device, Ports, Windows
from userspace_chip.kvm.fds import VcpuFd, VmFd

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

    What the kernel does itself only its own tracepoints tell.
    """

    def __call__(self, name: str, *args: Arg) -> None:
        """One event, if it is one of QEMU's."""
        if name in QEMU_EVENTS:
            super().__call__(name, *args)
            self.events[-1] = self.events[-1]._replace(source="qemu")


class ChipPorts:
    """The PICs' and the PIT's ports, as a device on the bus."""

    def __init__(
        self, read: Callable[[int, int, int], int], write: Callable[[int, int, int, int], None]
    ) -> None:
        self._read = read
        self._write = write

    def read(self, cpu: int, at: int, size: int) -> int:
        """IN, or a load."""
        return self._read(cpu, at, size)

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """OUT, or a store."""
        self._write(cpu, at, size, value)


def as_device(
    read: Callable[[int, int, int], int], write: Callable[[int, int, int, int], None]
) -> Device:
    """Two functions, (CPU, place, size) and (CPU, place, size, value), as a device on a bus."""
    return ChipPorts(read, write)
