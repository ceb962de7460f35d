"""The lines and functions of a kernel module's machine code, from the module's debug information.

A module is relocatable: it has no addresses before it is loaded.  So its debug information is
linked here (ELF gABI, "Relocation"), each section at an address of its own that says which it is.
"""

from __future__ import annotations

import io
import posixpath
import struct
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.dwarf.ranges import BaseAddressEntry
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from harness.base.errors import ImageError
from harness.images.elf import build_id
from harness.model.coverage import Function, LineTable, SourceLine, Span

_SECTION_SHIFT: Final = 32
_OFFSET_MASK: Final = (1 << _SECTION_SHIFT) - 1
_INIT: Final = ".init"
"""Begins the name of what is freed once it ran: other code may be loaded there."""
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_RELA: Final = struct.Struct("<QQq")
_FORMATS: Final = {1: "<Q", 10: "<I"}
"""By type of relocation, what is written: ``R_X86_64_64``, ``R_X86_64_32`` (the x86-64 psABI)."""
_RELOCATED: Final = (".rela.debug_info", ".rela.debug_line", ".rela.debug_rnglists")


def has_lines(content: bytes) -> bool:
    """Whether a module has debug information of its own."""
    try:
        return ELFFile(io.BytesIO(content)).get_section_by_name(".debug_line") is not None
    except ELFError:
        return False


def line_table(content: bytes, kernel: str, files: Collection[str]) -> LineTable:
    """The lines and functions of ``files`` in the module ``content``.

    :class:`ImageError` where it is no ELF file, or has no debug information for them (DWARF 5).
    """
    try:
        elf = ELFFile(io.BytesIO(content))
        sections = {
            number: section.name
            for number, section in enumerate(elf.iter_sections())
            if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR and not section.name.startswith(_INIT)
        }
        linked = ELFFile(io.BytesIO(_linked(content, elf, sections)))
        dwarf = linked.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)
        code = _Code(dwarf, frozenset(files), sections)
        for unit in dwarf.iter_CUs():
            code.add(unit)
    except (ELFError, DWARFError, struct.error, KeyError, IndexError) as error:
        raise ImageError("cannot read the debug information of a kernel module", str(error)) from (
            error
        )
    if not code.lines:
        raise ImageError(
            "a kernel module has no debug information",
            f"there is none of {', '.join(sorted(files))}",
            "use a kernel with a debug package, or one that was built with CONFIG_DEBUG_INFO",
        )
    return LineTable(kernel, build_id(content) or "", _merged(code.lines), _merged(code.functions))


def _merged(found: Mapping[Any, set[Span]]) -> Mapping[Any, tuple[Span, ...]]:
    return MappingProxyType({key: tuple(sorted(spans)) for key, spans in found.items()})


def _linked(content: bytes, elf: ELFFile, sections: Mapping[int, str]) -> bytes:
    """With the debug information that is read here relocated."""
    data = bytearray(content)
    symtab = elf.get_section_by_name(".symtab")
    if symtab is None:
        return content
    values = [
        value + (section << _SECTION_SHIFT if section in sections else 0)
        for _, _, _, section, value, _ in _SYMBOL.iter_unpack(symtab.data())
    ]
    for name in _RELOCATED:
        relocations = elf.get_section_by_name(name)
        if relocations is None:
            continue
        start = elf.get_section(relocations["sh_info"])["sh_offset"]
        for offset, info, addend in _RELA.iter_unpack(relocations.data()):
            form = _FORMATS[info & 0xFFFF_FFFF]
            struct.pack_into(form, data, start + offset, values[info >> 32] + addend)
    return bytes(data)


