"""Scenarios judged: the console of a probe, here made of the model's own prediction."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.analyse import conformance
from harness.analyse.conformance import read_logs
from harness.base.errors import CollectError, GuestHang
from harness.config import config
from harness.model import manifest
from harness.model.case import ProbeGuest
from harness.model.layout import CaseDir
from harness.model.verdict import Blame, Verdict
from harness.scenario import compile as scenario_compile
from harness.scenario.log import Log, LogEvent
from harness.scenario.predict import predict
from support import cases
from support.judging import judge
from userspace_chip.profile import profile

TEXT = """
version: 1
scenarios:
  edge:
    about: an edge is delivered
    steps:
      - ioapic.redir.14: {vector: 0x51, dest: cpu0}
      - line: {14: pulse}
  level:
    about: a level is delivered once for each EOI
    handlers:
      0x61: {do: [{line: {11: low}}]}
    steps:
      - ioapic.redir.11: {vector: 0x61, dest: cpu0, trigger: level}
      - line: {11: high}
"""


@pytest.fixture
def guest(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(TEXT)
    return ProbeGuest(scenario_compile.load(path))


def predicted(guest) -> list[str]:
    """What the probe would say under TCG, scenario by scenario."""
    return [
        f"= {index:x}\n"
        + "".join(f"{e}\n" for e in predict(s.program, profile("tcg", qemu="7.2")).events)
        + f". {index:x}\n"
        for index, s in enumerate(guest.scenarios)
    ]


def judged(tmp_path, guest, console: str, backend=cases.TCG, kvm=None, **changes):
    case = cases.case(guest, backend)
    manifest.write(tmp_path, manifest.describe(case, qemu="7.2.22", linux="6.18", kvm=kvm))
    return judge(cases.recording(tmp_path, case, console=console, **changes))


def test_scenarios_as_the_model_predicts_pass_and_keep_their_logs(tmp_path, guest):
    result = judged(tmp_path, guest, "".join(predicted(guest)) + "done\n")
    assert [(part.id, part.verdict) for part in result.parts] == [
        ("edge", Verdict.PASS),
        ("level", Verdict.PASS),
    ]
    assert result.as_expected
    assert "irq 0x51" in read_logs(tmp_path)["edge"]


def test_scenario_with_another_vector_is_diverged_at_its_step(tmp_path, guest):
    edge, level = predicted(guest)
    result = judged(tmp_path, guest, edge.replace("irq 51", "irq 52") + level + "done\n")
    assert [part.verdict for part in result.parts] == [Verdict.DIVERGED, Verdict.PASS]
    assert "step 1 (line: {14: pulse}), CPU 0: expected irq 0x51" in result.parts[0].detail
    assert not result.as_expected


@pytest.mark.parametrize(
    ("kvm", "verdict"), [("kvm_pvm", Verdict.SKIP), ("kvm_amd", Verdict.DIVERGED)]
)
def test_scenario_on_a_kvm_that_emulates_its_guest_is_inconclusive(tmp_path, guest, kvm, verdict):
    edge, level = predicted(guest)
    console = edge.replace("irq 51 - 51 -", "irq 51 - - -") + level + "done\n"
    result = judged(tmp_path, guest, console, cases.LOCAL_ON, kvm)
    assert result.parts[0].verdict is verdict
    logs = read_logs(tmp_path, conclusive=True)
    assert (logs["edge"] is None) is (verdict is Verdict.SKIP)
    assert "irq 0x51" in read_logs(tmp_path)["edge"]


def test_scenario_that_the_probe_skips_is_skip_and_not_compared(tmp_path, guest):
    _, level = predicted(guest)
    result = judged(tmp_path, guest, f"= 0\n0 0 skip lines\n. 0\n{level}done\n")
    assert result.parts[0].verdict is Verdict.SKIP
    assert read_logs(tmp_path)["edge"] is None


def test_scenario_after_a_failed_reset_says_nothing_of_the_subject(tmp_path, guest):
    edge, level = predicted(guest)
    console = edge.replace("= 0\n", "= 0\nff 0 dirty irr 0 51\n") + level + "done\n"
    result = judged(tmp_path, guest, console)
    assert result.parts[0].verdict is Verdict.ERROR
    assert "reset" in result.parts[0].detail


def test_scenario_that_never_ends_is_a_hang_and_the_next_ones_are_judged(tmp_path, guest):
    _, level = predicted(guest)
    stalled = {0: GuestHang("a scenario says nothing for 10 s")}
    result = judged(tmp_path, guest, f"= 0\n{level}done\n", stalled=stalled)
    assert [part.verdict for part in result.parts] == [Verdict.HANG, Verdict.PASS]


def test_scenario_that_never_ends_in_a_lab_whose_monitor_is_silent_is_not_the_chips_fault(
    tmp_path, guest
):
    _, level = predicted(guest)
    stalled = {0: GuestHang("a scenario says nothing for 10 s")}
    missing = {"last look": "the monitor of the hanging guest: no answer"}
    how = {"stalled": stalled, "missing": missing}
    result = judged(tmp_path, guest, f"= 0\n{level}done\n", cases.SPLIT, **how)
    assert (result.parts[0].verdict, result.parts[0].blame) == (Verdict.HANG, Blame.LAB)


def test_scenario_that_hangs_before_it_says_anything_is_a_hang_and_as_may_be_expected(
    tmp_path, guest
):
    _, level = predicted(guest)
    stalled = {0: GuestHang("a scenario says nothing for 10 s")}
    guest = dataclasses.replace(guest, expect={"edge": "hang"})
    result = judged(tmp_path, guest, f"{level}done\n", stalled=stalled)
    assert [part.verdict for part in result.parts] == [Verdict.HANG, Verdict.PASS]
    assert result.parts[0].expected is Verdict.HANG


def test_probe_that_dies_leaves_the_rest_unreached(tmp_path, guest):
    edge, _ = predicted(guest)
    failure = GuestHang("nothing more within 60 s")
    result = judged(tmp_path, guest, edge, failure=failure, status=None)
    assert [part.verdict for part in result.parts] == [Verdict.PASS, Verdict.ERROR]
    assert result.verdict is Verdict.HANG


def test_scenario_that_was_not_reached_is_not_held_against_what_is_expected_of_it(tmp_path, guest):
    edge, _ = predicted(guest)
    guest = dataclasses.replace(guest, expect={"level": "fail", "*": "hang"})
    failure = GuestHang("nothing more within 60 s")

    result = judged(tmp_path, guest, edge, failure=failure, status=None)

    assert result.verdict is Verdict.HANG
    assert result.as_expected


def test_text_of_a_fault_leaves_out_the_frame(guest):
    fault = LogEvent(1, 0, "fault", ("d", "fffffffa", "103270", "8", "10206", "0"))
    text = conformance.as_text(guest.scenarios[0], Log((fault,)))
    assert text == "step 1, CPU 0: fault 0xd 0xfffffffa\n"


def test_logs_of_a_damaged_file_are_refused(tmp_path):
    (tmp_path / CaseDir.scenarios).write_text('{"edge": {}}')
    with pytest.raises(CollectError, match="cannot read"):
        read_logs(tmp_path)


def test_logs_of_a_case_without_any_are_none(tmp_path: Path):
    assert conformance.read_logs(tmp_path) == {}


CONFIG = """
version: 1
matrix: {{host: local, accel: tcg, smp: [1, 2], machine: [q35, microvm]}}
guests:
  - {{kind: probe, scenarios: [{pattern}]{more}}}
