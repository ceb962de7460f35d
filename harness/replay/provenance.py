"""Which rule decides an event: where it is in the chips, and where it comes from.

What a rule does in one mode or version and not in another is in ``userspace_chip/profile.py``, a
row a difference, each with its own source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

SOURCES: Final[Mapping[str, str]] = {
    "delivery.KvmBus.deliver": "Linux arch/x86/kvm/lapic.c: kvm_irq_delivery_to_apic_fast; "
    "SDM 3A, Determining IPI Destination",
    "delivery.QemuBus.deliver": "QEMU hw/intc/apic.c: apic_bus_deliver, "
    "apic_get_delivery_bitmask; SDM 3A, Determining IPI Destination",
    "ioapic.Ioapic.eoi": "Linux arch/x86/kvm/ioapic.c: kvm_ioapic_update_eoi_one; "
    "QEMU hw/intc/ioapic.c: ioapic_eoi_broadcast; 82093AA, I/O Redirection Table: Remote IRR",
    "ioapic.Ioapic.read": "Linux arch/x86/kvm/ioapic.c: ioapic_mmio_read; "
    "QEMU hw/intc/ioapic.c: ioapic_mem_read; 82093AA, I/O APIC Registers",
    "ioapic.Ioapic.set_irq": "Linux arch/x86/kvm/ioapic.c: ioapic_set_irq, ioapic_service; "
    "QEMU hw/intc/ioapic.c: ioapic_set_irq, ioapic_service; 82093AA, I/O Redirection Table",
    "ioapic.Ioapic.write": "Linux arch/x86/kvm/ioapic.c: ioapic_write_indirect; "
    "QEMU hw/intc/ioapic.c: ioapic_mem_write; 82093AA, I/O APIC Registers",
    "irqchip.Machine.msr_write": "Linux arch/x86/kvm/x86.c: kvm_set_msr_common; "
    "QEMU hw/intc/apic_common.c: cpu_set_apic_base; SDM 3A, Local APIC Status and Location",
    "irqchip.Machine.notify_ack": "Linux virt/kvm/eventfd.c: kvm_notify_acked_irq",
    "irqchip.Machine.set_gsi": "QEMU hw/i386/x86.c: gsi_handler",
    "lapic.Lapic.accept": "Linux arch/x86/kvm/lapic.c: __apic_accept_irq; "
    "SDM 3A, Interrupt Acceptance for Fixed Interrupts",
    "lapic.Lapic.eoi": "Linux arch/x86/kvm/lapic.c: apic_set_eoi; QEMU hw/intc/apic.c: apic_eoi; "
    "SDM 3A, Signaling Interrupt Servicing Completion",
    "lapic.Lapic.local_deliver": "Linux arch/x86/kvm/lapic.c: kvm_apic_local_deliver; "
    "QEMU hw/intc/apic.c: apic_local_deliver; SDM 3A, Local Vector Table",
    "lapic.Lapic.pending": "Linux arch/x86/kvm/lapic.c: kvm_apic_has_interrupt; "
    "QEMU hw/intc/apic.c: apic_irq_pending; SDM 3A, Task and Processor Priorities",
    "lapic.Lapic.read_mmio": "Linux arch/x86/kvm/lapic.c: kvm_lapic_reg_read; "
    "QEMU hw/intc/apic.c: apic_mem_read; SDM 3A, Local APIC Register Address Map",
    "lapic.Lapic.write_mmio": "Linux arch/x86/kvm/lapic.c: kvm_lapic_reg_write; "
    "QEMU hw/intc/apic.c: apic_mem_write; SDM 3A, Local APIC Register Address Map",
    "lapic.Lapic.write_msr": "Linux arch/x86/kvm/lapic.c: kvm_x2apic_msr_write; "
    "QEMU hw/intc/apic.c: apic_msr_write; SDM 3A, x2APIC Register Address Space",
    "pic.Pic.intack": "Linux arch/x86/kvm/i8259.c: kvm_pic_read_irq; "
    "QEMU hw/intc/i8259.c: pic_read_irq; 8259A, Interrupt Sequence",
    "pic.Pic.read": "Linux arch/x86/kvm/i8259.c: pic_ioport_read; "
    "QEMU hw/intc/i8259.c: pic_ioport_read; 8259A, Reading the 8259A Status",
    "pic.Pic.set_irq": "Linux arch/x86/kvm/i8259.c: pic_set_irq1; "
    "QEMU hw/intc/i8259.c: pic_set_irq, pic_update_irq; 8259A, Interrupt Request Register",
    "pic.Pic.write": "Linux arch/x86/kvm/i8259.c: pic_ioport_write; "
    "QEMU hw/intc/i8259.c: pic_ioport_write; 8259A, Programming the 8259A",
    "routing.Router.decode": "Linux arch/x86/kvm/irq_comm.c: kvm_set_msi_irq; "
    "SDM 3A, Message Signalled Interrupts",
    "routing.Router.set_irq": "Linux virt/kvm/irqchip.c: kvm_set_irq",
    "vcpu.Vcpu._enter_kvm": "Linux arch/x86/kvm/x86.c: kvm_check_and_inject_events; "
    "SDM 3A, Interrupt Acceptance for Fixed Interrupts",
    "vcpu.Vcpu._enter_qemu": "QEMU target/i386/cpu.c: x86_cpu_pending_interrupt, hw/intc/apic.c: "
    "apic_get_interrupt; SDM 3A, Interrupt Acceptance for Fixed Interrupts",
    "vcpu.Vcpu.exit": "Linux arch/x86/kvm/lapic.c: apic_sync_pv_eoi_from_guest",
    "vcpu.Vcpu.scan_ioapic": "Linux arch/x86/kvm/irq_comm.c: kvm_scan_ioapic_routes",
}
"""By function of ``userspace_chip``: what it follows.  SDM: edition 081 (2023)."""

RULES: Final[Mapping[str, tuple[str, ...]]] = {
    "kvm_set_irq": ("routing.Router.set_irq",),
    "kvm_ioapic_set_irq": ("ioapic.Ioapic.set_irq",),
    "kvm_ioapic_delayed_eoi_inj": ("ioapic.Ioapic.eoi",),
    "kvm_pic_set_irq": ("pic.Pic.set_irq",),
    "kvm_msi_set_irq": ("routing.Router.decode", "vcpu.Vcpu.scan_ioapic"),
    "kvm_apic": ("lapic.Lapic.read_mmio", "lapic.Lapic.write_mmio", "lapic.Lapic.write_msr"),
    "kvm_apic_ipi": ("lapic.Lapic.write_mmio", "lapic.Lapic.write_msr"),
    "kvm_apic_accept_irq": ("delivery.KvmBus.deliver", "lapic.Lapic.accept"),
    "kvm_eoi": ("lapic.Lapic.eoi",),
    "kvm_pv_eoi": ("vcpu.Vcpu.exit",),
    "kvm_ack_irq": ("ioapic.Ioapic.eoi", "pic.Pic.intack", "irqchip.Machine.notify_ack"),
    "kvm_inj_virq": ("vcpu.Vcpu._enter_kvm", "vcpu.Vcpu._enter_qemu", "lapic.Lapic.pending"),
    "kvm_userspace_exit": ("vcpu.Vcpu._enter_kvm", "lapic.Lapic.eoi"),
    "kvm_msr": ("irqchip.Machine.msr_write",),
    "kvm_mmio": ("ioapic.Ioapic.read", "ioapic.Ioapic.write"),
    "kvm_pio": ("pic.Pic.read", "pic.Pic.write"),
    "pic_update_irq": ("pic.Pic.set_irq", "pic.Pic.write"),
    "pic_set_irq": ("irqchip.Machine.set_gsi", "pic.Pic.set_irq"),
    "pic_interrupt": ("vcpu.Vcpu._enter_qemu", "pic.Pic.intack"),
    "pic_ioport_write": ("pic.Pic.write",),
    "pic_ioport_read": ("pic.Pic.read",),
    "ioapic_set_irq": ("irqchip.Machine.set_gsi", "ioapic.Ioapic.set_irq"),
    "ioapic_set_remote_irr": ("ioapic.Ioapic.set_irq",),
    "ioapic_clear_remote_irr": ("ioapic.Ioapic.eoi",),
    "ioapic_eoi_broadcast": ("lapic.Lapic.eoi", "ioapic.Ioapic.eoi"),
    "ioapic_eoi_delayed_reassert": ("ioapic.Ioapic.eoi",),
    "ioapic_mem_read": ("ioapic.Ioapic.read",),
    "ioapic_mem_write": ("ioapic.Ioapic.write",),
    "apic_local_deliver": ("lapic.Lapic.local_deliver",),
    "apic_deliver_irq": ("ioapic.Ioapic.set_irq", "delivery.QemuBus.deliver"),
    "apic_mem_readl": ("lapic.Lapic.read_mmio",),
    "apic_mem_writel": ("lapic.Lapic.write_mmio",),
    "apic_register_read": ("lapic.Lapic.read_mmio",),
    "apic_register_write": ("lapic.Lapic.write_mmio", "lapic.Lapic.write_msr"),
    "cpu_set_apic_base": ("irqchip.Machine.msr_write",),
    "kvm_irqchip_commit_routes": ("ioapic.Ioapic.write",),
    "kvm_irqchip_update_msi_route": ("ioapic.Ioapic.write",),
    "hardware_int": ("vcpu.Vcpu._enter_qemu", "lapic.Lapic.pending"),
}
"""By event: the functions of ``userspace_chip`` that decide on it."""

CHIPS: Final[Mapping[str, tuple[str, ...]]] = {
    "kvm_set_irq": ("ioapic", "pic"),
    "kvm_ioapic_set_irq": ("ioapic",),
    "kvm_ioapic_delayed_eoi_inj": ("ioapic",),
    "kvm_pic_set_irq": ("pic",),
    "kvm_msi_set_irq": ("ioapic", "vcpu"),
    "kvm_ack_irq": ("ioapic", "pic"),
    "kvm_inj_virq": ("lapic", "vcpu"),
    "kvm_userspace_exit": ("lapic", "vcpu", "ioapic"),
    "kvm_mmio": ("ioapic",),
    "kvm_pio": ("pic",),
    "pic_update_irq": ("pic",),
    "pic_set_irq": ("pic", "ioapic"),
    "pic_interrupt": ("pic", "vcpu"),
    "pic_ioport_write": ("pic",),
    "pic_ioport_read": ("pic",),
    "ioapic_set_irq": ("ioapic", "pic"),
    "ioapic_set_remote_irr": ("ioapic",),
    "ioapic_clear_remote_irr": ("ioapic",),
    "ioapic_eoi_broadcast": ("lapic", "ioapic"),
    "ioapic_eoi_delayed_reassert": ("ioapic",),
    "ioapic_mem_read": ("ioapic",),
    "ioapic_mem_write": ("ioapic",),
    "apic_deliver_irq": ("ioapic", "lapic"),
    "kvm_irqchip_commit_routes": ("ioapic",),
    "kvm_irqchip_update_msi_route": ("ioapic",),
    "hardware_int": ("lapic", "vcpu"),
}
"""By event: the chips whose state tells why; the local APIC's by default."""


def rules_of(names: Iterable[str]) -> tuple[str, ...]:
    """The rules that decide on events of these names, each with its source."""
    rules = dict.fromkeys(rule for name in names for rule in RULES.get(name, ()))
    return tuple(f"userspace_chip.{rule} ({SOURCES[rule]})" for rule in rules)


def chips_of(names: Iterable[str]) -> tuple[str, ...]:
    """The kinds of chips that events of these names concern: lapic, vcpu, ioapic, pic."""
    return tuple(dict.fromkeys(chip for name in names for chip in CHIPS.get(name, ("lapic",))))