@dataclass
class _Code:
    """What is collected from one compilation unit after the other."""

    dwarf: DWARFInfo
    files: frozenset[str]
    sections: Mapping[int, str]
    lines: dict[SourceLine, set[Span]] = field(default_factory=lambda: defaultdict(set))
    functions: dict[Function, set[Span]] = field(default_factory=lambda: defaultdict(set))
    _unit: CompileUnit | None = None
    _names: list[str] = field(default_factory=list)
    """The files of that unit, by their numbers."""

    def add(self, unit: CompileUnit) -> None:
        """All that the unit has of the files."""
        program = self.dwarf.line_program_for_CU(unit)
        if program is None:
            return
        header = program.header
        folders = [folder.decode() for folder in header.include_directory]
        # In DWARF 5 the number 0 is the first one, in lists of files and of folders.
        self._names = [
            posixpath.normpath(posixpath.join(folders[entry.dir_index], entry.name.decode()))
            .removeprefix(folders[0])
            .lstrip("/")
            for entry in header.file_entry
        ]
        if not self.files.intersection(self._names):
            return
        before = None
        for state in (entry.state for entry in program.get_entries()):
            if state is None:
                continue
            if before is not None and not before.end_sequence:
                self._add_line(before.file, before.line, before.address, state.address)
            before = state
        self._unit = unit
        for die in unit.iter_DIE_children(unit.get_top_DIE()):
            if die.tag == "DW_TAG_subprogram":
                self._add_function(die)

    def _add_line(self, file: int, number: int, start: int, end: int) -> None:
        span = self._span(start, end)
        if span is not None and number and self._names[file] in self.files:
            self.lines[SourceLine(self._names[file], number)].add(span)

    def _span(self, start: int, end: int) -> Span | None:
        section = self.sections.get(start >> _SECTION_SHIFT)
        if section is None or start >= end:
            return None
        return Span(section, start & _OFFSET_MASK, end & _OFFSET_MASK)

    def _add_function(self, function: DIE) -> None:
        """Its code, and that of what is inlined into it: both are also code of its lines."""
        for start, end in self._ranges(function):
            self._add_code(function, start, end)
        for inlined in _inlined(function):
            for start, end in self._ranges(inlined):
                self._add_code(inlined, start, end)
                call = inlined.attributes
                if "DW_AT_call_line" in call:
                    self._add_line(
                        call["DW_AT_call_file"].value, call["DW_AT_call_line"].value, start, end
                    )

    def _add_code(self, function: DIE, start: int, end: int) -> None:
        declared = _declared(function)
        if declared is None:
            return
        number, line, name = declared
        span = self._span(start, end)
        if span is not None and self._names[number] in self.files:
            self.functions[Function(self._names[number], line, name)].add(span)

    def _ranges(self, die: DIE) -> Iterator[tuple[int, int]]:
        attributes = die.attributes
        if "DW_AT_ranges" in attributes:
            lists = self.dwarf.range_lists()
            assert lists is not None
            assert self._unit is not None
            low = self._unit.get_top_DIE().attributes.get("DW_AT_low_pc")
            base = 0 if low is None else low.value
            place = attributes["DW_AT_ranges"].value
            for entry in lists.get_range_list_at_offset(place, self._unit):
                if isinstance(entry, BaseAddressEntry):
                    base = entry.base_address
                else:
                    added = 0 if entry.is_absolute else base
                    yield entry.begin_offset + added, entry.end_offset + added
        elif "DW_AT_low_pc" in attributes:
            start, end = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
            yield start, end.value + (0 if end.form == "DW_FORM_addr" else start)


def _inlined(die: DIE) -> Iterator[DIE]:
    """All that is inlined below ``die``, at any depth."""
    for child in die.iter_children():
        if child.tag == "DW_TAG_inlined_subroutine":
            yield child
        if child.tag in ("DW_TAG_inlined_subroutine", "DW_TAG_lexical_block"):
            yield from _inlined(child)


def _declared(function: DIE) -> tuple[int, int, str] | None:
    """The number of the file, the line and the name; of an instance, those of its origin."""
    while "DW_AT_abstract_origin" in function.attributes:
        function = function.get_DIE_from_attribute("DW_AT_abstract_origin")
    attributes = function.attributes
    if not {"DW_AT_name", "DW_AT_decl_file", "DW_AT_decl_line"} <= attributes.keys():
        return None
    return (
        attributes["DW_AT_decl_file"].value,
        attributes["DW_AT_decl_line"].value,
        attributes["DW_AT_name"].value.decode(),
    )
