"""A Linux boot as a kernel or QEMU traced it: the chips predict every event of it."""

from unittest.mock import patch

import pytest

from harness.replay.replay import Replay, ReplayOutcome
from support.recorded_boot import log, recorded, recorded_case
from support.shadowed import eoi_clears_tmr
from userspace_chip.lapic import Lapic
from userspace_chip.profile import profile


@pytest.mark.parametrize("mode", ["on", "split"])
def test_recorded_boot_of_two_cpus_is_predicted_event_by_event(mode):
    subject = profile(mode, qemu="7.2", linux="6.1")
    events = recorded(f"{mode}-smp2-qemu7.2-linux6.1")

    replayed = Replay(subject, 2).run(log(events))

    assert (replayed.outcome, replayed.divergence, replayed.warnings) == (
        ReplayOutcome.AGREED,
        None,
        (),
    )
    assert replayed.predicted > 50_000
    assert replayed.compared + replayed.skipped == len(events)


def test_recorded_boot_in_the_profile_of_another_mode_diverges():
    events = recorded("on-smp2-qemu7.2-linux6.1", 5000)

    replayed = Replay(profile("split", qemu="7.2", linux="6.1"), 2).run(log(events))

    assert replayed.outcome is ReplayOutcome.DIVERGED


@pytest.mark.parametrize(
    "name",
    ["split-smp1", "split-migrated", "off-smp1", "tcg-smp1", "tcg-smp2", "tcg-virtual-wire"],
)
def test_recorded_case_is_predicted_event_by_event(name):
    case = recorded_case(name)

    replayed = case.replay(looks=case.looks)

    assert (replayed.outcome, replayed.divergence, replayed.warnings) == (
        ReplayOutcome.AGREED,
        None,
        (),
    )
    assert replayed.predicted > 1000


def test_first_interrupt_of_a_cpu_is_not_taken_for_that_of_another_which_offers_the_same():
    """CPU 0 has its timer's interrupt on offer when CPU 1 takes its own, which nobody saw expire.

    The task segment that QEMU logs is not CPU 0's.
    """
    replayed = recorded_case("tcg-two-timers").replay()

    assert (replayed.outcome, replayed.divergence, replayed.warnings) == (
        ReplayOutcome.AGREED,
        None,
        (),
    )


SHADOWED = "on-shadow"


def test_kvms_registers_are_predicted_after_each_exit_of_a_recorded_probe():
    replayed = recorded_case(SHADOWED).replay()

    assert (replayed.outcome, replayed.divergence) == (ReplayOutcome.AGREED, None)
    assert replayed.snapshots == 2575


def test_wrong_rule_that_no_event_shows_is_found_in_kvms_registers():
    with patch.object(Lapic, "eoi", eoi_clears_tmr):
        replayed = recorded_case(SHADOWED).replay()

    found = replayed.divergence
    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert (found.recorded.event.name, found.states) == ("kvm_chips", {"lapic0": '{"TMR": "0x0"}'})
    assert found.shown == {"lapic0": '{"TMR": "0x200000000000000000000"}'}
