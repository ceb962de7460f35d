"""The bytes of tiny multiboot files, whole and damaged."""

from __future__ import annotations

import struct

MAGIC = 0x1BADB002


def header(checksum: int | None = None) -> bytes:
    """A multiboot header without flags."""
    return struct.pack("<3I", MAGIC, 0, -MAGIC & 0xFFFFFFFF if checksum is None else checksum)


def elf(bits: int = 1, header_at: int = 96, checksum: int | None = None) -> bytes:
    """A 32-bit ELF file (``bits`` 2: 64-bit by its identification) with one loaded segment."""
    size = header_at + 12 + 100
    identification = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9)
    head = identification + struct.pack("<2H5I6H", 2, 3, 1, 0x400000, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<8I", 1, 0, 0x400000, 0x400000, size, size, 5, 4096)
    image = bytearray(size)
    image[: len(head)] = head
    image[52 : 52 + len(segment)] = segment
    image[header_at : header_at + 12] = header(checksum)
    return bytes(image)
