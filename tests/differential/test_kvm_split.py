"""Split: the kernel's half, local APICs and MSI routes, and the EOIs that leave it."""

import random

import pytest

from support.differential import Step, assert_agree
from support.kernel_machine import APIC_ADDRESS, MachineConfig
from support.lapic_steps import GUEST_MODES, load_lapic, random_msi, register_step
from support.model_machine import explain, open_pair
from userspace_chip.lapic_registers import EOI
from userspace_chip.messages import MsiMessage
from userspace_chip.routing import MsiRoute

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(120)]

SEEDS = range(350)
STEPS = 300
CONFIG = MachineConfig("split", cpus=2, observed=("lapics", "bases", "exits"))
PINS = 24


def routes_step(rng: random.Random) -> Step:
    """A table as QEMU's IOAPIC commits it, some pins masked (address 0, data 0), and more."""
    routes = []
    for gsi in (*range(PINS), 30, 31):
        message = random_msi(rng, (0, 0, 0, 1)).args if rng.random() < 0.6 else (0, 0)
        routes.append(MsiRoute(gsi, MsiMessage(*message)))
    return Step("routes", tuple(routes))


def random_step(rng: random.Random) -> Step:
    vcpu = rng.randrange(CONFIG.cpus)
    kind = rng.randrange(40)
    if kind < 10:
        return Step("line", (rng.choice((rng.randrange(PINS), 30, 50)), rng.randrange(4) > 0))
    if kind < 14:
        return random_msi(rng, GUEST_MODES)
    if kind < 20:
        return Step("serve", (vcpu,))
    if kind < 25:
        return Step("write", (vcpu, APIC_ADDRESS + EOI, 0))
    if kind == 25:
        return routes_step(rng)
    if kind == 26:
        return Step("interrupt", (vcpu, rng.choice((rng.randrange(256), 256))))
    if kind == 27:
        return load_lapic(rng, vcpu, plain=0.5)
    if kind == 28:
        return Step("idle", (vcpu,))
    return register_step(rng, vcpu)


def generate(seed: int) -> list[Step]:
    rng = random.Random(seed)
    pages = [load_lapic(rng, cpu, plain=0.5) for cpu in range(CONFIG.cpus)]
    return [*pages, routes_step(rng), *(random_step(rng) for _ in range(STEPS))]


@pytest.mark.parametrize("seed", SEEDS)
def test_split_driven_at_random_stays_equal_to_the_kernels(seed):
    assert_agree(generate(seed), open_pair(CONFIG), explain)
