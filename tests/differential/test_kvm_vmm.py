"""What a VMM may ask of KVM's chips and QEMU does not, or not in a lab, each with its answer.

Event descriptors as interrupts (irqfd) and as registers (ioeventfd), the PIT's speaker port, the
VAPIC page, Hyper-V's synthetic interrupts, an INIT in SMM, a timer that is loaded: what must come
is in Linux ``Documentation/virt/kvm/api.rst``.  Every test takes no argument, so that the lab's
runner can call it.
"""

import fcntl
import os
import struct
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import kvm_calls as calls
from support.kernel_machine import APIC_ADDRESS, guest_cpuid, lapic_image, serve_highest
from support.kvm import skip_without_irqchip
from support.mini_guest import MiniGuest
from userspace_chip.architecture import (
    IOAPIC_BASES,
    IOREDTBL,
    IOREGSEL,
    IOWIN,
    MSR_APIC_BASE,
    MSR_TSC_DEADLINE,
)
from userspace_chip.kvm import abi
from userspace_chip.kvm.errors import KvmError
from userspace_chip.kvm.fds import KvmFd
from userspace_chip.lapic_registers import (
    EOI,
    ICR,
    ICR2,
    ID,
    IRR,
    LVTT,
    SPIV,
    TDCR,
    TMCCT,
    TMICT,
    TPR,
    VERSION,
)
from userspace_chip.messages import MsiMessage
from userspace_chip.ports import Irqchip
from userspace_chip.routing import IrqchipRoute, MsiRoute

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(60)]

VECTOR, GSI, LINE = 0x51, 30, 14
NULL = Path(os.devnull)
MSI = MsiMessage(0xFEE0_0000, VECTOR)
LEVEL = 1 << 15
TSC_DEADLINE_MODE = 0x40000
ENABLED = ((SPIV, 0x1FF),)


