"""A port by which a test guest has many accesses of chips done at one exit.

What a guest restores between its tests, and what it looks at in a handler, are dozens of accesses
that are not what it tests; each would be an exit.  They are done in order, as if the CPU had made
them.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from userspace_chip.kvm.devices.bus import Ports, Windows
from userspace_chip.kvm.memory import GuestMemory

PORT: Final = 0x2106
OFFERED: Final = 1
"""What it reads."""
MOST: Final = 256
"""Accesses of a batch; those after them are left out."""

_REQUEST: Final = struct.Struct("<II")
"""Address and number of the accesses."""
_ACCESS: Final = struct.Struct("<III8x")
"""Kind, port or address, value; then two words of the guest's own."""
_VALUE_AT: Final = 8
_WORD: Final = struct.Struct("<I")


class Kind(IntEnum):
    """An access of 32 bits to memory, or of 8 or 32 to a port."""

    LOAD = 0
    STORE = 1
    IN = 2
    OUT = 3
    OUT32 = 4


class Batch:
    """Does the accesses of which it gets the address of the request, at ``ports`` and ``windows``.

    What is read is put into the request.  What is not in the guest's memory is not done, nor is a
    load or a store where no device is.
    """

    def __init__(self, memory: GuestMemory, ports: Ports, windows: Windows) -> None:
        self._memory = memory
        self._ports = ports
        self._windows = windows

    def read(self, cpu: int, at: int, size: int) -> int:
        """That there is such a port."""
        return OFFERED

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """The address of a request."""
        request = self._memory.read(value, _REQUEST.size)
        if len(request) < _REQUEST.size:
            return
        first, count = _REQUEST.unpack(request)
        accesses = bytearray(self._memory.read(first, min(count, MOST) * _ACCESS.size))
        for place in range(0, len(accesses) - _ACCESS.size + 1, _ACCESS.size):
            kind, where, operand = _ACCESS.unpack_from(accesses, place)
            found = self._access(cpu, kind, where, operand)
            _WORD.pack_into(accesses, place + _VALUE_AT, found)
        self._memory.write(first, bytes(accesses))

    def _access(self, cpu: int, kind: int, at: int, value: int) -> int:
        """The value read, or the one written."""
        if kind in (Kind.OUT, Kind.OUT32):
            self._ports.write(cpu, at, 1 if kind == Kind.OUT else 4, value)
            return value
        if kind == Kind.IN:
            return self._ports.read(cpu, at, 1)
        device = self._windows.at(at)
        if device is None:
            return 0
        if kind == Kind.STORE:
            device.write(cpu, at, 4, value)
            return value
        return device.read(cpu, at, 4)
