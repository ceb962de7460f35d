"""The backends' seam: one more, and everything that runs cases runs them there."""

import asyncio
import contextlib
from types import SimpleNamespace

from harness.backends.table import BACKENDS
from harness.config.config import Lab, RunConfig
from harness.guests.plan import GuestPlan
from harness.model.case import Host
from harness.run.progress import Silent
from harness.run.scheduler import Prepared, Scheduler
from support import cases
from support.toy_session import WORDS, ToySession


class ToyBackend:
    """Opens toys, and remembers what for."""

    def __init__(self):
        self.opened = []

    def prepare(self, plan):
        pass

    @contextlib.asynccontextmanager
    async def open(self, plan, guests, log):
        self.opened.append((plan.qemu, len(guests), log.name))
        yield ToySession()


def test_backend_that_is_put_into_the_table_runs_and_records_cases(tmp_path, monkeypatch):
    toy = ToyBackend()
    monkeypatch.setitem(BACKENDS, Host.LOCAL, toy)
    case = cases.case(backend=cases.LOCAL_ON)
    config = RunConfig("toy", tmp_path, (case,), Lab())
    item = Prepared(case, GuestPlan(case, tmp_path, None, trace_log=False, paused=False), None)
    recordings = []

    class Cache:
        def qemu(self, name):
            return SimpleNamespace(version=(7, 2))

    async def take(recorded):
        recordings.append(recorded)

    runner = Scheduler(config, tmp_path, Cache(), None, Silent(), 1)
    asyncio.run(runner.record([item], take))

    assert toy.opened == [("system", 1, "local-1.log")]
    (recording,) = recordings
    assert recording.failure is None
    assert recording.status == 0
    assert recording.console.encode().splitlines() == WORDS.splitlines()
