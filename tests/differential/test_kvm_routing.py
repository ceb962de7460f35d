"""GSI routing against the kernel: random tables, refused ones, and lines that fan out."""

import random

import pytest

from support.differential import Step, assert_agree
from support.ioapic_steps import load_step
from support.kernel_machine import MachineConfig
from support.lapic_steps import load_lapic, random_msi
from support.model_machine import explain, open_pair
from userspace_chip.messages import MsiMessage
from userspace_chip.pic import ELCR_MASKS, PicChipState
from userspace_chip.ports import Irqchip
from userspace_chip.routing import IrqchipRoute, MsiRoute, Route

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(120)]

SEEDS = range(70)
STEPS = 300
CONFIG = MachineConfig("on", cpus=2)


def random_route(rng: random.Random) -> Route:
    gsi = rng.randrange(40) if rng.random() < 0.98 else rng.choice((4095, 4096))
    if rng.random() < 0.3:
        step = random_msi(rng, (0, 1))
        return MsiRoute(gsi, MsiMessage(*step.args))
    chip = rng.choice((Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE, Irqchip.IOAPIC, Irqchip.IOAPIC))
    pins = 24 if chip is Irqchip.IOAPIC else 8
    return IrqchipRoute(gsi, chip, rng.randrange(pins) if rng.random() < 0.98 else pins)


def legal_table(rng: random.Random) -> tuple[Route, ...]:
    """Up to one pin of each chip, or one message, per GSI."""
    taken: set[tuple[int, Irqchip | None]] = set()
    table: list[Route] = []
    for _ in range(rng.randrange(60)):
        route = random_route(rng)
        kinds = {kind for gsi, kind in taken if gsi == route.gsi}
        kind = route.chip if isinstance(route, IrqchipRoute) else None
        if kind in kinds or None in kinds or (kind is None and kinds):
            continue
        taken.add((route.gsi, kind))
        table.append(route)
    return tuple(table)


def routes_step(rng: random.Random) -> Step:
    if rng.random() < 0.2:
        return Step("routes", tuple(random_route(rng) for _ in range(rng.randrange(8))))
    return Step("routes", legal_table(rng))


def pic_step(rng: random.Random) -> Step:
    chip = rng.choice((Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE))
    state = PicChipState(
        imr=rng.getrandbits(8) & rng.getrandbits(8),
        irr=rng.getrandbits(8) & rng.getrandbits(8),
        elcr=rng.getrandbits(8) & ELCR_MASKS[chip],
        elcr_mask=ELCR_MASKS[chip],
    )
    return Step("load_pic", (chip, state))


def random_step(rng: random.Random) -> Step:
    kind = rng.randrange(60)
    vcpu = rng.randrange(CONFIG.cpus)
    if kind < 50:
        return Step("line", (rng.randrange(40), rng.randrange(2)))
    if kind < 53:
        return routes_step(rng)
    if kind < 55:
        return load_lapic(rng, vcpu, plain=0.5)
    return pic_step(rng) if kind < 58 else load_step(rng)


def generate(seed: int) -> list[Step]:
    """Odd seeds begin with the kernel's default table."""
    rng = random.Random(seed)
    pages = [load_lapic(rng, cpu, plain=0.5) for cpu in range(CONFIG.cpus)]
    tables = [] if seed % 2 else [routes_step(rng)]
    return [*pages, *tables, load_step(rng), *(random_step(rng) for _ in range(STEPS))]


@pytest.mark.parametrize("seed", SEEDS)
def test_lines_through_random_tables_have_the_kernels_results(seed):
    assert_agree(generate(seed), open_pair(CONFIG), explain)
