"""What a file says of its log."""

import pytest

from harness.scenario.expect import Expectation, failures
from harness.scenario.log import Log, LogEvent

LOG = Log(
    (
        LogEvent(1, 0, "irq", ("51", "-", "51", "-")),
        LogEvent(2, 0, "irq", ("61",)),
        LogEvent(2, 1, "irq", ("51",)),
        LogEvent(3, 0, "read", ("c051",)),
        LogEvent(3, 0, "read", ("0",)),
        LogEvent(4, 1, "nmi"),
        LogEvent(5, 0, "count", ("71", "1f")),
    )
)


@pytest.mark.parametrize(
    "clause",
    [
        Expectation(count=3),
        Expectation(count=2, vector=0x51),
        Expectation(count=1, vector=0x51, cpu=1),
        Expectation(count=0, step=0),
        Expectation(count=1, event="nmi"),
        Expectation(count=0, event="timeout"),
        Expectation(count=31, event="count", vector=0x71),
        Expectation(vectors=(0x51, 0x61), cpu=0),
        Expectation(vectors=(), cpu=2),
        Expectation(read=(0xC051, 0), step=3),
        Expectation(read=(), step=4),
        Expectation(count=9, irqchips=frozenset({"split"})),
    ],
)
def test_clause_that_holds_gives_no_failure(clause):
    assert list(failures([clause], LOG, "on")) == []


@pytest.mark.parametrize(
    ("clause", "sentence"),
    [
        (Expectation(count=2), "expected 2 irq; found 3"),
        (Expectation(count=1, vector=0x51, step=2, cpu=0), "step 2, CPU 0, 1 irq of vector 0x51"),
        (Expectation(vectors=(0x51,), cpu=0), "expected CPU 0, vectors 0x51; found 0x51, 0x61"),
        (Expectation(read=(0x51,), step=3), "expected step 3, read 0x51; found 0xc051, 0x0"),
        (Expectation(read=(1,), step=1), "found none"),
        (Expectation(count=9, irqchips=frozenset({"on"})), "expected 9 irq; found 3"),
    ],
)
def test_clause_that_does_not_hold_says_what_is_there_instead(clause, sentence):
    (failure,) = failures([clause], LOG, "on")
    assert sentence in failure
