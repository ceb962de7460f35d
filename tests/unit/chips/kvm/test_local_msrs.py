"""x2APIC and TSC deadline of ``off``, with a vCPU that keeps what it is answered."""

from __future__ import annotations

import pytest

from userspace_chip.irqchip import Machine
from userspace_chip.kvm.fds import VmFd
from userspace_chip.kvm.local_msrs import LocalMsrs, leave_local_msrs, off_profile

APIC_BASE, TSC_DEADLINE, X2APIC_ID, X2APIC_SVR, OTHER = 0x1B, 0x6E0, 0x802, 0x80F, 0x3F
DEFAULT_BASE = 0xFEE00900
X2APIC = 1 << 10
LVTT = 0x832
VECTOR = 0x50
TSC_KHZ = 2_000_000


class Vcpu:
    """One whose guest made an access of an MSR; its TSC stands at 1,000,000."""

    index = 0

    def __init__(self):
        self.given = []

    def msr_exit(self):
        return self.exit

    def answer_msr(self, value):
        self.answer = value

    def get_msr(self, index):
        assert index == 0x10
        return 1_000_000

    def set_msr(self, index, value):
        self.given.append((index, value))

    def tsc_khz(self):
        return TSC_KHZ


class Board:
    """A CPU with all that there is, at 5 ms."""

    def __init__(self, **has):
        self.chips = Machine(off_profile(**has), 1, board="q35")
        self.chips.advance(5_000_000)
        self.msrs = LocalMsrs(self.chips)
        self.vcpu = Vcpu()

    def read(self, msr):
        self.vcpu.exit = msr, 0
        self.msrs.read(self.vcpu)
        return self.vcpu.answer

    def write(self, msr, value):
        """Whether it was taken."""
        self.vcpu.exit = msr, value
        self.msrs.write(self.vcpu)
        return self.vcpu.answer is not None


@pytest.fixture
def board():
    return Board(x2apic=True, tsc_deadline=True)


def test_x2apic_register_in_xapic_mode_faults(board):
    assert (board.read(X2APIC_ID), board.write(X2APIC_SVR, 0x1FF)) == (None, False)


def test_x2apic_mode_entered_by_the_guest_is_kvms_too(board):
    assert board.write(APIC_BASE, DEFAULT_BASE | X2APIC)
    assert board.vcpu.given == [(APIC_BASE, DEFAULT_BASE | X2APIC)]
    assert (board.read(X2APIC_ID), board.write(X2APIC_SVR, 0x1FF)) == (0, True)
    assert board.read(X2APIC_SVR) == 0x1FF


def test_xapic_mode_from_x2apic_mode_faults_and_kvm_keeps_the_base(board):
    board.write(APIC_BASE, DEFAULT_BASE | X2APIC)

    assert not board.write(APIC_BASE, DEFAULT_BASE)
    assert len(board.vcpu.given) == 1


def test_msr_of_no_local_apic_faults_as_kvm_said(board):
    assert (board.read(OTHER), board.write(OTHER, 1)) == (None, False)


def test_deadline_is_read_as_written_and_expires_on_the_chips_clock(board):
    board.write(APIC_BASE, DEFAULT_BASE | X2APIC)
    board.write(X2APIC_SVR, 0x1FF)
    board.write(LVTT, 0x40000 | VECTOR)
    deadline = 1_000_000 + 2 * TSC_KHZ  # in two milliseconds

    assert board.write(TSC_DEADLINE, deadline)
    assert board.read(TSC_DEADLINE) == deadline
    board.chips.advance(6_999_999)
    assert not board.chips.lapics[0].state.irr
    board.chips.advance(7_000_000)
    assert board.chips.lapics[0].state.irr == 1 << VECTOR
    assert board.read(TSC_DEADLINE) == 0


def test_deadline_in_the_past_expires_at_once(board):
    board.write(APIC_BASE, DEFAULT_BASE | X2APIC)
    board.write(X2APIC_SVR, 0x1FF)
    board.write(LVTT, 0x40000 | VECTOR)

    board.write(TSC_DEADLINE, 1)
    board.chips.advance(5_000_000)
    assert board.chips.lapics[0].state.irr == 1 << VECTOR


def test_qemus_off_has_neither():
    board = Board()

    assert board.read(TSC_DEADLINE) is None
    assert not board.write(APIC_BASE, DEFAULT_BASE | X2APIC)


class Vm:
    """Keeps what it is asked to leave to user space."""

    left = None

    def leave_msrs(self, *, writes, both):
        self.left = writes, both


@pytest.mark.parametrize(
    ("has", "left"),
    [
        ({}, None),
        ({"x2apic": True}, ([APIC_BASE], [])),
        ({"tsc_deadline": True}, ([], [TSC_DEADLINE])),
        ({"x2apic": True, "tsc_deadline": True}, ([APIC_BASE], [TSC_DEADLINE])),
    ],
)
def test_kvm_leaves_what_the_chips_have_more_than_qemus(has, left):
    vm = Vm()
    leave_local_msrs(vm, off_profile(**has))
    assert vm.left == left


class AskedVm(VmFd):
    """One without a descriptor that keeps what KVM is asked."""

    def __init__(self):
        self.asked = []

    def _pass(self, ioctl, argument):
        self.asked.append((ioctl.name, argument))
        return 0


def test_filter_denies_the_writes_of_one_msr_and_all_accesses_of_the_other():
    vm = AskedVm()
    vm.leave_msrs(writes=[APIC_BASE], both=[TSC_DEADLINE])

    (cap_name, cap), (filter_name, asked) = vm.asked
    assert (cap_name, cap.cap, cap.args[0]) == ("KVM_ENABLE_CAP", 188, 0b101)
    ranges = [(one.flags, one.nmsrs, one.base) for one in asked.ranges if one.nmsrs]
    assert (filter_name, asked.flags) == ("KVM_X86_SET_MSR_FILTER", 0)
    assert ranges == [(2, 1, APIC_BASE), (3, 1, TSC_DEADLINE)]
