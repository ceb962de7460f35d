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

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, Final, TypeAlias

from harness.ledger.rules.base import Books, Observer
from harness.ledger.rules.injection import Injections
from harness.ledger.rules.kvm_lapic import KvmLapics
from harness.ledger.rules.kvm_lines import KvmLines
from harness.ledger.rules.qemu import QemuIoapics, QemuLapics
from harness.ledger.rules.state import Args
from harness.model.case import Irqchip
from userspace_chip.events import Event, check_names

Table: TypeAlias = Mapping[str, Callable[[Any, Event, Args], None]]
"""By event: the rule that takes it into account, a method of a part of :class:`Bookkeeper`."""

_ALWAYS: Final[Table] = {
    "mark": Books.mark,
    "lost": Books.lost,
}
_KVM_LAPIC: Final[Table] = {
    "kvm_set_irq": KvmLines.kvm_set_irq,
    "kvm_msi_set_irq": KvmLines.kvm_msi_set_irq,
    "kvm_apic_ipi": KvmLapics.kvm_apic_ipi,
    "kvm_apic_accept_irq": KvmLapics.kvm_apic_accept_irq,
    "kvm_apicv_accept_irq": KvmLapics.kvm_apicv_accept_irq,
    "kvm_apic": KvmLapics.kvm_apic,
    "kvm_msr": KvmLapics.kvm_msr,
    "kvm_inj_virq": Injections.kvm_inj_virq,
    "kvm_eoi": KvmLapics.kvm_eoi,
    "kvm_pv_eoi": KvmLapics.kvm_pv_eoi,
}
_QEMU_IOAPIC: Final[Table] = {
    "ioapic_mem_write": QemuIoapics.ioapic_mem_write,
    "ioapic_set_irq": QemuIoapics.ioapic_set_irq,
    "ioapic_set_remote_irr": QemuIoapics.ioapic_set_remote_irr,
    "ioapic_clear_remote_irr": QemuIoapics.ioapic_clear_remote_irr,
    "ioapic_eoi_broadcast": QemuIoapics.ioapic_eoi_broadcast,
    "ioapic_eoi_delayed_reassert": QemuIoapics.ioapic_eoi_delayed_reassert,
    "pic_set_irq": QemuIoapics.pic_set_irq,
    "pic_interrupt": QemuIoapics.pic_interrupt,
}
_QEMU_LAPIC: Final[Table] = {
    "apic_deliver_irq": QemuLapics.apic_deliver_irq,
    "apic_local_deliver": QemuLapics.apic_local_deliver,
    "apic_mem_writel": QemuLapics.apic_mem_writel,
    "apic_register_write": QemuLapics.apic_register_write,
    "cpu_set_apic_base": QemuLapics.cpu_set_apic_base,
}
HANDLERS: Final[Mapping[Irqchip, Table]] = {
    Irqchip.ON: {
        **_ALWAYS,
        **_KVM_LAPIC,
        "kvm_ioapic_set_irq": KvmLines.kvm_ioapic_set_irq,
        "kvm_ioapic_delayed_eoi_inj": KvmLines.kvm_ioapic_delayed_eoi_inj,
        "kvm_ack_irq": KvmLines.kvm_ack_irq,
        "kvm_pic_set_irq": KvmLines.kvm_pic_set_irq,
        "kvm_mmio": KvmLines.kvm_mmio,
        "kvm_pio": KvmLines.kvm_pio,
    },
    Irqchip.SPLIT: {
        **_ALWAYS,
        **_KVM_LAPIC,
        "kvm_userspace_exit": KvmLapics.kvm_userspace_exit,
        **_QEMU_IOAPIC,
    },
    Irqchip.OFF: {
        **_ALWAYS,
        **_QEMU_IOAPIC,
        **_QEMU_LAPIC,
        "kvm_inj_virq": Injections.kvm_inj_virq,
        "kvm_mmio": Injections.guest_access,
        "kvm_pio": Injections.guest_access,
    },
    Irqchip.TCG: {
        **_ALWAYS,
        **_QEMU_IOAPIC,
        **_QEMU_LAPIC,
        "hardware_int": Injections.hardware_int,
    },
}
"""The events that each mode's books are kept by, and the rule for each."""

for _table in HANDLERS.values():
    check_names(_table)


class Bookkeeper(KvmLines, KvmLapics, Injections, QemuIoapics, QemuLapics):
    """Takes events one by one with :meth:`add`; :meth:`close` gives the ledger.

    ``observer`` is notified of what the books conclude.
    """

    def __init__(
        self,
        irqchip: Irqchip,
        *,
        smp: int = 1,
        ioapics: int = 1,
        observer: Observer | None = None,
    ) -> None:
        rules = {name: MethodType(rule, self) for name, rule in HANDLERS[irqchip].items()}
        super().__init__(irqchip, rules, smp=smp, ioapics=ioapics, observer=observer or Observer())
