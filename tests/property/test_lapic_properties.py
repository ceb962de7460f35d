"""One local APIC under random stimuli, against a model of sets and a ledger of every vector."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.lapic_board import LapicBoard
from support.machines import SUBJECTS, name_of
from userspace_chip.bits import bits
from userspace_chip.knobs import Model
from userspace_chip.lapic_registers import PPR, SPIV, TPR
from userspace_chip.messages import TRIGGERS, LapicMessage
from userspace_chip.snapshot import from_json, to_json

VECTORS = st.integers(0, 255)


class LapicMachine(RuleBasedStateMachine):
    """Rules of one subject; :func:`machine_of` makes a class of it."""

    subject = SUBJECTS[0]

    @initialize()
    def power_on(self):
        self.board = LapicBoard(self.subject)
        self.apic = self.board.apic
        self.kvm = self.subject.lapic.model is Model.KVM
        self.accepted = Counter()
        self.taken = Counter()
        self.ended = Counter()
        self.service: list[int] = []

    @rule(vector=VECTORS, level=st.booleans())
    def message(self, vector, level):
        pending_before = self.apic.state.irr >> vector & 1
        if self.kvm:
            taken = self.apic.accept(LapicMessage(vector, trigger=TRIGGERS[level]))
            assert taken == int(self.apic.sw_enabled)
        else:
            self.apic.set_irq(vector, level)
            taken = 1
        if taken:
            assert self.apic.state.tmr >> vector & 1 == level
            self.accepted[vector] += not pending_before

    @rule()
    def take(self):
        vector = self.apic.pending()
        if vector is None:
            return
        highest = self.service[-1] if self.service else 0
        # An accepted interrupt is of a higher class than TPR and everything in service.
        assert vector >> 4 >= self.apic.state.tpr >> 4
        assert vector >> 4 > highest >> 4 or not self.service
        assert vector == self.apic.state.irr.bit_length() - 1
        self.apic.ack(vector)
        self.taken[vector] += 1
        self.service.append(vector)

    @rule()
    def end(self):
        self.board.write(0xB0, 0)
        if self.service:
            self.ended[self.service.pop()] += 1

    @rule(tpr=st.integers(0, 255))
    def set_tpr(self, tpr):
        self.board.write(TPR, tpr)

    @rule(enabled=st.booleans())
    def software_enable(self, enabled):
        self.board.write(SPIV, 0xFF | enabled << 8)

    @precondition(lambda self: self.kvm)
    @rule(lvt=st.integers(0, 5), value=st.integers(0, 0xFFFFFFFF))
    def write_lvt(self, lvt, value):
        self.board.write(0x320 + 0x10 * lvt, value)
        if not self.apic.sw_enabled:
            assert self.apic.state.lvt[lvt] & 0x10000

    @rule()
    def save_and_load(self):
        before = self.apic.save()
        self.apic.load(from_json(type(before), to_json(before)))
        assert self.apic.state == before

    @invariant()
    def every_accepted_vector_is_pending_or_was_taken(self):
        if not hasattr(self, "apic"):
            return
        state = self.apic.state
        assert self.accepted == self.taken + Counter(bits(state.irr))
        assert self.taken == self.ended + Counter(bits(state.isr))

    @invariant()
    def service_is_a_stack_of_rising_classes(self):
        if hasattr(self, "apic"):
            assert self.service == bits(self.apic.state.isr)

    @invariant()
    def ppr_covers_tpr_and_service(self):
        if not hasattr(self, "apic"):
            return
        self.board.texts.clear()
        ppr = self.board.read(PPR)
        assert ppr >> 4 == max([self.apic.state.tpr, *self.service]) >> 4
        vector = self.apic.pending()
        if vector is not None and (ppr or self.kvm):
            assert vector >> 4 > ppr >> 4


@pytest.mark.parametrize(
    "subject", [SUBJECTS[0], SUBJECTS[5], SUBJECTS[7], SUBJECTS[9]], ids=name_of
)
def test_lapic_keeps_its_books_under_any_stimuli(subject):
    machine = type("Machine", (LapicMachine,), {"subject": subject})
    machine.TestCase.settings = settings(
        max_examples=40, stateful_step_count=40, deadline=None, print_blob=True
    )
    machine.TestCase("runTest").debug()
