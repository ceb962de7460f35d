"""The live chips as a backend on a mainline KVM: beside QEMU, in one lab."""

from __future__ import annotations

import re

import pytest

from harness.compare.diff import Status
from harness.model.layout import CaseDir
from harness.record.eventlog import EventLogReader
from support.live import execute, write_config

pytestmark = [
    *(pytest.mark.kvm, pytest.mark.live, pytest.mark.lab, pytest.mark.slow),
    pytest.mark.timeout(1800),
]

MODES = ("on", "split", "pychip-on", "pychip-split", "pychip-off")
CHOSEN = [
    "ioapic-level-*-vector",
    "ioapic-edge-*",
    "lapic-tpr-*",
    "nmi-wakes",
    "pic-level",
    "msi-*",
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The results by irqchip mode, and where they are."""
    folder = tmp_path_factory.mktemp("pychip")
    probe = {"kind": "probe", "scenarios": ["configs/scenarios/*.yaml"], "only": CHOSEN}
    path = write_config(
        folder,
        [probe | {"timeout_s": 900, "trace": True}],
        matrix={"host": "lab", "accel": "kvm", "irqchip": list(MODES), "smp": 1},
    )
    result, out = execute(folder, path, jobs=1, only="*smp1*")
    return {case.axes["irqchip"]: case for case in result.cases}, result, out


def test_live_chips_log_what_qemu_logs_on_the_same_kvm(ran):
    cases, result, _ = ran

    assert {mode: cases[mode].verdict for mode in MODES} == dict.fromkeys(MODES, "pass")
    assert [finding for finding in result.findings if finding.status is Status.UNEXPLAINED] == []


def test_what_only_the_kernel_sees_is_known_by_its_vcpu(ran):
    cases, _, out = ran

    with CaseDir(out / cases["pychip-split"].dir).events.open() as lines:
        events = list(EventLogReader().events(lines))

    accepted = {event.vcpu for event in events if event.name == "kvm_apic_accept_irq"}
    assert accepted == {0}


def test_kvms_chips_are_those_of_the_model_after_each_exit(ran):
    cases, _, _ = ran

    (note,) = [note for note in cases["pychip-on"].notes if note.startswith("replay")]
    found = re.fullmatch(r"replay: 0 divergences in (\d+) events and after (\d+) exits", note)
    assert found is not None, note
    assert int(found[2]) > 500
