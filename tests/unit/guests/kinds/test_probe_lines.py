"""The devices that a probe's scenarios need to drive lines."""

import itertools

import pytest

from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestFiles
from harness.model.case import Machine
from harness.scenario.program import Feature, Program
from support.probe_boot import probe_case

FILES = GuestFiles(("qemu",), (), "probe.elf", "programs")
DRIVES_GSI_24 = Program("drives", 1, ((), ()), needs=Feature.LINES2 | Feature.IOAPIC2)
QUIET = Program("quiet", 1, ((), ()), needs=Feature.IOAPIC2)


def devices(programs, machine):
    case = probe_case(programs, machine=machine)
    arguments = list(kind_of(case.guest).arguments(case, FILES))
    pairs = itertools.pairwise(arguments)
    return [value.split(",")[0] for option, value in pairs if option == "-device"]


def test_probe_on_microvm_has_a_device_at_each_line_of_the_second_ioapic():
    found = devices([QUIET, DRIVES_GSI_24], Machine.MICROVM)
    assert found == ["isa-debug-exit", "pc-testdev", *24 * ["virtio-serial-device"]]


@pytest.mark.parametrize(
    ("programs", "machine", "expected"),
    [
        ([QUIET], Machine.MICROVM, ["isa-debug-exit", "pc-testdev"]),
        ([DRIVES_GSI_24], Machine.Q35, ["isa-debug-exit", "pc-testdev", "edu"]),
    ],
)
def test_probe_that_drives_no_such_line_has_none_of_them(programs, machine, expected):
    assert devices(programs, machine) == expected
