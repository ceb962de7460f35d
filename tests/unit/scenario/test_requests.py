"""What a scenario asks of the machine's monitor: compiled, and what the chips make of it."""

from pathlib import Path

import pytest

from harness.base import yamlfile
from harness.scenario import compile, language
from harness.scenario.predict import predict
from harness.scenario.program import Feature, Opcode, Program
from harness.scenario.requests import Act, Command
from userspace_chip.profile import profile

MODES = ("on", "split", "off", "tcg")
PROFILES = {mode: profile(mode, qemu="7.2", linux="6.1") for mode in MODES}
HALF_A_SECOND = "{delay_us: 500000}"
NMI_OPEN = "lapic.lvt_lint1: {mode: nmi}"
ONE_SHOT = "lapic.lvt_timer: {vector: 0x50, mode: oneshot}"
TWO_SECONDS = "{lapic.timer_initial: 1000000000}"
"""Divided by 2, the reset's."""


def written(*steps: str, head: str = "") -> Program:
    lines = "".join(f"      - {step}\n" for step in steps)
    text = f"version: 1\nscenarios:\n  one:\n    about: x\n{head}    steps:\n{lines}"
    (one,) = language.read(yamlfile.parse(text, Path("some.yaml")))
    return compile.compile_text(one).program


def logged(mode: str, *steps: str, head: str = "") -> list[str]:
    events = predict(written(*steps, head=head), PROFILES[mode]).events
    return [
        " ".join((f"{event.step}", f"{event.cpu}", event.kind, *event.args)) for event in events
    ]


def of_timers(mode: str, *steps: str) -> list[str]:
    return logged(mode, *steps, head="    handlers: {0x50: {log: short}}\n")


def test_monitor_compiles_to_the_number_of_its_request():
    program = written("monitor: move", "monitor: [stop, {pause_ms: 30}, cont]")

    ops = [(op.opcode, op.a) for op in program.blocks[1]]
    assert ops == [(Opcode.MONITOR, 0), (Opcode.MONITOR, 1)]
    assert program.requests == (
        (Act(Command.MOVE),),
        (Act(Command.STOP), Act(Command.PAUSE, 30), Act(Command.CONT)),
    )
    assert program.needs is Feature.MONITOR


def test_program_that_asks_for_nothing_needs_no_monitor():
    program = written("sti")
    assert program.requests == ()
    assert Feature.MONITOR not in program.needs


@pytest.mark.parametrize("mode", MODES)
def test_backend_without_a_monitor_skips_what_asks_for_it(mode):
    log = predict(written("monitor: move"), PROFILES[mode], has=Feature.NONE)
    assert [(event.kind, event.args) for event in log.events] == [("skip", ("monitor",))]


@pytest.mark.parametrize("mode", MODES)
def test_injected_nmi_comes_where_lint1_lets_it(mode):
    assert logged(mode, "monitor: inject-nmi", NMI_OPEN, "monitor: inject-nmi") == ["2 0 nmi"]


@pytest.mark.parametrize("mode", MODES)
def test_injected_nmi_reaches_every_cpu(mode):
    cpus = [NMI_OPEN, f"{{cpu: 1, {NMI_OPEN}}}", "monitor: inject-nmi"]
    assert logged(mode, *cpus, head="    cpus: 2\n") == ["2 0 nmi", "2 1 nmi"]


@pytest.mark.parametrize(("mode", "nmis"), [("on", 2), ("split", 2), ("off", 1), ("tcg", 1)])
def test_nmis_while_a_machine_is_stopped_are_as_many_as_a_cpu_holds(mode, nmis):
    commands = "monitor: [stop, inject-nmi, inject-nmi, inject-nmi, cont]"
    assert logged(mode, NMI_OPEN, commands) == ["1 0 nmi"] * nmis


@pytest.mark.parametrize("mode", MODES)
def test_nmis_one_after_the_other_all_come(mode):
    assert logged(mode, NMI_OPEN, "monitor: [inject-nmi, inject-nmi]") == ["1 0 nmi"] * 2


@pytest.mark.parametrize(("mode", "nmis"), [("on", 0), ("split", 0), ("off", 1), ("tcg", 1)])
def test_nmi_that_is_injected_before_a_move_is_lost_with_kvms_local_apic(mode, nmis):
    assert logged(mode, NMI_OPEN, "monitor: [stop, inject-nmi, move]") == ["1 0 nmi"] * nmis


@pytest.mark.parametrize("mode", MODES)
def test_nmi_that_came_before_a_move_comes_once(mode):
    assert logged(mode, NMI_OPEN, "monitor: [inject-nmi, stop, move]") == ["1 0 nmi"]


@pytest.mark.parametrize("mode", MODES)
def test_stop_changes_nothing(mode):
    steps = [ONE_SHOT, f"do: [{TWO_SECONDS}, {{monitor: [stop, cont]}}, {HALF_A_SECOND}]"]
    assert of_timers(mode, *steps, "wait: {vector: 0x50}") == ["2 0 irq 50"]


@pytest.mark.parametrize(("mode", "step"), [("on", 1), ("split", 1), ("off", 2), ("tcg", 2)])
def test_one_shot_timer_that_runs_is_due_at_a_move_with_kvms_local_apic(mode, step):
    steps = [ONE_SHOT, f"do: [{TWO_SECONDS}, {{monitor: move}}, {HALF_A_SECOND}]"]
    assert of_timers(mode, *steps, "wait: {vector: 0x50}") == [f"{step} 0 irq 50"]


@pytest.mark.parametrize(("mode", "times"), [("on", 2), ("split", 2), ("off", 1), ("tcg", 1)])
def test_one_shot_timer_that_expired_is_due_again_with_kvms_local_apic(mode, times):
    steps = [ONE_SHOT, f"do: [{TWO_SECONDS}, {{wait: {{vector: 0x50}}}}]", "monitor: move"]
    log = of_timers(mode, *steps, "delay_us: 1000")
    assert log == ["1 0 irq 50", "2 0 irq 50"][:times]
