"""The laws: each is broken by a log that breaks it, and by no other."""

import pytest

from harness.fuzz import laws
from harness.fuzz.programs import compiled
from harness.scenario.log import Log, LogEvent
from harness.scenario.predict import predict
from userspace_chip.profile import profile

ON = profile("on", qemu="7.2", linux="6.12")
PRIORITIES = ["lapic.tpr", *(f"lapic.isr.{n}" for n in range(8)), "lapic.ppr"]
ENTRY = {"vector": 0x51, "trigger": "edge"}


def program(*steps, handlers=None, cpus=1):
    data = {"about": "for a law", "cpus": cpus, "steps": list(steps)}
    data["handlers"] = handlers or {}
    return compiled("law", data).program


def log(*lines):
    return Log(
        tuple(
            LogEvent(int(step), int(cpu), kind, tuple(args))
            for step, cpu, kind, *args in (line.split() for line in lines)
        )
    )


def broken(of, *lines):
    return [one.detail for one in laws.broken(of, log(*lines))]


def test_vector_in_a_class_that_is_in_service_breaks_the_nesting():
    of = program({"ipi": {"vector": 0x51, "shorthand": "self"}})
    assert broken(of, "0 0 irq 51 - 58,51 -") == ["priorities nest"]
    assert broken(of, "0 0 irq 51 - 51,48 -") == []
    assert broken(of, "0 0 irq 51 - ? -") == []


def test_ppr_other_than_of_tpr_and_isr_breaks_its_law():
    of = program({"read": PRIORITIES})
    isr = ["0 0 read 0"] * 8
    assert broken(of, "0 0 read 20", *isr, "0 0 read 0") == ["PPR is of TPR and ISR"]
    assert broken(of, "0 0 read 20", *isr, "0 0 read 2f") == []


def test_ppr_of_a_step_in_which_something_else_happens_is_passed_over():
    of = program({"read": PRIORITIES})
    isr = ["0 0 read 0"] * 8
    assert broken(of, "0 0 read 20", *isr, "0 0 read 0", "0 0 irq ff - - -") == []


@pytest.mark.parametrize(
    "source",
    [
        {"ioapic.redir.14": {**ENTRY, "mask": True}},
        {"lapic.lvt_timer": {"vector": 0x51, "mask": True}},
        {"lapic.tpr": 0x51},
    ],
)
def test_vector_that_nothing_unmasked_has_breaks_a_law(source):
    assert broken(program(source), "0 0 irq 51 - 51 -") == ["nothing from a masked source"]


@pytest.mark.parametrize(
    "source",
    [
        {"ioapic.redir.14": ENTRY},
        {"lapic.lvt_timer": {"vector": 0x51}},
        {"msi": {"vector": 0x51}},
        {"lapic.svr": 0x151},
        {"lapic.0": 0x51},
        {"mem.0xfee00300": 0x51},
        {"pic.init": {"master_base": 0x50}},
    ],
)
def test_vector_that_something_may_have_breaks_no_law(source):
    assert broken(program(source), "0 0 irq 51 - 51 -") == []


def test_remote_irr_of_an_edge_entry_breaks_a_law_where_it_is_read_or_logged():
    of = program({"read": "ioapic.redir.14.low"}, {"ioapic.redir.14": ENTRY})
    assert broken(of, "0 0 read 4051") == ["remote IRR of level entries only"]
    assert broken(of, "0 0 read c051") == []
    assert broken(of, "1 0 irq 51 - 51 - e=4051") == ["remote IRR of level entries only"]


def test_interrupt_after_cli_breaks_a_law_until_sti():
    send = {"ipi": {"vector": 0x51, "shorthand": "self"}}
    of = program("cli", send, "sti", send, send)
    assert broken(of, "1 0 irq 51 - 51 -") == ["nothing with interrupts off"]
    assert broken(of, "2 0 irq 51 - 51 -") == []
    assert broken(of, "0 0 irq 51 - 51 -") == []


def test_interrupt_after_cli_is_passed_over_where_an_nmi_may_have_let_it_in():
    send = {"ipi": {"vector": 0x51, "shorthand": "self"}}
    of = program("cli", send, handlers={"nmi": {"do": ["sti"]}})
    assert broken(of, "1 0 irq 51 - 51 -") == []


def test_more_interrupts_than_were_sent_break_a_law():
    of = program({"ipi": {"vector": 0x51, "shorthand": "self"}})
    assert broken(of, "0 0 irq 51 - 51 -", "0 0 irq 51 - 51 -") == ["no more than was sent"]
    assert broken(of, "0 0 irq 51 - 51 -") == []


def test_interrupts_of_a_line_are_not_counted():
    of = program({"ioapic.redir.14": ENTRY}, {"line": {14: "high"}})
    assert broken(of, *["1 0 irq 51 - 51 -"] * 9) == []


def test_parallel_steps_are_passed_over():
    of = program({"parallel": {"cpu0": ["cli"], "cpu1": ["cli"]}}, cpus=2)
    assert broken(of, "0 0 irq 51 - 51 -") == []


def test_prediction_breaks_no_law():
    of = program({"ioapic.redir.14": {**ENTRY, "trigger": "level"}}, {"line": {14: "high"}},
                 handlers={0x51: {"eoi": "never", "limit": 3}})  # fmt: skip
    assert laws.broken(of, predict(of, ON)) == ()
