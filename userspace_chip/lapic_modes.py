"""What a local APIC is: its state, its knobs, its modes and the MSR that switches them.

Spec: SDM volume 3A, "Advanced Programmable Interrupt Controller (APIC)" (edition 081, 2023),
sections "Local APIC Status and Location" and "x2APIC State Transitions".  Sources: Linux
``arch/x86/kvm/lapic.c`` (``kvm_set_apic_base``, ``kvm_lapic_set_base``), QEMU
``hw/intc/apic_common.c`` (``cpu_set_apic_base``), ``apic.c`` (``apic_set_base``).

The rules that follow from a mode are in :mod:`userspace_chip.lapic_delivery`, ``lapic_icr`` and
``lapic_timer``; :class:`userspace_chip.lapic.Lapic` is all of them with the registers.
"""

from __future__ import annotations

from userspace_chip.knobs import ApicBaseRules, Model
from userspace_chip.lapic_registers import (
    BASE,
    BSP,
    DIRECTED_EOI,
    ENABLE,
    EXTD,
    SW_ENABLE,
    x2apic_ldr,
)
from userspace_chip.lapic_state import LapicState
from userspace_chip.ports import Emit, LapicPort
from userspace_chip.profile import Profile


class LapicModes:
    """State and modes of one local APIC; all of its state is in ``state``."""

    def __init__(
        self, profile: Profile, port: LapicPort, vcpu_id: int, emit: Emit | None, physical_bits: int
    ) -> None:
        self.profile = profile
        self.port = port
        self.vcpu_id = vcpu_id
        self.emit = emit
        self.state = LapicState()
        knobs = profile.lapic
        self._knobs = knobs
        self._kvm = knobs.model is Model.KVM
        self._base_reserved = ~((1 << physical_bits) - 1) | 0x2FF
        if not knobs.x2apic:
            self._base_reserved |= EXTD

    @property
    def hw_enabled(self) -> bool:
        """IA32_APIC_BASE bit 11."""
        return bool(self.state.apic_base & ENABLE)

    @property
    def sw_enabled(self) -> bool:
        """SPIV bit 8."""
        return bool(self.state.spiv & SW_ENABLE)

    @property
    def enabled(self) -> bool:
        """Both."""
        return bool(self.state.spiv & SW_ENABLE and self.state.apic_base & ENABLE)

    @property
    def x2apic_mode(self) -> bool:
        """IA32_APIC_BASE bits 11 and 10 (QEMU looks at bit 10 alone)."""
        base = self.state.apic_base
        return bool(base & EXTD and (base & ENABLE or not self._kvm))

    @property
    def base_address(self) -> int:
        """Where the register page is."""
        return self.state.apic_base & BASE

    @property
    def xapic_id(self) -> int:
        """The 8-bit id of xAPIC mode."""
        return self.state.id_reg >> 24

    @property
    def suppresses_eoi_broadcast(self) -> bool:
        """SPIV bit 12."""
        return bool(self.state.spiv & DIRECTED_EOI)

    @property
    def x2apic_ldr(self) -> int:
        """The read-only logical id of x2APIC mode (SDM, "Logical Destination Mode in x2APIC")."""
        return x2apic_ldr(self.vcpu_id)

    def set_apic_base(self, value: int, *, host: bool = False) -> bool:
        """WRMSR of IA32_APIC_BASE; False is #GP.

        ``host``: KVM_SET_MSRS and KVM_SET_SREGS may leave x2APIC mode, a guest may not.
        """
        rules = self.profile.lapic.apic_base_rules
        if rules is ApicBaseRules.KVM:
            return self._kvm_set_apic_base(value, host)
        if self.profile.kvm_vcpu and value & self._base_reserved:
            return False  # off: KVM owns the MSR, QEMU hears of it at the next exit
        if self.emit is not None:
            self.emit("cpu_set_apic_base", value)
        if rules is ApicBaseRules.UNCHECKED:
            if value & EXTD:
                self.state.id_reg = (self.vcpu_id & 0xFF) << 24
            self._qemu_store_base(value)
            return True
        if value & ~(BASE | BSP | EXTD | ENABLE):
            return False
        self.state.id_reg = (self.vcpu_id & 0xFF) << 24
        if not self._legal_transition(value):
            return False
        self._qemu_store_base(value)
        if value & ENABLE:
            self.state.apic_base |= ENABLE
        if value & EXTD:
            self.state.apic_base |= EXTD
            self.state.ldr = ((1 << (self.vcpu_id & 0xF)) & 0xFF) << 24
        return True

    def _qemu_store_base(self, value: int) -> None:
        state = self.state
        state.apic_base = (value & BASE) | (state.apic_base & (BSP | ENABLE))
        if not value & ENABLE:
            state.apic_base &= ~ENABLE
            state.spiv &= ~SW_ENABLE

    def _kvm_set_apic_base(self, value: int, host: bool) -> bool:
        state = self.state
        old = state.apic_base
        if value & self._base_reserved or (value & EXTD and not value & ENABLE):
            return False
        if not host and not self._legal_transition(value):
            return False
        state.apic_base = value
        changed = old ^ value
        stale_map = bool(changed & ENABLE)
        if changed & ENABLE and value & ENABLE:
            state.id_reg = (self.vcpu_id & 0xFF) << 24
        if changed & EXTD:
            if value & EXTD:
                state.id_reg = self.vcpu_id
                state.ldr = self.x2apic_ldr
                stale_map = True
            elif value & ENABLE and not self.profile.lapic.keeps_id_when_leaving_x2apic:
                state.id_reg = (self.vcpu_id & 0xFF) << 24
                stale_map = True
        if stale_map:
            self.port.apic_map_changed()
        return True

    def _legal_transition(self, value: int) -> bool:
        old = self.state.apic_base
        x2apic, enable = value & EXTD, value & ENABLE
        if x2apic and (not enable or not self.profile.lapic.x2apic):
            return False
        if x2apic and not old & ENABLE:
            return False
        return not (old & EXTD and old & ENABLE and enable and not x2apic)

    def _ignored(self, what: str) -> None:
        if self.emit is not None:
            self.emit("ignored", "lapic", what)
