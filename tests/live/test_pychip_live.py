"""The live chips as a backend: its cases are recorded, judged and compared as QEMU's are."""

from __future__ import annotations

import json

import pytest

from harness.model.layout import CaseDir
from harness.record.eventlog import EventLogReader
from support import flat_image
from support.kvm import skip_without_irqchip
from support.live import execute, flat, write_config

pytestmark = [pytest.mark.kvm, pytest.mark.live]

TAP = "TAP version 14\n1..2\nok 1 - pit\nok 2 - pic\n"
MODES = ["pychip-on", "pychip-split", "pychip-off"]
EARLY = "TAP version 14\n1..3\nok 1 - pit\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The results by guest and irqchip mode, and where they are."""
    skip_without_irqchip("split")
    folder = tmp_path_factory.mktemp("pychip")

    def build(name, text, end, **more):
        return flat_image.build(folder, name, text, end, **more)

    debugcon = build("debugcon", TAP, 0, port=flat_image.DEBUGCON)
    guests = [
        {
            "kind": "probe",
            "scenarios": ["configs/scenarios/*.yaml"],
            "only": [
                *("hpet-counter*", "pic-edge*", "msi-*", "nmi-wakes", "ipi-*"),
                "ioapic-page-wide",  # MMX in a KVM that emulates its guests
            ],
        },
        flat(build("tap", TAP, 0)),
        flat(build("off", TAP, flat_image.POWER_OFF)),
        flat(build("early", EARLY, 0)),
        flat(build("hang", EARLY, flat_image.HANG), timeout_s=2),
        flat(debugcon, output="debugcon"),
    ]
    live = {"host": "local", "accel": "kvm", "irqchip": MODES}
    path = write_config(folder, guests, matrix=live, include=[{"host": "local", "accel": "tcg"}])
    result, out = execute(folder, path)
    return {
        (case.subject.split("/")[0], case.axes["irqchip"], case.axes["smp"]): case
        for case in result.cases
    }, out


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


def test_probe_logs_what_the_chips_predict_or_differs_as_is_known(ran, mode):
    cases, _ = ran

    assert {cases["probe", mode, smp].verdict for smp in (1, 2)} == {"pass"}
    logged = [part.id for part in cases["probe", mode, 1].parts if part.verdict == "pass"]
    assert "pic-edge" in " ".join(logged)


@pytest.mark.parametrize(
    ("guest", "verdict", "detail"),
    [
        ("tap", "pass", ""),
        ("off", "pass", ""),
        ("debugcon", "pass", ""),
        ("early", "error", "ended after 1 of 3 checks"),
        ("hang", "hang", "CPU 0 sleeps with interrupts off"),
    ],
)
def test_image_gets_the_verdict_that_it_gets_under_qemu(ran, mode, guest, verdict, detail):
    case = ran[0][f"flat-{guest}", mode, 1]

    assert case.verdict == verdict
    assert detail in case.detail


def test_live_run_has_events_of_the_chips_and_a_ledger(ran, mode):
    cases, out = ran
    folder = CaseDir(out / cases["flat-off", mode, 1].dir)

    with folder.events.open() as lines:
        events = list(EventLogReader().events(lines))

    assert {"kvm_run_exit"} <= {event.name for event in events}
    assert {event.source for event in events} == {"qemu"}
    assert {event.vcpu for event in events} - {None} == {0}
    ledger = json.loads(folder.ledger.read_text())
    assert ledger["findings"] == []
