"""A case's verdict where the Python chips disagree with what KVM or QEMU traced."""

import pytest

from harness.model import manifest
from harness.model.case import LinuxGuest
from harness.model.verdict import Verdict
from support import cases
from support.judging import judge
from support.recorded_boot import recorded, recorded_case

BOOT = recorded("on-smp1-qemu7.2-linux6.1")
READ = next(i for i, e in enumerate(BOOT) if i > 2500 and e.args[:2] == ("read", "APIC_TDCR"))
WRONG = BOOT[READ]._replace(args=("read", "APIC_TDCR", 0x3))
"""What the guest reads there is nothing that the ledger keeps."""
INJECTED = next(i for i, e in enumerate(BOOT) if i > 2500 and e.name == "kvm_inj_virq")
MISSING = (*BOOT[:INJECTED], *BOOT[INJECTED + 1 :])


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
    devices=(),
    lab_cpus=1,
):
    """The verdict of a boot whose kernel trace is that; ``line`` is put before the injection."""
    lines = [trace_line(number, event) for number, event in enumerate(events)]
    if line is not None:
        lines.insert(READ, line)
    (folder / "kernel.trace").write_text("# tracer: nop\n#\n" + "".join(lines))
    case = cases.case(LinuxGuest(("idle",), expect=expect), backend, smp=smp, devices=devices)
    described = manifest.describe(case, qemu="7.2.22", linux=linux, lab_cpus=lab_cpus)
    manifest.write(folder, described)
    trace = folder / "kernel.trace"
    record = cases.workload("idle", {"4:serial": 0}, {"4:serial": 0})
    return judge(cases.recording(folder, case, workloads=(record,), kernel_trace=trace))


def altered():
    return [*BOOT[:READ], WRONG, *BOOT[READ + 1 :]]


def test_case_that_the_chips_predict_says_so(tmp_path):
    result = verdict_of(tmp_path, BOOT)

    assert (result.verdict, result.as_expected) == (Verdict.PASS, True)
    assert "replay: 0 divergences in 8934 events" in result.full_detail


def test_case_that_the_chips_contradict_is_diverged(tmp_path):
    result = verdict_of(tmp_path, altered())

    assert (result.verdict, result.as_expected) == (Verdict.DIVERGED, False)
    assert f"replay: diverged at line {READ + 2}, kvm_apic" in result.full_detail


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
    assert "replay: incomplete after" in result.full_detail


def test_divergence_in_a_version_that_is_not_modelled_is_none(tmp_path):
    result = verdict_of(tmp_path, altered(), linux="6.6.9")

    assert result.verdict is Verdict.PASS
    assert "replay: incomplete after" in result.full_detail


def test_divergence_outside_of_a_lab_is_told_and_no_verdict(tmp_path):
    result = verdict_of(tmp_path, altered(), backend=cases.LOCAL_ON)

    assert result.verdict is Verdict.PASS
    assert "replay: disagrees at line" in result.full_detail


def test_divergence_with_several_cpus_is_told_and_no_verdict(tmp_path):
    result = verdict_of(tmp_path, altered(), smp=2)

    assert result.verdict is Verdict.PASS
    assert "replay: disagrees at line" in result.full_detail


@pytest.mark.parametrize(
    "lab", [{"lab_cpus": 2}, {"linux": "7.3.4"}], ids=["several-cpus", "preemptible"]
)
def test_divergence_in_a_lab_whose_threads_trace_side_by_side_is_no_verdict(tmp_path, lab):
    """The CPU may be about to trace an injection while another thread sends the next message."""
    result = verdict_of(tmp_path, altered(), **lab)

    assert result.verdict is Verdict.PASS
    assert "replay: disagrees at line" in result.full_detail


def test_case_that_cannot_be_replayed_says_why(tmp_path):
    detail = verdict_of(tmp_path, BOOT, backend=cases.OFF).full_detail

    assert "replay: not possible: there is nothing to replay" in detail


def test_case_with_what_the_chips_do_not_model_is_not_diverged(tmp_path):
    result = verdict_of(tmp_path, altered(), devices=("intel-iommu,intremap=on",))

    assert result.verdict is Verdict.PASS
    assert (
        "replay: not possible: the chips do not model the case: intel-iommu" in result.full_detail
    )


# --- QEMU's own trace ----------------------------------------------------------------------------


