"""What becomes of a probe whose QEMU goes away: nothing, or a boot for the scenarios behind.

And who traces a probe.
"""

import asyncio
import contextlib
import dataclasses
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.base.errors import GuestCrash, LabDied, LabLost
from harness.guests.plan import GuestPlan
from harness.model.case import LinuxGuest
from harness.record.boot import PartialRecording
from harness.record.case_runner import _traced, conduct
from harness.record.drivers.table import driver_of
from harness.scenario.program import Program
from support import cases
from support.probe_boot import probe_case

NOWHERE = Path("nowhere")
BOOT = "probe 1 cpus=1 x2apic=0\n"


def plan_of_two():
    programs = [Program(name, 1, ((), ())) for name in ("one", "two")]
    return GuestPlan(probe_case(programs), NOWHERE, NOWHERE, trace_log=False, paused=False)


def next_boot(plan, progress):
    return driver_of(plan.case.guest).next_boot(plan, progress)


def seen(console):
    return PartialRecording(console=console, failure=GuestCrash("its QEMU went away"))


def test_probe_that_had_ended_did_not_crash():
    progress = seen("= 0\n. 0\n= 1\n. 1\ndone\n")
    assert next_boot(plan_of_two(), progress) is None
    assert progress.failure is None
    assert progress.stalled == {}


def test_probe_that_goes_away_in_a_scenario_is_booted_for_the_next_one():
    progress = seen(BOOT)
    again = next_boot(plan_of_two(), progress)
    assert again.case.guest.first == 1
    assert list(progress.stalled) == [0]


def test_probe_that_goes_away_behind_a_scenario_has_come_to_the_next_one():
    progress = seen(f"{BOOT}= 0\n. 0\n")
    assert next_boot(plan_of_two(), progress) is None
    assert list(progress.stalled) == [1]
    assert progress.failure is None


def test_probe_that_does_not_come_up_again_blames_no_scenario():
    progress = seen(BOOT)
    again = next_boot(plan_of_two(), progress)
    progress.failure = GuestCrash("its QEMU went away")
    assert next_boot(again, progress) is None
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
    progress = PartialRecording()

    async def is_traced():
        async with _traced(SimpleNamespace(tracefs=None), case, progress) as found:
            return found is not None

    assert not asyncio.run(is_traced())
    assert why in progress.missing["kernel trace"]


def test_guest_that_was_saved_is_booted_again_to_be_loaded():
    case = cases.case(LinuxGuest(("idle",), migrate=True))
    plan = GuestPlan(case, NOWHERE, NOWHERE, trace_log=True, paused=False)
    progress = PartialRecording()

    again = next_boot(plan, progress)

    assert again == dataclasses.replace(plan, incoming=True)
    assert next_boot(again, progress) is None
    assert next_boot(plan, PartialRecording(failure=GuestCrash("its QEMU went away"))) is None


class DyingLab:
    """A lab that is gone when its guest is to be booted, or to be ended."""

    tracefs = None
    lost = LabLost("the lab died", "SIGABRT: assertion failed", "lab-1.stderr")

    def __init__(self, when):
        self.when = when

    def state_file(self, directory):
        return ""

    def command(self, plan):
        return ""

    @contextlib.asynccontextmanager
    async def boot(self, plan):
        if self.when == "boot":
            raise self.lost
        exited = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield SimpleNamespace(
                console=ours,
                console_end=None,
                host_pid=os.getpid(),
                monitor=theirs,
                exited=exited,
                kill=self.kill,
            )

    async def kill(self):
        raise self.lost


@pytest.mark.parametrize("when", ["boot", "kill"])
def test_guest_under_which_the_lab_dies_crashes_with_how_it_died(tmp_path, when):
    """Also one that seemed to hang before: whatever its lab was by then."""
    case = cases.case(backend=cases.ON, timeout_s=0.1)
    plan = GuestPlan(case, NOWHERE, None, trace_log=False, paused=False)
    recording = asyncio.run(conduct(DyingLab(when), plan, tmp_path, lambda text: None))
    assert isinstance(recording.failure, LabDied)
    assert str(recording.failure) == (
        "the lab died under it: SIGABRT: assertion failed (lab-1.stderr)"
    )
