"""What each oracle says of a log."""

import pytest

from harness.fuzz import oracles
from harness.fuzz.oracles import Difference, Oracle
from harness.fuzz.programs import compiled
from harness.fuzz.runner import Ran, Trouble
from harness.model.verdict import Blame, Verdict
from harness.scenario.finding import LogFinding, What
from harness.scenario.log import Log, LogEvent

SCENARIO = compiled(
    "x", {"about": "x", "steps": [{"read": "lapic.tpr"}, "cli", {"read": "lapic.svr"}]}
)


def log(*values, complete=True, more=()):
    reads = (
        LogEvent(step, 0, "read", (value,)) for step, value in zip((0, 2), values, strict=False)
    )
    return Log((*reads, *more), complete)


def said(expected, ran):
    return [
        (oracle, str(finding)) for oracle, finding, _ in oracles.of_one(SCENARIO, expected, ran)
    ]


def test_log_as_predicted_says_nothing():
    assert said(log("0", "1ff"), Ran(log("0", "1ff"))) == []


def test_chips_say_the_first_difference_only():
    assert said(log("0", "1ff"), Ran(log("20", "ff"))) == [(Oracle.CHIPS, "read differs bits 0x20")]


def test_laws_are_asked_without_a_prediction():
    irq = LogEvent(2, 0, "irq", ("51", "-", "51", "-"))
    (found,) = said(None, Ran(log("0", "1ff", more=(irq,))))
    assert found == (Oracle.LAWS, "irq breaks a law nothing from a masked source")


def test_program_that_does_not_end_says_how_and_nothing_else():
    trouble = Trouble("its QEMU went away", Blame.QEMU, Verdict.CRASH)
    ran = Ran(log("20", complete=False), trouble)
    ((oracle, finding, blame),) = oracles.of_one(SCENARIO, log("0", "1ff"), ran)
    assert (oracle, finding.what, finding.event) == (Oracle.ENDS, What.BREAKS_OFF, "crash")
    assert blame == "qemu"


@pytest.mark.parametrize(
    "ran",
    [Ran(None), Ran(log("20", complete=False)), Ran(Log((LogEvent(0, 0, "skip", ("pit",)),)))],
)
def test_program_that_was_not_run_says_nothing(ran):
    assert said(log("0", "1ff"), ran) == []


def test_difference_is_the_same_after_the_journal():
    finding = LogFinding(What.DIFFERS, "read", "bits 0x20", 0, "step 0: ...")
    one = Difference(Oracle.BACKENDS, 3, "fuzz-1-3", "pit", "lab:on", "local:tcg", finding, "lab")
    again = Difference.of_json(one.as_json() | {"kind": "difference"})
    assert again == one
    assert again.finding.text == finding.text


def test_kind_of_a_difference_has_no_vector_and_no_bits():
    def kind(event, detail=""):
        finding = LogFinding(What.DIFFERS, event, detail)
        return Difference(Oracle.CHIPS, 3, "x", "pit", "tcg", "model", finding).kind

    assert kind("irq 0x51", "IRR") == kind("irq 0x61", "IRR") != kind("irq 0x61", "ISR")
    assert kind("read", "bits 0x1") == kind("read", "bits 0x2")
