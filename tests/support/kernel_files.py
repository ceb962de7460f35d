"""Files that look like a kernel and its modules, as far as the image cache looks at them."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Mapping
from pathlib import Path

RELEASE = "6.1.0-56-cloud-amd64"
BANNER = f"{RELEASE} (who@where) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-10-01)"


def bzimage(banner: str = BANNER, payload: bytes = b"") -> bytes:
    """A setup header with magic number and version (Linux ``Documentation/arch/x86/boot.rst``).

    After four sectors of setup and 64 bytes of code comes the compressed kernel.
    """
    image = bytearray(0x1000)
    image[0x1F1] = 4
    struct.pack_into("<II", image, 0x248, 64, len(payload))
    image[5 * 512 + 64 : 5 * 512 + 64 + len(payload)] = payload
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x400)
    image[0x600 : 0x600 + len(banner)] = banner.encode()
    return bytes(image)


def module(name: str, depends: str = "") -> bytes:
    """An ELF file with nothing but a ``.modinfo`` section."""
    modinfo = f"license=GPL\0depends={depends}\0name={name}\0".encode()
    names = b"\0.modinfo\0.shstrtab\0"
    body = modinfo + names
    header = _elf_header(64 + len(body), 3)

    def section(name_at: int, kind: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name_at, kind, 0, 0, offset, size, 0, 0, 1, 0)

    table = bytes(64) + section(1, 1, 64, len(modinfo))
    table += section(10, 3, 64 + len(modinfo), len(names))
    return header + body + table


def module_with_code(name: str, functions: Mapping[str, bytes]) -> bytes:
    """An ELF file with these functions in ``.text``, their symbols, and ``.modinfo``."""
    text, strings, symbols = b"", b"\0", bytes(24)
    for function, code in functions.items():
        entry = struct.pack("<IBBHQQ", len(strings), 0x12, 0, 1, len(text), len(code))
        symbols, strings, text = symbols + entry, strings + function.encode() + b"\0", text + code
    return _elf(
        {
            ".text": (1, text, 0),
            ".symtab": (2, symbols, 3),
            ".strtab": (3, strings, 0),
            ".modinfo": (1, f"name={name}\0".encode(), 0),
        }
    )


def elf_with_build_id(build_id: bytes) -> bytes:
    """An ELF file with nothing but the note that a linker writes."""
    note = struct.pack("<III4s", 4, len(build_id), 3, b"GNU\0") + build_id
    return _elf({".note.gnu.build-id": (7, note, 0)})


def vmlinux(note_type: int = 18) -> bytes:
    """An ELF file with one segment, a note of Xen's: 18 is the PVH entry."""
    note = struct.pack("<III4sI", 4, 4, note_type, b"Xen\0", 0x1000000)
    header = struct.pack(
        *("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 2, 62, 1, 0x1000000, 64),
        *(0, 0, 64, 56, 1, 64, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 4, 4, 64 + 56, 0, 0, len(note), len(note), 4)
    return header + segment + note


def _elf(sections: Mapping[str, tuple[int, bytes, int]]) -> bytes:
    """An ELF file of sections: type, content, and the section that a symbol table links to."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    body, table = b"", bytes(64)
    for name, (kind, content, link) in {**sections, ".shstrtab": (3, names, 0)}.items():
        table += struct.pack(
            "<IIQQQQIIQQ",
            *(names.index(name.encode() + b"\0"), kind, 0, 0, 64 + len(body), len(content), link),
            *(1, 1, 24 if kind == 2 else 0),
        )
        body += content
    return _elf_header(64 + len(body), len(sections) + 2) + body + table


def _elf_header(sections_at: int, sections: int) -> bytes:
    return struct.pack(
        *("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), 1, 62, 1, 0, 0),
        *(sections_at, 0, 64, 0, 0, 64, sections, sections - 1),
    )


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
