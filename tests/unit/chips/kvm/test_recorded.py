"""States recorded from a kernel load into the chips, and print back the same."""

import json

import pytest

from support import golden
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import abi
from userspace_chip.kvm.layout import (
    ioapic_to_kvm,
    lapic_to_kvm,
    pic_to_kvm,
    pit_from_kvm,
    pit_to_kvm,
    restore_irqchip,
    restore_lapic,
)
from userspace_chip.lapic_registers import ESR, IRR, ISR, TMR
from userspace_chip.ports import Irqchip
from userspace_chip.profile import profile

RECORDED = golden.TESTS / "golden" / "kvm" / "states.json"
MACHINES = json.loads(RECORDED.read_text())["machines"]
ON = [recorded for recorded in MACHINES if recorded["mode"] == "on"]


def loaded(recorded):
    """A machine with the recorded register pages."""
    machine = Machine(profile(recorded["mode"], linux="6.18"), len(recorded["vcpus"]), log=False)
    for cpu, vcpu in enumerate(recorded["vcpus"]):
        assert machine.lapics[cpu].set_apic_base(vcpu["apic_base"], host=True)
        image = abi.KvmLapicState.from_buffer_copy(bytes.fromhex(vcpu["lapic"]))
        restore_lapic(machine, cpu, image)
    return machine


def page(machine, cpu):
    """The register page of a CPU that has looked for interrupts once, as the recorded ones had."""
    lapic = machine.lapics[cpu]
    lapic.update_ppr()
    count = lapic.timer.current_count(machine.now_ns)
    return bytes(lapic_to_kvm(lapic.state, version=lapic.version, current_count=count))


def irqchip(recorded, name):
    return abi.KvmIrqchip.from_buffer_copy(bytes.fromhex(recorded[name]))


@pytest.mark.parametrize("recorded", MACHINES, ids=lambda recorded: recorded["name"])
def test_recorded_lapic_loaded_prints_back_the_same(recorded):
    machine = loaded(recorded)

    pages = [page(machine, cpu) for cpu in range(len(recorded["vcpus"]))]

    assert pages == [bytes.fromhex(vcpu["lapic"]) for vcpu in recorded["vcpus"]]


@pytest.mark.parametrize("name", ["pic_master", "pic_slave"])
@pytest.mark.parametrize("recorded", ON, ids=lambda recorded: recorded["name"])
def test_recorded_pic_loaded_prints_back_the_same(recorded, name):
    machine = Machine(profile("on", linux="6.18"), log=False)
    chip = Irqchip[name.upper()]

    restore_irqchip(machine, irqchip(recorded, name))

    assert bytes(pic_to_kvm(chip, machine.pic.state.chips[chip])).hex() == recorded[name]


@pytest.mark.parametrize("recorded", ON, ids=lambda recorded: recorded["name"])
def test_recorded_ioapic_converted_and_back_is_the_same(recorded):
    image = irqchip(recorded, "ioapic")
    machine = Machine(profile("on", linux="6.18"), log=False)

    restore_irqchip(machine, image)

    back = bytes(ioapic_to_kvm(machine.ioapics[0].get_irqchip()))
    assert back.hex() == recorded["ioapic"]


@pytest.mark.parametrize("recorded", ON, ids=lambda recorded: recorded["name"])
def test_recorded_pit_converted_and_back_is_the_same(recorded):
    image = abi.KvmPitState2.from_buffer_copy(bytes.fromhex(recorded["pit"]))

    channels, flags = pit_from_kvm(image)

    assert flags == 0
    assert bytes(pit_to_kvm(channels)).hex() == recorded["pit"]


def test_recorded_pages_are_of_machines_with_interrupts_waiting_and_in_service():
    pages = [bytes.fromhex(vcpu["lapic"]) for m in MACHINES for vcpu in m["vcpus"]]

    assert any(any(page[ISR:TMR]) for page in pages)
    assert any(any(page[IRR:ESR]) for page in pages)
