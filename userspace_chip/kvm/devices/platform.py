"""The rest of a PC that guests ask for: CMOS and RTC, fw_cfg, keyboard controller, reset, ACPI PM.

Sources: Motorola MC146818A datasheet; QEMU ``docs/specs/fw_cfg.rst``, ``hw/rtc/mc146818rtc.c``,
``hw/input/pckbd.c``, ``hw/acpi/core.c``; ACPI specification 6.4, "Power Management Timer" and "PM1
Control Registers".  Not modelled: the RTC's alarm and update interrupts, keyboard and mouse, the
events of ACPI.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

CMOS: Final = range(0x70, 0x72)
RTC_GSI: Final = 8
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


class RtcTimer(Protocol):
    """The RTC's periodic timer."""

    def arm(self, deadline_ns: int) -> None:
        """Ask for ``expire`` at that time."""

    def cancel(self) -> None:
        """Forget it."""


class Cmos:
    """The MC146818's 128 bytes: time of day, the periodic interrupt (IRQ 8), and memory.

    ``now_ns`` is guest time, ``epoch_s`` the time of day when that was 0 (seconds of 1970, UTC).
    """

    _A, _B, _C, _D = 0x0A, 0x0B, 0x0C, 0x0D
    _PERIODIC = 1 << 6
    _IRQF = 1 << 7
    _24_HOURS = 1 << 1
    _BINARY = 1 << 2
    _VALID = 1 << 7
    _CLOCK = {0: 5, 2: 4, 4: 3, 6: 6, 7: 2, 8: 1, 9: 0, 0x32: -1}

    def __init__(
        self,
        now_ns: Callable[[], int],
        timer: RtcTimer,
        set_line: Callable[[int, int | None], None],
        epoch_s: int = 0,
    ) -> None:
        self._now_ns = now_ns
        self._timer = timer
        self._set_line = set_line
        self._epoch_s = epoch_s
        self._index = 0
        self._due_ns: int | None = None
        self._bytes = bytearray(128)
        self._bytes[self._A], self._bytes[self._B] = 0x26, self._24_HOURS
        self._bytes[self._D] = self._VALID

    def read(self, cpu: int, at: int, size: int) -> int:
        """The byte that the index names; the index itself cannot be read."""
        if at == CMOS.start:
            return 0xFF
        index = self._index
        if index in self._CLOCK:
            return self._clock(index)
        value = self._bytes[index]
        if index == self._C:
            self._bytes[index] = 0
            self._set_line(0, cpu)
        return value

    def _clock(self, index: int) -> int:
        when = time.gmtime(self._epoch_s + self._now_ns() // _NS_PER_S)
        place = self._CLOCK[index]
        if place < 0:
            value = when.tm_year // 100
        elif index == 6:
            value = (when.tm_wday + 1) % 7 + 1
        else:
            value = when[place] % 100
        if self._bytes[self._B] & self._BINARY:
            return value
        return value // 10 << 4 | value % 10

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Choose a byte, or store into it."""
        value &= 0xFF
        if at == CMOS.start:
            self._index = value & 0x7F
        elif self._index in (self._C, self._D):
            return
        else:
            self._bytes[self._index] = value & 0x7F if self._index == self._A else value
            if self._index in (self._A, self._B):
                self._restart()

    def _period_ns(self) -> int | None:
        """The period that register A's rate selects (datasheet, "Periodic Interrupt Rate")."""
        rate = self._bytes[self._A] & 0xF
        if not rate or not self._bytes[self._B] & self._PERIODIC:
            return None
        rate = rate + 7 if rate < 3 else rate
        return (_NS_PER_S << rate - 1) // 32768

    def _restart(self) -> None:
        period_ns = self._period_ns()
        if period_ns is None:
            self._due_ns = None
            self._timer.cancel()
        else:
            self._due_ns = self._now_ns() + period_ns
            self._timer.arm(self._due_ns)

    def expire(self) -> None:
        """The period is over: the line is raised, even if it is up (``rtc_periodic_timer``)."""
        period_ns = self._period_ns()
        if period_ns is None or self._due_ns is None:
            return
        self._due_ns = max(self._due_ns + period_ns, self._now_ns())
        self._timer.arm(self._due_ns)
        self._bytes[self._C] |= self._IRQF | self._PERIODIC
        self._set_line(1, None)


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
