"""KVM's state layouts and the chips' own states: conversion in both directions.

The chips know nothing of the kernel's structures; the structures know nothing of the chips.  Every
function takes one and returns the other, and nothing is shared between them.

Each function's docstring names what the kernel's layout does not carry.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

from userspace_chip import lapic_registers as reg
from userspace_chip.architecture import IOAPIC_BASES
from userspace_chip.errors import StateError
from userspace_chip.ioapic import KvmIoapicImage
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import abi
from userspace_chip.lapic_registers import MASKED, x2apic_ldr
from userspace_chip.lapic_state import LapicState
from userspace_chip.lapic_timer import KvmTimer
from userspace_chip.pic import PicChipState
from userspace_chip.pit import PitChannelState
from userspace_chip.ports import Irqchip
from userspace_chip.vcpu import VcpuState

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
    ioapic.base_address = IOAPIC_BASES[0]
    ioapic.ioregsel, ioapic.id, ioapic.irr = image.ioregsel, image.id, image.irr
    ioapic.redirtbl[:] = list(image.rte)
    return out


def ioapic_from_kvm(image: abi.KvmIrqchip) -> KvmIoapicImage:
    """The IOAPIC from ``KVM_GET_IRQCHIP``."""
    ioapic = image.chip.ioapic
    return KvmIoapicImage(ioapic.ioregsel, ioapic.id, ioapic.irr, tuple(ioapic.redirtbl))


def restore_irqchip(machine: Machine, image: abi.KvmIrqchip) -> None:
    """``KVM_SET_IRQCHIP`` on a machine whose chips are in the kernel.

    Linux ``arch/x86/kvm/x86.c:kvm_vm_ioctl_set_irqchip``; the IOAPIC's makes every CPU rebuild
    its EOI exit bitmap.
    """
    if image.chip_id == Irqchip.IOAPIC:
        machine.ioapics[0].set_irqchip(ioapic_from_kvm(image))
        machine.request_scan()
    else:
        machine.pic.set_irqchip(Irqchip(image.chip_id), pic_from_kvm(image))


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

_WORD: Final = struct.Struct("<I")
_ICR_HIGH: Final = reg.ICR + 4
"""In x2APIC mode KVM's ICR is one 64-bit register; it shows the upper half in ICR2 as well."""

_LVT_SLOTS: Final = tuple(offset >> 4 for offset in (*reg.LVT_OFFSETS, reg.LVT_CMCI_REG))
_BITMAP_WORDS: Final = 8


def lapic_to_kvm(
    state: LapicState,
    *,
    version: int,
    current_count: int = 0,
    ids_32bit: bool = False,
    icr_split: bool = False,
) -> abi.KvmLapicState:
    """The register page as ``KVM_GET_LAPIC`` shows it (``kvm_apic_get_state``).

    ``version`` is the chip's version register, ``current_count`` its TMCCT.  What is no register
    does not travel: APIC base, the pending timer, the TSC deadline, KVM's caches.  In x2APIC mode
    the id is shifted into the xAPIC field, unless ``ids_32bit`` are enabled, and ICR2 shows the
    upper half of ICR, which is a register of its own unless ``icr_split`` (SVM).
    """
    x2apic = _x2apic(state)
    shifted = x2apic and not ids_32bit
    page = [0] * _SLOTS
    page[reg.ID >> 4] = (state.id_reg << 24 if shifted else state.id_reg) & 0xFFFF_FFFF
    page[reg.VERSION >> 4] = version
    page[reg.TPR >> 4] = state.tpr
    page[reg.PPR >> 4] = state.ppr
    page[reg.LDR >> 4] = state.ldr
    page[reg.DFR >> 4] = state.dfr
    page[reg.SPIV >> 4] = state.spiv
    page[reg.ESR >> 4] = state.esr
    page[reg.ICR >> 4] = state.icr
    page[reg.ICR2 >> 4] = state.icr_high if x2apic and not icr_split else state.icr2
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
    _WORD.pack_into(out, _ICR_HIGH, state.icr_high)
    return out


def lapic_from_kvm(
    image: abi.KvmLapicState, *, vcpu_id: int, apic_base: int, icr_split: bool = False
) -> LapicState:
    """The state that a register page describes.

    ``apic_base`` is IA32_APIC_BASE, which travels in ``kvm_sregs``; in x2APIC mode the page has
    no room for the id, which is ``vcpu_id``.  ``icr_split``: see :func:`lapic_to_kvm`.  The timer
    is stopped: :func:`restore_lapic` starts it.
    """
    page = _PAGE.unpack(image)

    def bitmap(first: int) -> int:
        words = page[first >> 4 : (first >> 4) + _BITMAP_WORDS]
        return int.from_bytes(struct.pack("<8I", *words), "little")

    has_cmci = page[reg.VERSION >> 4] >> 16 & 0xFF >= reg.LVT_CMCI
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
        icr_high=_WORD.unpack_from(image, _ICR_HIGH)[0],
        isr=bitmap(reg.ISR),
        tmr=bitmap(reg.TMR),
        irr=bitmap(reg.IRR),
        lvt=[
            *(page[slot] for slot in _LVT_SLOTS[:-1]),
            page[_LVT_SLOTS[-1]] if has_cmci else MASKED,
        ],
        tmict=page[reg.TMICT >> 4],
        tdcr=page[reg.TDCR >> 4],
        irr_pending=True,
    )
    if _x2apic(state):
        state.id_reg = vcpu_id
        if not icr_split:
            state.icr_high = state.icr2
    return state