"""


def loaded(tmp_path, *, pattern="'*.scenario'", more="", text=TEXT):
    (tmp_path / "one.scenario").write_text(text)
    path = tmp_path / "matrix.yaml"
    path.write_text(CONFIG.format(pattern=pattern, more=more))
    return config.load(path)


def test_probe_in_a_matrix_is_a_case_for_each_machine_and_number_of_cpus(tmp_path):
    two = TEXT.replace("level:", "level:\n    cpus: 2", 1)
    found = loaded(tmp_path, text=two)
    assert {(case.machine, case.smp) for case in found.cases} == {
        ("q35", 1),
        ("q35", 2),
        ("microvm", 1),
        ("microvm", 2),
    }
    assert [s.name for case in found.cases if case.smp == 2 for s in case.guest.scenarios] == [
        "level",
        "level",
    ]


@pytest.mark.parametrize(("more", "trace"), [("", False), (", trace: true", True)])
def test_probe_is_traced_only_where_that_is_said(tmp_path, more, trace):
    found = loaded(tmp_path, more=more)
    assert {case.guest.trace for case in found.cases} == {trace}


def test_probe_scenario_for_one_machine_is_not_run_on_others(tmp_path):
    found = loaded(tmp_path, text=TEXT.replace("edge:", "edge:\n    machines: [q35]", 1))
    names = {case.machine: [s.name for s in case.guest.scenarios] for case in found.cases}
    assert names == {"q35": ["edge", "level"], "microvm": ["level"]}


@pytest.mark.parametrize(
    ("pattern", "more", "message"),
    [
        ("nothing-*.yaml", "", "no file of scenarios matches"),
        ("*.scenario", ", only: [edgy]", "no scenario is left"),
        ("*.scenario", ", expect: {edgy: storm}", "did you mean 'edge'"),
        ("*.scenario", ", smp: 2", "a probe takes no smp"),
    ],
)
def test_probe_in_a_config_with_a_mistake_says_which(tmp_path, pattern, more, message):
    with pytest.raises(config.ConfigError, match=message):
        loaded(tmp_path, pattern=f"'{pattern}'", more=more)
