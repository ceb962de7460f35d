"""A case's verdict where the Python chips disagree with what KVM traced."""

import pytest

from harness import casefile
from harness.case import LinuxGuest
from harness.judge import judge
from harness.result import Verdict
from support import cases
from support.recorded_boot import recorded

BOOT = recorded("on-smp1-qemu7.2-linux6.1")
INJECTED = next(i for i, e in enumerate(BOOT) if i > 2500 and e.name == "kvm_inj_virq")
WRONG = BOOT[INJECTED]._replace(args=("IRQ", 0x99, False))


def trace_line(number, event):
    comm = "qemu-9" if event.vcpu is None else f"CPU {event.vcpu}/KVM-{10 + event.vcpu}"
    return f" {comm} [000] d..1. {number / 1e6:12.6f}: {event.name}: {event.text}\n"


def verdict_of(
    folder,
    events,
    *,
    line=None,
    linux="6.1.192",
    backend=cases.ON,
    smp=1,
    expect={},  # noqa: B006
):
    """The verdict of a boot whose kernel trace is that; ``line`` is put before the injection."""
    lines = [trace_line(number, event) for number, event in enumerate(events)]
    if line is not None:
        lines.insert(INJECTED, line)
    (folder / "kernel.trace").write_text("# tracer: nop\n#\n" + "".join(lines))
    case = cases.case(LinuxGuest(("idle",), expect=expect), backend, smp=smp)
    casefile.write(folder, casefile.describe(case, qemu="7.2.22", linux=linux))
    trace = folder / "kernel.trace"
    record = cases.workload("idle", {"4:serial": 0}, {"4:serial": 0})
    return judge(cases.recording(folder, case, workloads=(record,), kernel_trace=trace))


def altered():
    return [*BOOT[:INJECTED], WRONG, *BOOT[INJECTED + 1 :]]


def test_case_that_the_chips_predict_says_so(tmp_path):
    result = verdict_of(tmp_path, BOOT)

    assert (result.verdict, result.as_expected) == (Verdict.PASS, True)
    assert "replay: 0 divergences in 8934 events" in result.detail


def test_case_that_the_chips_contradict_is_diverged(tmp_path):
    result = verdict_of(tmp_path, altered())

    assert (result.verdict, result.as_expected) == (Verdict.DIVERGED, False)
    assert f"replay: diverged at line {INJECTED + 2}, kvm_inj_virq" in result.detail


def test_case_that_is_expected_to_diverge_is_as_expected(tmp_path):
    result = verdict_of(tmp_path, altered(), expect={"*": "diverged"})

    assert (result.verdict, result.as_expected) == (Verdict.DIVERGED, True)


@pytest.mark.parametrize(
    "line",
    ["CPU:0 [LOST 5 EVENTS]\n", " CPU 0/KVM-10 [000] d..1. 0.003000: kvm_eoi: rubbish\n"],
    ids=["lost", "damaged"],
)
def test_divergence_of_a_trace_with_gaps_is_none(tmp_path, line):
    result = verdict_of(tmp_path, altered(), line=line)

    assert result.verdict is Verdict.PASS
    assert "replay: incomplete after" in result.detail


def test_divergence_in_a_version_that_is_not_modelled_is_none(tmp_path):
    result = verdict_of(tmp_path, altered(), linux="6.6.9")

    assert result.verdict is Verdict.PASS
    assert "replay: incomplete after" in result.detail


def test_divergence_outside_of_a_lab_is_told_and_no_verdict(tmp_path):
    result = verdict_of(tmp_path, altered(), backend=cases.LOCAL_ON)

    assert result.verdict is Verdict.PASS
    assert "replay: disagrees at line" in result.detail


def test_divergence_with_several_cpus_is_told_and_no_verdict(tmp_path):
    result = verdict_of(tmp_path, altered(), smp=2)

    assert result.verdict is Verdict.PASS
    assert "replay: disagrees at line" in result.detail


def test_case_of_a_mode_that_cannot_be_replayed_says_nothing(tmp_path):
    assert "replay" not in verdict_of(tmp_path, BOOT, backend=cases.OFF).detail
