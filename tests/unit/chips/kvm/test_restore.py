"""What KVM_SET_LAPIC and KVM_SET_IRQCHIP do to a machine, as the differential tests found it.

The same against the kernel, at random: tests/differential/test_kvm_*.py.
"""

import pytest

from userspace_chip.architecture import MSR_APIC_BASE, MSR_TSC_DEADLINE
from userspace_chip.errors import StateError
from userspace_chip.ioapic import KvmIoapicImage
from userspace_chip.irqchip import Machine
from userspace_chip.kvm.layout import (
    ioapic_to_kvm,
    lapic_to_kvm,
    pic_to_kvm,
    restore_irqchip,
    restore_lapic,
)
from userspace_chip.lapic_registers import ENABLE, EXTD, LVTT, TMICT
from userspace_chip.lapic_state import LapicState
from userspace_chip.pic import PicChipState
from userspace_chip.ports import Irqchip
from userspace_chip.profile import profile, tune
from userspace_chip.routing import kernel_default
from userspace_chip.vcpu import SCAN_IOAPIC

VERSION = 0x50014
X2APIC = 0xFEE00000 | ENABLE | EXTD
MSR_ICR = 0x830
ICR2 = 0xFEE00310


def machine(cpus=2, *, mode="on", linux="6.18", **knobs):
    return Machine(
        tune(profile(mode, linux=linux), **knobs),
        cpus,
        routes=kernel_default() if mode == "on" else None,
        reset=False,
        log=False,
    )


def page(state, *, count=0):
    return lapic_to_kvm(state, version=VERSION, current_count=count)


def enabled(**registers):
    return LapicState(spiv=0x1FF, **registers)


def test_restore_lapic_with_vectors_in_service_shows_the_old_ppr_until_the_next_look():
    subject = machine(1)

    restore_lapic(subject, 0, page(enabled(isr=1 << 0x45)))

    assert subject.lapics[0].state.ppr == 0
    subject.enter(0, interruptible=False)
    assert subject.lapics[0].state.ppr == 0x40


def test_restore_lapic_over_vectors_in_service_shows_the_new_ppr_at_once():
    subject = machine(1)
    restore_lapic(subject, 0, page(enabled(isr=1 << 0x45)))

    restore_lapic(subject, 0, page(enabled(isr=1 << 0x61, tpr=0x31)))

    assert subject.lapics[0].state.ppr == 0x60


def test_restore_lapic_over_an_acknowledged_vector_shows_the_ppr_of_that_vector():
    subject = machine(1)
    restore_lapic(subject, 0, page(enabled(irr=1 << 0x55)))
    subject.enter(0)

    restore_lapic(subject, 0, page(enabled(isr=1 << 0x61)))

    assert subject.lapics[0].state.ppr == 0x50


def test_restore_lapic_in_x2apic_mode_keeps_the_cpus_own_ids():
    subject = machine()
    subject.msr_write(1, MSR_APIC_BASE, X2APIC)

    restore_lapic(subject, 1, page(enabled(id_reg=9, ldr=0x123, apic_base=X2APIC)))

    state = subject.lapics[1].state
    assert (state.id_reg, state.ldr) == (1, 2)


def test_restore_lapic_in_x2apic_mode_of_6_1_takes_over_the_pages_ids_and_is_found_by_them():
    subject = machine(linux="6.1")
    subject.msr_write(0, MSR_APIC_BASE, X2APIC | 0x100)
    subject.msr_write(1, MSR_APIC_BASE, X2APIC)
    restore_lapic(subject, 0, page(enabled(id_reg=0, apic_base=X2APIC)))

    restore_lapic(subject, 1, page(enabled(id_reg=9, apic_base=X2APIC)))

    state = subject.lapics[1].state
    assert (state.id_reg, state.ldr) == (9, 1 << 9)
    assert subject.signal_msi(0xFEE09000, 0x41) == 1
    assert state.irr == 1 << 0x41


def test_restore_lapic_with_32_bit_ids_refuses_another_id_but_keeps_its_spiv():
    subject = machine(delivery__ids_32bit=True)
    subject.msr_write(1, MSR_APIC_BASE, X2APIC)

    with pytest.raises(StateError, match="id 0x2 in x2APIC mode"):
        restore_lapic(subject, 1, page(LapicState(spiv=0x1AB, id_reg=2, tpr=0x50)))

    state = subject.lapics[1].state
    assert (state.spiv, state.tpr) == (0x1AB, 0)


def test_restore_lapic_starts_the_timer_with_what_was_left_of_its_count():
    subject = machine(1)
    lvt = [0x31, *LapicState().lvt[1:]]

    restore_lapic(subject, 0, page(enabled(tmict=5000, tdcr=0xB, lvt=lvt), count=1200))

    assert subject.deadlines == {"lapic0": 1200}


