"""The chips of ``off`` and vCPUs that keep what they are asked for."""

from __future__ import annotations

import pytest

from userspace_chip.info_lapic import parse_lapic
from userspace_chip.kvm import abi
from userspace_chip.kvm.devices.bus import Ports, Windows
from userspace_chip.kvm.local_msrs import off_profile
from userspace_chip.kvm.off import OffIrqchip

APIC = 0xFEE00000
ICR, ICR2 = 0x300, 0x310
INIT, SIPI, NMI, SMI, FIXED = 0x4500, 0x4600, 0x4400, 0x4200, 0x4000
TO_CPU_1 = 1 << 24
RESET_RIP = 0xFFF0


class Vcpu:
    """A vCPU that is entered by nobody; its registers are those of a RESET."""

    def __init__(self, index):
        self.index = index
        self.kvm_run = abi.KvmRun(apic_base=0xFEE00800 | (0 if index else 0x100))
        self.regs = abi.KvmRegs(rip=RESET_RIP)
        self.sregs = abi.KvmSregs()
        self.given = []

    def get_regs(self):
        return abi.KvmRegs.from_buffer_copy(self.regs)

    def get_sregs(self):
        return abi.KvmSregs.from_buffer_copy(self.sregs)

    def set_regs(self, regs):
        self.regs = abi.KvmRegs.from_buffer_copy(regs)

    def set_sregs(self, sregs):
        self.sregs = abi.KvmSregs.from_buffer_copy(sregs)

    def set_events(self, events):
        self.given.append("events")

    def finish_exit(self):
        self.given.append("finish")

    def interrupt(self, vector):
        self.given.append(vector)

    def nmi(self):
        self.given.append("nmi")

    def smi(self):
        self.given.append("smi")


class Board:
    """Two CPUs in ``off``."""

    def __init__(self):
        self.kicked = []
        self.irqchip = OffIrqchip(off_profile(), 2, self.kicked.append)
        self.windows = Windows()
        self.irqchip.connect(Ports(), self.windows)
        self.cpus = [Vcpu(index) for index in range(2)]
        for cpu in self.cpus:
            self.irqchip.add_cpu(cpu)
            cpu.kvm_run.ready_for_interrupt_injection = cpu.kvm_run.if_flag = 1

    def store(self, cpu, register, value):
        self.windows.at(APIC).write(cpu, APIC + register, 4, value)

    def load(self, cpu, register):
        return self.windows.at(APIC).read(cpu, APIC + register, 4)

    def ipi(self, icr):
        self.store(0, ICR2, TO_CPU_1)
        self.store(0, ICR, icr)

    def started(self):
        self.ipi(INIT)
        self.irqchip.before_run(1)
        self.ipi(SIPI | 0x10)
        assert self.irqchip.before_run(1)
        self.cpus[1].given.clear()
        self.store(1, 0xF0, 0x1FF)


@pytest.fixture
def board():
    return Board()


def test_second_cpu_sleeps_until_init_and_sipi_name_its_page(board):
    asleep = [board.irqchip.before_run(1)]
    board.ipi(INIT)
    asleep.append(board.irqchip.before_run(1))
    board.ipi(SIPI | 0x5A)
    runs = board.irqchip.before_run(1)

    cpu = board.cpus[1]
    assert (asleep, runs) == ([False, False], True)
    assert (cpu.sregs.cs.selector, cpu.sregs.cs.base, cpu.regs.rip) == (0x5A00, 0x5A000, 0)


def test_sipi_that_comes_before_its_cpu_saw_the_init_still_names_the_page(board):
    board.started()
    board.cpus[1].regs.rip = 0x1234

    board.ipi(INIT)
    board.ipi(SIPI | 0x21)

    assert board.irqchip.before_run(1)
    assert (board.cpus[1].sregs.cs.base, board.cpus[1].regs.rip) == (0x21000, 0)
    assert board.cpus[1].given == ["finish", "events"]


def test_init_of_the_first_cpu_sends_it_to_the_reset_vector(board):
    board.cpus[0].regs.rip = 0x100000
    board.store(0, ICR2, 0)

    board.store(0, ICR, INIT)

    assert board.irqchip.before_run(0)
    assert board.cpus[0].regs.rip == RESET_RIP


def test_interrupt_of_a_cpu_that_can_take_it_is_injected_and_in_service(board):
    board.started()

    board.ipi(FIXED | 0x61)
    board.irqchip.settle()
    board.irqchip.before_run(1)

    assert board.kicked == [1]
    assert board.cpus[1].given == [0x61]
    assert board.load(1, 0x130) == 1 << 1


def test_interrupt_of_a_cpu_that_cannot_take_it_waits_for_a_window(board):
    board.started()
    run = board.cpus[1].kvm_run
    run.if_flag = 0

    board.ipi(FIXED | 0x61)
    board.irqchip.before_run(1)
    waiting = (run.request_interrupt_window, board.cpus[1].given[:])
    board.kicked.clear()
    board.irqchip.settle()
    run.if_flag = 1
    board.irqchip.before_run(1)

    assert (waiting, board.kicked) == ((1, []), [])
    assert (run.request_interrupt_window, board.cpus[1].given) == (0, [0x61])


def test_halted_cpu_sleeps_until_an_interrupt_wakes_it(board):
    board.started()

    assert board.irqchip.handle(1, abi.ExitReason.HLT)
    asleep = board.irqchip.before_run(1)
    board.ipi(FIXED | 0x61)

    assert not asleep
    assert board.irqchip.before_run(1)
    assert board.cpus[1].given == [0x61]


@pytest.mark.parametrize(("icr", "given"), [(NMI, "nmi"), (SMI, "smi")])
def test_nmi_and_smi_go_by_ioctls_of_their_own(board, icr, given):
    board.started()

    board.ipi(icr)
    board.irqchip.settle()
    board.irqchip.before_run(1)

    assert (board.kicked, board.cpus[1].given) == ([1], [given])


def test_nmis_of_two_cpus_before_their_target_left_its_guest_are_both_kvms(board):
    board.irqchip.before_run(0)

    board.store(0, ICR2, 0)
    board.store(0, ICR, NMI)
    board.store(1, ICR2, 0)
    board.store(1, ICR, NMI)
    board.irqchip.before_run(0)

    assert board.cpus[0].given == ["nmi", "nmi"]


def test_cr8_and_base_that_the_guest_changed_are_taken_over_after_the_exit(board):
    run = board.cpus[0].kvm_run
    run.cr8, run.apic_base = 5, 0xFEE00100  # the APIC is off

    board.irqchip.after_run(0)

    assert board.load(0, 0x80) == 0x50
    assert not board.irqchip.chips.lapics[0].hw_enabled


def test_tpr_written_goes_to_the_cpu_as_cr8(board):
    board.store(0, 0x80, 0x73)

    board.irqchip.before_run(0)

    assert board.cpus[0].kvm_run.cr8 == 7


def test_exit_of_another_kind_is_none_of_the_mode(board):
    assert not board.irqchip.handle(0, abi.ExitReason.IOAPIC_EOI)


def test_monitors_nmi_goes_by_lint1_of_our_local_apic():
    board = Board()

    board.irqchip.external_nmi(0)
    board.irqchip.before_run(0)

    assert board.cpus[0].given == ["nmi"]


def test_monitor_shows_our_local_apic_and_who_sleeps():
    board = Board()

    assert parse_lapic(board.irqchip.lapic_text(1)).cpu == 1
    assert [board.irqchip.is_halted(cpu) for cpu in (0, 1)] == [False, True]
