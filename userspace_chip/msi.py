"""MSI address and data: what a message to a local APIC looks like as a 32-bit store.

Spec: SDM volume 3A, "Message Signalled Interrupts" (edition 081, 2023).  Decoders: Linux
``arch/x86/kvm/irq_comm.c:kvm_set_msi_irq`` (6.18: ``kvm_msi_to_lapic_irq``), QEMU
``hw/intc/apic.c:apic_send_msi``.

Neither original looks at the address' base bits, at data bit 14 (level assert) or at vectors below
16.  Not modelled: interrupt remapping (address bit 4); QEMU's swizzle of extended destination ids
is :func:`swizzle_ext_dest_id`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from userspace_chip.architecture import APIC_WINDOW
from userspace_chip.bits import Field, Register
from userspace_chip.errors import RouteError
from userspace_chip.messages import (
    DELIVERY_MODES,
    DEST_MODES,
    TRIGGERS,
    DeliveryMode,
    DestMode,
    LapicMessage,
    MsiMessage,
    Shorthand,
    Trigger,
)

ADDRESS: Final = Register(
    "MSI address",
    64,
    Field("dest_mode", 2, 2, enum=DestMode),
    Field("redirection_hint", 3, 3),
    Field("remappable", 4, 4),
    Field("ext_dest", 11, 5),
    Field("dest", 19, 12),
    Field("base", 31, 20),
    Field("dest_high", 63, 40),
)
DATA: Final = Register(
    "MSI data",
    32,
    Field("vector", 7, 0),
    Field("delivery_mode", 10, 8, enum=DeliveryMode),
    Field("level", 14, 14),
    Field("trigger", 15, 15, enum=Trigger),
)


@lru_cache(maxsize=4096)
def decode(message: MsiMessage, *, ids_32bit: bool = False) -> LapicMessage:
    """The LAPIC message that KVM makes of an MSI; always assert, never a shorthand.

    ``ids_32bit`` is KVM_X2APIC_API_USE_32BIT_IDS: address bits 63:40 are destination bits 31:8,
    and :class:`RouteError` (EINVAL) where bits 39:32 are not 0.
    """
    address, data = message
    dest = address >> 12 & 0xFF
    if ids_32bit:
        check(message)
        dest |= address >> 32 & 0xFFFFFF00
    return LapicMessage(
        data & 0xFF,
        DELIVERY_MODES[data >> 8 & 7],
        DEST_MODES[address >> 2 & 1],
        dest,
        TRIGGERS[data >> 15 & 1],
        True,
        Shorthand.NONE,
        bool(address & 8),
    )


def check(message: MsiMessage) -> MsiMessage:
    """``kvm_msi_route_invalid`` with 32-bit ids: :class:`RouteError` or ``message`` itself."""
    if message.address >> 32 & 0xFF:
        raise RouteError(
            f"MSI address {message.address:#x}",
            "bits 39:32 are reserved with 32-bit APIC ids",
            "put destination bits 31:8 into address bits 63:40",
        )
    return message


def decode_qemu(message: MsiMessage, *, ids_32bit: bool) -> LapicMessage:
    """The LAPIC message that QEMU's own APIC makes of it: the redirection hint is ignored.

    ``ids_32bit``: QEMU 10.0 ORs the address' upper half into the destination.
    """
    address, data = message
    dest = address >> 12 & 0xFF
    if ids_32bit:
        dest = (dest | address >> 32) & 0xFFFFFFFF
    return LapicMessage(
        data & 0xFF,
        DELIVERY_MODES[data >> 8 & 7],
        DEST_MODES[address >> 2 & 1],
        dest,
        TRIGGERS[data >> 15 & 1],
    )


def encode(message: LapicMessage) -> MsiMessage:
    """The MSI of a message to a destination (a shorthand has no MSI)."""
    address = ADDRESS.pack(
        dest_mode=message.dest_mode,
        redirection_hint=message.rh,
        dest=message.dest & 0xFF,
        base=APIC_WINDOW >> 20,
        dest_high=message.dest >> 8,
    )
    data = DATA.pack(
        vector=message.vector,
        delivery_mode=message.delivery_mode,
        level=message.level and message.trigger,
        trigger=message.trigger,
    )
    return MsiMessage(address, data)


def swizzle_ext_dest_id(address: int) -> int:
    """QEMU ``kvm_swizzle_msi_ext_dest_id``: address bits 11:5 become bits 46:40.

    For guests that were offered KVM_FEATURE_MSI_EXT_DEST_ID; remappable addresses stay.
    """
    ext = ADDRESS.ext_dest.get(address)
    if not ext or ADDRESS.remappable.get(address):
        return address
    return (address & ~ADDRESS.ext_dest.mask) | ext << 40
