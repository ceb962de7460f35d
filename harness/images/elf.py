"""What ELF files say about themselves: loader, libraries, a module's dependencies."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection
from elftools.elf.segments import InterpSegment

from harness.base.errors import ImageError


def interpreter(path: Path) -> str | None:
    """The dynamic loader that ``path`` names (``PT_INTERP``), None for a static executable.

    Raises :class:`ImageError` if it cannot be read or is no ELF file.
    """
    try:
        with path.open("rb") as stream:
            for segment in ELFFile(stream).iter_segments():
                if isinstance(segment, InterpSegment):
                    return str(segment.get_interp_name())
    except (OSError, ELFError) as error:
        raise ImageError(f"cannot read {path} as an ELF file", str(error)) from error
    return None


def libraries(loader: Sequence[str], program: Path) -> dict[str, Path]:
    """Every library that ``program`` would be given, directly or not: soname to file.

    ``loader`` is a dynamic loader with its arguments; it is asked itself (``--list``), so that
    whatever it would follow at run time is followed. Raises :class:`ImageError` if one is missing.
    """
    try:
        listed = subprocess.run(
            [*loader, "--list", str(program)], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(f"cannot list the libraries of {program}", str(error)) from error
    missing = re.findall(r"(\S+) => not found", listed.stdout)
    if listed.returncode != 0 or missing:
        why = f"missing: {', '.join(missing)}" if missing else listed.stderr.strip()
        raise ImageError(f"{program} lacks libraries", why, "install the packages that it needs")
    return {
        soname: Path(path)
        for soname, path in re.findall(r"^\s*(\S+) => (/\S+) \(", listed.stdout, re.MULTILINE)
        if Path(soname).name == soname
    }


def build_id(content: bytes) -> str | None:
    """The GNU build ID in an ELF file's notes, in hexadecimal; None if it has none."""
    try:
        for section in ELFFile(io.BytesIO(content)).iter_sections():
            if isinstance(section, NoteSection):
                for note in section.iter_notes():
                    if note["n_type"] == "NT_GNU_BUILD_ID":
                        return str(note["n_desc"])
    except ELFError:
        pass
    return None


def code_sections(content: bytes) -> dict[str, int]:
    """The sections of an ELF file that hold machine code, and their sizes in bytes.

    :class:`ImageError` for what is no ELF file.
    """
    try:
        return {
            section.name: int(section["sh_size"])
            for section in ELFFile(io.BytesIO(content)).iter_sections()
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR
        }
    except ELFError as error:
        raise ImageError("cannot read a kernel module as an ELF file", str(error)) from error


def modinfo(module: bytes) -> dict[str, str]:
    """The ``key=value`` strings of a kernel module's ``.modinfo`` section (first of each key).

    :class:`ImageError` for what is no ELF file.
    """
    try:
        section = ELFFile(io.BytesIO(module)).get_section_by_name(".modinfo")
        data: bytes = section.data() if section is not None else b""
    except ELFError as error:
        raise ImageError("cannot read a kernel module as an ELF file", str(error)) from error
    pairs = (entry.decode(errors="replace").partition("=") for entry in data.split(b"\0") if entry)
    info: dict[str, str] = {}
    for key, _, value in pairs:
        info.setdefault(key, value)
    return info
