import json
from dataclasses import replace

import pytest

from harness.base.errors import CollectError, GuestCrash, GuestFlood, GuestHang
from harness.guests import linux
from harness.model.case import FlatGuest, LinuxGuest, Vmm
from harness.model.verdict import Blame, Verdict
from harness.record.recording import CpuShare
from support import cases
from support.judging import judge


def flat(tmp_path, console, status=1, stderr="", **changes):
    (tmp_path / "stderr.log").write_text(stderr)
    changes = {"console": console, "status": status} | changes
    return judge(cases.recording(tmp_path, cases.case(), **changes))


def linux_case(tmp_path, *records, backend=cases.TCG, expect={}, **changes):  # noqa: B006
    guest = LinuxGuest(tuple(record.name for record in records) or ("idle",), expect=expect)
    case = cases.case(guest, backend)
    return judge(cases.recording(tmp_path, case, workloads=records, **changes))


def test_flat_all_checks_pass_is_pass(tmp_path):
    result = flat(tmp_path, "PASS: one\nXFAIL: two\nKFAIL: three\nSUMMARY: 3 tests\n")
    assert (result.verdict, result.as_expected) == (Verdict.PASS, True)
    assert [part.id for part in result.parts] == ["one", "two", "three"]


@pytest.mark.parametrize("line", ["FAIL: two", "XPASS: two"])
def test_flat_unexpected_check_is_fail_and_named(tmp_path, line):
    result = flat(tmp_path, f"PASS: one\n{line}\n", status=3)
    assert (result.verdict, result.as_expected) == (Verdict.FAIL, False)
    assert "two" in result.detail


def test_flat_failing_check_fails_even_where_the_status_says_pass(tmp_path):
    assert flat(tmp_path, "FAIL: one\n", status=1).verdict is Verdict.FAIL


def test_flat_status_of_failure_without_a_failing_check_is_fail(tmp_path):
    result = flat(tmp_path, "PASS: one\n", status=3)
    assert (result.verdict, result.as_expected) == (Verdict.FAIL, False)


def test_flat_status_77_without_checks_is_skip(tmp_path):
    result = flat(tmp_path, "SKIP here\n", status=77)
    assert (result.verdict, result.as_expected) == (Verdict.SKIP, True)


def test_flat_killed_qemu_is_crash_that_names_the_signal(tmp_path):
    result = flat(tmp_path, "PASS: one\n", status=-9)
    assert result.verdict is Verdict.CRASH
    assert "SIGKILL" in result.detail


def test_flat_qemu_that_refuses_its_arguments_is_error_with_its_words(tmp_path):
    stderr = "qemu-system-x86_64: warning: harmless\nqemu-system-x86_64: unknown CPU\n"
    result = flat(tmp_path, "", status=1, stderr=stderr)
    assert result.verdict is Verdict.ERROR
    assert "unknown CPU" in result.detail
    assert "harmless" not in result.detail


def test_flat_guest_that_kvm_gave_up_says_so_and_shows_its_code(tmp_path):
    registers = "\n".join(
        [
            "EAX=00000000 EBX=00010000 ECX=00000000 EDX=00000000",
            "EIP=0010a2f3 EFL=00000046 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0",
            *[f"{name}S =0010 00000000 ffffffff 00cf9300 DPL=0 DS [-WA]" for name in "ECSDFG"],
            "LDT=0000 00000000 0000ffff 00008200 DPL=0 LDT",
            "GDT=     00109040 0000002f",
            "CR0=00000011 CR2=00000000 CR3=00000000 CR4=00000000",
            "DR6=00000000ffff0ff0 DR7=0000000000000400",
            "EFER=0000000000000000",
        ]
    )
    stderr = (
        "KVM internal error. Suberror: 1\nextra data[0]: 0x0000000000000001\nemulation failure\n"
        f"{registers}\nCode=0f 6f 06 0f 7f 07 <0f> 77 5f 5e c3\n"
    )
    hang = GuestHang("nothing more within 60 s")
    result = flat(tmp_path, "PASS: one\n", status=None, stderr=stderr, failure=hang)
    assert (result.verdict, result.blame) == (Verdict.HANG, Blame.IRQCHIP)
    assert (
        "QEMU said: KVM internal error. Suberror: 1 | emulation failure | "
        "Code=0f 6f 06 0f 7f 07 <0f> 77 5f 5e c3" in result.detail
    )


