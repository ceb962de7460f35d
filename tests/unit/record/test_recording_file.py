"""A recording is the same when it is read back, whatever was recorded."""

import json
from dataclasses import replace

import pytest

from harness.base.errors import (
    CollectError,
    GuestCrash,
    GuestHang,
    HarnessError,
    StoreError,
)
from harness.guests import linux
from harness.model import manifest
from harness.model.case import FlatGuest, LinuxGuest, ProbeGuest
from harness.model.layout import CaseDir
from harness.record import recording_file
from harness.record.collectors.qmp import MonitorSnapshot
from harness.record.recording import MarkRecord
from harness.scenario import choice
from support import cases, golden

SCENARIOS = choice.load([golden.TESTS.parent / "configs" / "scenarios" / "ioapic-edge.yaml"])
SNAPSHOT = MonitorSnapshot(
    irq_text="IRQ statistics for ioapic:\n 4: 2\n",
    controllers_text=None,
    lapic_texts=("one\r\n", "two"),
    stats=({"qom-path": "/machine/x[0]", "stats": [{"name": "exits", "value": 12}]},),
    missing={"x-query-irq": "this QEMU does not have it"},
)
HANG = GuestHang("nothing more", "why", "fix", console_tail=("one", "two"))


def written(recording):
    manifest.write(
        recording.directory,
        manifest.describe(recording.case, qemu="7.2.22", linux="6.1.192"),
    )
    recording_file.write(recording)


def again(recording):
    (recording.directory / CaseDir.console).write_text(recording.console)
    (recording.directory / CaseDir.stderr).write_text(recording.stderr)
    written(recording)
    return recording_file.load(recording.directory)


def said(error):
    tail = getattr(error, "console_tail", None)
    return type(error), error.what, error.why, error.fix, tail


@pytest.mark.parametrize(
    "guest",
    [
        LinuxGuest(("idle",), parameters={"idle": {"seconds": "1"}}, expect={"*": "hang"}),
        FlatGuest(cases.FLAT.path, "some words", {"one": "fail"}, label="x"),
        ProbeGuest(SCENARIOS, "edge", {SCENARIOS[0].name: "fail"}, far_return=True),
    ],
    ids=lambda guest: guest.name,
)
def test_recording_that_is_read_back_is_the_same(tmp_path, guest):
    case = cases.case(guest, cases.ON, devices=("edu",), group="repro-x", repeat=2)
    work = cases.workload("idle", {"4:serial": 0}, {"4:serial": 7}, units=3)
    recording = cases.recording(
        tmp_path,
        case,
        console="a\nb\n",
        stderr="warning: x\n",
        workloads=(replace(work, monitor_before=SNAPSHOT), cases.unanswered("serial", 2.5)),
        marks=(MarkRecord(17, "begin idle"),),
        kernel_trace=tmp_path / "kernel.trace.zst",
        trace_clock_offset_ns=37_000_000_000,
        vcpu_of_thread={4711: 0},
        missing={"QEMU trace": "it was not asked"},
        ended_by="guest-reset",
    )
    assert again(recording) == recording


def test_metrics_that_are_read_back_are_whole_numbers_fractions_and_words(tmp_path):
    work = cases.workload("idle", units=3, elapsed_ms=1.0, irq="4,5")
    found = again(cases.recording(tmp_path, cases.case(cases.LINUX), workloads=(work,)))
    metrics = found.workloads[0].transcript.metrics
    assert [(name, type(value)) for name, value in metrics.items()] == [
        ("elapsed_ms", float),
        ("units", int),
        ("irq", str),
    ]


@pytest.mark.parametrize(
    "failure",
    [HANG, GuestCrash("gone"), CollectError("what", "why"), HarnessError("x", None, "do it")],
    ids=lambda error: type(error).__name__,
)
def test_failure_that_is_read_back_says_the_same(tmp_path, failure):
    recording = cases.recording(tmp_path, cases.case(), failure=failure, stalled={3: failure})
    found = again(recording)
    assert said(found.failure) == said(failure)
    assert said(found.stalled[3]) == said(failure)


def test_case_without_a_recording_says_what_is_missing(tmp_path):
    with pytest.raises(StoreError, match=r"has no recording\.json.*older irqmatrix"):
        recording_file.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": 9}, "schema 9"),
        ({"case": None}, "is not a recording"),
        ({"failure": {"kind": "Nothing", "what": "x"}}, "is not a recording"),
        ({"duration_s": "long"}, "is not a recording"),
    ],
)
def test_recording_that_is_none_of_ours_is_an_error(tmp_path, change, why):
    written(cases.recording(tmp_path, cases.case()))
    path = tmp_path / CaseDir.recording
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(StoreError, match=why):
        recording_file.load(tmp_path)


def test_recording_of_a_probe_without_its_scenarios_is_an_error(tmp_path):
    written(cases.recording(tmp_path, cases.case(ProbeGuest(SCENARIOS))))
    (tmp_path / CaseDir.scenarios_run).unlink()
    with pytest.raises(StoreError):
        recording_file.load(tmp_path)


def test_recording_of_a_guest_of_no_known_kind_is_an_error(tmp_path):
    written(cases.recording(tmp_path, cases.case()))
    path = tmp_path / CaseDir.manifest
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "unikernel"}))
    with pytest.raises(StoreError, match=r"no kind of guest 'unikernel'.*linux, flat, probe"):
        recording_file.load(tmp_path)


def test_recording_names_no_file_outside_its_folder(tmp_path):
    recording = cases.recording(tmp_path, cases.case(), kernel_trace=tmp_path / "kernel.trace")
    written(recording)
    path = tmp_path / CaseDir.recording
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"kernel_trace": "../../etc/passwd"}))
    assert recording_file.load(tmp_path).traces["kernel_trace"] == tmp_path / "passwd"


def test_transcript_is_that_of_the_guest(tmp_path):
    work = cases.workload("idle", status=linux.WorkloadStatus.FAIL, reason="because")
    found = again(cases.recording(tmp_path, cases.case(cases.LINUX), workloads=(work,)))
    assert found.workloads[0].transcript.status is linux.WorkloadStatus.FAIL
