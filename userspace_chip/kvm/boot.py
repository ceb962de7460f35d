"""A multiboot image in a guest's memory, and what its loader tells it.

Spec: Multiboot Specification 0.6.96, "Machine state" and "Boot information format".  Where things
lie is as QEMU 7.2 does it (``hw/i386/multiboot.c``): the information at 0x9000, modules on pages
after the image, command lines after them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from userspace_chip.kvm import multiboot
from userspace_chip.kvm.entry import Entry
from userspace_chip.kvm.errors import BootError
from userspace_chip.kvm.memory import HIGH_START, LOW_END, PAGE_BYTES, GuestMemory, areas

BOOT_MAGIC: Final = 0x2BADB002
"""EAX at the entry."""
INFO_ADDRESS: Final = 0x9000
_INFO_BYTES: Final = 88
_HAS_MEMORY: Final = 1 << 0
_HAS_COMMAND_LINE: Final = 1 << 2
_HAS_MODULES: Final = 1 << 3
_HAS_MAP: Final = 1 << 6
_HAS_LOADER_NAME: Final = 1 << 9
_LOADER: Final = b"irqmatrix\0"


@dataclass(frozen=True)
class Module:
    """A file beside the image, and its own command line."""

    content: bytes
    text: str = ""


def load(
    memory: GuestMemory, image: bytes, command_line: str = "", modules: Sequence[Module] = ()
) -> Entry:
    """Load ``image`` with its modules and write the boot information: how to enter it.

    The information is at :data:`INFO_ADDRESS`.  :class:`BootError` where the image cannot be
    booted, or does not fit.
    """
    defect = multiboot.defect(image)
    if defect is not None:
        fix = "a multiboot 1 image is needed, or a Linux kernel as a bzImage"
        raise BootError("this image cannot be booted", defect, fix)
    loading = multiboot.loading(image)
    for segment in loading.segments:
        content = image[segment.offset : segment.offset + segment.file_bytes]
        memory.write(segment.physical, content.ljust(segment.memory_bytes, b"\0"))
    end = max(segment.physical + segment.memory_bytes for segment in loading.segments)
    free, listed = _load_modules(memory, modules, max(_page_up(end), HIGH_START))
    _write_information(memory, command_line, listed, free)
    return entered_at(loading.entry)


def entered_at(address: int) -> Entry:
    """How a multiboot image is entered."""
    return Entry(address, code=0x8, data=0x10, eax=BOOT_MAGIC, ebx=INFO_ADDRESS)


def _load_modules(
    memory: GuestMemory, modules: Sequence[Module], free: int
) -> tuple[int, list[tuple[int, int, str]]]:
    """Where memory is free after them, and each one's start, end and text."""
    listed = []
    for module in modules:
        memory.write(free, module.content)
        listed.append((free, free + len(module.content), module.text))
        free = _page_up(free + len(module.content))
    return free, listed


def _write_information(
    memory: GuestMemory, command_line: str, modules: list[tuple[int, int, str]], free: int
) -> None:
    strings = bytearray()

    def put(text: bytes) -> int:
        at = free + len(strings)
        strings.extend(text)
        return at

    line = put(command_line.encode() + b"\0")
    name = put(_LOADER)
    texts = [put(text.encode() + b"\0") for _, _, text in modules]
    table = b"".join(
        struct.pack("<4I", start, end, text, 0)
        for (start, end, _), text in zip(modules, texts, strict=True)
    )
    memory.write(free, bytes(strings))
    map_at = INFO_ADDRESS + _INFO_BYTES
    entries = memory_map(memory.bytes)
    table_at = map_at + len(entries)
    flags = _HAS_MEMORY | _HAS_COMMAND_LINE | _HAS_MODULES | _HAS_MAP | _HAS_LOADER_NAME
    information = bytearray(_INFO_BYTES)
    struct.pack_into(
        "<7I", information, 0, *(flags, LOW_END >> 10, memory.bytes - HIGH_START >> 10, 0xFFFFFFFF),
        *(line, len(modules), table_at),
    )  # fmt: skip
    struct.pack_into("<2I", information, 44, len(entries), map_at)
    struct.pack_into("<I", information, 64, name)
    memory.write(INFO_ADDRESS, bytes(information) + entries + table)


def memory_map(memory_bytes: int) -> bytes:
    """The map of RAM as multiboot entries: size (without itself), base, length, type."""
    return b"".join(
        struct.pack("<I2QI", 20, area.base, area.bytes, area.kind) for area in areas(memory_bytes)
    )


def _page_up(address: int) -> int:
    return -(-address // PAGE_BYTES) * PAGE_BYTES
