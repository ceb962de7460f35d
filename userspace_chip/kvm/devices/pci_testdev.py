"""QEMU's pci-testdev, with which test images time accesses to memory and to ports.

Source: QEMU 7.2 ``hw/misc/pci-testdev.c``, ``docs/specs/pci-testdev.txt``.  A test is chosen by
writing its number into the region; its header is then read there, and a write of its data at its
offset counts.  The tests of an eventfd count nothing: whom the event is for takes the write.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from userspace_chip.kvm.devices.pci import PciFunction

SLOT: Final = 6
MEMORY: Final = 0xFEB00000
MEMORY_BYTES: Final = 0x1000
PORTS: Final = range(0xD000, 0xD100)
_ID: Final = 0x00051B36
_CLASS: Final = 0x00FF0000
_IO_BAR: Final = 1
_WRITABLE: Final = {0x04: 0x0507, 0x3C: 0xFF}

_TESTS: Final = ("no-eventfd", "wildcard-eventfd", "datamatch-eventfd")
_HEADER: Final = struct.Struct("<BBxxIBxxxI")
"""test, width, offset, data, count; its name follows."""
_DATA: Final = 0xFA
_OTHER_DATA: Final = 0xCE


@dataclass
class _Test:
    """One test of a region."""

    number: int
    name: str
    offset: int
    count: int = 0

    @property
    def data(self) -> int:
        """What its writes write."""
        return _OTHER_DATA if "wildcard" in self.name else _DATA

    def header(self) -> bytes:
        """As the guest reads it; the last byte of the name's end is not read."""
        fields = _HEADER.pack(self.number, 1, self.offset, self.data, self.count)
        return fields + self.name.encode()


class PciTestdev(PciFunction):
    """The function, with its memory and its ports."""

    def __init__(self) -> None:
        bars = {0x10: MEMORY, 0x14: PORTS.start | _IO_BAR}
        super().__init__({0x00: _ID, 0x08: _CLASS, **bars}, _WRITABLE)
        tests = [
            _Test(number, f"{kind}-{test}", half_bytes + number)
            for number, (kind, half_bytes, test) in enumerate(
                (*region, test)
                for region in (("mmio", MEMORY_BYTES // 2), ("portio", len(PORTS) // 2))
                for test in _TESTS
            )
        ]
        self._by_start = {MEMORY: tests[: len(_TESTS)], PORTS.start: tests[len(_TESTS) :]}
        self._current: _Test | None = None

    def read(self, cpu: int, at: int, size: int) -> int:
        """Of the chosen test's header; 0 beside it."""
        if self._current is None:
            return 0
        start, header = self._start(at), self._current.header()
        return int.from_bytes(header[at - start : at - start + size], "little")

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Choose a test, or what it counts."""
        start = self._start(at)
        for offset in range(at - start, at - start + size):
            self._write_byte(start, offset, value & 0xFF)
            value >>= 8

    def _write_byte(self, start: int, offset: int, value: int) -> None:
        if offset == 0:
            tests, self._current = self._by_start[start], None
            if value < len(tests):
                self._current = tests[value]
                self._current.count = 0
        elif (test := self._current) is not None and offset == test.offset:
            test.count += test.name.endswith("-no-eventfd") and value == test.data

    @staticmethod
    def _start(at: int) -> int:
        return MEMORY if at >= MEMORY else PORTS.start