def test_flat_end_of_the_live_chips_vmm_is_a_fault_of_ours(tmp_path):
    case = cases.case(backend=replace(cases.SPLIT, vmm=Vmm.PYCHIP))
    (tmp_path / "stderr.log").write_text("irqmatrix vmm: no device is there\n")
    killed, gave_up = (
        judge(cases.recording(tmp_path, case, console="PASS: one\n", status=status))
        for status in (134, 70)
    )
    assert (killed.verdict, killed.blame) == (Verdict.CRASH, Blame.HARNESS)
    assert killed.detail == "the VMM was killed by SIGABRT"
    assert (gave_up.verdict, gave_up.blame) == (Verdict.ERROR, Blame.HARNESS)
    assert "the VMM ended with status 70: irqmatrix vmm: no device is there" in gave_up.detail


def test_flat_hang_keeps_the_checks_that_ended(tmp_path):
    failure = GuestHang("nothing more within 5 s", console_tail=("PASS: one",))
    result = flat(tmp_path, "PASS: one\n", status=None, failure=failure)
    assert (result.verdict, result.as_expected) == (Verdict.HANG, False)
    assert [part.verdict for part in result.parts] == [Verdict.PASS]
    assert "nothing more within 5 s" in result.detail


def test_flat_hang_says_how_far_it_got(tmp_path):
    failure = GuestHang("nothing more within 5 s")
    result = flat(tmp_path, "PASS: one\n", status=None, failure=failure)
    assert result.detail.startswith("nothing more within 5 s after 1 check")


def test_hang_on_a_busy_machine_is_said_and_not_the_guests_fault(tmp_path):
    failure = GuestHang("nothing more within 60 s")
    how = {"status": None, "failure": failure}
    busy, idle = (
        flat(tmp_path, "PASS: one\n", cpu_share=CpuShare(60.0, *times), **how)
        for times in ((13.0, 42.0), (3.0, 4.0))
    )
    assert (busy.verdict, busy.blame) == (Verdict.HANG, Blame.HARNESS)
    assert "waited for a CPU for 42 of 60 s, and had one for 13" in busy.detail
    assert idle.blame is Blame.GUEST
    assert "busy" not in idle.detail


def test_flat_expected_failure_is_as_expected(tmp_path):
    guest = FlatGuest(cases.FLAT.path, expect={"one": "fail"})
    recording = cases.recording(tmp_path, cases.case(guest), console="FAIL: one\n", status=3)
    result = judge(recording)
    assert (result.verdict, result.as_expected) == (Verdict.FAIL, True)


def test_flat_check_that_was_expected_and_not_reported_is_not_as_expected(tmp_path):
    guest = FlatGuest(cases.FLAT.path, expect={"tow": "fail", "*": "pass"})
    recording = cases.recording(tmp_path, cases.case(guest), console="PASS: two\n", status=1)
    result = judge(recording)
    assert not result.as_expected
    assert (result.parts[1].id, result.parts[1].detail) == ("tow", "the image did not report it")


def test_linux_workload_that_did_its_work_is_pass(tmp_path):
    work = cases.workload("block-intx", {"20:virtio0": 7}, {"20:virtio0": 207}, units=200)
    result = linux_case(tmp_path, work)
    assert (result.verdict, result.as_expected) == (Verdict.PASS, True)


def test_linux_too_few_interrupts_for_the_work_is_lost(tmp_path):
    work = cases.workload("block-intx", {"20:virtio0": 7}, {"20:virtio0": 20}, units=200)
    result = linux_case(tmp_path, work)
    assert (result.verdict, result.as_expected) == (Verdict.LOST, False)


