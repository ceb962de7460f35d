"""What a scenario touches, in words."""

from harness.fuzz import touched


def of(*steps, **more):
    return touched.words({"steps": list(steps), **more})


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
