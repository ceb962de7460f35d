"""How many cases fit on a machine."""

import dataclasses

from harness.base.capacity import Capacity
from harness.config.config import Lab
from harness.run.room import fitting_jobs, need_mib
from support import cases

LOCAL = cases.case(backend=cases.TCG)
IN_LAB = cases.case(backend=cases.ON)


def test_need_of_a_case_in_a_lab_is_the_labs_and_not_the_guests():
    small = dataclasses.replace(IN_LAB, memory_mib=16)
    assert need_mib(small, Lab(memory_mib=4096)) == need_mib(IN_LAB, Lab(memory_mib=4096)) > 4096
    assert need_mib(LOCAL, Lab()) > LOCAL.memory_mib


def test_jobs_are_limited_by_the_memory_of_the_largest_case():
    machine = Capacity(64, 12_000)
    assert fitting_jobs([LOCAL, IN_LAB], Lab(memory_mib=4096), machine) == 2
    assert fitting_jobs([LOCAL], Lab(memory_mib=4096), machine) > 2


def test_jobs_of_labs_with_several_cpus_are_fewer():
    assert fitting_jobs([IN_LAB], Lab(smp=4), Capacity(8, None)) == 2
    assert fitting_jobs([LOCAL], Lab(smp=4), Capacity(8, None)) == 8


def test_jobs_without_cases_are_labs():
    assert fitting_jobs(found=Capacity(3, None)) == 3
