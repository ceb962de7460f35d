"""The ledger under TCG where its log tells when the CPU takes an interrupt."""

import pytest

from harness.analyse.audit import summary
from harness.model.case import Irqchip
from support.books import account
from support.recorded_boot import recorded_case
from userspace_chip.events import event_type

INJECTION_LAWS = ("every acceptance is injected once", "every injection is ended")
EOI = (0xB0, 0)
TIMER = 0xEC


def ledger(name, events=None):
    case = recorded_case(name)
    return account(case.events if events is None else events, Irqchip.TCG, smp=case.case.smp)


def statuses(found):
    return [law.status for law in found.laws if law.name in INJECTION_LAWS]


def taken(name="tcg-smp1", vector=TIMER, after=5000):
    """Where the CPU takes ``vector``."""
    events = recorded_case(name).events
    return next(
        place
        for place, event in enumerate(events)
        if place > after and event.name == "hardware_int" and event.args[0] == vector
    )


def ended(place, name="tcg-smp1"):
    """Where the next EOI is."""
    events = recorded_case(name).events
    return next(
        other
        for other, event in enumerate(events)
        if other > place and event.name == "apic_mem_writel" and event.args == EOI
    )


def altered(place, *new, name="tcg-smp1"):
    """The recording with ``new`` events in the place of that one."""
    events = recorded_case(name).events
    return (*events[:place], *new, *events[place + 1 :])


def first(events, name="tcg-smp1"):
    """Kind and place of the first finding."""
    finding = ledger(name, events).findings[0]
    return finding.kind, finding.index


@pytest.mark.parametrize("name", ["tcg-smp1", "tcg-virtual-wire"])
def test_ledger_of_one_cpu_accounts_for_what_it_takes(name):
    found = ledger(name)

    assert statuses(found) == ["balanced", "balanced"]
    assert (found.findings, found.warnings, found.balanced) == ((), (), True)
    injected = sum(row.counts.get("injected", 0) for row in found.rows if row.kind == "vector")
    assert f", {injected} injected, " in summary(found)
    assert injected > 50


def test_ledger_of_two_cpus_does_not_say_which_took_it():
    found = ledger("tcg-smp2")

    assert statuses(found) == ["not observable", "not observable"]
    assert found.balanced


def test_interrupt_that_is_ended_and_was_not_taken_is_lost():
    place = taken()

    assert first(altered(place)) == ("lost", ended(place) - 1)


def test_interrupt_taken_twice_is_stuck_where_it_comes_again():
    place = taken()
    event = recorded_case("tcg-smp1").events[place]

    assert first(altered(place, event, event)) == ("stuck", place + 1)


def test_interrupt_taken_that_no_one_accepted_is_spurious():
    place = taken()
    event = recorded_case("tcg-smp1").events[place]
    other = event._replace(args=event_type("hardware_int").args(vector=0x77, task=event.args[1]))

    assert first(altered(place, other)) == ("spurious", place)


def test_end_of_an_interrupt_that_is_missing_is_stuck_where_it_comes_again():
    place = taken()
    events = recorded_case("tcg-smp1").events
    nested = next(e for e in events[ended(place) + 1 :] if e.name == "hardware_int")
    again = events.index(nested, ended(place) + 1)

    assert first(altered(ended(place))) == ("stuck", again - 1)


def test_interrupt_that_went_away_before_it_was_taken_is_none():
    place = taken()
    event = recorded_case("tcg-smp1").events[place]
    gone = event._replace(args=(0xFFFFFFFF, event.args[1]))

    assert ledger("tcg-smp1", altered(place, gone, event)).findings == ()
