"""The IOAPIC against the kernel's: lines, entries, its window, and EOIs through two LAPICs.

The GSIs are routed to the IOAPIC alone, so that a line's result is the IOAPIC's.
"""

import random

import pytest

from support.differential import Step, assert_agree
from support.ioapic_steps import load_step, rte_step, window_step
from support.kernel_machine import APIC_ADDRESS, MachineConfig
from support.lapic_steps import load_lapic, random_msi
from support.model_machine import explain, open_pair
from userspace_chip.architecture import IOAPIC_PINS
from userspace_chip.lapic_registers import EOI
from userspace_chip.ports import Irqchip
from userspace_chip.routing import IrqchipRoute

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(120)]

SEEDS = range(100)
STEPS = 300
CONFIG = MachineConfig("on", cpus=2, observed=("ioapic", "lapics"))

ROUTES = Step("routes", tuple(IrqchipRoute(pin, Irqchip.IOAPIC, pin) for pin in range(IOAPIC_PINS)))


def random_step(rng: random.Random) -> Step:
    vcpu = rng.randrange(CONFIG.cpus)
    pin = rng.choice((rng.randrange(IOAPIC_PINS), 1, 8))
    kind = rng.randrange(40)
    if kind < 18:
        return Step("line", (pin, rng.randrange(2)))
    if kind < 24:
        return rte_step(rng, pin)
    if kind < 30:
        return Step("serve", (vcpu,))
    if kind < 35:
        return Step("write", (vcpu, APIC_ADDRESS + EOI, 0))
    if kind < 37:
        return window_step(rng, vcpu)
    if kind == 37:
        return random_msi(rng, (0, 1))
    if kind == 38:
        return load_lapic(rng, vcpu, plain=0.8)
    return load_step(rng)


def generate(seed: int) -> list[Step]:
    rng = random.Random(seed)
    pages = [load_lapic(rng, cpu, plain=0.8) for cpu in range(CONFIG.cpus)]
    return [ROUTES, *pages, load_step(rng), *(random_step(rng) for _ in range(STEPS))]


@pytest.mark.parametrize("seed", SEEDS)
def test_ioapic_driven_at_random_stays_equal_to_the_kernels(seed):
    assert_agree(generate(seed), open_pair(CONFIG), explain)
