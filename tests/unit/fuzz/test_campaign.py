"""Rounds of a campaign, and what they leave in the journal."""

import asyncio

import pytest

from harness.base import resources
from harness.base.errors import CannotRun, ConfigError
from harness.fuzz import campaign
from harness.fuzz.campaign import Fuzzer, FuzzRequest, campaign_of, sides_of
from harness.fuzz.journal import Journal
from harness.fuzz.oracles import Oracle
from harness.scenario.log import Log, LogEvent
from harness.scenario.program import Opcode
from support import golden
from support.model_bench import ModelBench
from userspace_chip.profile import tune

GRAMMAR = str(golden.TESTS / "support" / "small-grammar.yaml")


@pytest.fixture
def fuzz(tmp_path):
    def run(programs=40, folder="campaign", runs=None, **how):
        bench = how.pop("bench", None) or ModelBench(tmp_path, **how.pop("model", {}))
        request = FuzzRequest(**{"sides": ("tcg",), "seed": 5, "only": GRAMMAR, **how})
        place = tmp_path / folder
        journal = (
            Journal.resumed(place) if place.exists() else Journal.begun(place, campaign_of(request))
        )
        fuzzer = Fuzzer(journal, bench)
        asyncio.run(fuzzer.run(programs, None, runs))
        return fuzzer

    return run


def is_wrong(_side, profile):
    return tune(profile, ioapic__edge_latch_when_masked=True)


def test_campaign_of_chips_that_are_right_finds_nothing(fuzz):
    history = fuzz().journal.history
    assert (history.programs, history.differences) == (40, {})
    assert history.executed == {"local:tcg": 45}  # one of eight twice


def test_campaign_with_a_wrong_backend_says_which_programs_differ_and_how(fuzz):
    history = fuzz(model={"wrong": is_wrong}).journal.history
    found = list(history.differences.values())
    assert found
    assert {one.oracle for one in found} <= {Oracle.CHIPS, Oracle.LAWS}
    assert {one.side for one in found} == {"local:tcg"}


def test_campaign_that_is_resumed_runs_what_is_left_and_no_more(fuzz):
    fuzz(10, "parts", model={"wrong": is_wrong})
    parts = fuzz(30, "parts", model={"wrong": is_wrong}).journal.history
    whole = fuzz(30, "whole", model={"wrong": is_wrong}).journal.history
    assert (parts.programs, parts.next) == (whole.programs, whole.next) == (30, whole.next)
    assert parts.differences.keys() == whole.differences.keys()


def test_program_that_logs_something_else_the_second_time_is_said(fuzz):
    wrong = fuzz(40, "wrong", model={"wrong": is_wrong}).journal.history.differences.values()
    once = {one.program: 1 for one in wrong}
    found = fuzz(40, "once", model={"wrong": is_wrong, "flaky": once}).journal.history
    again = [one for one in found.differences.values() if one.oracle is Oracle.TWICE]
    assert again
    assert {one.program for one in again} <= once.keys()


class ReadsBench(ModelBench):
    """Backends of devices without a model: every read is 1 in a lab and 0 elsewhere."""

    def _log(self, side, scenario):
        value = "1" if side.place == "lab" else "0"
        reads = (Opcode.PIO_READ, Opcode.MMIO_READ)
        main = scenario.program.blocks[1]
        events = (LogEvent(op.step, 0, "read", (value,)) for op in main if op.opcode in reads)
        return Log(tuple(events))


def test_programs_without_a_model_are_compared_between_backends(fuzz, tmp_path):
    sides = ("lab:on", "tcg")
    grammar = tmp_path / "unmodelled.yaml"
    shipped = resources.configs() / "fuzz" / "grammars" / "devices.yaml"
    grammar.write_text(shipped.read_text() + "model: a test\n")
    found = fuzz(20, only=str(grammar), sides=sides, bench=ReadsBench(tmp_path)).journal.history
    assert {(one.oracle, one.side, one.against) for one in found.differences.values()} == {
        (Oracle.BACKENDS, "lab:on", "local:tcg")
    }


def test_side_that_can_execute_nothing_is_an_error_and_no_green_run(fuzz, tmp_path):
    class NoLines(ModelBench):
        def _log(self, side, scenario):
            skipped = LogEvent(0, 0, "skip", ("lines",))
            return Log((skipped,)) if side.place == "lab" else super()._log(side, scenario)

    with pytest.raises(CannotRun, match="lab:on executed none of 20 programs"):
        fuzz(20, sides=("tcg", "lab:on"), bench=NoLines(tmp_path))


def test_side_that_skips_programs_goes_on_until_it_has_its_runs(fuzz, tmp_path, monkeypatch):
    class Skips(ModelBench):
        def _log(self, side, scenario):
            skips = side.place == "lab" and len(scenario.program.blocks[1]) % 2
            return (
                Log((LogEvent(0, 0, "skip", ("lines",)),))
                if skips
                else super()._log(side, scenario)
            )

    monkeypatch.setattr(campaign, "LEAST_ROUND", 10)
    sides = ("tcg", "lab:on")
    found = fuzz(None, runs=50, sides=sides, bench=Skips(tmp_path)).journal.history
    without = fuzz(None, "whole", runs=50, sides=sides).journal.history
    assert found.executed["lab:on"] >= 50
    assert found.executed["local:tcg"] == without.executed["local:tcg"] >= 50
    assert found.programs > without.programs
    assert not found.differences


def test_model_is_no_side_of_a_campaign():
    with pytest.raises(ConfigError, match="is no backend"):
        sides_of(["model:on"])


def test_sides_are_named_once():
    assert [str(side) for side in sides_of(["on", "lab:on", "tcg"])] == ["lab:on", "local:tcg"]
