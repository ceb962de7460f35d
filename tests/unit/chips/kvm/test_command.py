"""From a guest's end to an exit status."""

from __future__ import annotations

import pytest

from userspace_chip.kvm.command import raw_status, status
from userspace_chip.kvm.vmm import End, Outcome


@pytest.mark.parametrize(
    ("outcome", "expected", "raw"),
    [
        (Outcome(End.EXIT, 0), 0, 1),
        (Outcome(End.EXIT, 1), 1, 3),
        (Outcome(End.EXIT, 5), 1, 11),
        (Outcome(End.EXIT, 77), 77, 155),
        (Outcome(End.EXIT, 0x80), 1, 1),
        (Outcome(End.TIMEOUT), 124, 124),
        (Outcome(End.FAULT, detail="triple fault"), 1, 0),
        (Outcome(End.RESET), 0, 0),
        (Outcome(End.POWER_OFF), 0, 0),
    ],
)
def test_status_of_an_outcome_is_the_convention_asked_for(outcome, expected, raw):
    assert (status(outcome), raw_status(outcome)) == (expected, raw)