def test_linux_runaway_line_is_storm_with_rate_and_kernels_words(tmp_path):
    work = cases.workload("stuck-line", {"20:edu": 0}, {"20:edu": 99_950}, units=1, nobody_cared=1)
    result = linux_case(tmp_path, work)
    assert result.verdict is Verdict.STORM
    assert "99950/s" in result.detail
    assert "nobody cared" in result.detail


def test_linux_expected_storm_is_as_expected(tmp_path):
    work = cases.workload("stuck-line", {}, {"20:edu": 99_950}, units=1)
    result = linux_case(tmp_path, work, expect={"stuck-line": "storm"})
    assert (result.verdict, result.as_expected) == (Verdict.STORM, True)


def test_linux_expected_storm_that_does_not_come_is_not_as_expected(tmp_path):
    work = cases.workload("stuck-line", {}, {"20:edu": 0})
    result = linux_case(tmp_path, work, expect={"stuck-line": "storm"})
    assert not result.as_expected


@pytest.mark.parametrize(
    ("expect", "failure", "verdict", "as_expected"),
    [
        ({"*": "hang"}, GuestHang("no answer"), Verdict.HANG, True),
        ({"*": "crash"}, GuestHang("no answer"), Verdict.HANG, False),
        ({"*": "hang"}, None, Verdict.PASS, False),
        ({"*": "pass"}, None, Verdict.PASS, True),
        ({"*": "pass", "idle": "storm"}, None, Verdict.PASS, False),
    ],
)
def test_linux_case_has_to_be_what_is_expected_of_it_as_a_whole(
    tmp_path, expect, failure, verdict, as_expected
):
    records = () if failure else (cases.workload("idle"),)
    status = None if failure else 0
    result = linux_case(tmp_path, *records, expect=expect, failure=failure, status=status)

    assert (result.verdict, result.as_expected) == (verdict, as_expected)
    assert result.expected == expect["*"]


def drowning(tmp_path, per_s):
    lines = [(10.0, "tracing_mark_write: begin stuck-line")]
    lines += [
        (10 + n / per_s, "kvm_ack_irq: irqchip IOAPIC pin 20") for n in range(int(per_s) * 10)
    ]
    return cases.kernel_trace(tmp_path / "kernel.trace", lines)


def test_linux_guest_that_drowns_in_a_level_line_is_storm(tmp_path):
    trace = drowning(tmp_path, 1000.0)
    result = linux_case(
        tmp_path,
        cases.unanswered("stuck-line", 10.0),
        backend=cases.ON,
        status=None,
        kernel_trace=trace,
    )
    assert result.verdict is Verdict.STORM
    assert "1000/s" in result.detail
    assert "from 0.00 s on" in result.detail


def test_linux_guest_that_is_silent_without_a_storm_is_hang(tmp_path):
    trace = drowning(tmp_path, 10.0)
    result = linux_case(
        tmp_path,
        cases.unanswered("stuck-line", 10.0),
        backend=cases.ON,
        status=None,
        kernel_trace=trace,
    )
    assert result.verdict is Verdict.HANG


def test_linux_crash_names_what_was_not_reached(tmp_path):
    guest = LinuxGuest(("idle", "serial", "block-intx"))
    recording = cases.recording(
        tmp_path,
        cases.case(guest),
        workloads=(cases.workload("idle"),),
        status=-11,
        failure=GuestCrash("the guest's QEMU went away"),
    )
    result = judge(recording)
    assert result.verdict is Verdict.CRASH
    assert "SIGSEGV" in result.detail
    assert [part.verdict for part in result.parts] == [Verdict.PASS, Verdict.CRASH, Verdict.ERROR]


def test_linux_signal_in_the_lab_is_read_from_the_shells_status(tmp_path):
    result = linux_case(tmp_path, cases.workload("idle"), backend=cases.ON, status=139)
    assert "SIGSEGV" in result.detail


