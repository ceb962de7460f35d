"""Multiboot 1 images: whether a file is a whole one, and what of it goes where.

The header is where and what the Multiboot Specification 0.6.96, section "OS image format", says.
Three forms are read: 32-bit ELF files, 64-bit ELF files (their code is entered in 32-bit mode all
the same), and any file whose header has addresses of its own (the "a.out kludge").

Not read: a video mode that the header asks for (flag 2).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Image: TypeAlias = bytes | mmap.mmap
"""A file's content; of a mapped one only what is looked at is read."""

MAGIC: Final = 0x1BADB002
SEARCH_BYTES: Final = 8192
PT_LOAD: Final = 1
_HAS_ADDRESSES: Final = 1 << 16
_PF_X: Final = 1
_END: Final = 1 << 32
"""The end of what a multiboot loader can load to."""


@dataclass(frozen=True)
class Header:
    """The multiboot header: where it is in the file, and its flags."""

    offset: int
    flags: int

    @property
    def has_addresses(self) -> bool:
        """Whether the header itself says what is loaded where."""
        return bool(self.flags & _HAS_ADDRESSES)


@dataclass(frozen=True)
class Segment:
    """A program header, with the fields that both classes of ELF files have; sizes in bytes."""

    kind: int
    offset: int
    virtual: int
    physical: int
    file_bytes: int
    memory_bytes: int
    flags: int

    @property
    def is_loaded(self) -> bool:
        """Whether it takes memory."""
        return self.kind == PT_LOAD and self.memory_bytes > 0


@dataclass(frozen=True)
class Loading:
    """What a loader has to do: the segments to copy, and the physical address to enter."""

    segments: tuple[Segment, ...]
    entry: int


def loading(image: Image) -> Loading:
    """What to load of ``image``, which has no :func:`defect`."""
    header = find_header(image)
    assert header is not None
    if header.has_addresses:
        return _own_loading(image, header)
    loaded = tuple(segment for segment in segments(image) if segment.is_loaded)
    return Loading(loaded, entry(image, loaded))


def _own_loading(image: Image, header: Header) -> Loading:
    at, load, load_end, bss_end, start = struct.unpack_from("<5I", image, header.offset + 12)
    offset = header.offset - (at - load)
    in_file = (load_end - load) if load_end else len(image) - offset
    in_memory = max(in_file, bss_end - load) if bss_end else in_file
    return Loading((Segment(PT_LOAD, offset, load, load, in_file, in_memory, _PF_X),), start)


def defect(image: Image) -> str | None:
    """Why ``image`` cannot be booted as a multiboot image, or None.

    An ELF file is whole when its program headers and every loaded segment are inside it.
    """
    header = find_header(image)
    if header is None:
        return f"no multiboot header in its first {min(len(image), SEARCH_BYTES)} bytes"
    if header.has_addresses:
        return _addresses_defect(image, header.offset)
    if image[:4] != b"\x7fELF":
        return "it has a multiboot header, but is not an ELF file"
    return _elf_defect(image)


def find_header(image: Image) -> Header | None:
    """The multiboot header; None where there is none."""
    head = image[:SEARCH_BYTES]
    for offset in range(0, len(head) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<3I", head, offset)
        if magic == MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return Header(offset, flags)
    return None


def _addresses_defect(image: Image, offset: int) -> str | None:
    """A header with addresses says by itself what has to be in the file."""
    if len(image) < offset + 32:
        return "it ends inside its multiboot header"
    header, load, load_end = struct.unpack_from("<3I", image, offset + 12)
    start = offset - (header - load)
    if start < 0 or load > header:
        return f"its header at {header:#x} is not in what is loaded to {load:#x}"
    end = start + (load_end - load)
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
    loaded = [segment for segment in segments(image) if segment.is_loaded]
    if not loaded:
        return "no part of it is to be loaded"
    for segment in loaded:
        end = segment.offset + segment.file_bytes
        if end > len(image):
            return f"it is truncated: {len(image)} bytes of at least {end}"
        if segment.physical + segment.memory_bytes > _END:
            return f"it is to be loaded at {segment.physical:#x}, beyond 4 GiB"
    if entry(image, loaded) >= _END:
        return f"it is entered at {entry(image, loaded):#x}, beyond 4 GiB"
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


def segments(image: Image) -> list[Segment]:
    """The program headers of an ELF file."""
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
        found.append(Segment(kind, offset, virtual, physical, in_file, in_memory, flags))
    return found


def entry(image: Image, loaded: Sequence[Segment]) -> int:
    """The physical address of the entry, which an ELF header gives as a virtual one."""
    address: int = struct.unpack_from("<I" if image[4] == 1 else "<Q", image, 24)[0]
    for segment in loaded:
        inside = segment.virtual <= address < segment.virtual + segment.memory_bytes
        if inside and segment.flags & _PF_X:
            return address - segment.virtual + segment.physical
    return address
