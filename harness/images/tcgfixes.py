"""What a module of the lab's kernel needs so that it can run on the CPU that TCG emulates.

The kernel is the one under test: nothing is changed but an instruction that works on hardware and
not on QEMU's SVM, and only in labs that TCG runs. The lab's description names each change.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from harness.base.errors import ImageError
from harness.images.modules import Module

_SIGNATURE_MARK: Final = b"~Module signature appended~\n"
_SIGNATURE_HEADER_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class TcgFix:
    """Machine code in a function of a module, and what TCG needs instead of it."""

    name: str
    module: str
    function: str
    changes: tuple[tuple[re.Pattern[bytes], bytes], ...]
    """Patterns and what replaces them, as for :func:`re.sub`; never of another length."""


FIXES: Final = (
    # KVM refuses to emulate an instruction that faulted while an event was delivered. On SVM it
    # asks EXITINTINFO's type, not its valid bit (since Linux 6.14, commit 7bd7ff99110a: svm.c
    # svm_check_emulate_instruction), and QEMU leaves the type of the last event that was delivered
    # (7.2 to 11.1, target/i386/tcg: seg_helper.c do_interrupt_all, svm_helper.c do_vmexit). So an
    # MMIO access that is the first exit after an NMI or an exception stopped the guest. The test
    # of the type at VMCB offset 0x88 becomes one of the valid bit (APM 2, 15.7.2).
    TcgFix(
        name="svm-stale-exitintinfo",
        module="kvm_amd",
        function="svm_check_emulate_instruction",
        changes=(
            # testb $0x07, 0x89(%reg): testb $0x80, 0x8b(%reg)
            (
                re.compile(rb"\xf6([\x80-\x83\x85-\x87])\x89\0\0\0\x07", re.DOTALL),
                b"\xf6\\1\x8b\0\0\0\x80",
            ),
            # testl $0x700, 0x88(%reg): testl $0x80000000, 0x88(%reg)
            (
                re.compile(rb"\xf7([\x80-\x83\x85-\x87])\x88\0\0\0\0\x07\0\0", re.DOTALL),
                b"\xf7\\1\x88\0\0\0\0\0\0\x80",
            ),
        ),
    ),
)


def fixed_for_tcg(module: Module) -> tuple[Module, tuple[str, ...]] | None:
    """The module with its fixes and their names; None if it needs none.

    A kernel without the code that a fix is for needs none: it is older, or was fixed. What is
    changed has no signature any more, which taints the kernel and no more. Raises
    :class:`ImageError` if a module that could need one is no ELF file.
    """
    content = module.content
    names: list[str] = []
    for fix in FIXES:
        if fix.module == module.name:
            changed = _changed(content, fix)
            if changed != content:
                content = changed
                names.append(fix.name)
    return (Module(module.name, _unsigned(content)), tuple(names)) if names else None


def _changed(content: bytes, fix: TcgFix) -> bytes:
    """With the one place that is meant; several would be other code than what was looked at."""
    for start, end in _extents(content, fix.function):
        code = content[start:end]
        for pattern, replacement in fix.changes:
            new, count = pattern.subn(replacement, code)
            if count == 1 and len(new) == len(code):
                return content[:start] + new + content[end:]
    return content


def _extents(content: bytes, function: str) -> Iterator[tuple[int, int]]:
    """Where the function is in the file of a relocatable module."""
    try:
        elf = ELFFile(io.BytesIO(content))
        table = elf.get_section_by_name(".symtab")
        symbols = (
            table.get_symbol_by_name(function) if isinstance(table, SymbolTableSection) else ()
        )
        for symbol in symbols or ():
            section = elf.get_section(symbol["st_shndx"])
            start = section["sh_offset"] + symbol["st_value"]
            yield start, start + symbol["st_size"]
    except (ELFError, TypeError) as error:
        raise ImageError("cannot read a kernel module as an ELF file", str(error)) from error


def _unsigned(content: bytes) -> bytes:
    """A signature that does not fit is an error, none is not (Linux ``kernel/module/signing.c``).

    It ends with its own length and a mark (``scripts/sign-file.c``).
    """
    if not content.endswith(_SIGNATURE_MARK):
        return content
    header_end = len(content) - len(_SIGNATURE_MARK)
    length = int.from_bytes(content[header_end - 4 : header_end], "big")
    return content[: header_end - _SIGNATURE_HEADER_BYTES - length]
