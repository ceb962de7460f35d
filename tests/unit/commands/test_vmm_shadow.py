"""What is traced of a guest in ``on``, as one recording that is replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.base.errors import HarnessError, ReplayRefused
from harness.commands.vmm_shadow import TracedRun, described, why_no_verdict
from harness.replay.replay import ReplayOutcome
from support.shadowed import level_taken
from userspace_chip.kvm.options import Options

CASE = described(Options(Path("image"), irqchip="on"), linux="6.1.192", lab_qemu="10.0.13")


def stamp(event):
    return f"{event.time_ns // 10**9}.{event.time_ns % 10**9 // 1000:06d}"


@pytest.fixture
def recording(tmp_path):
    """Both traces, as the kernel and the VMM write them."""
    made = TracedRun(tmp_path)
    events = level_taken().events
    kernel = [event for event in events if event.source == "kvm"]
    head = "       CPU 0/KVM-100     [000] ..... "
    made.kernel.write_text(
        "# tracer: nop\n"
        + "".join(f"{head}{stamp(event)}: {event.name}: {event.text}\n" for event in kernel)
    )
    made.vmm.write_text(
        "".join(
            f"100@{stamp(event)}:{event.name} {event.text}\n"
            for event in events
            if event.source == "qemu"
        )
    )
    return made


def test_traces_of_a_guest_whose_chips_are_the_models_agree(recording):
    found = recording.compared(CASE)

    assert (found.outcome, found.snapshots) == (ReplayOutcome.AGREED, 4)
    assert why_no_verdict(found, CASE) is None


def test_register_that_kvm_shows_otherwise_diverges(recording):
    text = recording.vmm.read_text()
    recording.vmm.write_text(text.replace("ioapic0.IOREDTBL4=0x8051", "ioapic0.IOREDTBL4=0x8050"))

    found = recording.compared(CASE)

    assert found.outcome is ReplayOutcome.DIVERGED
    assert found.divergence.states == {"ioapic0": '{"IOREDTBL4": "0x8051"}'}
    assert found.divergence.shown == {"ioapic0": '{"IOREDTBL4": "0x8050"}'}
    assert why_no_verdict(found, CASE) is None


def test_nothing_is_said_against_the_chips_where_events_have_no_one_order(recording):
    found = recording.compared(CASE)

    reasons = [
        why_no_verdict(found, replace(CASE, smp=2)),
        why_no_verdict(found, replace(CASE, linux="7.0.1")),
        why_no_verdict(replace(found, outcome=ReplayOutcome.INCOMPLETE), CASE),
    ]

    assert ["one CPU" in reasons[0], "7.0.1" in reasons[1], "too early" in reasons[2]] == [True] * 3


def test_recording_without_the_kernels_events_is_said_not_to_be_comparable(recording):
    recording.kernel.write_text("# tracer: nop\n")

    with pytest.raises(ReplayRefused) as refused:
        recording.compared(CASE)

    assert isinstance(refused.value, HarnessError)
    assert "no CPU's events were traced" in why_no_verdict(refused.value, CASE)
