"""KVM's state layouts and the chips' own states: conversion in both directions.

The chips know nothing of the kernel's structures; the structures know nothing of the chips.  Every
function takes one and returns the other, and nothing is shared between them.

What the kernel's layout does not carry is said at each function.
"""

from __future__ import annotations

import struct
from dataclasses import fields
from typing import Final

from userspace_chip import lapic as reg
from userspace_chip.ioapic import KvmIoapicImage
from userspace_chip.kvm import abi
from userspace_chip.lapic import Lapic, LapicState
from userspace_chip.lapic_timer import MASKED, KvmTimer, TimerState
from userspace_chip.pic import PicChipState
from userspace_chip.pit import PitChannelState
from userspace_chip.ports import Irqchip

IOAPIC_BASE_ADDRESS: Final = 0xFEC0_0000

_PIT_FIELDS: Final = tuple(
    field.name for field in fields(PitChannelState) if hasattr(abi.KvmPitChannelState, field.name)
)

_PIC_FIELDS: Final = tuple(
    field.name for field in fields(PicChipState) if hasattr(abi.KvmPicState, field.name)
)


def pic_to_kvm(chip: Irqchip, state: PicChipState) -> abi.KvmIrqchip:
    """One 8259 for ``KVM_SET_IRQCHIP``; QEMU's ``single_mode`` and ``ltim`` have no place in it."""
    image = abi.KvmIrqchip(chip_id=chip)
    for name in _PIC_FIELDS:
        setattr(image.chip.pic, name, getattr(state, name))
    return image


def pic_from_kvm(image: abi.KvmIrqchip) -> PicChipState:
    """One 8259 from ``KVM_GET_IRQCHIP``."""
    return PicChipState(**{name: getattr(image.chip.pic, name) for name in _PIC_FIELDS})


def ioapic_to_kvm(image: KvmIoapicImage) -> abi.KvmIrqchip:
    """The IOAPIC for ``KVM_SET_IRQCHIP``, at its usual base address.

    Lines, delivered edges, storm counters and the RTC's tracking do not travel.
    """
    out = abi.KvmIrqchip(chip_id=Irqchip.IOAPIC)
    ioapic = out.chip.ioapic
    ioapic.base_address = IOAPIC_BASE_ADDRESS
    ioapic.ioregsel, ioapic.id, ioapic.irr = image.ioregsel, image.id, image.irr
    ioapic.redirtbl[:] = list(image.rte)
    return out


def ioapic_from_kvm(image: abi.KvmIrqchip) -> KvmIoapicImage:
    """The IOAPIC from ``KVM_GET_IRQCHIP``."""
    ioapic = image.chip.ioapic
    return KvmIoapicImage(ioapic.ioregsel, ioapic.id, ioapic.irr, tuple(ioapic.redirtbl))


def pit_to_kvm(
    channels: list[PitChannelState], *, hpet_legacy: int = 0, speaker_data: int = 0
) -> abi.KvmPitState2:
    """The 8254 for ``KVM_SET_PIT2``: registers, and when each count was loaded.

    Pending reinjections do not travel.
    """
    out = abi.KvmPitState2()
    for target, channel in zip(out.channels, channels, strict=True):
        for name in _PIT_FIELDS:
            setattr(target, name, getattr(channel, name))
        target.count_load_time = channel.count_load_time_ns
    if hpet_legacy:
        out.flags |= abi.PitFlag.HPET_LEGACY
    if speaker_data:
        out.flags |= abi.PitFlag.SPEAKER_DATA_ON
    return out


def pit_from_kvm(image: abi.KvmPitState2) -> tuple[list[PitChannelState], abi.PitFlag]:
    """Channels and flags from ``KVM_GET_PIT2``."""
    channels = [
        PitChannelState(
            **{name: getattr(channel, name) for name in _PIT_FIELDS},
            count_load_time_ns=channel.count_load_time,
        )
        for channel in image.channels
    ]
    return channels, abi.PitFlag(image.flags)


# ---------------------------------------------------------------- local APIC

_SLOTS: Final = abi.LAPIC_REGISTERS_BYTES // 0x10
_PAGE: Final = struct.Struct("<" + "I12x" * _SLOTS)
"""A register is the first 4 bytes of its 16-byte slot."""

_LVT_SLOTS: Final = (*(reg.LVTT + 0x10 * place >> 4 for place in range(6)), reg.LVT_CMCI_REG >> 4)
_BITMAP_WORDS: Final = 8


