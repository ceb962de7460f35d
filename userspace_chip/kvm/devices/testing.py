"""Devices for test guests, as QEMU has them: debug console, exit port, pc-testdev.

Sources: QEMU 7.2 ``hw/char/debugcon.c``, ``hw/misc/debugexit.c``, ``hw/misc/pc-testdev.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

DEBUG_EXIT: Final = range(0xF4, 0xF8)
TEST_SCRATCH: Final = range(0xE0, 0xE4)
TEST_FLUSH: Final = 0xE4
TEST_SCRATCH_BYTES: Final = range(0xE8, 0xEC)
TEST_LINES: Final = range(0x2000, 0x2010)
"""A port for each ISA line; QEMU's ports above are an assertion of QEMU's."""
TEST_MEMORY: Final = 0xFF000000
TEST_MEMORY_BYTES: Final = 0x10000
_DEBUGCON_READBACK: Final = 0xE9


class Debugcon:
    """isa-debugcon: bytes written go to ``output``."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self._output = output

    def read(self, cpu: int, at: int, size: int) -> int:
        """The constant by which a guest finds the device."""
        return _DEBUGCON_READBACK

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """One character."""
        self._output(bytes((value & 0xFF,)))


class DebugExit:
    """isa-debug-exit: what is written ends the guest."""

    def __init__(self, leave: Callable[[int], None]) -> None:
        self._leave = leave

    def read(self, cpu: int, at: int, size: int) -> int:
        """Nothing to read."""
        return 0

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """The guest ends with ``value``."""
        self._leave(value)


class TestScratch:
    """pc-testdev's 32-bit register, byte by byte or at once."""

    def __init__(self) -> None:
        self._value = 0

    def read(self, cpu: int, at: int, size: int) -> int:
        """The bytes from ``at & 3``."""
        return self._value >> 8 * (at & 3) & (1 << 8 * size) - 1

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Replace the bytes from ``at & 3``."""
        shift = 8 * (at & 3)
        mask = ((1 << 8 * size) - 1) << shift & 0xFFFFFFFF
        self._value = self._value & ~mask | value << shift & mask


class TestFlush:
    """pc-testdev's page flush: KVM maps the page of the address written anew at its next use.

    So what the CPU reads there next, also within the delivery of an interrupt, is a fault of the
    nested paging that KVM has to serve.
    """

    def __init__(self, unmap_page: Callable[[int], None]) -> None:
        self._unmap_page = unmap_page

    def read(self, cpu: int, at: int, size: int) -> int:
        """Nothing to read."""
        return 0

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Flush the page at ``value``; only 32-bit writes do."""
        if size == 4:
            self._unmap_page(value)


class TestLines:
    """pc-testdev's lines: a byte written to ``0x2000 + n`` sets ISA line n."""

    def __init__(self, set_gsi: Callable[[int, int, int], None]) -> None:
        self._set_gsi = set_gsi

    def read(self, cpu: int, at: int, size: int) -> int:
        """Always 0."""
        return 0

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Set a line; only byte writes are."""
        if size == 1:
            self._set_gsi(at - TEST_LINES.start, int(value != 0), cpu)


class TestMemory:
    """pc-testdev's 64 KiB of memory that each access to is an exit."""

    def __init__(self) -> None:
        self._bytes = bytearray(TEST_MEMORY_BYTES)

    def read(self, cpu: int, at: int, size: int) -> int:
        """Stored bytes."""
        offset = at - TEST_MEMORY
        return int.from_bytes(self._bytes[offset : offset + size], "little")

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """Store bytes."""
        offset = at - TEST_MEMORY
        stored = value.to_bytes(size, "little")[: TEST_MEMORY_BYTES - offset]
        self._bytes[offset : offset + len(stored)] = stored
