"""Lines and functions of a relocatable file that a compiler made."""

import pytest

from harness.base.errors import ImageError
from harness.images import dwarf
from harness.images.helper import compiler
from harness.model.coverage import Executed, SourceLine, Span
from support import debug_module

SOURCE = """\
extern volatile int port;
static inline __attribute__((always_inline)) void out(int value) {
    port = value;
}

int chip(int value)
{
    out(value);
    return 1;
}

int __attribute__((section(".text.unlikely"))) rare(int value)
{
    return value - 1;
}

int __attribute__((section(".init.text"))) once(int value)
{
    return value * 7;
}
"""
NEEDS_COMPILER = pytest.mark.skipif(compiler() is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A file as a kernel's module is: relocatable, of two units, with debug information."""
    other = "int other(int value)\n{\n    return value;\n}\n"
    folder = tmp_path_factory.mktemp("module")
    return debug_module.build(folder, {"other.c": other, "chip.c": SOURCE})


@NEEDS_COMPILER
def test_lines_are_those_with_code_and_those_that_a_function_is_inlined_into(module):
    table = dwarf.line_table(module, "6.1", ["chip.c"])

    numbers = {line.number for line in table.lines}
    assert {3, 8, 14} <= numbers
    assert not numbers & {17, 18, 19}, "what runs once is freed, and its place is used again"
    assert table.build_id


@NEEDS_COMPILER
def test_functions_are_also_those_that_are_inlined_and_their_code_is_where_they_are(module):
    table = dwarf.line_table(module, "6.1", ["chip.c"])

    names = {function.name: spans for function, spans in table.functions.items()}
    assert set(names) == {"out", "chip", "rare"}
    assert {span.section for span in names["rare"]} == {".text.unlikely"}
    (chip,) = names["chip"]
    assert all(
        span.section == chip.section and chip.start <= span.start and span.end <= chip.end
        for span in names["out"]
    )


@NEEDS_COMPILER
def test_execution_of_the_first_instruction_reaches_its_line_only(module):
    table = dwarf.line_table(module, "6.1", ["chip.c"])
    (rare,) = (s for f, s in table.functions.items() if f.name == "rare")

    found = table.reached(Executed("6.1", "", {".text.unlikely": frozenset({rare[0].start})}))

    assert {function.name for function in found.functions} == {"rare"}
    assert found.lines <= {SourceLine("chip.c", 13), SourceLine("chip.c", 14)}


@NEEDS_COMPILER
def test_table_has_no_file_that_was_not_asked_for(module):
    table = dwarf.line_table(module, "6.1", ["other.c"])

    assert {line.file for line in table.lines} == {"other.c"}
    assert all(isinstance(span, Span) for spans in table.lines.values() for span in spans)


@NEEDS_COMPILER
def test_module_without_code_of_the_files_is_an_error(module):
    with pytest.raises(ImageError, match="debug"):
        dwarf.line_table(module, "6.1", ["missing.c"])


@NEEDS_COMPILER
def test_module_with_debug_information_is_known(module):
    assert dwarf.has_lines(module)
    assert not dwarf.has_lines(b"no ELF file")


def test_what_is_no_elf_file_is_an_error():
    with pytest.raises(ImageError, match="debug information"):
        dwarf.line_table(b"no ELF file", "6.1", ["chip.c"])
