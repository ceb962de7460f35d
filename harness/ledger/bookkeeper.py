"""Fills the ledger in one pass over a recording's events.

A :class:`Bookkeeper` follows each interrupt through the chips by what their tracers tell: lines and
redirection entries of the IOAPIC, messages, IRR and ISR of each local APIC.  It is no model of the
chips: it predicts nothing, it only checks that each event has a cause and each cause an event.
Its memory is the chips' own state, whatever the number of events.

Who traces what, and when, differs between the modes: :data:`HANDLERS`.  Where a cause may be
traced after its effect (two threads, two tracers), or an effect later than its cause, the missing
event is *owed*, and a finding only when it has not come in time: :class:`Debt`.
"""

from __future__ import annotations

from typing import Final

from harness.ledger.rules.injection import Injections
from harness.ledger.rules.kvm_lapic import KvmLapics
from harness.ledger.rules.kvm_lines import KvmLines
from harness.ledger.rules.qemu import QemuIoapics, QemuLapics
from harness.model.case import Irqchip

_ALWAYS: Final = ("mark", "lost")
_KVM_LAPIC: Final = (
    "kvm_set_irq",
    "kvm_msi_set_irq",
    "kvm_apic_ipi",
    "kvm_apic_accept_irq",
    "kvm_apicv_accept_irq",
    "kvm_apic",
    "kvm_msr",
    "kvm_inj_virq",
    "kvm_eoi",
    "kvm_pv_eoi",
)
_QEMU_IOAPIC: Final = (
    "ioapic_mem_write",
    "ioapic_set_irq",
    "ioapic_set_remote_irr",
    "ioapic_clear_remote_irr",
    "ioapic_eoi_broadcast",
    "ioapic_eoi_delayed_reassert",
    "pic_set_irq",
    "pic_interrupt",
)
_QEMU_LAPIC: Final = (
    "apic_deliver_irq",
    "apic_local_deliver",
    "apic_mem_writel",
    "apic_register_write",
    "cpu_set_apic_base",
)
HANDLERS: Final = {
    Irqchip.ON: (
        *_ALWAYS,
        *_KVM_LAPIC,
        "kvm_ioapic_set_irq",
        "kvm_ioapic_delayed_eoi_inj",
        "kvm_ack_irq",
        "kvm_pic_set_irq",
        "kvm_mmio",
        "kvm_pio",
    ),
    Irqchip.SPLIT: (*_ALWAYS, *_KVM_LAPIC, "kvm_userspace_exit", *_QEMU_IOAPIC),
    Irqchip.OFF: (*_ALWAYS, *_QEMU_IOAPIC, *_QEMU_LAPIC, "kvm_inj_virq"),
    Irqchip.TCG: (*_ALWAYS, *_QEMU_IOAPIC, *_QEMU_LAPIC, "hardware_int"),
}
"""The events that each mode's books are kept by."""


class Bookkeeper(KvmLines, KvmLapics, Injections, QemuIoapics, QemuLapics):
    """Takes events one by one with :meth:`add`; :meth:`close` gives the ledger."""

    def __init__(self, irqchip: Irqchip, *, smp: int = 1, ioapics: int = 1) -> None:
        super().__init__(irqchip, HANDLERS[irqchip], smp=smp, ioapics=ioapics)
        if irqchip is Irqchip.OFF:
            self._handlers |= dict.fromkeys(("kvm_mmio", "kvm_pio"), self._guest_access)
