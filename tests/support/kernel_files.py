"""Files that look like a kernel and its modules, as far as the image cache looks at them."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Mapping
from pathlib import Path

RELEASE = "6.1.0-56-cloud-amd64"
BANNER = f"{RELEASE} (who@where) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-10-01)"


def bzimage(banner: str = BANNER) -> bytes:
    """A setup header with magic number and version (Linux ``Documentation/arch/x86/boot.rst``)."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x400)
    image[0x600 : 0x600 + len(banner)] = banner.encode()
    return bytes(image)


def module(name: str, depends: str = "") -> bytes:
    """An ELF file with nothing but a ``.modinfo`` section."""
    modinfo = f"license=GPL\0depends={depends}\0name={name}\0".encode()
    names = b"\0.modinfo\0.shstrtab\0"
    body = modinfo + names
    header = struct.pack(
        *("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 1, 62, 1, 0, 0),
        *(64 + len(body), 0, 64, 0, 0, 64, 3, 2),
    )

    def section(name_at: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name_at, kind, 0, 0, offset, size, 0, 0, 1, 0)

    table = bytes(64) + section(1, 1, 64, len(modinfo))
    table += section(10, 3, 64 + len(modinfo), len(names))
    return header + body + table


def write_kernel(root: Path, modules: Mapping[str, str], builtin: str = "") -> Path:
    """A kernel below ``root`` as a package has it; returns its vmlinuz.

    ``modules`` maps file names (``kvm-amd.ko``, ``x.ko.xz``) to their dependencies.
    """
    (root / "boot").mkdir(parents=True)
    vmlinuz = root / "boot" / f"vmlinuz-{RELEASE}"
    vmlinuz.write_bytes(bzimage())
    folder = root / "lib" / "modules" / RELEASE
    (folder / "kernel").mkdir(parents=True)
    (folder / "modules.builtin").write_text(builtin)
    for name, depends in modules.items():
        content = module(name.split(".")[0], depends)
        packed = lzma.compress(content) if name.endswith(".xz") else content
        (folder / "kernel" / name).write_bytes(packed)
    return vmlinuz
