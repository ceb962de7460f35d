"""Multiboot 1 images: whether a file is a whole one, and 64-bit ELF files in a form QEMU loads.

The header is where and what the Multiboot Specification 0.6.96, section "OS image format", says.
QEMU's loader (7.2 and 10.0 ``hw/i386/multiboot.c:load_multiboot``) takes 32-bit ELF files, and any
file whose header has addresses of its own; "Cannot load x86-64 image" is all it says to others.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from harness.base import limits

Image: TypeAlias = bytes | mmap.mmap
"""A file's content; of a mapped one only what is looked at is read."""

_MAGIC: Final = 0x1BADB002
_SEARCH_BYTES: Final = 8192
_HAS_ADDRESSES: Final = 1 << 16
_PT_LOAD: Final = 1
_PF_X: Final = 1
_END: Final = 1 << 32
"""The end of what a multiboot loader can load to."""


@dataclass(frozen=True)
class _Segment:
    """A program header, with the fields that both classes of ELF files have."""

    kind: int
    offset: int
    virtual: int
    physical: int
    file_bytes: int
    memory_bytes: int
    flags: int

    @property
    def is_loaded(self) -> bool:
        return self.kind == _PT_LOAD and self.memory_bytes > 0


def file_defect(path: Path) -> str | None:
    """Why the file ``path`` cannot be booted, or None; :class:`OSError` where it is unreadable."""
    most = limits.current().image_mib
    with path.open("rb") as file:
        size = path.stat().st_size
        if size > most * limits.MIB:
            return f"it has {size} bytes, more than {most} MiB ({limits.hint('image_mib')})"
        if size == 0:
            return defect(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
            return defect(image)


def defect(image: Image) -> str | None:
    """Why ``image`` cannot be booted as a multiboot image, or None.

    An ELF file is whole when its program headers and every loaded segment are inside it.
    """
    header = _header(image)
    if header is None:
        return f"no multiboot header in its first {min(len(image), _SEARCH_BYTES)} bytes"
    offset, flags = header
    if flags & _HAS_ADDRESSES:
        return _addresses_defect(image, offset)
    if image[:4] != b"\x7fELF":
        return "it has a multiboot header, but is not an ELF file"
    return _elf_defect(image)


def loadable(image: bytes) -> bytes:
    """``image``, which has no defect, as a file that QEMU loads.

    A 64-bit ELF file gets a 32-bit ELF header and program headers, which are appended:
    what is loaded, where to, and where it is entered (in 32-bit mode, as multiboot says) stays.
    """
    header = _header(image)
    is_elf64 = image[:5] == b"\x7fELF\x02"
    if not is_elf64 or header is None or header[1] & _HAS_ADDRESSES:
        return image
    segments = [segment for segment in _segments(image) if segment.is_loaded]
    table = b"".join(
        struct.pack(
            "<8I",
            *(_PT_LOAD, segment.offset, segment.physical, segment.physical),
            *(segment.file_bytes, segment.memory_bytes, segment.flags, 1),
        )
        for segment in segments
    )
    body = image + bytes(-len(image) % 4)
    machine_386, executable, version = 3, 2, 1
    identification = b"\x7fELF" + bytes([1, 1, version]) + bytes(9)
    head = identification + struct.pack(
        "<2H5I6H",
        *(executable, machine_386, version, _entry(image, segments), len(body), 0, 0),
        *(52, 32, len(segments), 0, 0, 0),
    )
    return head + body[len(head) :] + table


def _header(image: Image) -> tuple[int, int] | None:
    """Where the multiboot header is, and its flags."""
    head = image[:_SEARCH_BYTES]
    for offset in range(0, len(head) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<3I", head, offset)
        if magic == _MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return offset, flags
    return None


def _addresses_defect(image: Image, offset: int) -> str | None:
    """A header with addresses says by itself what has to be in the file."""
    if len(image) < offset + 32:
        return "it ends inside its multiboot header"
    header, load, load_end = struct.unpack_from("<3I", image, offset + 12)
    end = offset - (header - load) + (load_end - load)
    if load_end and end > len(image):
        return f"it is truncated: {len(image)} bytes of {end}"
    return None


def _elf_defect(image: Image) -> str | None:
    if len(image) < (64 if image[4:5] == b"\x02" else 52):
        return "it ends inside its ELF header"
    if image[4] not in (1, 2) or image[5] != 1:
        return "it is neither a 32-bit nor a 64-bit little-endian ELF file"
    at, size, number = _table(image)
    if size != _entry_bytes(image):
        return f"its program headers have {size} bytes each, and not {_entry_bytes(image)}"
    if number == 0 or at + size * number > len(image):
        return "it is truncated: its program headers are not in the file"
    loaded = [segment for segment in _segments(image) if segment.is_loaded]
    if not loaded:
        return "no part of it is to be loaded"
    for segment in loaded:
        end = segment.offset + segment.file_bytes
        if end > len(image):
            return f"it is truncated: {len(image)} bytes of at least {end}"
        if segment.physical + segment.memory_bytes > _END:
            return f"it is to be loaded at {segment.physical:#x}, beyond 4 GiB"
    if _entry(image, loaded) >= _END:
        return f"it is entered at {_entry(image, loaded):#x}, beyond 4 GiB"
    return None


def _entry_bytes(image: Image) -> int:
    return 32 if image[4] == 1 else 56


def _table(image: Image) -> tuple[int, int, int]:
    """Where the program headers are, the size of each, and how many there are."""
    if image[4] == 1:
        (at,) = struct.unpack_from("<I", image, 28)
        size, number = struct.unpack_from("<2H", image, 42)
    else:
        (at,) = struct.unpack_from("<Q", image, 32)
        size, number = struct.unpack_from("<2H", image, 54)
    return at, size, number


def _segments(image: Image) -> list[_Segment]:
    at, size, number = _table(image)
    found = []
    for start in range(at, at + size * number, size):
        if image[4] == 1:
            kind, offset, virtual, physical, in_file, in_memory, flags, _ = struct.unpack_from(
                "<8I", image, start
            )
        else:
            kind, flags, offset, virtual, physical, in_file, in_memory, _ = struct.unpack_from(
                "<2I6Q", image, start
            )
        found.append(_Segment(kind, offset, virtual, physical, in_file, in_memory, flags))
    return found


def _entry(image: Image, segments: list[_Segment]) -> int:
    """The physical address of the entry, which an ELF header gives as a virtual one."""
    entry: int = struct.unpack_from("<I" if image[4] == 1 else "<Q", image, 24)[0]
    for segment in segments:
        inside = segment.virtual <= entry < segment.virtual + segment.memory_bytes
        if inside and segment.flags & _PF_X:
            return entry - segment.virtual + segment.physical
    return entry
