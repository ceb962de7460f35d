"""The rest of a PC that guests ask for: fw_cfg, keyboard controller, reset, ACPI PM.

Sources: QEMU ``docs/specs/fw_cfg.rst``, ``hw/input/pckbd.c``, ``hw/acpi/core.c``; ACPI
specification 6.4, "Power Management Timer" and "PM1 Control Registers".  Not modelled: keyboard
and mouse, the events of ACPI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FW_CFG: Final = range(0x510, 0x512)
KEYBOARD: Final = (0x60, 0x64)
RESET_CONTROL: Final = range(0xCF9, 0xCFA)
PM_BASE: Final = 0x600
PM_EVENT: Final = range(PM_BASE, PM_BASE + 4)
PM_CONTROL: Final = range(PM_BASE + 4, PM_BASE + 6)
PM_TIMER: Final = range(PM_BASE + 8, PM_BASE + 12)
PM_TIMER_HZ: Final = 3579545
SLEEP_TYPE_OFF: Final = 0
"""What the DSDT's \\_S5 says."""

_NS_PER_S: Final = 1_000_000_000


class FwCfg:
    """QEMU's fw_cfg by its two ports: a selector, and the bytes of the item."""

    def __init__(self, *, cpus: int, memory_bytes: int) -> None:
        self._items = {
            0x00: b"QEMU",
            0x01: (1).to_bytes(4, "little"),
            0x03: memory_bytes.to_bytes(8, "little"),
            0x05: cpus.to_bytes(2, "little"),
            0x0F: cpus.to_bytes(2, "little"),
        }
        self._item = b""
        self._at = 0

    def read(self, cpu: int, at: int, size: int) -> int:
        """The item's next byte; 0 after its end."""
        if at == FW_CFG.start:
            return 0
        value = self._item[self._at] if self._at < len(self._item) else 0
        self._at += 1
        return value

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Select an item."""
        if at == FW_CFG.start:
            self._item, self._at = self._items.get(value & 0x3FFF, b""), 0


class Keyboard:
    """The 8042 as far as a reset needs it: never busy, no keyboard, command 0xfe resets."""

    def __init__(self, reset: Callable[[], None]) -> None:
        self._reset = reset

    def read(self, cpu: int, at: int, size: int) -> int:
        """Neither buffer is full."""
        return 0

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Commands but the reset are lost."""
        if at == 0x64 and value & 0xFF == 0xFE:
            self._reset()


class ResetControl:
    """The PIIX/ICH reset control register, port 0xcf9."""

    def __init__(self, reset: Callable[[], None]) -> None:
        self._reset = reset

    def read(self, cpu: int, at: int, size: int) -> int:
        """It remembers nothing."""
        return 0

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Bit 2 resets the CPUs."""
        if value & 4:
            self._reset()


class AcpiPm:
    """PM1 event and control registers, and the PM timer of 24 bits."""

    def __init__(self, now_ns: Callable[[], int], power_off: Callable[[], None]) -> None:
        self._now_ns = now_ns
        self._power_off = power_off
        self._enable = 0
        self._control = 1

    def read(self, cpu: int, at: int, size: int) -> int:
        """No event is ever pending; SCI_EN is set."""
        if at == PM_TIMER.start:
            return self._now_ns() * PM_TIMER_HZ // _NS_PER_S & 0xFFFFFF
        if at == PM_EVENT.start + 2:
            return self._enable
        return self._control if at == PM_CONTROL.start else 0

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """SLP_EN with the type of S5 powers off."""
        if at == PM_EVENT.start + 2:
            self._enable = value & 0xFFFF
        elif at == PM_CONTROL.start:
            self._control = value & 0x1C07 | 1
            if value & 1 << 13 and value >> 10 & 7 == SLEEP_TYPE_OFF:
                self._power_off()
