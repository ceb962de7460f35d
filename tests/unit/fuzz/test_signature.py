"""What findings are called."""

from harness.fuzz import signature
from harness.fuzz.oracles import Difference, Oracle
from harness.scenario.finding import LogFinding, What


def difference(event="irq 0x51", what=What.MISSING, detail=""):
    finding = LogFinding(what, event, detail)
    return Difference(Oracle.CHIPS, 1, "fuzz-1-1", "mixed", "tcg", "model", finding)


def of(*steps, **more):
    return signature.words({"steps": list(steps), **more})


def test_words_have_no_numbers_and_no_halves():
    assert of({"ioapic.redir.14.low": {"vector": 0x51}}, {"line": {14: "high"}}) == (
        "ioapic.redir",
        "line",
    )


def test_words_of_groups_are_those_inside():
    found = of(
        {"do": [{"cpu": 1, "lapic.tpr": 0}, "sti"]},
        {"repeat": {"times": 2, "do": [{"ipi": {"mode": "nmi", "dest": 0}}]}},
        {"parallel": {"cpu0": ["eoi"], "cpu1": [{"read": ["lapic.isr.2"]}]}},
    )
    assert found == ("eoi", "ipi nmi", "lapic.tpr", "read lapic.isr", "sti")


def test_words_of_handlers_say_so():
    found = of("cli", handlers={0x51: {"do": ["eoi"], "first": {"do": ["sti"]}}, "nmi": {"do": []}})
    assert found == ("cli", "handler: eoi", "handler: sti")


def test_words_of_ports_keep_their_numbers():
    assert of({"io.0x61": 1}, {"read": {"mem.0xfec00010": {"size": 1}}}) == (
        "io.0x61",
        "read mem.0xfec00010",
    )


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
