"""The guest's memory: RAM from address 0 and a ROM below 4 GiB, in one mapping."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from userspace_chip.kvm.errors import BootError, KvmError
from userspace_chip.kvm.fds import VmFd

MIB: Final = 1 << 20
MAX_MIB: Final = 1984
"""RAM ends below what :meth:`VmFd.set_tss_addr` takes."""
PAGE_BYTES: Final = 0x1000
LOW_END: Final = 0xA0000
"""The end of what is free below the BIOS area (an e820 map's first entry)."""
HIGH_START: Final = 0x100000
ROM_BYTES: Final = 0x10000
ROM_ADDRESS: Final = (1 << 32) - ROM_BYTES

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
"""For mprotect(2), which :mod:`mmap` does not have."""


class AreaKind(IntEnum):
    """What an area is used for (ACPI 6.4, "Address Range Types")."""

    USABLE = 1
    RESERVED = 2


@dataclass(frozen=True)
class Area:
    """A part of the memory, in the map that a guest gets."""

    base: int
    bytes: int
    kind: AreaKind


def areas(memory_bytes: int) -> tuple[Area, ...]:
    """The map of RAM of that size, as a PC's firmware gives it (E820)."""
    return (
        Area(0, LOW_END, AreaKind.USABLE),
        Area(LOW_END, HIGH_START - LOW_END, AreaKind.RESERVED),
        Area(HIGH_START, memory_bytes - HIGH_START, AreaKind.USABLE),
    )


class GuestMemory:
    """RAM and ROM of ``vm``, which owns the mapping.

    Raises :class:`BootError` for a size that cannot be, and at accesses beyond the RAM.
    """

    def __init__(self, vm: VmFd, mib: int) -> None:
        if not 2 <= mib <= MAX_MIB:
            raise BootError(
                f"{mib} MiB of memory", f"a guest has 2 to {MAX_MIB}", "change --memory"
            )
        self.bytes = mib * MIB
        self._mapping = vm.map_regions([(0, self.bytes), (ROM_ADDRESS, ROM_BYTES)])
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` in RAM."""
        if not 0 <= address <= self.bytes - len(data):
            raise BootError(
                f"{len(data)} bytes at {address:#x}",
                f"the guest's memory ends at {self.bytes:#x}",
                "give the guest more --memory",
            )
        self._mapping[address : address + len(data)] = data

    def read(self, address: int, size: int) -> bytes:
        """Up to ``size`` bytes of RAM or ROM; fewer where it ends."""
        if address >= ROM_ADDRESS:
            address += self.bytes - ROM_ADDRESS
        elif address >= self.bytes:
            return b""
        else:
            size = min(size, self.bytes - address)
        return bytes(self._mapping[address : address + size])

    def unmap_page(self, address: int) -> None:
        """Take the page at ``address`` from KVM's page tables, with what is in it kept.

        A change of protection tells KVM to drop its mapping (Linux ``mm/mprotect.c``, its MMU
        notifier).  QEMU takes the access away and gives it back; here the right to execute comes
        and goes, so that there is no moment in which another vCPU could not use the page.
        """
        if not 0 <= address < self.bytes:
            return
        page = self._start + address // PAGE_BYTES * PAGE_BYTES
        usual = mmap.PROT_READ | mmap.PROT_WRITE
        for protection in (usual | mmap.PROT_EXEC, usual):
            if _LIBC.mprotect(ctypes.c_void_p(page), PAGE_BYTES, protection) != 0:
                raise KvmError("mprotect", ctypes.get_errno())

    def write_rom(self, offset: int, data: bytes) -> None:
        """Store ``data`` in the ROM."""
        start = self.bytes + offset
        self._mapping[start : start + len(data)] = data
