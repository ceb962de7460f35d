"""What travels between the chips: the message to a local APIC, and the MSI that encodes one.

Sources: SDM volume 3A, "Advanced Programmable Interrupt Controller (APIC)": sections
"Interrupt Command Register (ICR)" and "Message Signalled Interrupts"; the names that the kernel's
tracepoints print are those of Linux ``include/trace/events/kvm.h``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


class DeliveryMode(IntEnum):
    """Bits 10:8 of an ICR, RTE, LVT entry or MSI data word."""

    FIXED = 0
    LOWEST = 1
    SMI = 2
    RESERVED3 = 3
    """Reserved; KVM uses the number for its paravirtual un-halt kick ("remote read")."""
    NMI = 4
    INIT = 5
    SIPI = 6
    EXTINT = 7


class DestMode(IntEnum):
    """How the destination field selects local APICs."""

    PHYSICAL = 0
    LOGICAL = 1


class Trigger(IntEnum):
    """Trigger mode."""

    EDGE = 0
    LEVEL = 1


class Shorthand(IntEnum):
    """ICR bits 19:18."""

    NONE = 0
    SELF = 1
    ALL = 2
    ALL_BUT_SELF = 3


# Looking a number up in a tuple is several times faster than calling the enum.
DELIVERY_MODES: Final = tuple(DeliveryMode)
DEST_MODES: Final = tuple(DestMode)
TRIGGERS: Final = tuple(Trigger)
SHORTHANDS: Final = tuple(Shorthand)

DELIVERY_MODE_NAMES: Final = ("Fixed", "LowPrio", "SMI", "Res3", "NMI", "INIT", "SIPI", "ExtINT")
DEST_MODE_NAMES: Final = ("physical", "logical")
TRIGGER_NAMES: Final = ("edge", "level")
LEVEL_NAMES: Final = ("de-assert", "assert")
SHORTHAND_NAMES: Final = ("dst", "self", "all", "all-but-self")
"""The words of the kernel's tracepoints, by number."""


class LapicMessage(NamedTuple):
    """One interrupt message on its way to the local APICs (KVM's ``struct kvm_lapic_irq``).

    ``dest`` is 8 bits in xAPIC format, up to 32 bits from an x2APIC ICR or an MSI with 32-bit ids.
    ``level`` is the ICR's level bit (assert); only INIT de-assert and level de-assert clear it.
    ``rh`` is the MSI's redirection hint.
    """

    vector: int
    delivery_mode: DeliveryMode = DeliveryMode.FIXED
    dest_mode: DestMode = DestMode.PHYSICAL
    dest: int = 0
    trigger: Trigger = Trigger.EDGE
    level: bool = True
    shorthand: Shorthand = Shorthand.NONE
    rh: bool = False


class MsiMessage(NamedTuple):
    """A 64-bit address and 32-bit data, as a device, an IOAPIC in QEMU or a route holds them."""

    address: int
    data: int
