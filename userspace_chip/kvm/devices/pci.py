"""PCI configuration space by mechanism #1, and QEMU's edu.

Spec: PCI Local Bus Specification 3.0, "Configuration Mechanism #1" and "MSI Capability Structure";
QEMU ``docs/specs/edu.rst``, ``hw/misc/edu.c``.  Of edu there is what sends a message: the interrupt
registers and the MSI capability.  Its DMA, its factorial and its INTx line are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from userspace_chip.architecture import APIC_WINDOW, APIC_WINDOW_BYTES

CONFIG: Final = range(0xCF8, 0xD00)
_ADDRESS: Final = 0xCF8
_DATA: Final = 0xCFC
_ENABLE: Final = 1 << 31

EDU_SLOT: Final = 4
EDU_BAR: Final = 0xFEA00000
EDU_BAR_BYTES: Final = 0x100000
_EDU_ID: Final = 0x11E81234
_EDU_CLASS: Final = 0x00FF0010
_EDU_IDENTIFICATION: Final = 0x010000ED
_MSI_CAPABILITY: Final = 0x40
_MSI_HEAD: Final = 0x0080_0005  # 64-bit addresses, no further capability
_MSI_ENABLED: Final = 1 << 16
_MASTER: Final = 1 << 2


class PciConfig:
    """The two configuration registers; ``functions`` by device number, all on bus 0."""

    def __init__(self, functions: Mapping[int, PciFunction] | None = None) -> None:
        self._functions = functions or {}
        self._address = 0

    def read(self, cpu: int, at: int, size: int) -> int:
        """The address register, or data: all ones where no function is."""
        if at == _ADDRESS and size == 4:
            return self._address
        ones = (1 << 8 * size) - 1
        function = self._selected()
        if at < _DATA or function is None:
            return ones
        return function.config_read(self._address & 0xFC) >> 8 * (at & 3) & ones

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """The address register, or data."""
        if at == _ADDRESS and size == 4:
            self._address = value & ~3
            return
        function = self._selected()
        if at < _DATA or function is None:
            return
        shift = 8 * (at & 3)
        mask = ((1 << 8 * size) - 1) << shift & 0xFFFFFFFF
        function.config_write(self._address & 0xFC, value << shift & mask, mask)

    def _selected(self) -> PciFunction | None:
        if not self._address & _ENABLE or self._address & 0xFF0700:
            return None
        return self._functions.get(self._address >> 11 & 0x1F)


class PciFunction:
    """A function's configuration space: its words by offset, and which of their bits are writable.

    Its BARs have their places, which stay.
    """

    def __init__(self, config: dict[int, int], writable: Mapping[int, int]) -> None:
        self._config = config
        self._writable = writable

    def config_read(self, offset: int) -> int:
        """A word of its configuration space."""
        return self._config.get(offset, 0)

    def config_write(self, offset: int, value: int, mask: int) -> None:
        """The bits of ``mask`` that can be written."""
        mask &= self._writable.get(offset, 0)
        self._config[offset] = self._config.get(offset, 0) & ~mask | value & mask


class Edu(PciFunction):
    """edu: a function that sends its MSI when its raise register is written.

    ``signal_msi`` takes address, data and the CPU that wrote.
    """

    _WRITABLE: Final = {
        0x04: 0x0507,
        0x3C: 0xFF,
        _MSI_CAPABILITY: 0x0001_0000,
        _MSI_CAPABILITY + 4: 0xFFFFFFFC,
        _MSI_CAPABILITY + 8: 0xFFFFFFFF,
        _MSI_CAPABILITY + 12: 0xFFFF,
    }

    def __init__(self, signal_msi: Callable[[int, int, int], object]) -> None:
        config = {
            0x00: _EDU_ID,
            0x04: 0x0010_0000,  # it has capabilities
            0x08: _EDU_CLASS,
            0x10: EDU_BAR,
            0x34: _MSI_CAPABILITY,
            _MSI_CAPABILITY: _MSI_HEAD,
        }
        super().__init__(config, self._WRITABLE)
        self._signal_msi = signal_msi
        self._status = 0

    def read(self, cpu: int, at: int, size: int) -> int:
        """A register of BAR 0."""
        match at - EDU_BAR:
            case 0x00:
                return _EDU_IDENTIFICATION
            case 0x24:
                return self._status
            case _:
                return 0

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Raise (0x60) or acknowledge (0x64) an interrupt."""
        match at - EDU_BAR:
            case 0x60:
                self._status |= value
                if self._status:
                    self._send(cpu)
            case 0x64:
                self._status &= ~value

    def _send(self, cpu: int) -> None:
        config = self._config
        if config[_MSI_CAPABILITY] & _MSI_ENABLED and config[0x04] & _MASTER:
            low = config.get(_MSI_CAPABILITY + 4, 0)
            address = config.get(_MSI_CAPABILITY + 8, 0) << 32 | low
            # It is a store to memory (msi_send_message); elsewhere it is no message.
            if APIC_WINDOW <= address < APIC_WINDOW + APIC_WINDOW_BYTES:
                self._signal_msi(address, config.get(_MSI_CAPABILITY + 12, 0), cpu)
