"""The kernel inside a bzImage, which starts without unpacking itself.

Under TCG a lab's kernel takes more than a second of CPU time to unpack itself and to relocate what
it has unpacked. QEMU starts an uncompressed kernel at its PVH entry (``hw/i386/x86-common.c``,
``x86_load_linux``; the entry is a Xen note, ``include/xen/interface/elfnote.h``).
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import zstandard
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

_SETUP_SECTORS: Final = 0x1F1
_PAYLOAD: Final = 0x248
"""Offset and length of the compressed kernel (Linux ``Documentation/arch/x86/boot.rst``)."""
_SECTOR_BYTES: Final = 512
_MAX_BYTES: Final = 1 << 30

_XEN_PHYS32_ENTRY: Final = "18"
"""A type without a name."""


def _unzstd(data: bytes) -> bytes:
    # What follows is the size, which every compressed kernel has at its end.
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(_MAX_BYTES)


_DECOMPRESSORS: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"\x28\xb5\x2f\xfd": _unzstd,
    b"\xfd7zXZ\0": lambda data: lzma.LZMADecompressor().decompress(data, _MAX_BYTES),
    b"\x1f\x8b": lambda data: zlib.decompressobj(wbits=31).decompress(data, _MAX_BYTES),
}
"""By the first bytes; Python has none for LZ4, LZO, bzip2 with Linux's header, and old LZMA."""


def startable_vmlinux(vmlinuz: Path) -> bytes | None:
    """The ELF file in a bzImage; None where it cannot be unpacked here or has no PVH entry.

    :class:`OSError` where the file cannot be read.
    """
    data = vmlinuz.read_bytes()
    start = ((data[_SETUP_SECTORS] or 4) + 1) * _SECTOR_BYTES + _number(data, _PAYLOAD)
    payload = data[start : start + _number(data, _PAYLOAD + 4)]
    for magic, decompress in _DECOMPRESSORS.items():
        if payload.startswith(magic):
            try:
                kernel = decompress(payload)
                return kernel if _has_pvh_entry(kernel) else None
            except (zstandard.ZstdError, lzma.LZMAError, zlib.error, EOFError, ELFError):
                return None
    return None


def _number(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def _has_pvh_entry(kernel: bytes) -> bool:
    notes = (
        note
        for segment in ELFFile(io.BytesIO(kernel)).iter_segments()
        if isinstance(segment, NoteSegment)
        for note in segment.iter_notes()
    )
    return any(
        note["n_name"] == "Xen" and str(note["n_type"]) == _XEN_PHYS32_ENTRY for note in notes
    )
