"""What findings are called."""

from harness.fuzz import signature
from harness.fuzz.oracles import Difference, Oracle
from harness.scenario.finding import LogFinding, What


def difference(event="irq 0x51", what=What.MISSING, detail=""):
    finding = LogFinding(what, event, detail)
    return Difference(Oracle.CHIPS, 1, "fuzz-1-1", "mixed", "tcg", "model", finding)


def test_signature_of_the_same_with_another_vector_is_the_same():
    one = {"steps": [{"ioapic.redir.3": {"vector": 0x51}}]}
    other = {"steps": [{"ioapic.redir.14": {"vector": 0x61}}]}
    assert signature.of(difference(), one) == signature.of(difference("irq 0x61"), other)


def test_signature_of_another_register_is_another():
    one, other = {"steps": [{"lapic.tpr": 0}]}, {"steps": [{"lapic.svr": 0}]}
    assert signature.of(difference(), one) != signature.of(difference(), other)


def test_id_is_good_as_a_name_of_a_scenario():
    named = signature.of(difference("read", What.DIFFERS, "bits 0x10"), {"steps": ["cli"]})
    assert signature.id_of(named).startswith("chips-read-differs-")
    assert signature.id_of(named) == signature.id_of(named)
