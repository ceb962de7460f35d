"""Conformance and quick.yaml on Linux 6.1.192 (Debian), on, split and off, as the lab ran them.

``executed.json.zst`` and ``floor.json.zst`` have what ran of the chips; ``lines.json.zst`` is their
line table, from the debug package of that kernel.
"""

import json
import shutil

import pytest
import zstandard

from harness.commands import coverage
from harness.commands.coverage import CoverageOptions
from harness.coverage.account import account
from harness.model.coverage import LineTable, SourceLine
from harness.model.layout import CaseDir, RunDir
from support import golden

RECORDED = golden.TESTS / "golden" / "coverage"


@pytest.fixture(scope="module")
def table():
    data = zstandard.decompress((RECORDED / "lines.json.zst").read_bytes())
    return LineTable.of_json(json.loads(data))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "probe").mkdir()
    shutil.copy(RECORDED / "executed.json.zst", CaseDir(folder / "probe").executed)
    shutil.copy(RECORDED / "floor.json.zst", RunDir(folder).floor)
    return folder


@pytest.fixture(scope="module")
def build(run, table):
    (found,) = account([run], None, lambda kernel, build_id: table)
    return found


def test_recorded_run_gives_the_table_that_it_gave(build):
    lines, functions = build.lines(), build.functions()

    assert (lines.all, lines.reached, lines.floor) == (2807, 2251, 1557)
    assert (functions.all, functions.reached, functions.floor) == (319, 276, 207)
    assert build.lines("arch/x86/kvm/i8259.c").reached == 272


def test_chips_of_linux_6_1_are_in_eight_files(table):
    assert len(table.files) == 8


def test_what_cannot_be_reached_was_not_and_has_a_reason(build):
    hardware = {"apicv", "vmx-timer", "vmx-icr", "vmx-exits", "cmci"}
    needs = [condition.id for condition in build.cannot.values()]

    assert 100 < sum(need in hardware for need in needs) <= 187
    assert sum(need not in hardware for need in needs) <= 60
    assert all(condition.why for condition in build.cannot.values())


def test_floor_is_part_of_what_was_reached(build):
    assert build.floor.lines <= build.reached.lines


def test_function_of_a_line_is_the_one_of_the_source(table):
    found = table.function_at(SourceLine("arch/x86/kvm/lapic.c", 590))

    assert found.name == "apic_set_isr"


def test_command_shows_the_recorded_run(run, table, capsys):
    coverage.run(CoverageOptions([run], missing=True), lambda kernel, build_id: table)

    shown = capsys.readouterr().out
    assert "80.2" in shown
    assert "pit_ioport_read" in shown
    assert "cannot be reached: APICv or AVIC" in shown
