"""Which random programs are compared, and which are refused."""

import asyncio
from itertools import islice

import pytest

from harness.base.child import in_child
from harness.base.errors import CannotRun
from harness.fuzz import grammar
from harness.fuzz.programs import NO_BACKEND, Source, compiled, examined
from harness.scenario.authoring import authoring_problems
from harness.scenario.predict import predict
from userspace_chip.profile import profile

ON = profile("on", qemu="7.2", linux="6.12")
TCG = profile("tcg", qemu="7.2")

HEAD = """\
version: 1
about: a grammar for tests
steps: [1, 1]
"""


@pytest.fixture
def source(tmp_path):
    def of(text, *profiles):
        path = tmp_path / "mine.yaml"
        path.write_text(HEAD + text, encoding="utf-8")
        return Source(1, [grammar.load(path)], profiles or (ON,))

    return of


def refusals(source):
    with pytest.raises(CannotRun, match="generates nothing") as caught:
        next(source.programs())
    return str(caught.value)


def test_programs_of_a_grammar_that_no_backend_can_run_leave_the_others(tmp_path):
    texts = {
        "wide": "needs: [x2apic]\nmodes: [x2apic]\n"
        "actions: [{do: {read: lapic.id}, where: [steps]}]",
        "plain": "actions: [{do: {read: lapic.version}, where: [steps]}]",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(HEAD + text, encoding="utf-8")
    grammars = [grammar.load(tmp_path / f"{name}.yaml") for name in texts]
    off = Source(1, grammars, (profile("off", qemu="7.2"),))
    assert len(list(islice(off.programs(), 1000))) == 1000
    assert off.refused["wide", NO_BACKEND] > 200
    with pytest.raises(CannotRun, match="wide generates nothing"):
        next(Source(1, grammars[:1], off.profiles).programs())


def test_programs_have_a_prediction_for_each_profile(source):
    of = source("actions: [{do: {read: lapic.version}, where: [steps]}]", ON, TCG)
    program = next(of.programs())
    assert set(program.predicted) == {ON, TCG}
    assert all(log.events for log in program.predicted.values())


def test_programs_of_a_number_are_the_same_wherever_one_begins():
    def of(first):
        source = Source(2, grammar.selected("mixed"), (ON,))
        return {one.name: one.scenario for one in islice(source.programs(first), 6)}

    whole, later = of(0), of(3)
    assert {name: whole[name] for name in whole.keys() & later} == {
        name: later[name] for name in whole.keys() & later
    }
    assert whole.keys() & later


def test_programs_examined_in_another_process_are_those_of_the_source():
    here, there = (Source(2, grammar.selected("mixed"), (ON,)) for _ in range(2))
    found = asyncio.run(in_child(examined, there, range(12)))
    taken = [program for one in found if (program := there.take(one)) is not None]
    expected = [program for n in range(12) if (program := here.program(n)) is not None]
    assert [one.scenario for one in taken] == [one.scenario for one in expected]
    assert [one.predicted for one in taken] == [one.predicted for one in expected]
    assert there.refused == here.refused


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (  # two CPUs write one register of the IOAPIC
            "cpus: 2\nactions: [{do: {parallel: {cpu0: [{ioapic.id: 0x1000000}, {read: ioapic.id}],"
            " cpu1: [{ioapic.id: 0x2000000}]}}, where: [steps]}]",
            "race",
        ),
        ("actions: [{do: [{lapic.timer_initial: 1000000}, {read: lapic.timer_current}],"
         " where: [steps]}]", "time"),
        ("actions: [{do: {wait: {vector: 0x51, timeout_us: 1000}}, where: [steps]}]", "timeout"),
        ("interrupts: off\nactions: [{do: hlt, where: [steps]}]", "asleep"),
        ("actions: [{do: {ipi: {mode: init, dest: 0}}, where: [steps]}]", "program"),
        ("actions: [{do: {lapic.self_ipi: {vector: 1}}, where: [steps]}]", "xapic mode"),
        ("actions: [{do: {read: io.0x60}, where: [steps]}]", "PIO_READ"),
        ("machines: [microvm]\nactions: [{do: cli, where: [steps]}]", "not for the machine q35"),
    ],
    ids=["race", "time", "timeout", "asleep", "init", "language", "no-chip", "machine"],
)  # fmt: skip
def test_program_whose_log_is_not_defined_is_refused(source, text, why):
    assert why in refusals(source(text))


def test_program_that_stops_the_rtc_until_a_reset_is_refused(source):
    of = source(
        "actions: [{do: [{ioapic.redir.8: {mode: nmi, vector: 0x51}}, {line: {8: pulse}}],"
        " where: [steps]}]"
    )
    assert "stops the RTC" in refusals(of)


def test_program_that_no_backend_can_run_is_refused(source):
    of = source("modes: x2apic\nactions: [{do: cli, where: [steps]}]", TCG)
    assert "no backend has what it needs" in refusals(of)


def test_program_that_one_backend_can_run_has_no_prediction_on_the_others(source):
    of = source("modes: x2apic\nactions: [{do: cli, where: [steps]}]", TCG, ON)
    program = next(of.programs())
    assert program.predicted[TCG] is None
    assert program.predicted[ON] is not None


def test_program_without_a_model_is_not_predicted(source):
    of = source("model: not a chip\nactions: [{do: {read: io.0x60}, where: [steps]}]")
    assert next(of.programs()).predicted == {}


def test_program_that_leaves_the_pit_running_into_an_open_lint0_has_a_problem():
    """Port 0x61 restarts every count of KVM's PIT (QEMU kvm_pit_set_gate)."""
    steps = [
        {"lapic.lvt_lint0": {"mode": "extint"}},
        {"do": [{"pit.channel": {"mode": 0, "count": 100}}, {"delay_us": 60000}]},
        {"pic.master.imr": 0xFE},
        {"io.0x61": 1},
    ]
    handlers = {"default": {"do": [{"pic.master.ocw2": {"command": "eoi"}}]}}
    data = {"about": "the gate of counter 2", "handlers": handlers, "steps": steps}
    program, subject = compiled("gate", data).program, profile("on")

    problems = authoring_problems(program, subject, predict(program, subject))

    assert (3, "program") in [(one.step, one.kind) for one in problems]
