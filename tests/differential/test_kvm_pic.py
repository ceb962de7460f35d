"""The 8259 pair against the kernel's: lines, ports by a guest, INTA cycles, loaded states.

The GSIs are routed to the PIC alone, so that a line's result is the PIC's.
"""

import random

import pytest

from support.differential import Step, assert_agree
from support.kernel_machine import MachineConfig
from support.model_machine import explain, open_pair
from userspace_chip.lapic_registers import LVT0, SPIV
from userspace_chip.pic import ELCR_MASKS, PicChipState
from userspace_chip.ports import Irqchip
from userspace_chip.routing import IrqchipRoute

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(120)]

SEEDS = range(100)
STEPS = 300


LINT0 = (0x700, 0x700, 0x8700, 0x10700, 0x31, 0x400)
"""LVT0: ExtINT edge and level, masked, fixed, NMI."""

CONFIG = MachineConfig("on", observed=("pics",))

ROUTES = Step("routes", tuple(IrqchipRoute(gsi, Irqchip(gsi >> 3), gsi & 7) for gsi in range(16)))


def random_state(rng: random.Random, chip: Irqchip) -> PicChipState:
    byte = rng.randrange
    return PicChipState(
        last_irr=byte(256),
        irr=byte(256) & byte(256),
        imr=byte(256) & byte(256),
        isr=byte(256) & byte(256) & byte(256),
        priority_add=byte(8),
        irq_base=byte(256) & 0xF8,
        read_reg_select=byte(2),
        poll=byte(2),
        special_mask=byte(2),
        init_state=rng.choice((0, 0, 0, 1, 2, 3)),
        auto_eoi=byte(2),
        rotate_on_auto_eoi=byte(2),
        special_fully_nested_mode=byte(2),
        init4=byte(2),
        elcr=byte(256) & ELCR_MASKS[chip],
        elcr_mask=ELCR_MASKS[chip],
    )


def random_command(rng: random.Random) -> int:
    """A byte for the command port: mostly EOIs and OCW3s, now and then an ICW1."""
    return rng.choice(
        (
            0x20,
            0x60 | rng.randrange(8),
            rng.randrange(8) << 5 | rng.randrange(8),
            0x08 | rng.randrange(256) & 0x67,
            0x0C,
            0x10 | rng.randrange(256) & 0x0F if rng.random() < 0.3 else 0x20,
        )
    )


def random_step(rng: random.Random) -> Step:
    base = rng.choice((0x20, 0xA0))
    kind = rng.randrange(20)
    if kind < 9:
        return Step("line", (rng.randrange(16), rng.randrange(2)))
    if kind < 12:
        return Step("port_out", (base, random_command(rng)))
    if kind < 14:
        return Step("port_out", (base + 1, rng.randrange(256) & rng.randrange(256)))
    if kind < 16:
        return Step("port_in", (base + rng.randrange(2),))
    if kind < 18:
        return Step("take")
    if kind == 18:
        return rng.choice(
            (
                Step("port_out", (0x4D0 + rng.randrange(2), rng.randrange(256))),
                Step("port_in", (0x4D0 + rng.randrange(2),)),
                Step("port_out", (rng.choice((0x20, 0xA0, 0x4D0)), rng.randrange(65536), 2)),
                Step("port_in", (rng.choice((0x20, 0xA0, 0x4D0)), 2)),
            )
        )
    if rng.random() < 0.5:
        return Step("load_lapic", (0, ((SPIV, 0xFF), (LVT0, rng.choice(LINT0)))))
    chip = rng.choice((Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE))
    return Step("load_pic", (chip, random_state(rng, chip)))


def generate(seed: int) -> list[Step]:
    rng = random.Random(seed)
    chips = (Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE)
    loads = [Step("load_pic", (chip, random_state(rng, chip))) for chip in chips]
    return [ROUTES, *loads, *(random_step(rng) for _ in range(STEPS))]


@pytest.mark.parametrize("seed", SEEDS)
def test_pic_driven_at_random_stays_equal_to_the_kernels(seed):
    assert_agree(generate(seed), open_pair(CONFIG), explain)