def test_restore_lapic_in_deadline_mode_keeps_the_deadline():
    subject = machine(1)
    subject.mmio_write(0, 0xFEE00000 + LVTT, 4, 0x40031)
    subject.msr_write(0, MSR_TSC_DEADLINE, 77_000)
    lvt = [0x40031, *LapicState().lvt[1:]]

    restore_lapic(subject, 0, page(enabled(lvt=lvt)))

    assert subject.msr_read(0, MSR_TSC_DEADLINE) == 77_000
    assert subject.deadlines == {"lapic0": 77_000}


def test_restore_lapic_into_deadline_mode_forgets_the_count():
    subject = machine(1)
    lvt = [0x40031, *LapicState().lvt[1:]]

    restore_lapic(subject, 0, page(enabled(tmict=5000, lvt=lvt), count=5000))

    assert subject.mmio_read(0, 0xFEE00000 + TMICT, 4) == 0
    assert subject.deadlines == {}


def test_restore_lapic_with_the_rtcs_vector_in_service_makes_its_pin_wait_for_the_eoi():
    subject = machine(1)
    rte = [0x10000] * 24
    rte[8] = 0x38
    restore_irqchip(subject, ioapic_to_kvm(KvmIoapicImage(0, 0, 0, tuple(rte))))

    restore_lapic(subject, 0, page(enabled(isr=1 << 0x38)))

    assert subject.ioapics[0].set_irq(8, 1) == 0


def test_restore_ioapic_makes_every_cpu_rebuild_its_eoi_exit_bitmap():
    subject = machine()
    for cpu in range(2):
        subject.enter(cpu, interruptible=False)

    restore_irqchip(subject, ioapic_to_kvm(KvmIoapicImage(0, 0, 0, (0x10000,) * 24)))

    assert [vcpu.state.requests & SCAN_IOAPIC for vcpu in subject.vcpus] == [SCAN_IOAPIC] * 2


def test_restore_ioapic_with_requests_raises_them_anew():
    subject = machine(1)
    restore_lapic(subject, 0, page(enabled()))
    rte = [0x10000] * 24
    rte[5] = 0x8041

    restore_irqchip(subject, ioapic_to_kvm(KvmIoapicImage(0, 0, 1 << 5, tuple(rte))))

    assert subject.lapics[0].state.irr == 1 << 0x41
    assert subject.ioapics[0].state.rte[5] == 0xC041


def test_restore_pic_with_a_request_drives_the_output():
    subject = machine(1)

    restore_irqchip(subject, pic_to_kvm(Irqchip.PIC_MASTER, PicChipState(irr=1 << 4)))

    assert subject.pic.output


def test_x2apic_icr_has_an_upper_half_of_its_own_beside_icr2():
    subject = machine(1)
    subject.mmio_write(0, ICR2, 4, 0x5500_0000)
    subject.msr_write(0, MSR_APIC_BASE, X2APIC | 0x100)
    before = subject.msr_read(0, MSR_ICR)

    subject.msr_write(0, MSR_ICR, 7 << 32 | 0x0831)
    subject.lapics[0].set_apic_base(0xFEE00900, host=True)

    assert before == 0
    assert subject.mmio_read(0, ICR2, 4) == 0x5500_0000
    assert bytes(page(subject.lapics[0].state))[0x304:0x308] == b"\x07\0\0\0"


def test_x2apic_icr_on_svm_has_icr2_as_its_upper_half():
    subject = machine(1, lapic__x2apic_icr_split=True)
    subject.mmio_write(0, ICR2, 4, 0x5500_0000)
    subject.msr_write(0, MSR_APIC_BASE, X2APIC | 0x100)
    before = subject.msr_read(0, MSR_ICR)

    subject.msr_write(0, MSR_ICR, 7 << 32 | 0x0831)

    assert before == 0x5500_0000 << 32
    assert subject.lapics[0].state.icr2 == 7


def test_init_in_xapic_mode_leaves_the_upper_half_of_x2apics_icr():
    state = LapicState(icr_high=7, icr2=0x5500_0000)
    subject = machine(1)
    subject.lapics[0].load(state)

    subject.lapics[0].reset(init=True)

    assert subject.lapics[0].state.icr_high == 7
    assert subject.lapics[0].state.icr2 == 0


def test_window_requested_with_interrupts_disabled_opens_when_they_are_enabled():
    subject = machine(1)
    restore_lapic(subject, 0, page(enabled(irr=1 << 0x41)))
    first = subject.enter(0, interruptible=False)
    second = subject.enter(0, interruptible=False)

    taken = subject.enter(0, interruptible=True)

    assert (first.irq_window, second.irq_window) == (True, False)
    assert taken.vector == 0x41


def test_parked_pic_interrupt_hides_the_local_apics_from_an_entry():
    subject = machine(1, mode="split")
    lvt = [*LapicState().lvt]
    lvt[3] = 0x700
    subject.interrupt(0, 0x20)
    restore_lapic(subject, 0, page(enabled(isr=1 << 0x45, lvt=lvt)))

    subject.enter(0, interruptible=False)

    assert subject.lapics[0].state.ppr == 0
