"""Linux under the live chips on a mainline KVM: it boots, works, and agrees with the ledger."""

from __future__ import annotations

import pytest

from harness.compare.diff import Status
from harness.ledger import ledger
from harness.model.layout import CaseDir
from harness.record import recording_file
from harness.record.collectors.procfs import parse_interrupts
from support.live import execute, write_config

pytestmark = [
    *(pytest.mark.kvm, pytest.mark.live, pytest.mark.lab, pytest.mark.slow, pytest.mark.nightly),
    pytest.mark.timeout(3600),
]

WORKLOADS = ["idle", "serial"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The case, its ledger, and what Linux counted last, by its names for the lines."""
    folder = tmp_path_factory.mktemp("pychip-linux")
    path = write_config(
        folder,
        [{"kind": "linux", "workloads": WORKLOADS, "timeout_s": 3000}],
        matrix={"host": "lab", "accel": "kvm", "irqchip": "pychip-split", "smp": 1},
    )
    result, out = execute(folder, path, jobs=1)
    assert [finding for finding in result.findings if finding.status is Status.UNEXPLAINED] == []
    (case,) = result.cases
    book = ledger.load(CaseDir(out / case.dir).ledger.read_text())
    transcript = recording_file.load(out / case.dir).workloads[-1].transcript
    lines = parse_interrupts(transcript.after.interrupts)
    return case, book, {line.irq: line.total for line in lines}


def test_linux_boots_to_its_prompt_and_runs_its_workloads(ran):
    case, _, _ = ran

    assert {part.id: part.verdict for part in case.parts} == dict.fromkeys(WORKLOADS, "pass")
    assert case.verdict == "pass"


def test_what_linux_handled_is_what_the_ledger_says_it_was_given(ran):
    _, book, _ = ran

    windows = [law for law in book.laws if law.name.partition(":")[0] in WORKLOADS]
    assert [(law.status, law.left > 0) for law in windows] == [("balanced", True)] * len(WORKLOADS)
    assert book.findings == ()
    assert book.balanced


def test_lines_that_linux_counts_are_those_of_the_ledger(ran):
    _, book, handled = ran
    rows = {row.name: row.counts for row in book.rows}

    def injected(pin):
        delivered = rows[f"ioapic pin {pin}"]["delivered"]
        return next(
            counts["injected"] for counts in rows.values() if counts.get("by_pin") == delivered
        )

    # The PIT stops when Linux has its own timer; the others go on after what Linux counted last.
    assert handled["0"] == rows["pic pin 0"]["injected"] + injected(2)
    assert 0 < handled["4"] <= injected(4)
    assert 0 < handled["LOC"] <= rows["vector 236 cpu0"]["injected"]
