"""What the specification says of what a program touches."""

import pytest

from harness.fuzz import grammar
from harness.fuzz.author import write
from harness.fuzz.specification import of_steps, passages
from harness.fuzz.touched import words


@pytest.mark.parametrize(
    ("word", "section"),
    [
        ("lapic.tpr", "Task and Processor Priorities"),
        ("handler: read lapic.isr", "Interrupt Acceptance"),
        ("nmi handler: ipi nmi", "Interrupt Command Register"),
        ("read ioapic.redir", "I/O Redirection Table Registers"),
        ("pic.master.ocw2", "Operation Command Words"),
        ("mem.0xfed00100", "Register Set"),
    ],
)
def test_passage_of_a_word_is_that_of_its_register(word, section):
    (found,) = passages([word])
    assert section in found.section
    assert found.words == (word,)


def test_passages_of_written_steps_are_of_what_they_touch():
    steps = ["sti", "cpu: 1, lapic.svr: 0x1ff", "line: {14: high}", "cpu: 1, read: [lapic.isr.2]"]

    assert [each.words for each in of_steps(steps)] == [
        ("lapic.svr",),
        ("line",),
        ("read lapic.isr",),
        ("sti",),
    ]


def test_passages_of_steps_in_another_form_are_none():
    assert of_steps(["{{", "[1, 2]", "", "3"]) == ()


def test_words_of_one_passage_stand_together():
    (found,) = passages(["pic.master.imr", "pic.slave.imr"])
    assert found.words == ("pic.master.imr", "pic.slave.imr")


@pytest.mark.parametrize("of", grammar.shipped(), ids=lambda of: of.name)
def test_everything_that_a_shipped_grammar_touches_has_a_passage(of):
    touched = {word for number in range(40) for word in words(write(1, number, [of]).data)}
    said = {word for passage in passages(sorted(touched)) for word in passage.words}
    of_scenarios = {"delay_us", "wait", "await", "offline"}
    assert touched - said <= of_scenarios | {f"handler: {word}" for word in of_scenarios}
