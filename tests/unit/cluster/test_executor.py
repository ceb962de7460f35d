"""What the run of a cluster concludes from what it hears; the rest is in tests/live."""

import asyncio
import dataclasses

import pytest

from harness.base.errors import CannotRun, ClusterError
from harness.cluster import executor
from harness.cluster.executor import ClusterExecutor
from harness.cluster.images import NotedImages
from harness.cluster.order import WorkerStep
from harness.cluster.roster import Roster, Worker
from harness.config.config import Lab, RunConfig
from harness.run.executor import Job
from harness.run.progress import Silent
from support import cases

CASE = cases.case()
NEEDS = {"avic": 1.0}


class Shown(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def asked(tmp_path, act):
    """What an executor with CASE pending, and its display, are after ``act``."""

    async def run():
        shown = Shown()
        config = RunConfig("some", tmp_path, (CASE,), Lab())
        found = ClusterExecutor(Job(config, tmp_path, None, shown, 1), None, "dask://x:1")
        pending = executor._Pending(CASE, NEEDS, asyncio.get_running_loop().create_future())
        found._pending[CASE.id] = pending
        act(found, pending)
        why = pending.given_up.result() if pending.given_up.done() else None
        return found, shown.notes, why

    return asyncio.run(run())


def starts(*workers):
    def act(found, _):
        for name in workers:
            step = WorkerStep(name, CASE.id, "starting", starts=True)
            found.heard((0.0, dataclasses.asdict(step) | {"worker": "tcp://its-address"}))

    return act


def test_case_that_begins_again_was_lost_with_its_worker(tmp_path):
    found, notes, why = asked(tmp_path, starts("a", "b"))
    told = f"worker a was lost under {CASE.id}: it runs again on b"
    assert notes == [told]
    assert found.hosts().more["cluster"]["lost"] == [told]
    assert (why, found.ends_labs(CASE)) == (None, False)


def test_case_under_which_workers_end_is_not_run_for_ever(tmp_path):
    found, _, why = asked(tmp_path, starts("a", "b", "c"))
    assert isinstance(why, ClusterError)
    assert "a, b" in str(why)
    assert found.ends_labs(CASE)


def waits(roster, begun_by=()):
    def act(found, pending):
        pending.begun_by.extend(begun_by)
        found.roster = roster
        found._wait_s = 0
        pending.lacks_since = -1.0
        found._look_after(pending)

    return act


OURS = Worker("a", 1, {executor.abilities.VERSION: 1.0})


@pytest.mark.parametrize(
    ("roster", "begun_by", "kind", "text"),
    [
        (Roster((OURS,)), (), CannotRun, "a lacks avic"),
        (Roster(), (), ClusterError, "had no worker"),
        (Roster((OURS,)), ("b",), ClusterError, f"worker b was lost under {CASE.id}"),
    ],
)
def test_case_that_no_worker_can_run_is_given_up_with_the_reason(
    tmp_path, roster, begun_by, kind, text
):
    _, _, why = asked(tmp_path, waits(roster, begun_by))
    assert type(why) is kind
    assert text in str(why)


def test_case_that_a_worker_can_run_is_waited_for(tmp_path):
    able = Worker("a", 1, OURS.resources | NEEDS)
    _, _, why = asked(tmp_path, waits(Roster((able,))))
    assert why is None


def test_images_that_are_files_of_this_machine_are_refused():
    with pytest.raises(CannotRun, match="is a file of this machine"):
        NotedImages().kernel("/boot/vmlinuz")
