"""A Linux boot as a kernel traced it: the chips predict every event of it."""

import pytest

from support.recorded_boot import DisagreementError, Recorded, Replay, recorded
from userspace_chip.irqchip import Machine
from userspace_chip.profile import profile


def guests_part(events):
    """From the first CPU's first event on: before it QEMU builds and resets its machine."""
    return events[next(n for n, event in enumerate(events) if event.vcpu is not None) :]


@pytest.mark.parametrize("mode", ["on", "split"])
def test_recorded_boot_of_two_cpus_is_predicted_event_by_event(mode):
    subject = profile(mode, qemu="7.2", linux="6.1")
    replay = Replay(Machine(subject, 2))
    events = guests_part(recorded(f"{mode}-smp2-qemu7.2-linux6.1"))

    replay.run(events)

    assert replay.count["predicted"] > 50_000
    assert replay.count["predicted"] + replay.count["stimuli"] == len(events)
    assert (replay.count["EOI exits"] > 100) == (mode == "split")


@pytest.mark.parametrize(
    ("wrong", "event"),
    [
        ({"linux": "6.1", "qemu": "7.2", "mode": "split"}, None),
        (None, Recorded(1, None, "kvm_ioapic_set_irq", "pin 4 dst 0 vec 1 (Fixed|physical|edge)")),
    ],
    ids=["mode", "event"],
)
def test_recorded_boot_that_does_not_fit_is_refused(wrong, event):
    chosen = profile(**wrong) if wrong else profile("on", linux="6.1")
    events = [event] if event else guests_part(recorded("on-smp2-qemu7.2-linux6.1"))[:5000]
    with pytest.raises(DisagreementError):
        Replay(Machine(chosen, 2)).run(events)
