"""Programs on backends: what ends badly does not take the others with it."""

import asyncio

import pytest

from harness.base.errors import CannotRun
from harness.fuzz import runner
from harness.fuzz.programs import compiled
from harness.fuzz.runner import Runner
from harness.model.verdict import Blame, Verdict
from harness.repro.bench import parse
from support.model_bench import ModelBench

TCG, ON = parse("tcg"), parse("lab:on")


def scenario(name, cpus=1):
    data = {"about": "for the runner", "cpus": cpus, "steps": [{"read": "ioapic.version"}]}
    return compiled(name, data)


def run(bench, sides, scenarios, ended=lambda _side, _found: None):
    return asyncio.run(Runner(bench).run(sides, scenarios, ended))


def test_every_program_has_a_log_in_the_order_in_which_it_was_given(tmp_path):
    scenarios = [scenario("a"), scenario("b", cpus=2), scenario("c")]
    found = run(ModelBench(tmp_path), [TCG, ON], scenarios)
    assert [len(found[side]) for side in (TCG, ON)] == [3, 3]
    assert all(ran.whole is not None for side in found for ran in found[side])
    assert found[TCG][0].log != found[ON][0].log  # 0x170020 and 0x170011


def test_programs_of_one_number_of_cpus_are_one_boot_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "OF_ONE_BOOT", 2)
    bench = ModelBench(tmp_path)
    run(bench, [TCG], [scenario(f"s{n}") for n in range(5)] + [scenario("two", cpus=2)])
    assert sorted((case.smp, len(case.guest.scenarios)) for case in bench.cases) == [
        *((1, 1), (1, 2), (1, 2), (2, 1)),
    ]
    assert len({case.id for case in bench.cases}) == 4


def test_program_that_stops_the_probe_is_a_hang_that_the_chips_are_blamed_for(tmp_path):
    found = run(ModelBench(tmp_path, hangs=frozenset("b")), [ON], list(map(scenario, "abc")))[ON]
    assert [ran.trouble is None for ran in found] == [True, False, True]
    assert found[1].trouble.verdict is Verdict.HANG
    assert found[1].trouble.blame is Blame.IRQCHIP
    assert found[1].whole is None


def test_program_that_ends_the_lab_is_blamed_on_the_lab_and_the_rest_runs_in_another(tmp_path):
    bench = ModelBench(tmp_path, ends_lab=frozenset("b"))
    found = run(bench, [ON], list(map(scenario, "abc")))[ON]
    assert [ran.trouble is None for ran in found] == [True, False, True]
    assert found[1].trouble.blame is Blame.LAB
    assert "the lab died" in found[1].trouble.what
    assert len(bench.cases) == 2


def test_side_that_cannot_be_run_is_an_error_that_names_it(tmp_path):
    bench = ModelBench(tmp_path, broken=frozenset({"lab:on"}))
    with pytest.raises(CannotRun, match="lab:on cannot be run here: the lab did not boot"):
        run(bench, [TCG, ON], [scenario("a")])


ONE_CPU = {"single": frozenset({"lab:on"})}


def test_programs_that_a_side_of_its_versions_cannot_run_are_left_out_there(tmp_path):
    bench, told = ModelBench(tmp_path, **ONE_CPU), []
    scenarios = [scenario("a"), scenario("b", cpus=2)]
    found = run(bench, [TCG, ON], scenarios, lambda side, ran: told.append((side, [*ran])))
    assert [ran.whole is not None for ran in found[TCG]] == [True, True]
    assert (found[ON][0].whole is not None, found[ON][1]) == (True, runner.Ran(None))
    assert (ON, [1]) in told
    assert [case.smp for case in bench.cases if case.backend == ON.backend] == [1]


def test_side_that_can_run_none_of_the_programs_is_an_error_before_anything_boots(tmp_path):
    bench = ModelBench(tmp_path, **ONE_CPU)
    with pytest.raises(CannotRun, match="lab:on cannot be run here: one CPU works"):
        run(bench, [TCG, ON], [scenario("a", cpus=2)])
    assert bench.cases == []


def test_side_that_ran_others_may_have_programs_of_which_it_can_run_none(tmp_path):
    of = Runner(ModelBench(tmp_path, **ONE_CPU))
    asyncio.run(of.run([ON], [scenario("a")]))
    assert asyncio.run(of.run([ON], [scenario("b", cpus=2)])) == {ON: [runner.Ran(None)]}


def test_side_that_cannot_be_run_is_an_error_though_some_programs_are_left_out(tmp_path):
    bench = ModelBench(tmp_path, broken=frozenset({"lab:on"}), **ONE_CPU)
    with pytest.raises(CannotRun, match="the lab did not boot"):
        run(bench, [ON], [scenario("a"), scenario("b", cpus=2)])


class BusyBench(ModelBench):
    """A lab that does not come up for as often as ``busy`` says."""

    busy = 0

    async def record(self, cases, ended=lambda _: None):
        self.broken = frozenset({"lab:on"} if self.busy else ())
        self.busy = max(0, self.busy - 1)
        return await super().record(cases, ended)


def test_side_that_ran_before_is_tried_again_where_nothing_of_it_comes_up(tmp_path):
    bench = BusyBench(tmp_path)
    of = Runner(bench)
    asyncio.run(of.run([ON], [scenario("a")]))
    bench.busy = runner.AGAIN
    (ran,) = asyncio.run(of.run([ON], [scenario("b")]))[ON]
    assert ran.whole is not None


def test_side_that_ran_before_and_never_comes_up_again_is_an_error(tmp_path):
    bench = BusyBench(tmp_path)
    of = Runner(bench)
    asyncio.run(of.run([ON], [scenario("a")]))
    bench.busy = runner.AGAIN + 1
    with pytest.raises(CannotRun, match="lab:on cannot be run here"):
        asyncio.run(of.run([ON], [scenario("b")]))


def test_programs_are_reported_as_soon_as_their_boot_has_ended(tmp_path):
    told = []
    scenarios = [scenario("a"), scenario("b", cpus=2)]
    run(ModelBench(tmp_path), [TCG], scenarios, lambda side, found: told.append((side, [*found])))
    assert told == [(TCG, [0]), (TCG, [1])]


def test_program_that_the_backend_lacks_the_means_for_has_no_whole_log(tmp_path):
    data = {"about": "x", "mode": "x2apic", "steps": ["cli"]}
    (ran,) = run(ModelBench(tmp_path), [TCG], [compiled("x2", data)])[TCG]
    assert ran.log is not None
    assert ran.whole is None
