"""What becomes of a probe whose QEMU goes away: nothing, or a boot for the scenarios behind.

And who traces a probe.
"""

import asyncio
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.backends.base import GuestPlan
from harness.base.errors import GuestCrash
from harness.model.case import LinuxGuest
from harness.record.case_runner import _behind, _moved, _traced
from harness.record.driver import Progress
from harness.scenario.program import Program
from support import cases
from support.probe_boot import probe_case

NOWHERE = Path("nowhere")
BOOT = "probe 1 cpus=1 x2apic=0\n"


def plan_of_two():
    programs = [Program(name, 1, ((), ())) for name in ("one", "two")]
    return GuestPlan(probe_case(programs), NOWHERE, NOWHERE, trace_log=False, paused=False)


def seen(console):
    return Progress(console=console, failure=GuestCrash("its QEMU went away"))


def test_probe_that_had_ended_did_not_crash():
    progress = seen("= 0\n. 0\n= 1\n. 1\ndone\n")
    assert _behind(plan_of_two(), progress) is None
    assert progress.failure is None
    assert progress.stalled == {}


def test_probe_that_goes_away_in_a_scenario_is_booted_for_the_next_one():
    progress = seen(BOOT)
    again = _behind(plan_of_two(), progress)
    assert again.case.guest.first == 1
    assert list(progress.stalled) == [0]


def test_probe_that_goes_away_behind_a_scenario_has_come_to_the_next_one():
    progress = seen(f"{BOOT}= 0\n. 0\n")
    assert _behind(plan_of_two(), progress) is None
    assert list(progress.stalled) == [1]
    assert progress.failure is None


def test_probe_that_does_not_come_up_again_blames_no_scenario():
    progress = seen(BOOT)
    again = _behind(plan_of_two(), progress)
    progress.failure = GuestCrash("its QEMU went away")
    assert _behind(again, progress) is None
    assert progress.failure is not None
    assert list(progress.stalled) == [0]


@pytest.mark.parametrize(
    ("trace", "why"),
    [(False, "the probe logs what it sees itself"), (True, "tracefs is not mounted")],
)
def test_probe_is_traced_where_its_configuration_says_so(trace, why):
    case = probe_case([Program("one", 1, ((), ()))])
    case = dataclasses.replace(
        case,
        guest=dataclasses.replace(case.guest, trace=trace),
        backend=cases.LOCAL_ON,
    )
    progress = Progress()

    async def is_traced():
        async with _traced(SimpleNamespace(tracefs=None), case, progress) as found:
            return found is not None

    assert not asyncio.run(is_traced())
    assert why in progress.missing["kernel trace"]


def test_guest_that_was_saved_is_booted_again_to_be_loaded():
    case = cases.case(LinuxGuest(("idle",), migrate=True))
    plan = GuestPlan(case, NOWHERE, NOWHERE, trace_log=True, paused=False)
    progress = Progress()

    again = _moved(plan, progress)

    assert again == dataclasses.replace(plan, incoming=True)
    assert _moved(again, progress) is None
    assert _moved(plan, Progress(failure=GuestCrash("its QEMU went away"))) is None
