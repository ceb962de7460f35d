"""What becomes of a probe whose QEMU goes away: nothing, or a boot for the scenarios behind."""

from pathlib import Path

from harness.conduct import _behind, _Progress
from harness.errors import GuestCrash
from harness.hosts.base import GuestPlan
from harness.scenario.program import Program
from support.probe_boot import probe_case

NOWHERE = Path("nowhere")


def plan_of_two():
    programs = [Program(name, 1, ((), ())) for name in ("one", "two")]
    return GuestPlan(probe_case(programs), NOWHERE, NOWHERE, trace_log=False, paused=False)


def seen(console):
    return _Progress(console=console, failure=GuestCrash("its QEMU went away"))


def test_probe_that_had_ended_did_not_crash():
    progress = seen("= 0\n. 0\n= 1\n. 1\ndone\n")
    assert _behind(plan_of_two(), progress) is None
    assert progress.failure is None
    assert progress.stalled == {}


def test_probe_that_goes_away_in_a_scenario_is_booted_for_the_next_one():
    progress = seen("= 0\n")
    again = _behind(plan_of_two(), progress)
    assert again.case.guest.first == 1
    assert list(progress.stalled) == [0]
