"""What a part of a case says of itself."""

import pytest

from harness.model.verdict import NOT_REACHED, PartResult, Verdict


@pytest.mark.parametrize("detail", [NOT_REACHED, f"{NOT_REACHED}: the guest hung"])
def test_part_that_the_case_did_not_live_to_see_was_not_reached(detail):
    assert not PartResult("x", Verdict.ERROR, detail).was_reached


@pytest.mark.parametrize(
    "part",
    [
        PartResult("x", Verdict.ERROR, "no KVM"),
        PartResult("x", Verdict.ERROR, ""),
        PartResult("x", Verdict.ERROR, f"{NOT_REACHED}able port"),
        PartResult("x", Verdict.FAIL, f"{NOT_REACHED}: the barrier, by CPU 1"),
    ],
    ids=["another reason", "no reason", "other words", "the guest's own words"],
)
def test_part_with_anything_else_to_say_was_reached(part):
    assert part.was_reached
