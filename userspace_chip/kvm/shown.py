"""Registers of the chips by their names, as KVM_GET_IRQCHIP and KVM_GET_LAPIC show them.

Both sides of a comparison come from KVM's layout: what KVM showed, and what the chips' own state is
there.  Left out are what runs (the timer's current count) and what KVM only computes when it next
looks for an interrupt (PPR).

Sources: SDM volume 3A, table "Local APIC Register Address Map"; 82093AA, "Register Description";
Linux ``arch/x86/include/uapi/asm/kvm.h`` for what an 8259 remembers without a register.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from userspace_chip import lapic_registers as reg
from userspace_chip.architecture import IOAPIC_PINS
from userspace_chip.errors import EventError
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import abi, layout
from userspace_chip.ports import Irqchip

Registers: TypeAlias = dict[str, int]
"""By name: ``TPR``, ``IOREDTBL6``, ``IMR``."""

_WORD: Final = struct.Struct("<I")
_LAPIC: Final[Mapping[str, int]] = {
    "ID": reg.ID,
    "TPR": reg.TPR,
    "LDR": reg.LDR,
    "DFR": reg.DFR,
    "SPIV": reg.SPIV,
    "ESR": reg.ESR,
    "ICR": reg.ICR,
    "ICR2": reg.ICR2,
    **dict(zip(reg.LVT_NAMES, reg.LVT_OFFSETS, strict=True)),
    "TMICT": reg.TMICT,
    "TDCR": reg.TDCR,
}
_BITMAPS: Final[Mapping[str, int]] = {"ISR": reg.ISR, "TMR": reg.TMR, "IRR": reg.IRR}
_BITMAP_WORDS: Final = 8
_PIC: Final[Mapping[str, str]] = {
    "IRR": "irr",
    "IMR": "imr",
    "ISR": "isr",
    "ELCR": "elcr",
    **{
        name: name
        for name in (
            *("last_irr", "priority_add", "irq_base", "read_reg_select", "poll", "special_mask"),
            *("init_state", "auto_eoi", "rotate_on_auto_eoi", "special_fully_nested_mode", "init4"),
        )
    },
}


CHIPS: Final[Mapping[Irqchip, str]] = {
    Irqchip.PIC_MASTER: "pic0",
    Irqchip.PIC_SLAVE: "pic1",
    Irqchip.IOAPIC: "ioapic0",
}
"""What the chips are called that all CPUs share; a local APIC is ``lapicN``."""
_ENTRIES: Final = tuple(f"IOREDTBL{pin}" for pin in range(IOAPIC_PINS))
_SHOWN: Final = re.compile(r"(lapic\d{1,3}|ioapic0|pic[01])\.(\w+)=0x([0-9a-f]{1,64})")


def of_lapic(page: abi.KvmLapicState) -> Registers:
    """Those of a local APIC."""
    found = {name: _WORD.unpack_from(page, offset)[0] for name, offset in _LAPIC.items()}
    for name, first in _BITMAPS.items():
        words = [_WORD.unpack_from(page, first + 0x10 * index)[0] for index in range(_BITMAP_WORDS)]
        found[name] = sum(word << 32 * index for index, word in enumerate(words))
    return found


def of_irqchip(image: abi.KvmIrqchip) -> Registers:
    """Those of the IOAPIC, or of one 8259."""
    if image.chip_id == Irqchip.IOAPIC:
        ioapic = image.chip.ioapic
        found = {"IOREGSEL": ioapic.ioregsel, "IOAPICID": ioapic.id, "IRR": ioapic.irr}
        return found | dict(zip(_ENTRIES, ioapic.redirtbl, strict=True))
    pic = image.chip.pic
    return {name: getattr(pic, field) for name, field in _PIC.items()}


def of_chip(machine: Machine, chip: str) -> Registers:
    """The same of a chip of a machine that is modelled after KVM: ``lapic1``, ``ioapic0``."""
    if chip.startswith("lapic"):
        return of_lapic(layout.lapic_page(machine, int(chip[5:])))
    if chip == "ioapic0":
        return of_irqchip(layout.ioapic_to_kvm(machine.ioapics[0].get_irqchip()))
    pic = Irqchip(int(chip[3:]))
    return of_irqchip(layout.pic_to_kvm(pic, machine.pic.state.chips[pic]))


class Changes:
    """What has changed since the chips were last shown, as the text of an event."""

    def __init__(self) -> None:
        self._images: dict[str, bytes] = {}
        self._registers: dict[str, Registers] = {}

    def of(self, cpu: int, page: abi.KvmLapicState, irqchips: Iterable[abi.KvmIrqchip]) -> str:
        """``chip.NAME=value`` of each register that has another value; at first all were 0."""
        words: list[str] = []
        if self._is_new(chip := f"lapic{cpu}", bytes(page)):
            words += self._changed(chip, of_lapic(page))
        for image in irqchips:
            if self._is_new(chip := CHIPS[Irqchip(image.chip_id)], bytes(image)):
                words += self._changed(chip, of_irqchip(image))
        return " ".join(words)

    def _is_new(self, chip: str, image: bytes) -> bool:
        """Whether a chip's image is another one; to look at its registers takes far longer."""
        is_new = self._images.get(chip) != image
        self._images[chip] = image
        return is_new

    def _changed(self, chip: str, found: Registers) -> list[str]:
        before = self._registers.get(chip, {})
        self._registers[chip] = found
        return [
            f"{chip}.{name}={value:#x}"
            for name, value in found.items()
            if before.get(name, 0) != value
        ]


def parse(text: str) -> dict[str, Registers]:
    """By chip, what :meth:`Changes.of` wrote; :class:`EventError` for anything else."""
    found: dict[str, Registers] = {}
    for word in text.split():
        match = _SHOWN.fullmatch(word)
        if match is None:
            raise EventError(f"kvm_chips: {word[:100]!r}", "expected chip.NAME=0x...")
        found.setdefault(match[1], {})[match[2]] = int(match[3], 16)
    return found
