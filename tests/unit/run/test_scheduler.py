"""What is prepared before anything runs: programs for the probe."""

import dataclasses

from harness.run.scheduler import _program
from harness.scenario.program import Program, encode
from support.probe_boot import probe_case

PROGRAMS = [Program(name, cpus, ((), ())) for name, cpus in (("one", 1), ("two", 2))]


def test_program_of_each_reproducer_has_a_file_of_its_own(tmp_path):
    """They have the same guest, machine and number of CPUs, and other scenarios."""
    cases = [
        dataclasses.replace(probe_case([program]), group=f"repro-{program.name}", smp=1)
        for program in PROGRAMS
    ]
    paths = [_program(case.guest, case, tmp_path) for case in cases]
    assert [path.read_bytes() for path in paths] == [encode([program]) for program in PROGRAMS]


def test_program_is_one_module_to_qemu_whatever_the_cpu_is_called(tmp_path):
    case = dataclasses.replace(probe_case(PROGRAMS[:1]), cpu="qemu64,+tsc-deadline")
    assert "," not in _program(case.guest, case, tmp_path).name
