"""The descriptors and the probe against the local KVM."""

import pytest

from support.kvm import local_kvm, skip_without_irqchip
from userspace_chip.kvm import abi
from userspace_chip.kvm.errors import KvmError
from userspace_chip.kvm.fds import KvmFd
from userspace_chip.kvm.probe import measure_guest_speed
from userspace_chip.messages import MsiMessage
from userspace_chip.ports import Irqchip
from userspace_chip.routing import IrqchipRoute, MsiRoute

pytestmark = pytest.mark.kvm


@pytest.fixture
def on():
    skip_without_irqchip("on")
    with KvmFd() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        yield vm


@pytest.fixture
def split():
    skip_without_irqchip("split")
    with KvmFd() as kvm, kvm.create_vm() as vm:
        vm.enable_split_irqchip()
        yield vm


def test_probe_of_local_kvm_names_every_capability():
    skip_without_irqchip("on")

    probe = local_kvm()

    assert probe.api_version == 12
    assert probe.caps.keys() == {cap.name for cap in abi.Cap}
    assert probe.caps["IRQCHIP"] == 1
    assert probe.caps["IRQ_ROUTING"] > 0


def test_guest_speed_of_local_kvm_counts_the_instructions_of_whole_portions():
    skip_without_irqchip("on")

    speed = measure_guest_speed(budget_s=0.01)

    assert speed.instructions >= 4_000
    assert speed.instructions % 2 == 0
    assert speed.instructions_per_s == speed.instructions / speed.duration_s > 0


def test_irqchip_created_twice_raises_with_name_errno_and_advice(on):
    with pytest.raises(KvmError, match=r"KVM_CREATE_IRQCHIP failed: EEXIST.*only once"):
        on.create_irqchip()


def test_ioapic_state_written_reads_back(on):
    state = on.get_irqchip(Irqchip.IOAPIC)
    state.chip.ioapic.redirtbl[5] = 0x0100_0000_0000_8041

    on.set_irqchip(state)

    assert bytes(on.get_irqchip(Irqchip.IOAPIC)) == bytes(state)


def test_pit_state_written_reads_back_its_count(on):
    on.create_pit2()
    state = on.get_pit2()
    state.channels[1].count = 0x1234

    on.set_pit2(state)

    assert on.get_pit2().channels[1].count == 0x1234


def test_line_of_masked_chips_raised_is_ignored_and_lowered_counts(on):
    on.create_vcpu(0)
    masked = on.get_irqchip(Irqchip.PIC_MASTER)
    masked.chip.pic.imr = 0xFF
    on.set_irqchip(masked)

    assert [on.irq_line_status(5, True), on.irq_line_status(5, False)] == [-1, 1]


def test_msi_to_a_software_disabled_lapic_is_dropped_and_to_nobody_is_negative(on):
    vcpu = on.create_vcpu(0)
    lapic = vcpu.get_lapic()
    lapic.regs[0x23] = 1  # xAPIC id 1: the VM has no APIC 0
    vcpu.set_lapic(lapic)

    assert on.signal_msi(MsiMessage(0xFEE0_1000, 0x41)) == 0
    assert on.signal_msi(MsiMessage(0xFEEF_F00C, 0x141)) == -1  # lowest priority among nobody


def test_routes_replaced_send_a_gsi_elsewhere(on):
    vcpu = on.create_vcpu(0)
    lapic = vcpu.get_lapic()
    lapic.regs[0xF1] = 1
    vcpu.set_lapic(lapic)

    on.set_gsi_routing(
        (MsiRoute(40, MsiMessage(0xFEE0_0000, 0x55)), IrqchipRoute(1, Irqchip.IOAPIC, 3))
    )

    assert on.irq_line_status(40, True) == 1
    assert vcpu.get_lapic().regs[0x200 + 0x10 * (0x55 // 32) + 0x55 % 32 // 8] == 1 << 0x55 % 8
    assert on.irq_line_status(5, True) == -1  # no route at all now


def test_routes_replace_each_other_and_come_again(split):
    vcpu = split.create_vcpu(0)
    lapic = vcpu.get_lapic()
    lapic.regs[0xF1] = 1
    vcpu.set_lapic(lapic)
    one, other = ((MsiRoute(gsi, MsiMessage(0xFEE0_0000, 0x55)),) for gsi in (40, 41))

    taken = []
    for routes in (one, one, other, one):
        split.set_gsi_routing(routes)
        taken.append([split.irq_line_status(gsi, True) for gsi in (40, 41)])

    assert [[level >= 0 for level in levels] for levels in taken] == [
        [True, False],
        [True, False],
        [False, True],
        [True, False],
    ]


def test_irqchip_routes_in_split_are_refused_with_advice(split):
    with pytest.raises(KvmError, match=r"KVM_SET_GSI_ROUTING failed: EINVAL.*split"):
        split.set_gsi_routing((IrqchipRoute(1, Irqchip.IOAPIC, 1),))


def test_interrupt_with_pic_in_the_kernel_raises_enxio(on):
    with pytest.raises(KvmError, match="ENXIO"):
        on.create_vcpu(0).interrupt(0x20)


def test_interrupt_parked_twice_in_split_raises_eexist(split):
    vcpu = split.create_vcpu(0)
    vcpu.interrupt(0x20)

    with pytest.raises(KvmError, match="EEXIST"):
        vcpu.interrupt(0x21)


def test_second_vcpu_waits_for_its_startup_ipi(on):
    states = [on.create_vcpu(index).get_mp_state() for index in range(2)]

    assert states == [abi.MpState.RUNNABLE, abi.MpState.UNINITIALIZED]


def test_msr_that_does_not_exist_is_none_and_refused(on):
    vcpu = on.create_vcpu(0)

    assert vcpu.get_msr(0x1B) == 0xFEE0_0900
    assert vcpu.get_msr(0x4000_FFFF) is None
    assert vcpu.set_msr(0x1B, 1 << 63) is False


def test_vm_closed_closes_its_vcpus():
    skip_without_irqchip("on")
    with KvmFd() as kvm, kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(0)

    with pytest.raises(KvmError, match="EBADF"):
        vcpu.get_regs()


def test_immediate_exit_set_makes_run_return_at_once(on):
    vcpu = on.create_vcpu(0)
    vcpu.kvm_run.immediate_exit = 1

    assert vcpu.run() is abi.ExitReason.INTR
