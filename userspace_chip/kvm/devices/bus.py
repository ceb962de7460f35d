"""The buses: which device answers at a port or at an address.

Where none does at a port, a read is all ones and a write is lost, as on a PC (QEMU
``softmmu/ioport.c:unassigned_io_ops``).  In memory that is so only where a chipset has its devices;
elsewhere the access is the guest's mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

CHIPSET_START: Final = 0xFE000000
CHIPSET_END: Final = 1 << 32


class Device(Protocol):
    """What answers at ports or in a window of memory; ``size`` is 1, 2 or 4 bytes (memory: 8)."""

    def read(self, cpu: int, at: int, size: int) -> int:
        """The value that CPU ``cpu`` reads at port or address ``at``."""

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """CPU ``cpu`` writes ``value`` to port or address ``at``."""


class Ports:
    """The 65536 I/O ports."""

    def __init__(self) -> None:
        self._devices: dict[int, Device] = {}
        self._texts: dict[int, Callable[[bytes], None]] = {}

    def add(self, ports: Iterable[int], device: Device) -> None:
        """Let ``device`` answer at ``ports``; a later device takes a port over."""
        self._devices.update(dict.fromkeys(ports, device))

    def add_text(self, port: int, output: Callable[[bytes], None]) -> None:
        """Let ``output`` have what a REP OUTSB writes to ``port``, in one piece."""
        self._texts[port] = output

    def read(self, cpu: int, port: int, size: int) -> int:
        """IN."""
        device = self._devices.get(port)
        return _all_ones(size) if device is None else device.read(cpu, port, size)

    def write(self, cpu: int, port: int, size: int, value: int) -> None:
        """OUT."""
        device = self._devices.get(port)
        if device is not None:
            device.write(cpu, port, size, value)

    def write_string(self, cpu: int, port: int, size: int, data: bytes) -> None:
        """REP OUTS: items of ``size`` bytes."""
        text = self._texts.get(port)
        if text is not None and size == 1:
            text(data)
            return
        for at in range(0, len(data), size):
            self.write(cpu, port, size, int.from_bytes(data[at : at + size], "little"))


class Windows:
    """The memory that is no RAM: device windows, by their first address."""

    def __init__(self) -> None:
        self._windows: list[tuple[int, int, Device]] = []

    def add(self, first: int, size: int, device: Device) -> None:
        """Let ``device`` answer at the ``size`` bytes from ``first``; of two the earlier one."""
        self._windows.append((first, first + size, device))

    def at(self, address: int) -> Device | None:
        """The device at ``address``; None where there is none and none can be."""
        for first, end, device in self._windows:
            if first <= address < end:
                return device
        return _NOTHING if CHIPSET_START <= address < CHIPSET_END else None


class _Nothing:
    """A chipset's memory without a device: reads 0.

    QEMU ``softmmu/memory.c:unassigned_mem_read``.
    """

    def read(self, cpu: int, at: int, size: int) -> int:
        return 0

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        pass


_NOTHING: Final = _Nothing()


def _all_ones(size: int) -> int:
    return (1 << 8 * size) - 1
