"""The local APIC's interrupt command register: what it holds, and the messages it sends.

Spec: SDM volume 3A, "Advanced Programmable Interrupt Controller (APIC)" (edition 081, 2023),
sections "Issuing Interprocessor Interrupts" and "ICR Operation in x2APIC Mode".  Sources: Linux
``arch/x86/kvm/lapic.c`` (``kvm_apic_send_ipi``, ``kvm_x2apic_icr_write``), QEMU
``hw/intc/apic.c`` (``apic_deliver``).
"""

from __future__ import annotations

from userspace_chip.knobs import Model
from userspace_chip.lapic_modes import LapicModes
from userspace_chip.lapic_registers import ICR_BUSY, X2APIC_ICR_RESERVED
from userspace_chip.messages import (
    DELIVERY_MODE_NAMES,
    DELIVERY_MODES,
    DEST_MODE_NAMES,
    DEST_MODES,
    LEVEL_NAMES,
    SHORTHAND_NAMES,
    SHORTHANDS,
    TRIGGER_NAMES,
    TRIGGERS,
    LapicMessage,
    Shorthand,
)


class Icr:
    """The ICR of one local APIC, in whose state ``icr``, ``icr2`` and ``icr_high`` are."""

    __slots__ = ("_kvm", "_lapic", "_mask", "_split")

    def __init__(self, lapic: LapicModes) -> None:
        knobs = lapic.profile.lapic
        self._lapic = lapic
        self._kvm = knobs.model is Model.KVM
        self._split = knobs.x2apic_icr_split
        self._mask = 0xFFFFFFFF if knobs.icr_busy_stored else 0xFFFFFFFF & ~ICR_BUSY

    def write(self, value: int) -> None:
        """The lower half is written: send.  QEMU's x2APIC mode writes ICR2 before."""
        low = value & self._mask
        state = self._lapic.state
        if self._kvm:
            self._send(low, state.icr2)
            state.icr = low
        else:
            state.icr = low
            self._send(low, state.icr2)

    def write_x2apic(self, value: int) -> bool:
        """``kvm_x2apic_icr_write``, all 64 bits; False is #GP."""
        if value & X2APIC_ICR_RESERVED:
            return False
        value &= ~ICR_BUSY
        low, high = value & 0xFFFFFFFF, value >> 32
        lapic = self._lapic
        state = lapic.state
        self._send(low, high)
        state.icr = low
        if self._split:
            state.icr2 = high
        else:
            state.icr_high = high
        if lapic.emit is not None:
            lapic.emit("kvm_apic", "write", "APIC_ICR", value)
        return True

    def read_x2apic(self) -> int:
        """KVM: all 64 bits."""
        state = self._lapic.state
        return state.icr | (state.icr2 if self._split else state.icr_high) << 32

    def send_self(self, vector: int) -> None:
        """The self-IPI register is written."""
        self._send(Shorthand.SELF << 18 | vector, 0)

    def _send(self, low: int, high: int) -> None:
        """``kvm_apic_send_ipi`` / ``apic_deliver``."""
        lapic = self._lapic
        dest = high if lapic.x2apic_mode else high >> 24
        message = LapicMessage(
            low & 0xFF,
            DELIVERY_MODES[low >> 8 & 7],
            DEST_MODES[low >> 11 & 1],
            dest,
            TRIGGERS[low >> 15 & 1],
            bool(low & 0x4000),
            SHORTHANDS[low >> 18 & 3],
        )
        if self._kvm and lapic.emit is not None:
            lapic.emit(
                "kvm_apic_ipi",
                dest,
                message.vector,
                DELIVERY_MODE_NAMES[message.delivery_mode],
                DEST_MODE_NAMES[message.dest_mode],
                LEVEL_NAMES[message.level],
                TRIGGER_NAMES[message.trigger],
                SHORTHAND_NAMES[message.shorthand],
            )
        lapic.port.send_ipi(message)
