"""The bytes of tiny multiboot files, whole and damaged."""

from __future__ import annotations

import struct

MAGIC = 0x1BADB002
HAS_ADDRESSES = 1 << 16
LOADED_AT = 0x400000
_CODE_BYTES = 100


def header(checksum: int | None = None, flags: int = 0) -> bytes:
    """A multiboot header."""
    right = -(MAGIC + flags) & 0xFFFFFFFF
    return struct.pack("<3I", MAGIC, flags, right if checksum is None else checksum)


def elf(
    header_at: int = 96, checksum: int | None = None, *, phentsize: int = 32, machine: int = 3
) -> bytes:
    """A 32-bit ELF file with one loaded segment, which is the whole file."""
    size = header_at + 12 + _CODE_BYTES
    identification = b"\x7fELF" + bytes([1, 1, 1]) + bytes(9)
    head = identification + struct.pack(
        "<2H5I6H", 2, machine, 1, LOADED_AT, 52, 0, 0, 52, phentsize, 1, 0, 0, 0
    )
    segment = struct.pack("<8I", 1, 0, LOADED_AT, LOADED_AT, size, size, 5, 4096)
    return _file(size, head + segment, header_at, header(checksum))


def elf64(
    *,
    virtual: int = LOADED_AT,
    physical: int = LOADED_AT,
    entry: int = LOADED_AT,
    flags: int = 0,
    phentsize: int = 56,
) -> bytes:
    """A 64-bit ELF file with one loaded segment, which is the whole file."""
    header_at = 128
    size = header_at + 12 + _CODE_BYTES
    identification = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    head = identification + struct.pack(
        "<2HI3QI6H", 2, 62, 1, entry, 64, 0, 0, 64, phentsize, 1, 0, 0, 0
    )
    segment = struct.pack("<2I6Q", 1, 5, 0, virtual, physical, size, size + 64, 4096)
    return _file(size, head + segment, header_at, header(flags=flags))


def _file(size: int, head: bytes, header_at: int, multiboot: bytes) -> bytes:
    image = bytearray(size)
    image[: len(head)] = head
    image[header_at : header_at + 12] = multiboot
    return bytes(image)
