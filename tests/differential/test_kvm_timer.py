"""The APIC timer against the kernel's: what an expiry leaves behind, masked, disabled, rewritten.

The kernel's timer runs on the host's clock, so a test waits until the kernel shows that the count
is over, lets as much time pass in the model as it takes, and compares the register pages.  KVM
delivers an expiry in the pass of its loop after the one that noticed it, on an emulating backend
perhaps a host tick later: what must not come is known to be lost when a later expiry has come.
"""

import pytest

from support.kernel_machine import APIC_ADDRESS, MachineConfig, kernel_machine
from support.lapic_steps import MSR_TSC_DEADLINE
from support.model_machine import ModelMachine, explain
from userspace_chip.lapic_registers import IRR, LVTT, SPIV, TDCR, TMCCT, TMICT

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(60)]

CONFIG = MachineConfig("on", observed=("lapics",))
VECTOR = 0x31
LATER_VECTOR = 0x42
ONE_SHOT, PERIODIC, DEADLINE = 0x00000, 0x20000, 0x40000
MASKED = 0x10000
COUNT = 1000
LONG_NS = 1_000_000_000
ENABLED = ("write", 0, APIC_ADDRESS + SPIV, 0x1FF)
UNDIVIDED = ("write", 0, APIC_ADDRESS + TDCR, 0xB)


def lvtt(value, vector=VECTOR):
    return ("write", 0, APIC_ADDRESS + LVTT, value | vector)


def tmict(count):
    return ("write", 0, APIC_ADDRESS + TMICT, count)


@pytest.fixture
def pair():
    with kernel_machine(CONFIG) as kernel:
        yield Pair(kernel, ModelMachine(CONFIG, physical_bits=kernel.physical_bits))


class Pair:
    """Both sides of one machine with one CPU."""

    def __init__(self, kernel, model):
        self.kernel, self.model = kernel, model

    def do(self, *steps):
        for name, *args in steps:
            getattr(self.kernel, name)(*args)
            getattr(self.model, name)(*args)

    def until_count_is_over(self):
        while self.kernel.read(0, APIC_ADDRESS + TMCCT):
            pass
        self._pass_time()

    def until_delivered(self, vector=VECTOR):
        register = APIC_ADDRESS + IRR + 0x10 * (vector // 32)
        while not self.kernel.read(0, register) >> vector % 32 & 1:
            pass
        self._pass_time()

    def until_a_later_count_is_delivered(self):
        self.do(lvtt(ONE_SHOT, LATER_VECTOR), tmict(COUNT))
        self.until_delivered(LATER_VECTOR)

    def _pass_time(self):
        machine = self.model.machine
        machine.advance(machine.now_ns + LONG_NS)
        self.do(("idle", 0))

    @property
    def differences(self):
        kernel, model = self.kernel.observe()["lapic0"], self.model.observe()["lapic0"]
        return explain("lapic0", kernel, model)

    @property
    def delivered(self):
        return bool(self.model.machine.lapics[0].state.irr >> VECTOR & 1)


@pytest.mark.parametrize("mode", [ONE_SHOT, PERIODIC])
def test_count_over_unmasked_is_delivered(pair, mode):
    pair.do(ENABLED, UNDIVIDED, lvtt(mode), tmict(COUNT))

    pair.until_delivered()

    assert pair.delivered
    assert pair.differences == []


def test_count_over_masked_is_not_delivered(pair):
    pair.do(ENABLED, UNDIVIDED, lvtt(ONE_SHOT | MASKED), tmict(COUNT))

    pair.until_count_is_over()

    assert not pair.delivered
    assert pair.differences == []


def test_count_over_masked_is_delivered_when_unmasked(pair):
    pair.do(ENABLED, UNDIVIDED, lvtt(ONE_SHOT | MASKED), tmict(COUNT))
    pair.until_count_is_over()

    pair.do(lvtt(ONE_SHOT))
    pair.until_delivered()

    assert pair.delivered
    assert pair.differences == []


def test_count_over_masked_is_forgotten_with_a_new_count(pair):
    pair.do(ENABLED, UNDIVIDED, lvtt(ONE_SHOT | MASKED), tmict(COUNT))
    pair.until_count_is_over()

    pair.do(tmict(0), lvtt(ONE_SHOT), ("idle", 0))
    pair.until_a_later_count_is_delivered()

    assert not pair.delivered
    assert pair.differences == []


def test_count_over_masked_is_forgotten_with_software_disable(pair):
    pair.do(ENABLED, UNDIVIDED, lvtt(ONE_SHOT | MASKED), tmict(COUNT))
    pair.until_count_is_over()

    pair.do(("write", 0, APIC_ADDRESS + SPIV, 0xFF), ENABLED, lvtt(ONE_SHOT), ("idle", 0))
    pair.until_a_later_count_is_delivered()

    assert not pair.delivered
    assert pair.differences == []


def test_deadline_in_the_past_is_delivered_and_reads_0(pair):
    pair.do(ENABLED, lvtt(DEADLINE), ("wrmsr", 0, MSR_TSC_DEADLINE, 1))

    pair.until_delivered()

    assert pair.delivered
    assert pair.differences == []
    assert pair.kernel.get_msr(0, MSR_TSC_DEADLINE) == 0
    assert pair.model.get_msr(0, MSR_TSC_DEADLINE) == 0


def test_deadline_mode_ignores_a_count(pair):
    pair.do(ENABLED, UNDIVIDED, lvtt(DEADLINE), tmict(COUNT), ("idle", 0))

    assert pair.kernel.read(0, APIC_ADDRESS + TMICT) == 0
    assert pair.differences == []


def test_count_over_with_another_mode_written_meanwhile_is_delivered(pair):
    pair.do(ENABLED, UNDIVIDED, lvtt(ONE_SHOT | MASKED), tmict(COUNT))
    pair.until_count_is_over()

    pair.do(lvtt(PERIODIC))
    pair.until_delivered()

    assert pair.delivered
    assert pair.differences == []


def test_count_over_with_deadline_mode_written_meanwhile_is_forgotten(pair):
    pair.do(ENABLED, UNDIVIDED, lvtt(ONE_SHOT | MASKED), tmict(COUNT))
    pair.until_count_is_over()

    pair.do(lvtt(DEADLINE), lvtt(ONE_SHOT), ("idle", 0))
    pair.until_a_later_count_is_delivered()

    assert not pair.delivered
    assert pair.differences == []
