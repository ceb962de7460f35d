"""The machine around KVM's chips in ``on``, against a VM that keeps what it is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from support.idle_vcpu import IdleVcpu
from userspace_chip.architecture import HPET_BASE, SPEAKER
from userspace_chip.kvm import abi, layout
from userspace_chip.kvm.devices.bus import Ports, Windows
from userspace_chip.kvm.on import OnIrqchip
from userspace_chip.messages import MsiMessage
from userspace_chip.ports import Irqchip
from userspace_chip.profile import profile
from userspace_chip.routing import qemu_pc

ENTRY_6 = 0x8051


class Vm:
    """The ioctls of a VM in on, by name; its chips are what they are set to."""

    def __init__(self):
        self.asked = []
        self.chips = {chip: abi.KvmIrqchip(chip_id=chip) for chip in Irqchip}
        self.pit = abi.KvmPitState2()

    def create_irqchip(self):
        self.asked.append("irqchip")

    def create_pit2(self):
        self.asked.append("pit")

    def set_pit_reinjection(self, enabled):
        self.reinjects = enabled

    def set_gsi_routing(self, routes):
        self.asked.append("routes")
        self.routes = tuple(routes)

    def irq_line_status(self, gsi, level):
        self.asked.append((gsi, level))
        return 1

    def signal_msi(self, message):
        self.asked.append(message)
        return 1

    def get_irqchip(self, chip):
        return abi.KvmIrqchip.from_buffer_copy(self.chips[chip])

    def set_irqchip(self, image):
        self.chips[Irqchip(image.chip_id)] = image

    def get_pit2(self):
        return abi.KvmPitState2.from_buffer_copy(self.pit)

    def set_pit2(self, image):
        self.asked.append("pit set")
        self.pit = image


@pytest.fixture
def board():
    vm, vcpu = Vm(), IdleVcpu()
    irqchip = OnIrqchip(vm, profile("on", qemu="7.2"))
    ports, windows = Ports(), Windows()
    irqchip.connect(ports, windows)
    irqchip.add_cpu(vcpu)
    return SimpleNamespace(vm=vm, vcpu=vcpu, irqchip=irqchip, ports=ports, windows=windows)


def shown_after_exit(board):
    board.irqchip.after_run(0)
    return [event.text for event in board.irqchip.chips.log.take()]


def test_kvms_chips_are_made_and_left_as_firmware_leaves_them(board):
    master = layout.pic_from_kvm(board.vm.chips[Irqchip.PIC_MASTER])
    channels, _ = layout.pit_from_kvm(board.vm.pit)

    # What ticks goes by QEMU's routes from the first tick on.
    assert board.vm.asked == ["irqchip", "pit", "routes", "pit set"]
    assert (master.imr, master.irq_base) == (0xB8, 8)
    assert (channels[0].mode, channels[0].count) == (2, 0x10000)
    assert (board.vm.reinjects, board.vm.routes) == (True, qemu_pc().routes)


def test_isa_line_goes_to_kvm_once_for_each_of_qemus_chips_and_says_what_became_of_it(board):
    board.vm.asked.clear()

    results = [board.irqchip.chips.set_gsi(gsi, 1) for gsi in (4, 20)]

    assert board.vm.asked == [(4, True), (4, True), (20, True)]
    assert results == [2, 1]


def test_message_of_a_device_goes_to_kvm(board):
    board.irqchip.signal_msi(0xFEE00000, 0x61, 0)

    assert board.vm.asked[-1] == MsiMessage(0xFEE00000, 0x61)


def test_speaker_port_moves_the_gate_of_kvms_channel_2_and_shows_its_output(board):
    board.ports.write(0, SPEAKER, 1, 3)

    assert board.vm.pit.channels[2].gate == 1
    assert board.ports.read(0, SPEAKER, 1) & 3 == 3


def test_access_that_reaches_beyond_the_pics_ports_finds_a_region_without_operations(board):
    board.ports.write(0, 0x21, 2, 0xFFFF)

    assert board.ports.read(0, 0x21, 2) == 0xFF00
    assert layout.pic_from_kvm(board.vm.chips[Irqchip.PIC_MASTER]).imr == 0xB8


def test_hpet_in_legacy_mode_takes_channel_0_from_kvms_pit(board):
    hpet = board.windows.at(HPET_BASE)

    hpet.write(0, HPET_BASE + 0x10, 4, 3)
    taken = abi.PitFlag(board.vm.pit.flags)
    hpet.write(0, HPET_BASE + 0x10, 4, 0)

    assert abi.PitFlag.HPET_LEGACY in taken
    assert abi.PitFlag.HPET_LEGACY not in abi.PitFlag(board.vm.pit.flags)


def test_info_pic_is_that_of_kvms_chips(board):
    board.vm.chips[Irqchip.IOAPIC].chip.ioapic.redirtbl[6] = ENTRY_6

    found = board.irqchip.info_pic()

    assert [state.rte[6] for _, state in found.ioapics] == [ENTRY_6]
    assert [found.pics[number].imr for number in (0, 1)] == [0xB8, 0x8E]


def test_exit_shows_what_has_changed_of_kvms_chips_where_events_are_wanted(board):
    before = shown_after_exit(board)
    board.irqchip.chips.log.enable(True)

    first = shown_after_exit(board)
    board.vm.chips[Irqchip.IOAPIC].chip.ioapic.redirtbl[6] = ENTRY_6
    second, third = shown_after_exit(board), shown_after_exit(board)

    assert before == []
    assert "pic0.IMR=0xb8" in first[0]
    assert (second, third) == (["cpu 0, changed: ioapic0.IOREDTBL6=0x8051"], ["cpu 0, changed: "])


def test_access_of_tpr_puts_cr8_back_and_other_exits_are_none_of_the_mode(board):
    assert board.irqchip.handle(0, abi.ExitReason.TPR_ACCESS)
    assert (board.vcpu.sregs.cr8, board.vcpu.regs.rip) == (2, 0x1234)
    assert not board.irqchip.handle(0, abi.ExitReason.IOAPIC_EOI)
