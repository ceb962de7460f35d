"""What result.json says at each moment of a run."""

import asyncio

import pytest

from harness.base.errors import StoreError
from harness.run.checkpoint import checkpoint
from harness.store import result
from support import runs


class Run:
    """A run whose cases end one after the other."""

    def __init__(self, path):
        self.path = path
        self.cases = [runs.BROKEN]
        self.notes = []

    def known(self):
        return runs.run_of(*self.cases)

    def checkpoint(self):
        return checkpoint(self.path, self.known, self.notes.append)

    @property
    def written(self):
        return [case.id for case in result.read(self.path).cases]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "result.json")


def test_checkpoint_is_there_from_the_beginning(run):
    with run.checkpoint():
        assert run.written == [runs.BROKEN.id]


def test_checkpoint_has_what_is_known_once_its_turn_is(run):
    async def go():
        with run.checkpoint() as kept:
            for case in (runs.GOOD, runs.HANGS, runs.SKIPPED):
                run.cases.append(case)
                kept.update()
            while len(run.written) < 4:
                await asyncio.sleep(0)

    asyncio.run(go())
    assert run.written[-1] == runs.SKIPPED.id


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError, RuntimeError])
def test_checkpoint_of_a_run_that_is_ended_has_all_that_was_known(run, error):
    def go():
        with run.checkpoint():
            run.cases.append(runs.GOOD)
            raise error

    with pytest.raises(error):
        go()
    assert run.written == [runs.BROKEN.id, runs.GOOD.id]


def test_checkpoint_that_cannot_be_written_later_is_said_once_and_the_run_goes_on(run):
    with run.checkpoint() as kept:
        run.path.unlink()
        run.path.mkdir()
        kept.write()
        kept.write()
    (note,) = run.notes
    assert "result.json" in note


def test_checkpoint_that_cannot_be_written_at_the_beginning_is_an_error(run):
    run.path.mkdir()
    with pytest.raises(StoreError), run.checkpoint():
        pass
