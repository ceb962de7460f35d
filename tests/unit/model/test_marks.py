"""A guest that moves to another QEMU has one history; a one-shot timer fires at the move."""

import pytest

from harness.model import marks
from harness.model.case import Irqchip
from harness.model.marks import Mark, MarkKind
from harness.replay.replay import ReplayOutcome
from support.books import account
from support.recorded_boot import recorded_case
from userspace_chip.events import Event, event_type

CASE = "split-migrated"


def event(name, text, source="qemu"):
    return Event(0, source, name, None, event_type(name).parse(text))


def mark(text):
    return event("mark", text, "harness")


LINE = event("ioapic_set_irq", "vector: 4 level: 1")
OTHER = event("ioapic_set_irq", "vector: 4 level: 0")


def without_the_move():
    return [e for e in recorded_case(CASE).events if e.text not in ("saved", "loaded")]


@pytest.mark.parametrize("kind", MarkKind)
@pytest.mark.parametrize("subject", ["", "block-intx"])
def test_mark_parsed_from_its_own_text_is_the_same(kind, subject):
    assert Mark.parse(str(Mark(kind, subject))) == Mark(kind, subject)


@pytest.mark.parametrize("text", ["", "x", "beginning", "saving x"])
def test_mark_of_another_text_is_none(text):
    assert Mark.parse(text) is None


def test_history_leaves_out_what_a_qemu_did_with_its_own_chips():
    aside = []
    events = [LINE, mark("saved"), OTHER, OTHER, mark("loaded"), LINE]

    history = list(marks.history(events, aside))

    assert history == [LINE, mark("saved"), mark("loaded"), LINE]
    assert aside == [OTHER, OTHER]


def test_history_of_a_guest_that_stays_is_all_events():
    aside = []
    events = [LINE, mark("begin idle"), OTHER, mark("end idle")]

    assert list(marks.history(events, aside)) == events
    assert aside == []


def test_history_of_a_guest_that_was_never_loaded_ends_with_its_save():
    aside = []

    assert list(marks.history([mark("saved"), OTHER, mark("x")], aside)) == [
        mark("saved"),
        mark("x"),
    ]
    assert aside == [OTHER]


def test_replay_that_is_not_told_of_the_move_diverges_at_the_timer_that_fires_again():
    replayed = recorded_case(CASE).replay(without_the_move())

    assert replayed.outcome is ReplayOutcome.DIVERGED
    assert replayed.divergence.why == "no message was sent, and no timer was armed"
    assert replayed.divergence.recorded.event.text == "apicid 0 vec 236 (Fixed|edge)"


def test_ledger_of_a_guest_that_moved_balances():
    assert account(recorded_case(CASE).events, Irqchip.SPLIT).findings == ()


def test_ledger_that_is_not_told_of_the_move_finds_the_timer_that_fires_again():
    (finding,) = account(without_the_move(), Irqchip.SPLIT).findings

    assert (finding.kind, finding.subject) == ("spurious", "vector 236 cpu0")
