"""The chips of ``split`` against a VM that keeps what it is asked for."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import pytest

from support.idle_vcpu import IdleVcpu
from userspace_chip import lapic_registers as reg
from userspace_chip.architecture import HPET_BASE, IOAPIC_BASES, IOREDTBL
from userspace_chip.kvm import abi
from userspace_chip.kvm.devices.bus import Ports, Windows
from userspace_chip.kvm.split import SplitIrqchip
from userspace_chip.messages import MsiMessage
from userspace_chip.profile import profile
from userspace_chip.routing import MsiRoute

PIN, VECTOR, LEVEL = 20, 0x41, 1 << 15


class Vm:
    """The ioctls of a VM in split, by name."""

    def __init__(self):
        self.asked = []
        self.routes = ()

    def enable_split_irqchip(self, routes):
        self.asked.append(("split", routes))

    def set_gsi_routing(self, routes):
        self.routes = tuple(routes)

    def irq_line(self, gsi, level):
        self.asked.append(("line", gsi, level))

    def signal_msi(self, message):
        self.asked.append(("msi", message))
        return 1


class Vcpu(IdleVcpu):
    """It keeps what was injected, too."""

    def __init__(self):
        super().__init__()
        self.kvm_run = abi.KvmRun()
        self.interrupts = []

    def interrupt(self, vector):
        self.interrupts.append(vector)

    def nmi(self):
        self.interrupts.append("nmi")


@pytest.fixture(params=["route", "msi"])
def delivery(request):
    return request.param


@pytest.fixture
def board(delivery):
    """The mode with its buses, CPU 0, and whom it kicked."""
    vm, vcpu, kicked = Vm(), Vcpu(), []
    irqchip = SplitIrqchip(vm, profile("split", qemu="7.2"), kicked.append, delivery)
    ports, windows = Ports(), Windows()
    irqchip.connect(ports, windows)
    irqchip.add_cpu(vcpu)
    vm.asked.clear()
    return SimpleNamespace(
        vm=vm, vcpu=vcpu, kicked=kicked, irqchip=irqchip, ports=ports, windows=windows
    )


def write_entry(board, pin, low):
    device = board.windows.at(IOAPIC_BASES[0])
    for index, value in ((1, 0), (0, low)):
        device.write(0, IOAPIC_BASES[0], 4, IOREDTBL + 2 * pin + index)
        device.write(0, IOAPIC_BASES[0] + 0x10, 4, value)


def test_entry_written_becomes_the_route_of_its_pin(board):
    write_entry(board, PIN, VECTOR | LEVEL)

    route = next(route for route in board.vm.routes if route.gsi == PIN)
    assert route == MsiRoute(PIN, MsiMessage(0xFEE00000, 0x8041))
    assert len(board.vm.routes) == 24


def test_edge_raised_is_delivered_the_way_that_was_chosen(board, delivery):
    write_entry(board, PIN, VECTOR)

    board.irqchip.chips.set_gsi(PIN, 1)

    by_route = [("line", PIN, True), ("line", PIN, False)]
    by_msi = [("msi", MsiMessage(0xFEE00000, VECTOR))]
    assert board.vm.asked == {"route": by_route, "msi": by_msi}[delivery]


def test_level_held_is_delivered_again_after_its_eoi_exit(board):
    write_entry(board, PIN, VECTOR | LEVEL)
    board.irqchip.chips.set_gsi(PIN, 1)
    first = list(board.vm.asked)
    board.vcpu.kvm_run.exit.eoi.vector = VECTOR

    handled = board.irqchip.handle(0, abi.ExitReason.IOAPIC_EOI)

    assert handled
    assert board.vm.asked == first * 2


def test_pic_interrupt_waits_for_a_window_and_is_then_injected(board):
    board.ports.write(0, 0x21, 1, 0)  # all unmasked, vectors from 8 as the firmware left them
    board.irqchip.chips.set_gsi(5, 1)
    run = board.vcpu.kvm_run

    board.irqchip.before_run(0)
    waiting = (run.request_interrupt_window, board.vcpu.interrupts[:])
    run.ready_for_interrupt_injection = run.if_flag = 1
    board.irqchip.before_run(0)

    assert (waiting, board.kicked[:1]) == ((1, []), [0])
    assert (run.request_interrupt_window, board.vcpu.interrupts) == (0, [0x0D])


def test_store_into_the_apics_window_is_a_message(board):
    board.windows.at(0xFEE01000).write(0, 0xFEE01000, 4, 0x61)

    assert board.vm.asked == [("msi", MsiMessage(0x1000, 0x61))]


def test_exit_of_another_kind_is_none_of_the_mode(board):
    assert not board.irqchip.handle(0, abi.ExitReason.HLT)


def test_events_are_those_that_qemu_would_trace(board):
    board.irqchip.chips.log.enable(True)
    write_entry(board, PIN, VECTOR)
    board.irqchip.chips.log.take()

    board.irqchip.chips.set_gsi(PIN, 1)

    events = board.irqchip.chips.log.take()
    assert [(event.source, event.name) for event in events] == [
        ("qemu", "x86_gsi_interrupt"),
        ("qemu", "ioapic_set_irq"),
    ]


def test_monitors_nmi_goes_by_lint1_where_it_is_open_and_in_nmi_mode(board):
    board.irqchip.external_nmi(0)
    assert board.vcpu.interrupts == ["nmi"]

    struct.pack_into("<I", board.vcpu.lapic, reg.LVT_OFFSETS[reg.LVT_LINT1], 0x10400)
    board.irqchip.external_nmi(0)

    assert board.vcpu.interrupts == ["nmi"]


def test_hpet_and_rtc_answer_and_their_timers_raise_lines(board):
    hpet = board.windows.at(HPET_BASE)
    write_entry(board, 20, VECTOR)
    pin_20 = 20 << 9 | 1 << 2  # timer 0: route 20, interrupts on
    hpet.write(0, HPET_BASE + 0x100, 8, pin_20)
    hpet.write(0, HPET_BASE + 0x108, 8, 1000)
    hpet.write(0, HPET_BASE + 0x10, 8, 1)
    board.vm.asked.clear()

    board.irqchip.chips.advance(1_000_000)

    assert hpet.read(0, HPET_BASE, 8) >> 32 == 10_000_000
    assert delivered(board)
    board.ports.write(0, 0x70, 1, 0x0D)
    assert board.ports.read(0, 0x71, 1) == 0x80


def delivered(board):
    return [asked for asked in board.vm.asked if asked[0] in ("line", "msi")]


def test_accesses_of_tpr_are_exits_after_which_cr8_is_put_back(board):
    assert board.vcpu.reports_tpr
    assert board.irqchip.handle(0, abi.ExitReason.TPR_ACCESS)
    assert (board.vcpu.sregs.cr8, board.vcpu.regs.rip) == (2, 0x1234)
