"""The probe on real irqchips: what it does, logs and restores, whoever emulates the chips."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.backends.local import LocalSession
from harness.base import resources
from harness.base.errors import ImageError
from harness.guests.probe import is_done
from harness.images.cache import ImageCache
from harness.model.case import Host, Irqchip, Machine
from harness.scenario import compile as scenario_compile
from harness.scenario.log import Log
from harness.scenario.predict import predict
from harness.scenario.program import Program
from support import probe_programs as programs
from support.probe_boot import (
    lab_for,
    logs_of,
    probe_case,
    record,
    run_here,
    write_programs,
)
from support.qemus import QEMUS, require_kvm
from userspace_chip.architecture import Board
from userspace_chip.profile import profile

pytestmark = pytest.mark.live

EXPECTED = {
    "edge": ["1 0 irq 77 - 77 -", "2 0 irq 77 - 77 -", "3 0 read 77"],
    "level": ["1 0 irq 51 - 51 51 6=c051", "2 0 read 8051"],
    "storm": ["1 0 cut 51 15", "3 0 count 51 15"],
    "nested": ["0 0 irq 41 - 41 -", "0 0 irq 51 - 51,41 -"],
    "held_off": ["2 0 read 2", "3 0 irq 41 - 41 -", "6 0 irq 51 - 51 -"],
    "timer_wakes": ["0 0 irq 31 - 31 -", "0 0 woke"],
    "lost_in_wait": ["0 0 timeout 0", "1 0 read 1000000"],
    "extint": ["2 0 irq 26 - - -", "4 0 read 0"],
    "memory": [
        "1 0 read 44",
        "2 0 read 3344",
        "3 0 read 11223344",
        "4 0 read 5566778811223344",
    ],
    "x2apic": ["1 0 read 0", "2 0 irq 41 - 41 -", "3 0 irq 51 - 51 -", "4 0 gp"],
    "ipis": [
        "1 0 irq 42 - 42 -",
        "2 0 irq 43 - 43 -",
        "3 0 irq 44 - 44 -",
        "0 1 irq 41 - 41 -",
    ],
    "lost_in_hlt": ["0 0 asleep", "1 0 read 1000000"],
    "other_sleeps": ["4 0 asleep", "0 1 irq 41 - 41 -", "0 1 woke"],
    "nmis": ["1 0 nmi", "0 1 nmi"],
    "init_sipi": ["0 1 up 33", "4 1 read ff"],
    "messages": ["0 0 irq 61 - 61 -", "1 0 irq 62 - 62 -", "2 1 irq 63 - 63 -"],
    "together": [
        "0 0 irq 41 - 41 -",
        "0 0 read 1000000",
        "0 1 irq 42 - 42 -",
        "0 1 read 2000000",
    ],
    "ipis_to_three": [
        "0 1 irq 41 - 41 -",
        "1 1 irq 61 - 61 -",
        "0 2 irq 41 - 41 -",
        "0 3 irq 41 - 41 -",
        "1 3 irq 61 - 61 -",
    ],
}
NEEDS_X2APIC = ("x2apic",)
MSR_FAULTS = ["0 0 gp", "1 0 gp", "2 0 read 1000000"]
"""Not under TCG, where an MSR that there is not reads 0."""

MONITORED = """
version: 1
scenarios:
  held:
    about: NMIs while the machine is stopped
    steps:
      - lapic.lvt_lint1: {mode: nmi}
      - monitor: [stop, inject-nmi, inject-nmi, {pause_ms: 10}, cont]
  moved:
    about: what a machine that was moved still has
    handlers: {0x50: {log: short}}
    steps:
      - ioapic.redir.14: {vector: 0x51, dest: cpu0}
      - lapic.lvt_timer: {vector: 0x50}
      - do: [{lapic.timer_initial: 4000000000}, {monitor: move}, {delay_us: 100000}]
      - do: [{lapic.timer_initial: 0}, {line: {14: pulse}}]
      - msi: {vector: 0x41}
      - read: ioapic.redir.14.low
  after: {about: the next one, steps: [{ipi: {vector: 0x42, shorthand: self}}]}
