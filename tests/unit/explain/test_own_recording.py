"""A case that ran here as evidence, by the readers of other people's files."""

from dataclasses import replace

import pytest

from harness.explain import bands
from harness.explain.explain import explain
from harness.explain.own_recording import evidence_of
from harness.model import manifest
from harness.model.case import Irqchip, ProbeGuest
from harness.model.layout import CaseDir
from harness.record import recording_file
from harness.record.collectors.qmp import MonitorSnapshot
from harness.repro import catalogue
from support import cases


def kept(recording):
    """The folder of ``recording``, as a run leaves it."""
    folder = recording.directory
    manifest.write(
        folder, manifest.describe(recording.case, qemu="10.0.13", linux="6.12.117-cloud")
    )
    (folder / CaseDir.console).write_text(recording.console)
    recording_file.write(recording)
    return folder


def lines(first, per_second, text, seconds=2):
    return [(first + n / per_second, text) for n in range(per_second * seconds + 1)]


LOW = "kvm_set_irq: gsi 0 level 0 source 0"
MARK = "tracing_mark_write: {}"


@pytest.fixture
def linux_case(tmp_path):
    """An idle guest whose HPET ticks while it idles; before that it ticks the other way."""
    trace = cases.kernel_trace(
        tmp_path / "kernel.trace",
        [
            *lines(1, 100, "kvm_set_irq: gsi 0 level 1 source 0"),
            (10, MARK.format("begin idle")),
            *lines(11, 100, LOW),
            (14, MARK.format("end idle")),
            *lines(15, 100, "kvm_set_irq: gsi 4 level 1 source 0"),
        ],
    )
    looks = [
        MonitorSnapshot(stats=(
            {"provider": "kvm", "qom-path": "/machine/unattached/device[0]", "stats": [
                {"name": "exits", "value": 1000 * n}, {"name": "halt_exits", "value": 300 * n}]},
        ))
        for n in (1, 2)
    ]  # fmt: skip
    work = cases.workload("idle", {"8:rtc0": 5}, {"8:rtc0": 25}, elapsed_ms=2000.0)
    work = replace(work, monitor_before=looks[0], monitor_after=looks[1], duration_s=4.0)
    recording = cases.recording(
        tmp_path,
        cases.case(cases.LINUX, cases.ON, options=("-machine hpet=off", "-rtc driftfix=slew")),
        kernel_trace=trace,
        workloads=(work,),
    )
    return kept(
        replace(recording, console='[   1.0] irq 20: nobody cared (try booting with "irqpoll")\n')
    )


def explained(evidence):
    return explain(evidence, catalogue.shipped_entries(), bands.shipped())


def test_linux_case_measures_what_happened_between_its_marks(linux_case):
    answer = explained(evidence_of(linux_case)["idle"])

    found = {each.quantity.name: each.quantity.value for each in answer.measured}
    assert found["gsi/0/low"] == pytest.approx(100, abs=1)
    assert found["gsi/0/high"] == 0
    assert "gsi/4/high" not in found
    assert found["irq/ioapic/8"] == 10
    assert found["exit/halt"] == 75
    assert found["share/exit/halt"] == 30
    assert found["log/nobody-cared"] == 1


def test_case_is_a_vm_with_its_options_and_versions(linux_case):
    vm = explained(evidence_of(linux_case)["idle"]).vm

    assert (vm.irqchip, vm.qemu, vm.linux) == (Irqchip.ON, (10, 0, 13), (6, 12, 117))
    assert (vm.machine.hpet, vm.machine.driftfix) == (False, "slew")


def test_probe_is_one_part_with_its_whole_trace(tmp_path):
    trace = cases.kernel_trace(tmp_path / "kernel.trace", lines(1, 100, LOW))
    case = cases.case(ProbeGuest(()), cases.SPLIT)

    found = evidence_of(kept(cases.recording(tmp_path, case, kernel_trace=trace)))

    (part,) = found
    assert {each.quantity.name for each in explained(found[part]).measured} >= {"gsi/0/low"}


def test_guest_that_gave_no_answer_is_what_its_trace_says(tmp_path):
    work = cases.unanswered("rtc", 30.0)
    case = cases.case(cases.LINUX, cases.SPLIT)

    found = evidence_of(kept(cases.recording(tmp_path, case, workloads=(work,))))

    assert explained(found["rtc"]).vm.irqchip is Irqchip.SPLIT