def qemu_lines(events):
    """The log of a QEMU under TCG with ``-d int``; thread 11 is that of vCPU 0."""
    for event in events:
        if event.name == "hardware_int":
            vector, task = event.args
            yield f"Servicing hardware INT={vector:#04x}\n"
            if task != "?":
                yield (
                    f"     1: v={vector:02x} e=0000 i=0 cpl=0 IP=0010:{0:016x} pc={0:016x}"
                    f" SP=0000:{0:016x} env->regs[R_EAX]={0:016x}\n"
                )
                yield f"TR =0040 {task} 00004087 00008b00 DPL=0 TSS64-busy\n"
        elif event.source == "qemu":
            thread = 9 if event.vcpu is None else 11 + event.vcpu
            seconds, us = divmod(event.time_ns // 1000, 10**6)
            yield f"{thread}@{seconds}.{us:06}:{event.name} {event.text}\n"


def verdict_of_tcg(folder, name, *, alter=None):
    """The verdict of a recorded case under TCG, an event of which is altered."""
    events = list(recorded_case(name).events)
    smp = recorded_case(name).case.smp
    if alter is not None:
        index = next(i for i, e in enumerate(events) if i > 5000 and e.name == "hardware_int")
        events[index] = events[index]._replace(args=alter)
    trace = folder / "qemu.trace"
    trace.write_text("".join(qemu_lines(events)))
    case = cases.case(LinuxGuest(("idle",)), cases.TCG, smp=smp)
    manifest.write(folder, manifest.describe(case, qemu="7.2.22", linux="6.1"))
    record = cases.workload("idle", {"4:serial": 0}, {"4:serial": 0})
    threads = {11 + cpu: cpu for cpu in range(smp)}
    recording = cases.recording(
        folder, case, workloads=(record,), qemu_trace=trace, vcpu_of_thread=threads
    )
    return judge(recording)


@pytest.mark.parametrize("name", ["tcg-smp1", "tcg-smp2"])
def test_case_under_tcg_that_the_chips_predict_says_so(tmp_path, name):
    result = verdict_of_tcg(tmp_path, name)

    assert result.verdict is Verdict.PASS
    assert "replay: 0 divergences in " in result.full_detail


@pytest.mark.parametrize("name", ["tcg-smp1", "tcg-smp2"])
def test_case_under_tcg_that_the_chips_contradict_is_diverged_however_many_cpus(tmp_path, name):
    result = verdict_of_tcg(tmp_path, name, alter=(0x99, "fffffe0000003000"))

    assert result.verdict is Verdict.DIVERGED
    assert "replay: diverged at line" in result.full_detail
    assert "hardware_int" in result.full_detail


# --- What the ledger finds ------------------------------------------------------------------------


def test_case_whose_ledger_balances_says_so(tmp_path):
    result = verdict_of(tmp_path, BOOT)

    assert result.verdict is Verdict.PASS
    assert "ledger: balances, " in result.full_detail


def test_interrupt_that_the_ledger_misses_is_lost_whatever_the_chips_say(tmp_path):
    result = verdict_of(tmp_path, MISSING)

    assert (result.verdict, result.as_expected) == (Verdict.LOST, False)
    assert "ledger: lost: vector 48 cpu0: " in result.full_detail
    assert "replay: diverged at line" in result.full_detail


def test_finding_with_several_cpus_is_a_verdict(tmp_path):
    assert verdict_of(tmp_path, MISSING, smp=2).verdict is Verdict.LOST


def test_case_that_is_expected_to_lose_an_interrupt_is_as_expected(tmp_path):
    result = verdict_of(tmp_path, MISSING, expect={"*": "lost"})

    assert (result.verdict, result.as_expected) == (Verdict.LOST, True)


def test_finding_in_a_trace_with_gaps_is_none(tmp_path):
    result = verdict_of(tmp_path, MISSING, line="CPU:0 [LOST 5 EVENTS]\n")

    assert result.verdict is Verdict.PASS
    assert "ledger" not in result.full_detail
    assert "events incomplete: kernel trace: 5 lost" in result.full_detail


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"linux": "6.6.9"}, "Linux 6.6.9 is not modelled"),
        ({"backend": cases.LOCAL_ON}, "the host's CPUs trace concurrently"),
        ({"linux": "7.3.4"}, "Linux 7.3.4 may stop a thread between an event and its trace"),
    ],
    ids=["version", "local", "preemptible"],
)
def test_finding_where_something_is_in_doubt_is_told_and_no_verdict(tmp_path, changes, why):
    result = verdict_of(tmp_path, MISSING, **changes)

    assert result.verdict is Verdict.PASS
    assert f"no verdict: {why}" in result.full_detail
