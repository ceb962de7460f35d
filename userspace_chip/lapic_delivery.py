"""The local APIC between the bus and its CPU: IRR, ISR, TMR, PPR and the local vector table.

Spec: SDM volume 3A, "Advanced Programmable Interrupt Controller (APIC)" (edition 081, 2023),
sections "Local Interrupts" and "Handling Interrupts".  Sources: Linux ``arch/x86/kvm/lapic.c``,
QEMU ``hw/intc/apic.c``; each method names its function.
"""

from __future__ import annotations

from userspace_chip.errors import VectorRangeError
from userspace_chip.lapic_modes import LapicModes
from userspace_chip.lapic_registers import ENABLE, LVT_LINT0, LVT_LINT1, LVT_PERF, MASKED
from userspace_chip.messages import (
    DELIVERY_MODE_NAMES,
    DELIVERY_MODES,
    TRIGGER_NAMES,
    TRIGGERS,
    DeliveryMode,
    LapicMessage,
)
from userspace_chip.ports import DestMap, Emit, LapicPort
from userspace_chip.profile import Profile


class LapicDelivery(LapicModes):
    """Messages and local interrupts in, vectors out to the CPU, and their end."""

    def __init__(
        self, profile: Profile, port: LapicPort, vcpu_id: int, emit: Emit | None, physical_bits: int
    ) -> None:
        super().__init__(profile, port, vcpu_id, emit, physical_bits)
        knobs = profile.lapic
        self._apicv = knobs.apicv
        self._accepts_disabled = knobs.accept_when_sw_disabled
        self._low_vectors = knobs.deliver_vectors_below_16

    def pending_eoi(self, vector: int) -> bool:
        """Whether ``vector`` waits or is in service (``kvm_apic_pending_eoi``)."""
        return bool((self.state.irr | self.state.isr) >> vector & 1)

    def accepts_pic_intr(self) -> bool:
        """Whether the PIC's INTR reaches this CPU through LINT0 (or past a disabled APIC).

        KVM wants mode ExtINT; QEMU does not look at the mode.
        """
        state = self.state
        if not state.apic_base & ENABLE:
            return True
        lvt0 = state.lvt[LVT_LINT0]
        if self._kvm:
            return lvt0 & 0x10700 == 0x700
        return not lvt0 & MASKED

    # ------------------------------------------------------------------ messages in

    def accept(self, message: LapicMessage, dest_map: DestMap | None = None) -> int:
        """KVM ``__apic_accept_irq``: 1 where the message was taken, 0 where it was dropped.

        :class:`VectorRangeError` for a vector that no message can carry.
        """
        vector, mode, _, _, trigger, level, _, _ = message
        if vector >> 8:
            raise VectorRangeError(f"vector {vector}", "vectors are 0..255")
        if self.emit is not None:
            self.emit(
                "kvm_apic_accept_irq",
                self.vcpu_id,
                vector,
                DELIVERY_MODE_NAMES[mode],
                TRIGGER_NAMES[trigger],
            )
        if mode <= 1:
            state = self.state
            if mode == 1:
                state.arbitration += 1
            if trigger and not level:
                return 0
            if not (state.spiv & 0x100 and state.apic_base & 0x800) and not self._accepts_disabled:
                return 0
            if dest_map is not None:
                dest_map[self.vcpu_id] = vector
            bit = 1 << vector
            if trigger:
                state.tmr |= bit
            elif state.tmr & bit:
                state.tmr ^= bit
            state.irr |= bit
            state.irr_pending = True
            if self._apicv and self.emit is not None:
                self.emit(
                    "kvm_apicv_accept_irq",
                    self.vcpu_id,
                    vector,
                    DELIVERY_MODE_NAMES[mode],
                    TRIGGER_NAMES[trigger],
                )
            self.port.request()
            return 1
        return self._accept_special(mode, vector, trigger, level)

    def _accept_special(self, mode: int, vector: int, trigger: int, level: bool) -> int:
        port = self.port
        if mode == DeliveryMode.NMI:
            port.nmi()
        elif mode == DeliveryMode.SMI:
            return int(port.smi())
        elif mode == DeliveryMode.INIT:
            if trigger and not level:
                return 0
            port.init()
        elif mode == DeliveryMode.SIPI:
            self.state.sipi_vector = vector
            port.sipi(vector)
        elif mode == DeliveryMode.RESERVED3:
            port.unhalt()
        else:  # ExtINT is polled by accepts_pic_intr(); as a message it does nothing
            return 0
        return 1

    def set_irq(self, vector: int, trigger: int) -> None:
        """QEMU ``apic_set_irq``: IRR and TMR are set whatever the enable bits say."""
        if vector >> 8:
            raise VectorRangeError(f"vector {vector}", "vectors are 0..255")
        state = self.state
        if not self._accepts_disabled and not self.enabled:
            return
        bit = 1 << vector
        state.irr |= bit
        if trigger:
            state.tmr |= bit
        else:
            state.tmr &= ~bit
        self.port.request()

    def local_deliver(self, lvt: int) -> int:
        """An interrupt of the LVT entry ``lvt`` (place in ``LapicState.lvt``): 1 if it was taken.

        KVM ``kvm_apic_local_deliver``, QEMU ``apic_local_deliver``.
        """
        value = self.state.lvt[lvt]
        mode = DELIVERY_MODES[value >> 8 & 7]
        if not self._kvm:
            return self._qemu_local_deliver(lvt, value, mode)
        if not self.hw_enabled or value & MASKED:
            return 0
        result = self.accept(LapicMessage(value & 0xFF, mode, trigger=TRIGGERS[value >> 15 & 1]))
        if result and lvt == LVT_PERF:
            self.state.lvt[lvt] |= MASKED
        return result

    def _qemu_local_deliver(self, lvt: int, value: int, mode: DeliveryMode) -> int:
        if self.emit is not None:
            self.emit("apic_local_deliver", lvt, int(mode))
        if value & MASKED:
            return 0
        if mode is DeliveryMode.FIXED:
            lint = lvt in (LVT_LINT0, LVT_LINT1)
            self.set_irq(value & 0xFF, value >> 15 & 1 if lint else 0)
        elif mode is DeliveryMode.NMI:
            self.port.nmi()
        elif mode is DeliveryMode.SMI:
            self.port.smi()
        elif mode is DeliveryMode.EXTINT:
            self.port.extint()
        else:
            return 0
        return 1

    def pic_intr(self, level: bool) -> None:
        """QEMU ``apic_deliver_pic_intr``: the PIC's INTR wire changed at LINT0."""
        if level:
            self.local_deliver(LVT_LINT0)
            return
        lvt0 = self.state.lvt[LVT_LINT0]
        mode = lvt0 >> 8 & 7
        if mode == DeliveryMode.FIXED:
            if not lvt0 >> 15 & 1:
                return
            self.state.irr &= ~(1 << (lvt0 & 0xFF))
        elif mode != DeliveryMode.EXTINT:
            return
        self.port.request()

    def check_pic(self) -> bool:
        """QEMU ``apic_check_pic``: deliver through LINT0 where the PIC's output is high."""
        if not self.accepts_pic_intr() or not self.port.pic_output():
            return False
        self.pic_intr(True)
        return True

    # ------------------------------------------------------------------ the CPU's side

    def update_ppr(self) -> bool:
        """Recompute PPR; True where it fell (``__apic_update_ppr``)."""
        state = self.state
        old = state.ppr
        isr = (state.isr.bit_length() - 1) & 0xF0 if state.isr else 0
        new = state.tpr if state.tpr & 0xF0 >= isr else isr
        state.ppr = new
        return new < old

    def pending(self) -> int | None:
        """The vector that the CPU would take now, or None.

        KVM ``kvm_apic_has_interrupt`` (which does not look at software enable), QEMU
        ``apic_irq_pending``; a QEMU interrupt that PPR blocks is :meth:`blocked`.
        """
        state = self.state
        if not (state.apic_base & 0x800 if self._kvm else state.spiv & 0x100):
            return None
        self.update_ppr()
        if not state.irr:
            return None
        vector = state.irr.bit_length() - 1
        if vector & 0xF0 > state.ppr:
            return vector
        # Class 0 passes where nothing at all holds it back.
        return vector if self._low_vectors and not state.ppr and vector else None

    def blocked(self) -> bool:
        """QEMU: an interrupt is held back by PPR, so that an INTR gives the spurious vector."""
        state = self.state
        if not self._knobs.spurious_possible or not state.spiv & 0x100 or not state.irr:
            return False
        return self.pending() is None and state.ppr != 0

    def ack(self, vector: int) -> None:
        """The CPU took ``vector``: IRR to ISR (``kvm_apic_ack_interrupt``)."""
        state = self.state
        bit = 1 << vector
        state.irr &= ~bit
        state.irr_pending = state.irr != 0
        if not state.isr & bit:
            state.isr |= bit
            state.isr_cache = vector
        self.update_ppr()
        if not self._kvm:
            self.port.request()

    def eoi(self) -> int | None:
        """End of interrupt: the vector that left service, or None where there was none."""
        state = self.state
        if not state.isr:
            if self._kvm and self.emit is not None:
                self.emit("kvm_eoi", self.vcpu_id, -1)
            return None
        vector = state.isr.bit_length() - 1
        bit = 1 << vector
        if self._kvm:
            if self.emit is not None:
                self.emit("kvm_eoi", self.vcpu_id, vector)
            state.isr ^= bit
            state.isr_cache = None
            self.update_ppr()
            self.port.eoi(vector, bool(state.tmr & bit))
            self.port.request()
        else:
            state.isr ^= bit
            if state.tmr & bit:
                self.port.eoi(vector, True)
            self.port.request()
        return vector

    def eoi_virtualised(self) -> None:
        """APICv: hardware ends the interrupt; an exit only for vectors of the EOI exit bitmap."""
        state = self.state
        if not state.isr:
            return
        vector = state.isr.bit_length() - 1
        state.isr ^= 1 << vector
        self.update_ppr()
        if self.port.eoi_exits(vector):
            if self.emit is not None:
                self.emit("kvm_eoi", self.vcpu_id, vector)
            self.port.eoi(vector, bool(state.tmr >> vector & 1))
            self.port.request()

    def set_tpr(self, value: int) -> None:
        """TPR, all 8 bits."""
        self.state.tpr = value
        if self._kvm:
            if self.update_ppr() and self.pending() is not None:
                self.port.request()
        else:
            self.port.request()

    def set_cr8(self, value: int) -> None:
        """MOV to CR8: TPR bits 7:4."""
        self.set_tpr((value & 0xF) << 4)

    def cr8(self) -> int:
        """MOV from CR8."""
        return self.state.tpr >> 4