"""

NEEDS_AN_INIT = """
version: 1
scenarios:
  before:
    about: an input whose request QEMU keeps beyond its line, so that the reset lets vector 0 in
    steps:
      - ioapic.redir.5: {vector: 0x55, trigger: level, mask: true}
      - line: {5: high}
      - ioapic.redir.5.low: {vector: 0x55, mask: true}
      - line: {5: low}
  after: {about: the next one, steps: [sti]}
"""


def named(name: str) -> Program:
    return programs.without_slow_prologue(replace(getattr(programs, name)(), name=name))


def of_cpus(cpus: int) -> list[Program]:
    return [made for made in map(named, EXPECTED) if made.cpus == cpus]


def in_lab(cpus: int) -> list[Program]:
    return of_cpus(cpus) + ([named("msr_faults")] if cpus == 1 else [])


def written(folder: Path, text: str) -> list[Program]:
    path = folder / "written.yaml"
    path.write_text(text)
    return [scenario.program for scenario in scenario_compile.load(path)]


def predicted(
    made: Sequence[Program], irqchip: str, *, board: Board = "pc"
) -> dict[str, list[str]]:
    subject = profile(irqchip, qemu="7.2", linux="6.1")
    return {program.name: texts(predict(program, subject, board=board)) for program in made}


def texts(log: Log) -> list[str]:
    return [str(event) for event in log.events]


def all_texts(logs: Mapping[str, Log]) -> dict[str, list[str]]:
    return {name: texts(log) for name, log in logs.items()}


def expected_of(made: Sequence[Program], *, x2apic: bool) -> dict[str, list[str]]:
    skipped = ["0 0 skip x2apic"]
    return {
        program.name: skipped if program.name in NEEDS_X2APIC and not x2apic else text
        for program in made
        for text in [EXPECTED[program.name]]
    }


def session(qemu: str = "system") -> LocalSession:
    try:
        return LocalSession(ImageCache(offline=True).qemu(qemu))
    except ImageError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("cpus", [1, 2, 4])
@pytest.mark.parametrize("qemu", QEMUS)
def test_probe_on_tcg_logs_what_the_architecture_says(tmp_path, qemu, cpus):
    made = of_cpus(cpus)
    has_x2apic = qemu != "system"
    cpu = "qemu64,+x2apic" if has_x2apic else "qemu64"
    logs = logs_of(run_here(session(qemu), probe_case(made, qemu=qemu, cpu=cpu), tmp_path))

    assert all_texts(logs) == expected_of(made, x2apic=has_x2apic)


def test_probe_is_stopped_gets_nmis_and_is_moved_by_the_monitor(tmp_path):
    made = written(tmp_path, MONITORED)
    recording = run_here(session(), probe_case(made), tmp_path / "case")

    assert all_texts(logs_of(recording)) == predicted(made, "tcg")
    assert recording.console.count("probe 1 ") == 1
    assert [mark.text for mark in recording.marks] == ["saved", "loaded"]


def test_probe_after_an_untidy_scenario_starts_as_if_it_had_not_been(tmp_path):
    untidy, clean = named("untidy"), [named("ipis"), named("level"), named("extint")]
    order = [made for program in clean for made in (untidy, program)]
    recording = run_here(session(), probe_case([*order, untidy]), tmp_path)

    logs = logs_of(recording)
    assert "dirty" not in recording.console
    assert {name: texts(logs[name]) for name in ("ipis", "level", "extint")} == {
        name: EXPECTED[name] for name in ("ipis", "level", "extint")
    }


def test_probe_what_was_left_behind_is_really_there_before_the_reset(tmp_path):
    recording = run_here(session(), probe_case([named("untidy")]), tmp_path)

    events = texts(logs_of(recording)["untidy"])
    assert "1 0 irq 55" not in events
    assert any(" irq 61 " in event for event in events)


def test_probe_fault_is_logged_with_its_frame_and_the_other_cpu_goes_on(tmp_path):
    logs = logs_of(run_here(session(), probe_case([named("faults"), named("ipis")]), tmp_path))

    fault, last = logs["faults"].events
    assert (fault.step, fault.cpu, fault.kind) == (2, 0, "fault")
    assert fault.args[:2] == ("6", "0")
    assert fault.args[3] == "8"
    assert str(last) == "4 1 read 2000000"
    assert texts(logs["ipis"]) == EXPECTED["ipis"]


def test_probe_after_what_no_reset_undoes_goes_on_in_a_new_boot(tmp_path):
    made = [named("edge"), named("no_way_back"), named("level"), named("nested")]
    recording = run_here(session(), probe_case(made), tmp_path)
    if "dirty" not in recording.console:
        pytest.skip("this QEMU switches its local APIC on again")

    logs = logs_of(recording)
    assert recording.stalled == {}
    assert "ff 0 dirty lapic.base fee00900 fee00100" in recording.console
    assert recording.console.count("probe 1 ") == 2
    assert {name: texts(logs[name]) for name in ("edge", "level", "nested")} == {
        name: EXPECTED[name] for name in ("edge", "level", "nested")
    }


def test_probe_thousands_of_scenarios_in_one_boot_are_all_alike(tmp_path):
    made = named("busy")
    recording = run_here(session(), probe_case([made] * 3000), tmp_path)

    bodies = {body.partition("\n")[2] for body in recording.console.split("\n= ")[1:]}
    normalised = {body.rpartition("\n. ")[0] for body in bodies}
    assert recording.console.count("\n. ") == 3000
    log = ["1 0 irq 51 - 51 51 6=c051", "2 0 read 8051"]
    log += ["4 0 irq 61 - 61 51", "6 0 irq 71 - 71 51", "7 0 read 0"]
    assert normalised == {"\n".join(log)}


def test_probe_program_that_needs_more_cpus_is_skipped_and_the_next_one_runs(tmp_path):
    case = probe_case([named("nmis"), named("edge")], smp=1)
    logs = logs_of(run_here(session(), case, tmp_path))

    assert texts(logs["nmis"]) == ["0 0 skip cpus"]
    assert texts(logs["edge"]) == EXPECTED["edge"]


def test_probe_on_microvm_drives_its_first_ioapic(tmp_path):
    made = [named("edge"), named("level"), named("messages")]
    case = probe_case(made, machine=Machine.MICROVM, smp=2)
    logs = logs_of(run_here(session(), case, tmp_path))

    assert texts(logs["edge"]) == EXPECTED["edge"]
    assert texts(logs["level"]) == EXPECTED["level"]
    assert texts(logs["messages"]) == ["0 0 skip msi"]


@pytest.mark.parametrize(("machine", "boots"), [(Machine.Q35, 1), (Machine.MICROVM, 2)])
def test_probe_that_needs_an_init_of_cpu_0_boots_again_only_on_microvm(tmp_path, machine, boots):
    """Its firmware does not come back from an INIT: it would boot the same probe without end."""
    case = probe_case(written(tmp_path, NEEDS_AN_INIT), machine=machine)
    recording = run_here(session(), replace(case, timeout_s=30), tmp_path)

    assert is_done(recording.console)
    assert recording.console.count("probe 1 ") == boots
    assert recording.console.count("dirty lapic.irr 0 1") == boots - 1
    assert list(logs_of(recording)) == ["before", "after"]


@pytest.mark.parametrize("qemu", QEMUS)
def test_probe_on_microvm_drives_the_lines_of_its_second_ioapic(tmp_path, qemu):
    loaded = scenario_compile.load(resources.configs() / "scenarios" / "microvm.yaml")
    made = [each.program for each in loaded if each.program.cpus == 1]
    case = probe_case(made, machine=Machine.MICROVM, qemu=qemu)
    logs = logs_of(run_here(session(qemu), case, tmp_path))

    assert all_texts(logs) == predicted(made, "tcg", board="microvm")


@pytest.mark.kvm
@pytest.mark.parametrize("irqchip", ["on", "split"])
def test_probe_on_the_local_kvm_comes_to_its_end(tmp_path, irqchip):
    require_kvm()
    made = [named("edge"), named("lost_in_wait")]
    case = probe_case(made, irqchip=Irqchip(irqchip), far_return=True)
    recording = run_here(session(), case, tmp_path)

    logs = logs_of(recording)
    assert is_done(recording.console)
    # Which vectors are in service depends on the KVM: one that emulates guests ends them itself.
    assert [event.kind for event in logs["edge"].events] == ["irq", "irq", "read"]
    assert texts(logs["lost_in_wait"]) == EXPECTED["lost_in_wait"]


@pytest.mark.kvm
@pytest.mark.parametrize(("irqchip", "boots"), [("on", 2), ("split", 1)])
def test_probe_where_the_rtc_pin_is_dead_boots_again_for_who_needs_it(tmp_path, irqchip, boots):
    require_kvm()
    order = ["rtc", "rtc_nmi", "edge", "nested"]
    made = [*map(named, order), replace(named("rtc"), name="rtc_again")]
    case = probe_case(made, irqchip=Irqchip(irqchip), far_return=True)
    recording = run_here(session(), case, tmp_path)

    logs = logs_of(recording)
    assert recording.console.count("probe 1 ") == boots
    assert recording.console.count(" dirty ") == boots - 1
    assert list(logs) == [*order, "rtc_again"]
    assert [event.kind for event in logs["rtc_nmi"].events] == ["nmi"]
    for name in ("rtc", "rtc_again"):
        assert [event.args[0] for event in logs[name].events] == ["58"]


ASKS = ("split", 0)
"""The case whose probe has something done by the monitor."""


@pytest.fixture(scope="module")
def lab_logs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, int], dict]:
    """In one lab: every irqchip mode, with one CPU and with two."""
    folder = tmp_path_factory.mktemp("lab")
    # Not userspace chips with several CPUs: see docs/probe.md, "Limits".
    wanted = [("on", 1), ("split", 1), ("off", 1), ("on", 2), ("split", 2)]
    cases = {
        (irqchip, cpus): probe_case(in_lab(cpus), host=Host.LAB, irqchip=Irqchip(irqchip))
        for irqchip, cpus in wanted
    }
    files = {key: write_programs(cases[key], folder / f"smp{key[1]}") for key in wanted}
    asking = probe_case(written(folder, MONITORED), host=Host.LAB, irqchip=Irqchip.SPLIT)
    cases[ASKS] = asking
    files[ASKS] = write_programs(asking, folder / "asking")

    async def run() -> dict[tuple[str, int], dict]:
        async with lab_for(tuple({*files.values()}), folder / "lab.log") as (lab, probe):
            found = {}
            for key, case in cases.items():
                directory = folder / f"{case.directory_name}-{key[1]}"
                recording = await record(lab, case, directory, probe, files[key])
                found[key] = all_texts(logs_of(recording))
            return found

    return asyncio.run(run())


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("irqchip", "cpus"), [("on", 1), ("split", 1), ("off", 1), ("on", 2), ("split", 2)]
)
def test_probe_in_the_lab_logs_what_the_architecture_says(lab_logs, irqchip, cpus):
    expected = expected_of(of_cpus(cpus), x2apic=irqchip != "off")
    if cpus == 1:
        expected["msr_faults"] = MSR_FAULTS

    assert lab_logs[irqchip, cpus] == expected


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_probe_in_the_lab_is_stopped_gets_nmis_and_is_moved(lab_logs, tmp_path):
    assert lab_logs[ASKS] == predicted(written(tmp_path, MONITORED), "split")


def test_probe_is_built_once_and_found_again(tmp_path):
    cache = ImageCache(tmp_path)
    first: Path = cache.probe()

    assert cache.probe() == first
    assert first.read_bytes()[:4] == b"\x7fELF"
    assert [info.kind for info in cache.list()] == ["probe"]
