"""Registers by their names, of KVM's layouts and of a machine's chips, and as an event's text."""

from __future__ import annotations

import pytest

from userspace_chip.errors import EventError
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import abi, shown
from userspace_chip.ports import Irqchip
from userspace_chip.profile import profile

ENTRY_6 = 0x8051


def test_registers_shown_of_a_machine_are_those_of_kvms_layout():
    machine = Machine(profile("on"), 1, log=False)
    machine.lapics[0].state.irr = 1 << 0x51 | 1 << 0xF0
    machine.ioapics[0].state.rte[6] = ENTRY_6

    assert shown.of_chip(machine, "lapic0")["IRR"] == 1 << 0x51 | 1 << 0xF0
    assert shown.of_chip(machine, "ioapic0")["IOREDTBL6"] == ENTRY_6
    assert shown.of_chip(machine, "pic1")["IMR"] == machine.pic.state.chips[1].imr


def images():
    return [abi.KvmIrqchip(chip_id=chip) for chip in Irqchip]


def test_what_has_changed_is_read_as_it_was_written():
    changes, page, chips = shown.Changes(), abi.KvmLapicState(), images()
    chips[Irqchip.PIC_SLAVE].chip.pic.elcr = 0x0C
    chips[Irqchip.IOAPIC].chip.ioapic.redirtbl[23] = 1 << 63

    first = shown.parse(changes.of(3, page, chips))
    chips[Irqchip.PIC_SLAVE].chip.pic.elcr = 0
    second = shown.parse(changes.of(3, page, chips))

    assert first == {"pic1": {"ELCR": 0x0C}, "ioapic0": {"IOREDTBL23": 1 << 63}}
    assert second == {"pic1": {"ELCR": 0}}


def test_each_local_apic_has_its_own_changes():
    changes, page = shown.Changes(), abi.KvmLapicState()
    page.regs[0x80] = 0x20

    texts = [changes.of(cpu, page, images()) for cpu in (0, 1, 0)]

    assert texts == ["lapic0.TPR=0x20", "lapic1.TPR=0x20", ""]


@pytest.mark.parametrize("text", ["TPR=0x20", "lapic0.TPR", "lapic0.TPR=20", "hpet0.ID=0x1"])
def test_text_that_shows_no_registers_is_refused(text):
    with pytest.raises(EventError, match="expected chip"):
        shown.parse(text)