def test_linux_workload_that_cannot_run_is_skip_with_the_reason(tmp_path):
    guest = LinuxGuest(("idle", "ipi"))
    recording = cases.recording(tmp_path, cases.case(guest), workloads=(cases.workload("idle"),))
    result = judge(recording)
    assert result.verdict is Verdict.PASS
    assert result.parts[1].verdict is Verdict.SKIP
    assert "needs 2 CPUs" in result.parts[1].detail


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(linux.WorkloadStatus.SKIP, Verdict.SKIP), (linux.WorkloadStatus.FAIL, Verdict.FAIL)],
)
def test_linux_workload_verdict_of_the_guest_is_kept_with_its_reason(tmp_path, status, verdict):
    work = cases.workload("idle", status=status, reason="because")
    result = linux_case(tmp_path, work)
    assert (result.parts[0].verdict, result.parts[0].detail) == (verdict, "because")


def test_collector_that_failed_is_error(tmp_path):
    failure = CollectError("the monitor did not answer to x-query-irq", "nothing for 20 s")
    result = linux_case(tmp_path, failure=failure, status=None)
    assert (result.verdict, result.as_expected) == (Verdict.ERROR, False)
    assert "did not answer" in result.detail


def test_lost_trace_events_are_said(tmp_path):
    trace = tmp_path / "kernel.trace"
    cases.kernel_trace(trace, [(1.0, "kvm_set_irq: gsi 4 level 1 source 0")])
    trace.write_text(trace.read_text() + "CPU:0 [LOST 123 EVENTS]\n")
    result = linux_case(tmp_path, cases.workload("idle"), backend=cases.ON, kernel_trace=trace)
    assert "events incomplete: kernel trace: 123 lost" in result.detail


def traced(tmp_path):
    trace = cases.kernel_trace(
        tmp_path / "kernel.trace", [(1.0, "kvm_set_irq: gsi 4 level 1 source 0")]
    )
    case = cases.case(LinuxGuest(("idle",)), cases.ON)
    return cases.recording(tmp_path, case, workloads=(cases.workload("idle"),), kernel_trace=trace)


def test_judge_leaves_events_and_counters_beside_the_raw_trace(tmp_path):
    recording = traced(tmp_path)
    judge(recording)
    assert "kvm_set_irq" in (tmp_path / "events.jsonl").read_text()
    assert "raised" in (tmp_path / "counters.json").read_text()
    assert recording.traces["kernel_trace"].exists()


def test_judge_of_a_case_whose_raw_traces_are_not_kept_removes_them(tmp_path):
    recording = traced(tmp_path)
    judge(recording, keep_raw=False)
    assert "kvm_set_irq" in (tmp_path / "events.jsonl").read_text()
    assert not recording.traces["kernel_trace"].exists()


def test_flat_console_without_line_ends_gives_a_short_detail(tmp_path):
    failure = GuestHang("no end", console_tail=("x" * 1_000_000,))
    result = flat(tmp_path, "x" * 1_000_000, status=None, failure=failure)
    assert len(result.detail) < 2100
    assert "characters ..." in result.detail


def test_flat_that_floods_its_console_is_an_error_of_the_guests(tmp_path):
    result = flat(tmp_path, "PASS: x\n" * 9, status=None, failure=GuestFlood("it said too much"))
    assert (result.verdict, result.blame) == (Verdict.ERROR, Blame.GUEST)


@pytest.mark.parametrize(("status", "failure"), [(1, None), (None, GuestHang("no end"))])
def test_flat_whose_trace_was_cut_says_so_and_counts_nothing_from_it(tmp_path, status, failure):
    trace = tmp_path / "qemu.trace"
    trace.write_text("2026-01-01T00:00:00.000000Z ioapic_set_irq vector: 4 level: 1\n2026-01-01T")
    cut = {"QEMU trace": "cut at 1 MiB (set another limit)"}
    result = flat(
        tmp_path, "PASS: one\nSUMMARY: 1 tests\n", status, failure=failure, qemu_trace=trace,
        missing=cut,
    )  # fmt: skip
    assert "cut at 1 MiB" in result.detail
    (spot, *_) = [
        spot for spot in json.loads((tmp_path / "counters.json").read_text())["*"]["not_observable"]
        if spot["source"] == "qemu" and spot["counter"] == "*"
    ]  # fmt: skip
    assert spot["reason"] == cut["QEMU trace"]
