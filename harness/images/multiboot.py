"""Multiboot 1 images as files: whether one can be booted, and 64-bit ELF in a form QEMU loads.

How an image is read: :mod:`userspace_chip.kvm.multiboot`, which the VMM loads it with.  QEMU's
loader (7.2 and 10.0 ``hw/i386/multiboot.c:load_multiboot``) takes 32-bit ELF files, and any file
whose header has addresses of its own; "Cannot load x86-64 image" is all it says to others.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from harness.base import limits
from userspace_chip.kvm.multiboot import PT_LOAD, defect, entry, find_header, segments


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


def loadable(image: bytes) -> bytes:
    """``image``, which has no defect, as a file that QEMU loads.

    A 64-bit ELF file gets a 32-bit ELF header and program headers, which are appended:
    what is loaded, where to, and where it is entered (in 32-bit mode, as multiboot says) stays.
    """
    header = find_header(image)
    is_elf64 = image[:5] == b"\x7fELF\x02"
    if not is_elf64 or header is None or header.has_addresses:
        return image
    loaded = [segment for segment in segments(image) if segment.is_loaded]
    table = b"".join(
        struct.pack(
            "<8I",
            *(PT_LOAD, segment.offset, segment.physical, segment.physical),
            *(segment.file_bytes, segment.memory_bytes, segment.flags, 1),
        )
        for segment in loaded
    )
    body = image + bytes(-len(image) % 4)
    machine_386, executable, version = 3, 2, 1
    identification = b"\x7fELF" + bytes([1, 1, version]) + bytes(9)
    head = identification + struct.pack(
        "<2H5I6H",
        *(executable, machine_386, version, entry(image, loaded), len(body), 0, 0),
        *(52, 32, len(loaded), 0, 0, 0),
    )
    return head + body[len(head) :] + table
