"""The scenarios that travel with us: compiled, predicted, and nothing in them hangs on luck."""

import dataclasses

import pytest

from harness.base import resources
from harness.base.errors import ConfigError
from harness.model import lab_faults
from harness.scenario import choice, expect
from harness.scenario.authoring import authoring_problems
from harness.scenario.execution import Execution
from harness.scenario.predict import predict
from harness.scenario.program import Feature, Opcode
from support.scenario_programs import PROFILES
from userspace_chip.profile import profile

FOLDER = resources.configs() / "scenarios"
FILES = sorted(FOLDER.glob("*.yaml"))
SCENARIOS = choice.load(FILES)
OF_LABS = choice.load(sorted((FOLDER / "lab").glob("*.yaml")))
"""Which run where somebody asks for them only."""
OUTSIDE = choice.load(sorted((FOLDER / "outside").glob("*.yaml")))
"""Likewise: each takes a boot more, or seconds."""


def test_shipped_scenarios_are_many():
    assert len(SCENARIOS) >= 60


def test_shipped_scenarios_each_do_something_else():
    programs = {}
    for scenario in SCENARIOS:
        program = dataclasses.replace(scenario.program, name="")
        programs.setdefault((program, scenario.machines), []).append(scenario.name)
    assert [names for names in programs.values() if len(names) > 1] == []


def test_shipped_files_say_what_editors_check_them_by():
    first = "# yaml-language-server: $schema=schema.json\n"
    assert [f.name for f in FILES if not f.read_text(encoding="utf-8").startswith(first)] == []


def test_scenario_that_ends_a_lab_runs_nowhere_by_default():
    assert [s.name for s in SCENARIOS if Feature.CR8 in s.program.needs] == []


def _needs_the_rtc_pin(program):
    ops = [op for block in program.blocks for op in block]
    return any((op.opcode, op.a) in {(Opcode.LINE, 8), (Opcode.PIO_WRITE, 0x70)} for op in ops)


def _stops_the_rtc_pin(program):
    """With ``on``: it waits for the EOI of more than any local APIC has."""
    execution = Execution(program, profile("on"), cpus=program.cpus)
    execution.run()
    pin, lapics = execution.machine.ioapics[0].state, execution.machine.lapics
    to_come = [
        vector
        for cpu, vector in pin.rtc_dest_map.items()
        if (lapics[cpu].state.irr | lapics[cpu].state.isr) >> vector & 1
    ]
    return pin.rtc_pending_eoi > len(to_come)


def test_scenario_that_stops_the_rtc_pin_comes_after_those_that_need_it():
    """Or each would take a boot of its own: see docs/probe.md."""
    boots = choice.by_cpus(SCENARIOS).values()
    needing = [[s for s in boot if _needs_the_rtc_pin(s.program)] for boot in boots]
    stopping = [
        [s.name for s in boot if s.no_model is None and _stops_the_rtc_pin(s.program)]
        for boot in needing
    ]
    wanted = ["rtc-pin-after-nmi", "rtc-pin-after-init"]
    assert [name for names in stopping for name in names] == wanted
    assert [boot[-1].name for boot in needing if boot] == wanted


def test_fault_of_labs_names_a_scenario_that_there_is():
    names = {fault.scenario for fault in lab_faults.shipped()} - {None}
    assert names
    assert names <= {scenario.name for scenario in OF_LABS}


def test_scenarios_of_one_name_are_refused(tmp_path):
    for name in ("one.yaml", "other.yaml"):
        (tmp_path / name).write_text(
            "version: 1\nscenarios: {same: {about: a test, steps: [sti, {read: lapic.tpr}]}}\n"
        )
    with pytest.raises(ConfigError, match="duplicate scenario 'same'"):
        choice.load([tmp_path / "one.yaml", tmp_path / "other.yaml"])


@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in (*SCENARIOS, *OF_LABS, *OUTSIDE) if scenario.no_model is None],
    ids=lambda scenario: scenario.name,
)
def test_shipped_scenario_is_predicted_without_a_problem(scenario):
    board = "microvm" if scenario.machines == {"microvm"} else "pc"
    found = {}
    for name, subject in PROFILES.items():
        log = predict(scenario.program, subject, board=board)
        problems = authoring_problems(scenario.program, subject, log, board=board)
        found[name] = [str(problem) for problem in problems]
        if log.events and log.events[0].kind != "skip":
            found[name] += expect.failures(scenario.expect, log, subject.mode)
    assert {name: problems for name, problems in found.items() if problems} == {}