def lapic_to_kvm(state: LapicState, *, version: int, current_count: int = 0) -> abi.KvmLapicState:
    """The register page as ``KVM_GET_LAPIC`` shows it (``kvm_apic_get_state``).

    ``version`` is the chip's version register, ``current_count`` its TMCCT.  What is no register
    does not travel: APIC base, the pending timer, the TSC deadline, KVM's caches.  In x2APIC mode
    the id is shifted into the xAPIC field, as long as 32-bit ids are not enabled.
    """
    page = [0] * _SLOTS
    page[reg.ID >> 4] = (state.id_reg << 24 if _x2apic(state) else state.id_reg) & 0xFFFF_FFFF
    page[reg.VERSION >> 4] = version
    page[reg.TPR >> 4] = state.tpr
    page[reg.PPR >> 4] = state.ppr
    page[reg.LDR >> 4] = state.ldr
    page[reg.DFR >> 4] = state.dfr
    page[reg.SPIV >> 4] = state.spiv
    page[reg.ESR >> 4] = state.esr
    page[reg.ICR >> 4] = state.icr
    page[reg.ICR2 >> 4] = state.icr2
    page[reg.TMICT >> 4] = state.tmict
    page[reg.TMCCT >> 4] = current_count
    page[reg.TDCR >> 4] = state.tdcr
    for first, bitmap in ((reg.ISR, state.isr), (reg.TMR, state.tmr), (reg.IRR, state.irr)):
        if bitmap:
            slot = first >> 4
            page[slot : slot + _BITMAP_WORDS] = struct.unpack("<8I", bitmap.to_bytes(32, "little"))
    for place in range((version >> 16 & 0xFF) + 1):
        page[_LVT_SLOTS[place]] = state.lvt[place]
    out = abi.KvmLapicState()
    _PAGE.pack_into(out, 0, *page)
    return out


def lapic_from_kvm(image: abi.KvmLapicState, *, vcpu_id: int, apic_base: int) -> LapicState:
    """The state that a register page describes.

    ``apic_base`` is IA32_APIC_BASE, which travels in ``kvm_sregs``; in x2APIC mode the page has
    no room for the id, which is ``vcpu_id``.  The timer is stopped: :func:`restore_lapic` starts
    it.
    """
    page = _PAGE.unpack(image)

    def bitmap(first: int) -> int:
        words = page[first >> 4 : (first >> 4) + _BITMAP_WORDS]
        return int.from_bytes(struct.pack("<8I", *words), "little")

    lvts = (page[reg.VERSION >> 4] >> 16 & 0xFF) + 1
    state = LapicState(
        apic_base=apic_base,
        id_reg=page[reg.ID >> 4],
        tpr=page[reg.TPR >> 4],
        ppr=page[reg.PPR >> 4],
        ldr=page[reg.LDR >> 4],
        dfr=page[reg.DFR >> 4],
        spiv=page[reg.SPIV >> 4],
        esr=page[reg.ESR >> 4],
        icr=page[reg.ICR >> 4],
        icr2=page[reg.ICR2 >> 4],
        isr=bitmap(reg.ISR),
        tmr=bitmap(reg.TMR),
        irr=bitmap(reg.IRR),
        lvt=[page[slot] if place < lvts else MASKED for place, slot in enumerate(_LVT_SLOTS)],
        tmict=page[reg.TMICT >> 4],
        tdcr=page[reg.TDCR >> 4],
        irr_pending=True,
    )
    if _x2apic(state):
        state.id_reg = vcpu_id
    return state


def restore_lapic(lapic: Lapic, image: abi.KvmLapicState, now_ns: int) -> None:
    """``KVM_SET_LAPIC``: load the page into a chip, recompute PPR, and start its timer anew.

    Linux ``arch/x86/kvm/lapic.c:kvm_apic_set_state``.  In x2APIC mode the LDR is the chip's own
    whatever the page says.
    """
    old = lapic.state
    state = lapic_from_kvm(image, vcpu_id=lapic.vcpu_id, apic_base=old.apic_base)
    if lapic.x2apic_mode:
        state.ldr = lapic.x2apic_ldr
    lapic.timer.stop()
    state.timer = TimerState(mode=old.timer.mode)
    lapic.load(state)
    lapic.update_ppr()
    if isinstance(lapic.timer, KvmTimer):
        lapic.timer.lvtt_written(now_ns)
        count = _PAGE.unpack(image)[reg.TMCCT >> 4]
        lapic.timer.start(now_ns, count)
    lapic.port.request()


def _x2apic(state: LapicState) -> bool:
    both = reg.ENABLE | reg.EXTD
    return state.apic_base & both == both