def restore_lapic(machine: Machine, cpu: int, image: abi.KvmLapicState) -> None:
    """``KVM_SET_LAPIC`` on a machine's CPU: load the page and start its timer anew.

    Linux ``arch/x86/kvm/lapic.c:kvm_apic_set_state``.  In x2APIC mode id and LDR are the CPU's own
    whatever the page says (6.1: the page's id and its LDR); with 32-bit ids another id is refused
    (EINVAL): :class:`~userspace_chip.errors.StateError`.
    """
    lapic = machine.lapics[cpu]
    timer, old = lapic.timer, lapic.state
    state = lapic_from_kvm(
        image,
        vcpu_id=cpu,
        apic_base=old.apic_base,
        icr_split=machine.profile.lapic.x2apic_icr_split,
    )
    if lapic.x2apic_mode:
        page_id = _PAGE.unpack(image)[reg.ID >> 4]
        if machine.profile.delivery.ids_32bit:
            if page_id != cpu:
                lapic.state.spiv = state.spiv  # KVM stores it before it looks at the id
                machine.recalculate_bus()
                raise StateError(f"local APIC {cpu}", f"id {page_id:#x} in x2APIC mode")
        elif machine.profile.lapic.x2apic_id_loaded:
            state.id_reg = page_id >> 24
        state.ldr = x2apic_ldr(state.id_reg)
    timer.stop()
    state.timer = old.timer
    lapic.load(state)
    lapic.state.ppr = _ppr_after_load(old, state)
    if isinstance(timer, KvmTimer):
        timer.lvtt_written(machine.now_ns)
        timer.start(machine.now_ns, _PAGE.unpack(image)[reg.TMCCT >> 4])
    lapic.port.request()
    if machine.on:
        machine.ioapics[0].lapic_restored(cpu)


def lapic_page(machine: Machine, cpu: int) -> abi.KvmLapicState:
    """The page of a CPU's local APIC in a machine modelled after KVM; its timer's count is 0."""
    lapic, knobs = machine.lapics[cpu], machine.profile
    return lapic_to_kvm(
        lapic.state,
        version=lapic.version,
        ids_32bit=knobs.delivery.ids_32bit,
        icr_split=knobs.lapic.x2apic_icr_split,
    )


def move(machine: Machine, copied: Sequence[VcpuState] | None = None) -> None:
    """The machine goes on in another QEMU, which gives its local APICs to KVM (KVM_SET_LAPIC).

    ``copied``: the CPUs when QEMU last asked KVM about them, where it has not let them run since.
    It asks before it injects an NMI, does not ask again, and saves the answer: NMIs that came later
    are lost (7.2 and 10.0 ``hw/i386/kvm/apic.c``: do_inject_external_nmi, ``accel/kvm/kvm-all.c``:
    kvm_cpu_synchronize_state).

    QEMU gives no current count (7.2 and 10.0 ``hw/i386/kvm/apic.c``: kvm_put_apic_state), so KVM
    takes a one-shot timer for due, also one that expired long ago, and begins a period anew (Linux
    6.1 and 6.12 ``lapic.c``: set_target_expiration).  QEMU's own chips carry all of their state
    with them.
    """
    if not machine.profile.kvm_lapic:
        return
    for cpu in range(len(machine.lapics)):
        restore_lapic(machine, cpu, lapic_page(machine, cpu))
    for vcpu, before in zip(machine.vcpus, copied or (), strict=bool(copied)):
        vcpu.state.nmi_queued = before.nmi_queued
        vcpu.state.nmi_pending = before.nmi_pending


def _ppr_after_load(old: LapicState, new: LapicState) -> int:
    """PPR of the new page as KVM first computes it: by what it still remembers of the old ISR.

    ``apic_update_ppr`` comes before ``kvm_apic_update_apicv``, which counts the new ISR and forgets
    the cached vector.  The next look for an interrupt corrects it.
    """
    in_service = new.isr.bit_length() - 1 if old.isr and new.isr else 0
    if old.isr and old.isr_cache is not None:
        in_service = old.isr_cache
    return new.tpr if new.tpr & 0xF0 >= in_service & 0xF0 else in_service & 0xF0


def _x2apic(state: LapicState) -> bool:
    both = reg.ENABLE | reg.EXTD
    return state.apic_base & both == both
