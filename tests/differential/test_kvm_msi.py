"""MSIs to four local APICs against the kernel: who gets them, and what the sender is told.

No vCPU runs here, so every delivery mode can be sent: INIT and SIPI wait until the vCPU's state
is asked for, NMIs stay pending.  Ids, logical ids, modes and enable bits come from loaded pages.
"""

import random

import pytest

from support.differential import Step, assert_agree
from support.kernel_machine import MSR_APIC_BASE, MachineConfig
from support.lapic_steps import ALL_MODES, load_lapic, random_msi, random_x2apic_dest
from support.model_machine import explain, open_pair
from userspace_chip.kvm.abi import X2apicApiFlag

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(120)]

SEEDS = range(30)
STEPS = 300
CPUS = 4
OBSERVED = ("lapics", "bases", "nmis")
FLAGS = (
    X2apicApiFlag(0),
    X2apicApiFlag.USE_32BIT_IDS,
    X2apicApiFlag.DISABLE_BROADCAST_QUIRK,
    X2apicApiFlag.USE_32BIT_IDS | X2apicApiFlag.DISABLE_BROADCAST_QUIRK,
)


def random_step(rng: random.Random) -> Step:
    vcpu = rng.randrange(CPUS)
    kind = rng.randrange(20)
    if kind < 14:
        return random_msi(rng, ALL_MODES)
    if kind < 16:
        dest = random_x2apic_dest(rng)
        address = 0xFEE0_0000 | (dest & 0xFF) << 12 | (dest & 0xFFFF_FF00) << 32
        return Step("msi", (address | rng.randrange(2) << 2, rng.randrange(256)))
    if kind < 18:
        return load_lapic(rng, vcpu)
    if kind == 18:
        return Step(rng.choice(("serve", "nmi", "mp_state", "mp_state")), (vcpu,))
    base = 0xFEE0_0000 | rng.choice((0x800, 0x800, 0xC00, 0)) | (0x100 if vcpu == 0 else 0)
    return Step("set_msr", (vcpu, MSR_APIC_BASE, base))


def generate(seed: int) -> list[Step]:
    rng = random.Random(seed)
    pages = [load_lapic(rng, cpu) for cpu in range(CPUS)]
    return [*pages, *(random_step(rng) for _ in range(STEPS))]


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: f"x2apic_api={int(flags)}")
@pytest.mark.parametrize("seed", SEEDS)
def test_msis_sent_at_random_reach_whom_the_kernel_sends_them_to(seed, flags):
    config = MachineConfig("on", CPUS, OBSERVED, int(flags))

    assert_agree(generate(seed), open_pair(config), explain)