class Kernel:
    """A VM with the chips in the kernel, its vCPUs in the tests' small guest."""

    def __init__(self, kvm, vm, cpus, hyperv):
        self.vm = vm
        self.vcpus = [vm.create_vcpu(number) for number in range(cpus)]
        for number, vcpu in enumerate(self.vcpus):
            if hyperv:
                calls.become_hyperv(vcpu, kvm)
            vcpu.set_lapic(lapic_image(((ID, number << 24), *ENABLED)))
        self.guest = MiniGuest(vm, self.vcpus)

    def requested(self, vector=VECTOR, cpu=0):
        """Whether the vector waits in IRR."""
        at = IRR + 0x10 * (vector // 32)
        page = bytes(self.vcpus[cpu].get_lapic())
        return bool(int.from_bytes(page[at : at + 4], "little") >> vector % 32 & 1)

    def lapic(self, register, value, cpu=0):
        self.guest.write(cpu, APIC_ADDRESS + register, value)

    def pin(self, pin, value):
        """A redirection entry, its destination CPU 0."""
        for half, word in ((1, 0), (0, value)):
            self.guest.write(0, IOAPIC_BASES[0] + IOREGSEL, IOREDTBL + 2 * pin + half)
            self.guest.write(0, IOAPIC_BASES[0] + IOWIN, word)

    def end(self, cpu=0):
        """What waits is served and ended, as an acknowledge and a handler do it."""
        image = self.vcpus[cpu].get_lapic()
        assert serve_highest(image)
        self.vcpus[cpu].set_lapic(image)
        self.lapic(EOI, 0, cpu)
        self.guest.idle(cpu)


@contextmanager
def kernel(mode="on", cpus=1, *, pit=False, hyperv=False):
    skip_without_irqchip(mode)
    with KvmFd() as kvm, kvm.create_vm() as vm:
        if mode == "on":
            vm.create_irqchip()
        else:
            vm.enable_split_irqchip()
        if pit:
            calls.create_pit_with_speaker(vm)
        yield Kernel(kvm, vm, cpus, hyperv)


# ---------------------------------------------------------------- irqfd


def test_irqfd_on_a_pin_is_one_edge():
    with kernel() as machine, calls.eventfds(1) as (event,):
        machine.pin(LINE, VECTOR)
        assert calls.irqfd(machine.vm, event, LINE) is None

        calls.kick(event)

        assert calls.until(machine.requested)


def test_irqfd_that_was_signalled_before_interrupts_at_once():
    with kernel() as machine, calls.eventfds(1) as (event,):
        machine.vm.set_gsi_routing([MsiRoute(GSI, MSI)])
        calls.kick(event)

        assert calls.irqfd(machine.vm, event, GSI) is None

        assert calls.until(machine.requested)


def test_irqfd_follows_its_route():
    with kernel() as machine, calls.eventfds(1) as (event,):
        machine.vm.set_gsi_routing([MsiRoute(GSI, MSI)])
        assert calls.irqfd(machine.vm, event, GSI) is None
        machine.vm.set_gsi_routing([MsiRoute(GSI, MSI._replace(data=0x61))])
        calls.kick(event)
        assert calls.until(lambda: machine.requested(0x61))

        twice = [IrqchipRoute(GSI, Irqchip.PIC_MASTER, 3), IrqchipRoute(GSI, Irqchip.IOAPIC, LINE)]
        machine.pin(LINE, 0x71)
        machine.vm.set_gsi_routing(twice)
        calls.kick(event)

        assert calls.until(lambda: machine.requested(0x71))
        assert not machine.requested()


def test_irqfd_that_is_taken_away_says_nothing_more():
    with kernel() as machine, calls.eventfds(2) as (event, other):
        machine.vm.set_gsi_routing([MsiRoute(GSI, MSI)])
        assert calls.irqfd(machine.vm, event, GSI) is None
        assert calls.irqfd(machine.vm, other, GSI) is None

        assert calls.irqfd(machine.vm, event, GSI, calls.DEASSIGN) is None
        calls.kick(event)
        assert calls.kicks(event) == 1  # nobody took it
        assert not machine.requested()

        calls.kick(other)
        assert calls.until(machine.requested)


def test_irqfd_goes_with_its_descriptor_and_with_its_vm():
    with calls.eventfds(1) as (stays,):
        with kernel() as machine:
            machine.vm.set_gsi_routing([MsiRoute(GSI, MSI)])
            goes = os.eventfd(0)
            assert calls.irqfd(machine.vm, goes, GSI) is None
            assert calls.irqfd(machine.vm, stays, GSI) is None
            os.close(goes)
            assert not machine.requested()
        calls.kick(stays)
        assert calls.kicks(stays) == 1  # nobody takes it any more


def test_irqfd_of_two_vms_interrupts_one_where_it_is_not_refused():
    """Linux 6.17 and later refuse it (virt/kvm/eventfd.c, kvm_irqfd_register)."""
    with kernel() as one, kernel() as other, calls.eventfds(1) as (event,):
        for machine in (one, other):
            machine.vm.set_gsi_routing([MsiRoute(GSI, MSI)])
        assert calls.irqfd(one.vm, event, GSI) is None
        assert calls.irqfd(other.vm, event, GSI) in (None, "EBUSY")
        calls.kick(event)
        assert calls.until(lambda: one.requested() or other.requested())


def test_resampler_holds_the_line_until_the_eoi():
    with kernel() as machine, calls.eventfds(4) as (event, again, second, again_too):
        machine.pin(LINE, VECTOR | LEVEL)
        assert calls.irqfd(machine.vm, event, LINE, calls.RESAMPLE, again) is None
        assert calls.irqfd(machine.vm, second, LINE, calls.RESAMPLE, again_too) is None

        calls.kick(event)
        assert calls.until(machine.requested)
        assert calls.kicks(again) == 0
        machine.end()

        assert calls.kicks(again) == calls.kicks(again_too) == 1
        assert not machine.requested()
        for one in (event, second):
            assert calls.irqfd(machine.vm, one, LINE, calls.DEASSIGN) is None


def test_resampler_of_a_pin_that_is_high_lowers_it_when_it_goes():
    with kernel() as machine, calls.eventfds(2) as (event, again):
        machine.pin(LINE, VECTOR | LEVEL)
        assert calls.irqfd(machine.vm, event, LINE, calls.RESAMPLE, again) is None
        calls.kick(event)
        assert calls.until(machine.requested)

        assert calls.irqfd(machine.vm, event, LINE, calls.DEASSIGN) is None
        machine.end()

        assert not machine.requested()


def test_irqfd_is_refused_with_the_reason():
    with kernel() as machine, calls.eventfds(2) as (event, other), NULL.open() as file:
        vm = machine.vm
        assert calls.irqfd(vm, event, GSI, flags=4) == "EINVAL"
        assert calls.irqfd(vm, -1, GSI) == "EBADF"
        assert calls.irqfd(vm, file.fileno(), GSI) == "EINVAL"
        assert calls.irqfd(vm, -1, GSI, calls.DEASSIGN) == "EBADF"
        assert calls.irqfd(vm, event, LINE, calls.RESAMPLE, file.fileno()) == "EINVAL"
        assert calls.irqfd(vm, event, LINE) is None
        assert calls.irqfd(vm, event, GSI) == "EBUSY"
        assert calls.irqfd(vm, event, LINE, calls.RESAMPLE, other) == "EBUSY"


def test_irqfd_needs_the_chips_in_the_kernel():
    with kernel("split") as machine, calls.eventfds(2) as (event, again):
        assert calls.irqfd(machine.vm, event, LINE, calls.RESAMPLE, again) == "EINVAL"
        machine.vm.set_gsi_routing([MsiRoute(GSI, MSI)])
        assert calls.irqfd(machine.vm, event, GSI) is None
        calls.kick(event)
        assert calls.until(machine.requested)
    with KvmFd() as kvm, kvm.create_vm() as vm, calls.eventfds(1) as (event,):
        assert calls.irqfd(vm, event, GSI) in ("EINVAL", "EAGAIN")


# ---------------------------------------------------------------- ioeventfd


def test_ioeventfd_takes_the_writes_of_its_size_and_value():
    address = 0xD000_0000
    with kernel() as machine, calls.eventfds(5) as (byte, word, long, whole, any_):
        vm, guest = machine.vm, machine.guest
        assert calls.ioeventfd(vm, byte, address, 1, calls.DATAMATCH, 0x11) is None
        assert calls.ioeventfd(vm, word, address, 2, calls.DATAMATCH, 0x2222) is None
        assert calls.ioeventfd(vm, long, address, 4, calls.DATAMATCH, 0x33333333) is None
        assert calls.ioeventfd(vm, any_, address + 16, 0) is None
        for size, value in ((1, 0x11), (1, 0x12), (2, 0x2222), (4, 0x33333333), (4, 0x44)):
            guest.write(0, address, value, size)
        guest.write(0, address + 16, 5, 2)
        assert calls.ioeventfd(vm, whole, address, 8, calls.DATAMATCH, 0) is None
        guest.write(0, address, 0, 8)

        assert [calls.kicks(event) for event in (byte, word, long, whole, any_)] == [1, 1, 1, 1, 1]
        assert guest.unclaimed == [address, address]


def test_ioeventfd_of_a_port_goes_when_it_is_taken_away():
    port = 0x510
    with kernel() as machine, calls.eventfds(1) as (event,):
        vm = machine.vm
        assert calls.ioeventfd(vm, event, port, 2, calls.PIO) is None
        machine.guest.port_out(0, port, 1, 2)
        assert calls.kicks(event) == 1
        away = calls.PIO | calls.DEASSIGN_IO
        assert calls.ioeventfd(vm, event, port, 4, away) == "ENOENT"
        assert calls.ioeventfd(vm, event, port, 2, away | calls.DATAMATCH, 1) == "ENOENT"
        assert calls.ioeventfd(vm, event, port, 2, away) is None
        assert calls.ioeventfd(vm, event, port, 2, away) == "ENOENT"


def test_ioeventfd_is_refused_with_the_reason():
    with kernel() as machine, calls.eventfds(2) as (event, other):
        vm, address = machine.vm, 0xD000_0000
        assert calls.ioeventfd(vm, event, address, 3) == "EINVAL"
        assert calls.ioeventfd(vm, event, (1 << 64) - 1, 4) == "EINVAL"
        assert calls.ioeventfd(vm, event, address, 4, 1 << 9) == "EINVAL"
        assert calls.ioeventfd(vm, event, address, 0, calls.DATAMATCH) == "EINVAL"
        assert calls.ioeventfd(vm, -1, address, 4) == "EBADF"
        assert calls.ioeventfd(vm, -1, address, 4, calls.DEASSIGN_IO) == "EBADF"
        assert calls.ioeventfd(vm, event, address, 4) is None
        assert calls.ioeventfd(vm, other, address, 4) == "EEXIST"


# ---------------------------------------------------------------- routes


def test_route_is_refused_with_the_reason():
    with kernel() as machine:
        vm, irqchip, msi = machine.vm, abi.RoutingType.IRQCHIP, abi.RoutingType.MSI
        assert calls.routing(vm, [(4096, msi, 0, (0xFEE00000, 0, 0x51))]) == "EINVAL"
        assert calls.routing(vm, [(GSI, 9, 0, ())]) == "EINVAL"
        assert calls.routing(vm, [(GSI, irqchip, 1, (2, 5))]) == "EINVAL"
        assert calls.routing(vm, [(GSI, msi, 2, (0xFEE00000, 0, 0x51))]) == "EINVAL"
        assert calls.routing(vm, [(GSI, irqchip, 0, (7, 5))]) == "EINVAL"
        assert calls.routing(vm, [(GSI, irqchip, 0, (0, 8))]) == "EINVAL"
        assert calls.signal_msi(vm, 0xFEE00000, VECTOR, flags=2) == "EINVAL"
    with kernel("split") as machine:
        assert calls.routing(machine.vm, [(GSI, irqchip, 0, (2, 5))]) == "EINVAL"


def test_message_with_32_bit_ids_has_no_low_byte_above():
    skip_without_irqchip("on")
    with KvmFd() as kvm, kvm.create_vm() as vm:
        vm.enable_cap(abi.Cap.X2APIC_API, abi.X2apicApiFlag.USE_32BIT_IDS)
        vm.create_irqchip()
        vm.create_vcpu(0)
        route = (GSI, abi.RoutingType.MSI, 0, (0xFEE00000, 1, VECTOR))
        assert calls.routing(vm, [route]) == "EINVAL"
        assert calls.signal_msi(vm, 0x1_FEE00000, VECTOR) == "EINVAL"


def test_route_of_before_32_bit_ids_sends_nothing():
    with kernel() as machine, calls.eventfds(1) as (event,):
        machine.vm.set_gsi_routing([MsiRoute(GSI, MSI._replace(address=0x1_FEE0_0000))])
        assert calls.irqfd(machine.vm, event, GSI) is None
        machine.vm.enable_cap(abi.Cap.X2APIC_API, abi.X2apicApiFlag.USE_32BIT_IDS)
        calls.kick(event)
        assert machine.vm.irq_line_status(GSI, True) < 0
        assert not machine.requested()


# ---------------------------------------------------------------- the PIT's speaker port


def test_speaker_port_has_gate_and_output_of_counter_2():
    with kernel(pit=True) as machine:
        guest = machine.guest
        guest.port_out(0, 0x61, 0)
        for mode in (0, 1, 2, 3, 4, 5):
            for port, value in ((0x43, 0xB0 | mode << 1), (0x42, 1), (0x42, 0)):
                guest.port_out(0, port, value)
            guest.port_out(0, 0x61, 1)
            assert guest.port_in(0, 0x61) & 3 == 1
            guest.port_out(0, 0x61, 2)
            assert guest.port_in(0, 0x61) & 3 == 2
        for port, value in ((0x43, 0xB0), (0x42, 1), (0x42, 0)):
            guest.port_out(0, port, value)
        guest.port_out(0, 0x61, 3)
        assert calls.until(lambda: guest.port_in(0, 0x61) & 0x23 == 0x23)
        guest.port_out(0, 0x62, 0)
        guest.port_in(0, 0x62)
        assert guest.unclaimed == [0x62, 0x62]


def test_pit_is_read_and_loaded_by_the_calls_before_pit2():
    with kernel(pit=True) as machine:
        for port, value in ((0x43, 0xB4), (0x42, 7), (0x42, 0)):
            machine.guest.port_out(0, port, value)
        state = bytearray(calls.PIT_BYTES)
        fcntl.ioctl(machine.vm.fileno(), calls.GET_PIT, state, True)
        assert struct.unpack_from("<I", state, 48) == (7,)  # the count of counter 2
        struct.pack_into("<I", state, 48, 9)
        assert calls.refusal(machine.vm, calls.SET_PIT, bytes(state)) is None
        assert machine.vm.get_pit2().channels[2].count == 9
        for enabled in (False, True):
            machine.vm.set_pit_reinjection(enabled)
    with kernel() as machine:
        empty = bytes(calls.PIT_BYTES)
        assert calls.refusal(machine.vm, calls.GET_PIT, empty) == "ENXIO"
        assert calls.refusal(machine.vm, calls.SET_PIT, empty) == "ENXIO"


def test_line_without_chips_is_refused():
    with KvmFd() as kvm, kvm.create_vm() as vm, pytest.raises(KvmError, match="ENXIO"):
        vm.irq_line(GSI, True)


# ---------------------------------------------------------------- EOI broadcasts


@contextmanager
def with_api(flags):
    """A split VM with these flags of KVM_CAP_X2APIC_API; skips where KVM has them not."""
    skip_without_irqchip("split")
    with KvmFd() as kvm, kvm.create_vm() as vm:
        vm.enable_split_irqchip()
        try:
            vm.enable_cap(abi.Cap.X2APIC_API, flags)
        except KvmError as error:
            pytest.skip(f"this KVM cannot choose: {error}")
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid(kvm.supported_cpuid())  # with x2APIC, which the bit belongs to
        vcpu.set_lapic(lapic_image(ENABLED))
        yield MiniGuest(vm, [vcpu])


def test_suppressed_eoi_broadcasts_are_as_the_vmm_chose():
    """KVM_X2APIC_ENABLE_SUPPRESS_EOI_BROADCAST and _DISABLE_: the version register says it."""
    for flags, advertised in ((4, True), (8, False)):
        with with_api(flags) as guest:
            version = guest.read(0, APIC_ADDRESS + VERSION)
            assert bool(version >> 24 & 1) is advertised
            guest.write(0, APIC_ADDRESS + SPIV, 0x11FF)


# ---------------------------------------------------------------- the local APIC


def test_vapic_page_shows_requests_and_takes_the_priority():
    page = 0x7000
    with kernel() as machine:
        (vcpu,) = machine.vcpus
        assert calls.set_vapic_addr(vcpu, 0x4_0000_0000) == "EINVAL"
        assert calls.set_vapic_addr(vcpu, page) is None
        machine.guest.write(0, page, 0x30, 1)
        machine.guest.idle(0)
        assert machine.guest.read(0, APIC_ADDRESS + TPR) == 0x30
        machine.guest.write(0, page, 0x60, 1)
        machine.guest.idle(0)
        machine.vm.signal_msi(MSI)
        machine.guest.idle(0)
        assert machine.guest.read(0, page) == 0x5100_0060
        machine.end()
        assert machine.guest.read(0, page) >> 24 == 0
        machine.guest.write(0, page, 0, 1)
        machine.guest.idle(0)
        assert calls.set_vapic_addr(vcpu, 0) is None


def loaded_timer(initial, current, mode=0):
    """A page with a running timer, undivided."""
    return lapic_image(
        (*ENABLED, (TDCR, 0xB), (LVTT, mode | VECTOR), (TMICT, initial), (TMCCT, current))
    )


def test_timer_that_is_loaded_goes_on():
    second = 1_000_000_000
    with kernel() as machine:
        (vcpu,) = machine.vcpus
        for initial, current, mode in (
            *((second, second // 1000, 0), (1000, second, 0), (1000, 0, 0)),
            *((1000000, 0, 0x20000), (4 * second, 1_000_000, 0x20000)),
        ):
            vcpu.set_lapic(loaded_timer(initial, current, mode))
            assert calls.until(lambda: (machine.guest.idle(0), machine.requested())[1])
            vcpu.set_lapic(lapic_image(ENABLED))


def test_timer_that_was_loaded_before_the_first_run_comes():
    skip_without_irqchip("on")
    with KvmFd() as kvm, kvm.create_vm() as vm:
        vm.create_irqchip()
        vcpu = vm.create_vcpu(0)
        vcpu.set_lapic(loaded_timer(300_000_000, 300_000_000))
        guest = MiniGuest(vm, [vcpu])

        def come():
            guest.idle(0)
            return bytes(vcpu.get_lapic())[IRR + 0x20 + 2] & 2

        assert calls.until(come)


def test_deadline_that_is_loaded_before_the_local_apic_is_lost():
    """KVM heeds the MSR only while the timer is in that mode (``kvm_set_lapic_tscdeadline_msr``).

    So a VMM has to load the local APIC first; several did not, and their guests' timers stopped
    (https://github.com/firecracker-microvm/firecracker/issues/4099).
    """
    never = 1 << 62
    page = lapic_image((*ENABLED, (LVTT, TSC_DEADLINE_MODE | VECTOR)))
    skip_without_irqchip("on")
    for is_first, kept in ((True, 0), (False, never)):
        with KvmFd() as kvm, kvm.create_vm() as vm:
            vm.create_irqchip()
            vcpu = vm.create_vcpu(0)
            vcpu.set_cpuid(guest_cpuid(kvm))
            if is_first:
                assert vcpu.set_msr(MSR_TSC_DEADLINE, never)
            vcpu.set_lapic(page)
            if not is_first:
                assert vcpu.set_msr(MSR_TSC_DEADLINE, never)

            assert vcpu.get_msr(MSR_TSC_DEADLINE) == kept


def test_vcpu_may_end_with_its_local_apic_off():
    skip_without_irqchip("on")
    with KvmFd() as kvm:
        for base in (0xFEE0_0800, 0xFEE0_0000):
            with kvm.create_vm() as vm:
                vm.create_irqchip()
                vcpu = vm.create_vcpu(0)
                assert vcpu.set_msr(MSR_APIC_BASE, base)
                assert vcpu.get_msr(MSR_APIC_BASE) == base


def test_init_waits_while_the_cpu_is_in_smm_and_a_sipi_is_lost():
    with kernel(cpus=2) as machine:
        _, other = machine.vcpus
        events = other.get_events()
        events.flags |= 8  # KVM_VCPUEVENT_VALID_SMM
        events.smi_smm = 1
        try:
            other.set_events(events)
        except KvmError:
            pytest.skip("this KVM has no SMM")
        for command in (0x4500, 0x4610):  # INIT, SIPI
            machine.lapic(ICR2, 1 << 24)
            machine.lapic(ICR, command)
        assert other.get_mp_state() is abi.MpState.RUNNABLE

        events = other.get_events()
        events.flags |= 8
        events.smi_smm = events.smi_latched_init = 0
        other.set_events(events)


def test_two_nmis_that_wait_are_saved_as_two_since_6_4():
    """Linux ab2ee212a57b ("Save/restore all NMIs when multiple NMIs are pending")."""
    with kernel() as machine:
        (vcpu,) = machine.vcpus
        vcpu.nmi()
        vcpu.nmi()

        saves_all = calls.linux_version() >= (6, 4)
        assert vcpu.get_events().nmi_pending == (2 if saves_all else 1)


# ---------------------------------------------------------------- Hyper-V


SCONTROL, SINT2, AUTO_EOI = 0x40000080, 0x40000092, 1 << 17


def test_synthetic_interrupt_comes_by_its_route():
    with kernel(hyperv=True) as machine, calls.eventfds(2) as (event, again):
        (vcpu,) = machine.vcpus
        assert vcpu.set_msr(SCONTROL, 1)
        assert vcpu.set_msr(SINT2, VECTOR)
        route = (GSI, abi.RoutingType.HV_SINT, 0, (0, 2))
        assert calls.routing(machine.vm, [route]) is None
        assert machine.vm.irq_line_status(GSI, False) == -1
        assert machine.vm.irq_line_status(GSI, True) == 1
        assert machine.requested()
        machine.end()
        assert calls.irqfd(machine.vm, event, GSI, calls.RESAMPLE, again) is None
        calls.kick(event)
        assert calls.until(machine.requested)
        machine.end()
        assert calls.kicks(again) == 1


def test_synthetic_interrupt_with_auto_eoi_is_not_in_service():
    with kernel(hyperv=True) as machine:
        (vcpu,) = machine.vcpus
        assert vcpu.set_msr(SCONTROL, 1)
        assert vcpu.set_msr(SINT2, VECTOR | AUTO_EOI)
        machine.vm.signal_msi(MSI)
        assert machine.guest.take(0) == VECTOR
        page = bytes(vcpu.get_lapic())
        assert page[0x100:0x180] == bytes(0x80)
