"""A Linux kernel in a guest's memory: its bzImage, its parameters, its RAM disk.

Spec: Linux ``Documentation/arch/x86/boot.rst``, "The Real-Mode Kernel Header" and "32-bit Boot
Protocol"; ``Documentation/arch/x86/zero-page.rst``.  The kernel is entered in 32-bit mode, so that
its real-mode code, which asks the BIOS, is not run: it gets the map of its memory from here.

Not read: kernels before protocol 2.10 (Linux 2.6.31), zImages, and bare ``vmlinux`` files.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from userspace_chip.kvm.entry import Entry, Gdt
from userspace_chip.kvm.errors import BootError
from userspace_chip.kvm.memory import HIGH_START, PAGE_BYTES, GuestMemory, areas

PARAMS_AT: Final = 0x10000
"""Where ``struct boot_params`` is, the "zero page"; ESI at the entry."""
PARAMS_BYTES: Final = 0x1000
GDT_AT: Final = 0x11000
COMMAND_LINE_AT: Final = 0x20000
BOOT_CS: Final = 0x10
BOOT_DS: Final = 0x18
_DESCRIPTORS: Final = struct.pack("<4Q", 0, 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)

# Fields of the header, by their offset in the image and in boot_params.
_SETUP_SECTORS: Final = 0x1F1
_SYSTEM_PARAGRAPHS: Final = 0x1F4
_VIDEO_MODE: Final = 0x1FA
_HEADER_BYTES: Final = 0x201
_MAGIC: Final = 0x202
_VERSION: Final = 0x206
_LOADER: Final = 0x210
_LOAD_FLAGS: Final = 0x211
_RAM_DISK: Final = 0x218
_COMMAND_LINE: Final = 0x228
_RAM_DISK_MAX: Final = 0x22C
_COMMAND_LINE_MAX: Final = 0x238
_PREFERRED_ADDRESS: Final = 0x258
_INIT_BYTES: Final = 0x260
_HEADER_END: Final = 0x264
"""Of protocol 2.10."""

# And of boot_params alone.
_MAP_ENTRIES: Final = 0x1E8
_MAP: Final = 0x2D0

_SECTOR_BYTES: Final = 512
_OLDEST: Final = 0x020A
_LOADED_HIGH: Final = 1
_NORMAL_VIDEO_MODE: Final = 0xFFFF
_UNKNOWN_LOADER: Final = 0xFF
_CANNOT: Final = "this kernel cannot be booted"


@dataclass(frozen=True)
class Header:
    """What a bzImage says of itself; addresses are physical, sizes in bytes.

    ``system_at`` is where its protected-mode part is in the file, ``end`` how far the kernel needs
    memory until it reads its map.
    """

    system_at: int
    system_bytes: int
    command_line_max: int
    ram_disk_max: int
    end: int


def is_kernel(image: bytes) -> bool:
    """Whether ``image`` claims to be a bzImage."""
    return image[_MAGIC : _MAGIC + 4] == b"HdrS"


def load(
    memory: GuestMemory, image: bytes, command_line: str = "", ram_disks: Sequence[bytes] = ()
) -> Entry:
    """Load ``image`` and write its parameters: how to enter it.

    ``ram_disks`` are cpio archives, which it unpacks one after another.  :class:`BootError` where
    the image cannot be booted, or does not fit.
    """
    header = read_header(image)
    line = command_line.encode()
    if len(line) > header.command_line_max:
        raise BootError(
            f"a command line of {len(line)} bytes",
            f"this kernel takes {header.command_line_max}",
            "make --append shorter",
        )
    ram_disk = b"".join(disk + bytes(-len(disk) % 4) for disk in ram_disks)
    ram_disk_at = _load_ram_disk(memory, ram_disk, header)
    system = image[header.system_at : header.system_at + header.system_bytes]
    memory.write(HIGH_START, system)
    memory.write(COMMAND_LINE_AT, line + b"\0")
    memory.write(GDT_AT, _DESCRIPTORS)
    memory.write(PARAMS_AT, _params(image, memory.bytes, ram_disk_at, len(ram_disk)))
    gdt = Gdt(GDT_AT, len(_DESCRIPTORS) - 1)
    return Entry(HIGH_START, BOOT_CS, BOOT_DS, esi=PARAMS_AT, gdt=gdt)


def read_header(image: bytes) -> Header:
    """The header of a bzImage; :class:`BootError` where it is none that can be booted."""
    if len(image) < _HEADER_END:
        raise BootError(_CANNOT, f"it is truncated: {len(image)} bytes", "take the whole file")
    (version,) = struct.unpack_from("<H", image, _VERSION)
    if version < _OLDEST:
        raise BootError(
            _CANNOT,
            f"its boot protocol is {_dotted(version)}, and {_dotted(_OLDEST)} is needed",
            "take Linux 2.6.31 or later",
        )
    if not image[_LOAD_FLAGS] & _LOADED_HIGH:
        raise BootError(_CANNOT, "it is a zImage, for memory below 1 MiB", "take its bzImage")
    at = ((image[_SETUP_SECTORS] or 4) + 1) * _SECTOR_BYTES
    (paragraphs,) = struct.unpack_from("<I", image, _SYSTEM_PARAGRAPHS)
    size = 16 * paragraphs
    if len(image) < at + size:
        why = f"it is truncated: {len(image)} bytes of {at + size}"
        raise BootError(_CANNOT, why, "take the whole file")
    (preferred,) = struct.unpack_from("<Q", image, _PREFERRED_ADDRESS)
    (init_bytes,) = struct.unpack_from("<I", image, _INIT_BYTES)
    (ram_disk_max,) = struct.unpack_from("<I", image, _RAM_DISK_MAX)
    (command_line_max,) = struct.unpack_from("<I", image, _COMMAND_LINE_MAX)
    end = max(HIGH_START + size, max(preferred, HIGH_START) + init_bytes)
    return Header(at, size, command_line_max, ram_disk_max, end)


def _dotted(version: int) -> str:
    return f"{version >> 8}.{version & 0xFF:02}"


def _load_ram_disk(memory: GuestMemory, content: bytes, header: Header) -> int:
    """As high as it may be, so that the kernel finds room to unpack itself: its address."""
    end = min(memory.bytes, header.ram_disk_max + 1)
    at = (end - len(content)) // PAGE_BYTES * PAGE_BYTES
    if at < header.end:
        raise BootError(
            f"a kernel with {len(content)} bytes of initial RAM disk",
            f"it needs {header.end + len(content):#x} bytes of memory, and {end:#x} can be used",
            "give the guest more --memory",
        )
    memory.write(at, content)
    return at


def _params(image: bytes, memory_bytes: int, ram_disk_at: int, ram_disk_bytes: int) -> bytes:
    """``struct boot_params``: the image's own header, and what a boot loader adds to it."""
    params = bytearray(PARAMS_BYTES)
    header = slice(_SETUP_SECTORS, _MAGIC + image[_HEADER_BYTES])
    params[header] = image[header]
    struct.pack_into("<H", params, _VIDEO_MODE, _NORMAL_VIDEO_MODE)
    params[_LOADER] = _UNKNOWN_LOADER
    if ram_disk_bytes:
        struct.pack_into("<2I", params, _RAM_DISK, ram_disk_at, ram_disk_bytes)
    struct.pack_into("<I", params, _COMMAND_LINE, COMMAND_LINE_AT)
    entries = areas(memory_bytes)
    params[_MAP_ENTRIES] = len(entries)
    for index, area in enumerate(entries):
        struct.pack_into("<2QI", params, _MAP + 20 * index, area.base, area.bytes, area.kind)
    return bytes(params)
