"""The word on a probe's command line that lets its scenarios ask for something."""

from dataclasses import replace

import pytest

from harness.guests.kinds.table import kind_of
from harness.guests.plan import GuestFiles
from harness.scenario.program import Feature, Program
from support.probe_boot import probe_case

FILES = GuestFiles(("qemu",), (), "probe.elf", "programs")
ASKS = Program("asks", 1, ((), ()), needs=Feature.MONITOR)
QUIET = Program("quiet", 1, ((), ()))


def words(case):
    arguments = list(kind_of(case.guest).arguments(case, FILES))
    return arguments[arguments.index("-append") + 1].split() if "-append" in arguments else []


@pytest.mark.parametrize(
    ("programs", "expected"), [([QUIET], []), ([ASKS], ["monitor"]), ([QUIET, ASKS], ["monitor"])]
)
def test_probe_has_a_monitor_where_one_of_its_scenarios_needs_it(programs, expected):
    assert words(probe_case(programs)) == expected


def test_probe_that_begins_later_has_a_monitor_too():
    case = probe_case([QUIET, ASKS])
    assert words(replace(case, guest=replace(case.guest, first=1))) == ["from=1", "monitor"]


def test_deterministic_probe_has_no_monitor():
    assert words(replace(probe_case([ASKS]), deterministic=True)) == []


def test_live_chips_have_no_monitor_for_a_probe():
    assert "monitor" not in kind_of(probe_case([ASKS]).guest).live.append
