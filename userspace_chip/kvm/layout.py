"""KVM's state layouts and the chips' own states: conversion in both directions.

The chips know nothing of the kernel's structures; the structures know nothing of the chips.  Every
function takes one and returns the other, and nothing is shared between them.

What the kernel's layout does not carry is said at each function.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from userspace_chip.ioapic import KvmIoapicImage
from userspace_chip.kvm import abi
from userspace_chip.pic import PicChipState
from userspace_chip.ports import Irqchip

IOAPIC_BASE_ADDRESS: Final = 0xFEC0_0000

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
