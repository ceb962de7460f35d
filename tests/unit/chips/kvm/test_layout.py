"""States travel to the kernel's layout and back without loss, to the datasheet's offsets."""

import ctypes
import random

import pytest

from userspace_chip.ioapic import KvmIoapicImage
from userspace_chip.kvm import abi
from userspace_chip.kvm.layout import (
    ioapic_from_kvm,
    ioapic_to_kvm,
    lapic_from_kvm,
    lapic_to_kvm,
    pic_from_kvm,
    pic_to_kvm,
    pit_from_kvm,
    pit_to_kvm,
)
from userspace_chip.lapic_registers import DEFAULT_BASE, ENABLE, EXTD, MASKED
from userspace_chip.lapic_state import LapicState
from userspace_chip.pic import PicChipState
from userspace_chip.pit import PitChannelState
from userspace_chip.ports import Irqchip

SEEDS = range(20)
XAPIC = DEFAULT_BASE | ENABLE
X2APIC = XAPIC | EXTD
VERSION = 0x00050014
VERSION_CMCI = 0x00060014


def random_pic(rng):
    return PicChipState(**{name: rng.randrange(256) for name in abi.KvmPicState.__annotations__})


def random_lapic(rng, apic_base, vcpu_id, lvts):
    word = 1 << 32
    return LapicState(
        apic_base=apic_base,
        id_reg=vcpu_id if apic_base & EXTD else rng.randrange(256) << 24,
        tpr=rng.randrange(256),
        ppr=rng.randrange(256),
        ldr=rng.randrange(word),
        dfr=rng.randrange(word),
        spiv=rng.randrange(word),
        icr=rng.randrange(word),
        icr2=rng.randrange(word),
        icr_high=rng.randrange(word),
        isr=rng.getrandbits(256),
        tmr=rng.getrandbits(256),
        irr=rng.getrandbits(256),
        lvt=[rng.randrange(word) if place < lvts else MASKED for place in range(7)],
        tmict=rng.randrange(word),
        tdcr=rng.randrange(16),
        irr_pending=True,
    )


@pytest.mark.parametrize("chip", [Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE])
@pytest.mark.parametrize("seed", SEEDS)
def test_pic_through_kvms_layout_comes_back_equal(seed, chip):
    state = random_pic(random.Random(seed))

    image = pic_to_kvm(chip, state)

    assert image.chip_id == chip
    assert pic_from_kvm(image) == state


@pytest.mark.parametrize("seed", SEEDS)
def test_pic_layout_through_the_chips_state_comes_back_equal(seed):
    bytes_ = random.Random(seed).randbytes(ctypes.sizeof(abi.KvmPicState))
    image = abi.KvmIrqchip(chip_id=Irqchip.PIC_SLAVE)
    image.chip.pic = abi.KvmPicState.from_buffer_copy(bytes_)

    assert bytes(pic_to_kvm(Irqchip.PIC_SLAVE, pic_from_kvm(image))) == bytes(image)


@pytest.mark.parametrize("seed", SEEDS)
def test_ioapic_through_kvms_layout_comes_back_equal(seed):
    rng = random.Random(seed)
    image = KvmIoapicImage(
        ioregsel=rng.randrange(256),
        id=rng.randrange(16),
        irr=rng.getrandbits(24),
        rte=tuple(rng.getrandbits(64) for _ in range(24)),
    )

    assert ioapic_from_kvm(ioapic_to_kvm(image)) == image


def test_ioapic_layout_has_the_kernels_base_address_and_offsets():
    image = KvmIoapicImage(ioregsel=0x12, id=3, irr=0x800001, rte=(0x1_0041, *(0,) * 23))

    raw = bytes(ioapic_to_kvm(image))[8:]

    assert raw[:24] == bytes.fromhex("0000c0fe00000000 12000000 03000000 01008000 00000000")
    assert raw[24:32] == bytes.fromhex("4100010000000000")


@pytest.mark.parametrize(("legacy", "speaker"), [(0, 0), (1, 0), (0, 1)])
@pytest.mark.parametrize("seed", SEEDS)
def test_pit_through_kvms_layout_comes_back_equal(seed, legacy, speaker):
    rng = random.Random(seed)
    channels = [
        PitChannelState(
            count=rng.randrange(1, 0x10001),
            latched_count=rng.randrange(0x10000),
            status=rng.randrange(256),
            rw_mode=rng.randrange(4),
            mode=rng.randrange(6),
            gate=rng.randrange(2),
            count_load_time_ns=rng.getrandbits(62),
        )
        for _ in range(3)
    ]

    image = pit_to_kvm(channels, hpet_legacy=legacy, speaker_data=speaker)

    assert pit_from_kvm(image) == (channels, legacy | speaker << 1)


@pytest.mark.parametrize("version", [VERSION, VERSION_CMCI])
@pytest.mark.parametrize("apic_base", [XAPIC, X2APIC])
@pytest.mark.parametrize("seed", SEEDS)
def test_lapic_through_kvms_layout_comes_back_equal(seed, apic_base, version):
    rng = random.Random(seed)
    vcpu_id = rng.randrange(1024)
    state = random_lapic(rng, apic_base, vcpu_id, lvts=(version >> 16) + 1)
    if apic_base & EXTD:
        state.icr2 = state.icr_high

    image = lapic_to_kvm(state, version=version)

    assert lapic_from_kvm(image, vcpu_id=vcpu_id, apic_base=apic_base) == state


@pytest.mark.parametrize(
    ("state", "offset", "value"),
    [
        (LapicState(id_reg=0x0500_0000), 0x20, "00000005"),
        (LapicState(id_reg=5, apic_base=X2APIC), 0x20, "00000005"),
        (LapicState(), 0x30, "14000500"),
        (LapicState(tpr=0x31), 0x80, "31000000"),
        (LapicState(ppr=0x42), 0xA0, "42000000"),
        (LapicState(spiv=0x1FF), 0xF0, "ff010000"),
        (LapicState(isr=1 << 33), 0x110, "02000000"),
        (LapicState(tmr=1 << 255), 0x1F0, "00000080"),
        (LapicState(irr=1 << 64), 0x220, "01000000"),
        (LapicState(icr=0xC08FE), 0x300, "fe080c00"),
        (LapicState(icr2=0x0100_0000), 0x310, "00000001"),
        (LapicState(lvt=[0x20000, 1, 2, 0x700, 4, 5, 6]), 0x320, "00000200"),
        (LapicState(lvt=[0, 1, 2, 0x700, 4, 5, 6]), 0x350, "00070000"),
        (LapicState(tmict=0x1234), 0x380, "34120000"),
        (LapicState(tdcr=0xB), 0x3E0, "0b000000"),
    ],
)
def test_lapic_register_lies_at_its_datasheet_offset(state, offset, value):
    raw = bytes(lapic_to_kvm(state, version=VERSION))

    assert raw[offset : offset + 16].hex() == value + "00" * 12


def test_lapic_without_cmci_has_nothing_at_its_lvt_register():
    raw = bytes(lapic_to_kvm(LapicState(), version=VERSION))

    assert raw[0x2F0:0x300] == bytes(16)


def test_lapic_with_cmci_has_its_lvt_register():
    raw = bytes(lapic_to_kvm(LapicState(), version=VERSION_CMCI))

    assert raw[0x2F0:0x300].hex() == "00000100" + "00" * 12


def test_lapic_current_count_shows_where_the_kernel_shows_it():
    raw = bytes(lapic_to_kvm(LapicState(), version=VERSION, current_count=0x55))

    assert raw[0x390] == 0x55
