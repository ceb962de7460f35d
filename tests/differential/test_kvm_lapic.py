"""The local APIC against the kernel's, xAPIC and x2APIC: messages, registers, mode changes."""

import random

import pytest

from support.differential import Step, assert_agree
from support.kernel_machine import MachineConfig
from support.lapic_steps import GUEST_MODES, load_lapic, random_msi, register_step
from support.model_machine import explain, open_pair

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(120)]

SEEDS = range(150)
STEPS = 300
CONFIG = MachineConfig("on", cpus=2, observed=("lapics", "bases"))


def random_step(rng: random.Random) -> Step:
    vcpu = rng.randrange(CONFIG.cpus)
    kind = rng.randrange(30)
    if kind < 9:
        return random_msi(rng, GUEST_MODES)
    if kind < 12:
        return Step("serve", (vcpu,))
    if kind == 12:
        return load_lapic(rng, vcpu)
    return register_step(rng, vcpu)


def generate(seed: int) -> list[Step]:
    rng = random.Random(seed)
    pages = [load_lapic(rng, cpu) for cpu in range(CONFIG.cpus)]
    return [*pages, *(random_step(rng) for _ in range(STEPS))]


@pytest.mark.parametrize("seed", SEEDS)
def test_lapic_driven_at_random_stays_equal_to_the_kernels(seed):
    assert_agree(generate(seed), open_pair(CONFIG), explain)
