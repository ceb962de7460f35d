"""What no lab can reach: the file, and lines by it."""

import pytest

from harness.base.errors import ConfigError
from harness.coverage import cannot_reach
from harness.model.coverage import LineTable, SourceLine
from support.covered import LAPIC, TABLE

ENTRY = """\
version: 1
conditions:
  - id: avic
    needs: AVIC in hardware
    why: no lab has it, because TCG does not emulate it
"""


def lines(tmp_path, text, table=TABLE):
    path = tmp_path / "cannot.yaml"
    path.write_text(ENTRY + text)
    return cannot_reach.load(path, table)


def test_lines_of_a_function_are_those_from_its_declaration_to_the_next(tmp_path):
    found = lines(tmp_path, f"    functions: {{{LAPIC}: [apic_one]}}\n")

    assert sorted(found) == [SourceLine(LAPIC, 10), SourceLine(LAPIC, 11), SourceLine(LAPIC, 13)]
    assert {condition.id for condition in found.values()} == {"avic"}


def test_lines_of_a_version_are_for_every_revision_of_it_and_only_where_there_is_code(tmp_path):
    text = f'    lines: {{"6.1.192": {{{LAPIC}: [10-12, 20]}}}}\n'

    assert sorted(lines(tmp_path, text)) == [SourceLine(LAPIC, n) for n in (10, 11, 20)]
    other = LineTable("6.12.1-1", "x", TABLE.lines, TABLE.functions)
    assert lines(tmp_path, text, other) == {}


@pytest.mark.parametrize("wrong", ["    lines: {6.1: {x.c: [a-b]}}\n", "    line: {}\n"])
def test_mistake_in_the_file_is_named(tmp_path, wrong):
    with pytest.raises(ConfigError, match=r"cannot\.yaml"):
        lines(tmp_path, wrong)
