"""The local APIC, xAPIC and x2APIC, as KVM's and as QEMU's.

Spec: Intel SDM volume 3A, chapter "Advanced Programmable Interrupt Controller (APIC)" (edition
081, 2023), sections "Local APIC", "Issuing Interprocessor Interrupts", "Handling Interrupts" and
"Extended XAPIC (x2APIC)".  Behaviour: Linux ``arch/x86/kvm/lapic.c`` (6.1.176, 6.12.94) and QEMU
``hw/intc/apic.c``, ``apic_common.c`` (7.2.22, 10.0.13); the profile says which.

Not modelled: focus processor checking, the arbitration ID protocol (RRR, APR read 0 in both
originals), error detection beyond QEMU's one ESR bit, Hyper-V SynIC and its auto-EOI, Xen's
up-call vector, the KVMVAPIC option ROM (TPR patching), nested virtualisation.

One class for both originals.  ``profile.lapic`` says how they differ; where the difference is the
shape of the algorithm (timer, register access rules) and not a value, ``_kvm`` chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from userspace_chip.errors import AccessError, StateError, VectorRangeError
from userspace_chip.lapic_registers import (
    APR,
    BASE,
    BITMAPS,
    BSP,
    DEFAULT_BASE,
    DFR,
    DIRECTED_EOI,
    ENABLE,
    EOI,
    ESR,
    ESR_ILLEGAL_REGISTER,
    EXTD,
    ICR,
    ICR2,
    ICR_BUSY,
    ID,
    ISR,
    KVM_READABLE,
    LDR,
    LVT_CMCI_REG,
    LVT_LINT0,
    LVT_LINT1,
    LVT_PERF,
    LVT_REGISTERS,
    LVT_TIMER,
    LVTS,
    MASKED,
    NAMES,
    PPR,
    QEMU_READABLE,
    SELF_IPI,
    SELF_IPI_REGISTER,
    SPIV,
    SW_ENABLE,
    TDCR,
    TMCCT,
    TMICT,
    TPR,
    VERSION,
    X2APIC_ICR_RESERVED,
    x2apic_ldr,
)
from userspace_chip.lapic_state import LapicState
from userspace_chip.lapic_timer import KvmTimer, QemuTimer
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
    DeliveryMode,
    LapicMessage,
    Shorthand,
)
from userspace_chip.ports import DestMap, Emit, LapicPort
from userspace_chip.profile import ApicBaseRules, Model, Profile
from userspace_chip.snapshot import copy_state

_SIZES: Final = frozenset({1, 2, 4, 8})
_ALL: Final = (1 << 256) - 1


class Lapic:
    """The local APIC of one CPU.

    ``vcpu_id`` is KVM's vcpu id and QEMU's initial APIC id: the x2APIC id.  ``tsc_khz`` and
    ``physical_bits`` are the CPU's.  Methods that end in a register access return what a guest
    sees; an access that a guest cannot make raises :class:`AccessError`.
    """

    def __init__(
        self,
        profile: Profile,
        port: LapicPort,
        vcpu_id: int = 0,
        *,
        emit: Emit | None = None,
        tsc_khz: int = 1_000_000,
        physical_bits: int = 40,
    ) -> None:
        self.profile = profile
        self.port = port
        self.vcpu_id = vcpu_id
        self.emit = emit
        knobs = profile.lapic
        self._kvm = knobs.model is Model.KVM
        self._icr_split = knobs.x2apic_icr_split
        self._knobs = knobs
        self._apicv = knobs.apicv
        self._accepts_disabled = knobs.accept_when_sw_disabled
        self._low_vectors = knobs.deliver_vectors_below_16
        self._icr_mask = 0xFFFFFFFF if knobs.icr_busy_stored else 0xFFFFFFFF & ~ICR_BUSY
        directed = knobs.directed_eoi and knobs.x2apic
        self.version = knobs.version + (knobs.cmci << 16) | directed << 24
        self._spiv_mask = knobs.spiv_mask | (DIRECTED_EOI if directed else 0)
        self._base_reserved = ~((1 << physical_bits) - 1) | 0x2FF
        if not knobs.x2apic:
            self._base_reserved |= EXTD
        self._lvt_count = 7 if knobs.cmci else 6
        self._readable_x2apic = KVM_READABLE if knobs.cmci else KVM_READABLE - {LVT_CMCI_REG}
        self._readable = self._readable_x2apic | {APR, DFR, ICR2}
        lvt_masks = [register.write_mask for register in LVT_REGISTERS]
        if not knobs.tsc_deadline:
            lvt_masks[LVT_TIMER] &= ~0x40000
        self._lvt_masks = lvt_masks if knobs.lvt_masks else [0xFFFFFFFF] * 7
        self.timer: KvmTimer | QemuTimer = (
            KvmTimer(self, tsc_khz=tsc_khz) if self._kvm else QemuTimer(self)
        )
        self._write = self._kvm_write if self._kvm else self._qemu_write
        self.state = LapicState()
        self.reset()

    # ------------------------------------------------------------------ state

    def save(self) -> LapicState:
        """An independent copy of the state."""
        return copy_state(self.state)

    def load(self, state: LapicState) -> None:
        """Take ``state`` over (a copy of it); :class:`StateError` where it cannot be one."""
        if len(state.lvt) != 7 or not all(0 <= lvt < 1 << 32 for lvt in state.lvt):
            raise StateError("local APIC", f"lvt = {state.lvt}", "it has 7 registers of 32 bits")
        for name in ("irr", "isr", "tmr"):
            if not 0 <= getattr(state, name) <= _ALL:
                raise StateError("local APIC", f"{name} = {getattr(state, name):#x}")
        self.state = copy_state(state)
        self.port.apic_map_changed()

    def reset(self, *, init: bool = False) -> None:
        """RESET, or with ``init`` the INIT that keeps APIC base and id.

        KVM ``kvm_lapic_reset``, QEMU ``apic_reset_common`` / ``apic_init_reset``.
        """
        state = self.state
        bsp = self.vcpu_id == 0
        old = self.state
        self.timer.stop()
        self.state = state = LapicState()
        if init:
            state.apic_base, state.id_reg = old.apic_base, old.id_reg
            if self._kvm and self.x2apic_mode:
                state.ldr = old.ldr
        else:
            state.apic_base = DEFAULT_BASE | ENABLE | (BSP if bsp else 0)
            state.id_reg = (self.vcpu_id & 0xFF) << 24
        state.timer.shift = 0 if self._knobs.divider_1_after_reset else 1
        if self._kvm:
            # Two storages for the upper half of ICR: the one of the other mode is not reset.
            if self.x2apic_mode:
                state.icr2 = old.icr2
            else:
                state.icr_high = old.icr_high
            state.irr_pending = True
            if bsp and self.profile.lapic.lint0_reset_extint:
                state.lvt[LVT_LINT0] = DeliveryMode.EXTINT << 8
        self.port.apic_map_changed()

    # ------------------------------------------------------------------ what the bus asks

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
        """QEMU: an interrupt waits behind PPR, so that an INTR gives the spurious vector."""
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

    def _eoi_virtualised(self) -> None:
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

    def expire(self, now_ns: int) -> None:
        """The armed timer is due."""
        self.timer.expire(now_ns)
        self.port.request()

    # ------------------------------------------------------------------ MMIO and MSRs

    def read_mmio(self, offset: int, size: int, now_ns: int) -> int:
        """A read of ``size`` bytes at ``offset`` from the APIC base."""
        self._check(offset, size)
        if self._knobs.mmio_needs_xapic_mode and self.state.apic_base & 0xC00 != ENABLE:
            return (1 << 8 * size) - 1
        if self._kvm:
            value = self._kvm_read(offset, size, now_ns)
            return 0 if value is None else value
        if size < 4:
            return 0
        value = self._qemu_read(offset & 0xFF0, now_ns)
        return value if size == 4 else value | self._qemu_read(offset & 0xFF0, now_ns) << 32

    def write_mmio(self, offset: int, size: int, value: int, now_ns: int) -> None:
        """A write of ``size`` bytes at ``offset``; what the original drops is dropped."""
        self._check(offset, size)
        if value >> 8 * size:
            raise AccessError(f"write of {value:#x}", f"{size} bytes do not hold it")
        if self._knobs.mmio_needs_xapic_mode and self.state.apic_base & 0xC00 != ENABLE:
            self._ignored("write outside xAPIC mode")
        elif size < 4 or (self._kvm and (size > 4 or offset & 0xF)):
            self._ignored(f"{size}-byte write at {offset:#x}")
        elif self._kvm:
            self._kvm_write(offset, value, now_ns)
        else:
            for shift in range(0, 8 * size, 32):
                self._qemu_write(offset & 0xFF0, value >> shift & 0xFFFFFFFF, now_ns)

    def read_msr(self, register: int, now_ns: int) -> int | None:
        """RDMSR of 0x800 + ``register`` >> 4; None is #GP.  ``register`` is an xAPIC offset."""
        if not self.x2apic_mode:
            return None if self._knobs.x2apic_msrs_fault else 0
        if self._kvm:
            if register == ICR:
                high = self.state.icr2 if self._icr_split else self.state.icr_high
                return self.state.icr | high << 32
            return self._kvm_read(register, 4, now_ns)
        readable = register in QEMU_READABLE and register != DFR
        value = self._qemu_read(register, now_ns)
        return value if readable else None

    def write_msr(self, register: int, value: int, now_ns: int) -> bool:
        """WRMSR of 0x800 + ``register`` >> 4; False is #GP."""
        if not self.x2apic_mode:
            return not self._knobs.x2apic_msrs_fault
        if self._kvm:
            if register == ICR:
                return self._kvm_write_x2apic_icr(value)
            if value >> 32:
                return False
        return self._write(register, value, now_ns)

    def tsc_deadline(self) -> int:
        """RDMSR of IA32_TSC_DEADLINE."""
        state = self.state
        active = self.hw_enabled and state.timer.mode == 0x40000
        return state.timer.tsc_deadline if active else 0

    def set_tsc_deadline(self, value: int, now_ns: int) -> None:
        """WRMSR of IA32_TSC_DEADLINE."""
        if self.hw_enabled:
            self.timer.tsc_deadline_written(value, now_ns)

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

    def _legal_transition(self, value: int) -> bool:
        old = self.state.apic_base
        x2apic, enable = value & EXTD, value & ENABLE
        if x2apic and (not enable or not self.profile.lapic.x2apic):
            return False
        if x2apic and not old & ENABLE:
            return False
        return not (old & EXTD and old & ENABLE and enable and not x2apic)

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

    @property
    def x2apic_ldr(self) -> int:
        """The read-only logical id of x2APIC mode (SDM, "Logical Destination Mode in x2APIC")."""
        return x2apic_ldr(self.vcpu_id)

    # ------------------------------------------------------------------ register file

    def value(self, register: int, now_ns: int) -> int:
        """A register's value by its offset, 0 where there is none; without side effects."""
        reader = _READERS.get(register)
        if reader is not None:
            return reader(self.state)
        if register in BITMAPS:
            word = register >> 4 & 7
            bitmap = (self.state.isr, self.state.tmr, self.state.irr)[(register - ISR) >> 7]
            return bitmap >> 32 * word & 0xFFFFFFFF
        if register in LVTS:
            return self.state.lvt[LVTS[register]]
        if register == TMCCT:
            return self.timer.current_count(now_ns)
        if register == VERSION:
            return self.version
        return 0

    def _kvm_read(self, offset: int, size: int, now_ns: int) -> int | None:
        shift = offset & 0xF
        register = offset & ~0xF
        readable = self._readable_x2apic if self.x2apic_mode else self._readable
        if shift + size > 4 or register not in readable:
            return None
        if register == PPR and self.update_ppr() and self.pending() is not None:
            self.port.request()
        elif register == TPR:
            self.port.tpr_accessed()
        value = self.value(register, now_ns)
        if self.emit is not None:
            self.emit("kvm_apic", "read", NAMES.get(offset) or hex(offset), value)
        return value >> 8 * shift & ((1 << 8 * size) - 1)

    def _qemu_read(self, register: int, now_ns: int) -> int:
        state = self.state
        if register not in QEMU_READABLE:
            self._illegal_register()
            value = 0
        elif register == PPR:
            self.update_ppr()
            value = state.ppr
        elif self.x2apic_mode and register in (ID, LDR, DFR):
            value = {ID: self.vcpu_id, LDR: self.x2apic_ldr, DFR: 0}[register]
        else:
            value = self.value(register, now_ns)
        self._trace_qemu("read", register, value)
        return value

    def _trace_qemu(self, access: str, register: int, value: int) -> None:
        if self.emit is None:
            return
        if self.profile.lapic.register_trace == "apic_mem":
            self.emit("apic_mem_readl" if access == "read" else "apic_mem_writel", register, value)
        else:
            self.emit(f"apic_register_{access}", register >> 4, value)

    def _kvm_write(self, register: int, value: int, now_ns: int) -> bool:
        """``kvm_lapic_reg_write``: False is an error (#GP for an MSR, nothing for MMIO)."""
        if register == EOI and self._apicv:
            self._eoi_virtualised()
            return True
        if self.emit is not None:
            self.emit("kvm_apic", "write", NAMES.get(register) or hex(register), value)
        if register == EOI:
            self.eoi()
            return True
        if register == ICR:
            self._send_icr(value & self._icr_mask)
            return True
        if register == ICR2 and not self.x2apic_mode:
            self.state.icr2 = value & self._knobs.icr2_mask
            return True
        return self._kvm_write_rare(register, value, now_ns)

    def _kvm_write_rare(self, register: int, value: int, now_ns: int) -> bool:
        state = self.state
        x2apic = self.x2apic_mode
        if register == TPR:
            self.port.tpr_accessed()
            self.set_tpr(value & 0xFF)
        elif register == TMICT:
            self.timer.tmict_written(value, now_ns)
        elif register in LVTS:
            return self._kvm_write_lvt(LVTS[register], value, now_ns)
        elif register == SPIV:
            self._write_spiv(value, now_ns)
        elif register == TDCR:
            self.timer.tdcr_written(value, now_ns)
        elif register == ESR:
            return not (x2apic and value)
        elif register == SELF_IPI:
            if not x2apic or value & ~SELF_IPI_REGISTER.write_mask:
                return False
            self._send(Shorthand.SELF << 18 | value, 0)
        elif x2apic or register not in (ID, LDR, DFR):
            return False
        else:
            if register == ID:
                state.id_reg = value & 0xFF000000
            elif register == LDR:
                state.ldr = value & 0xFF000000
            else:
                state.dfr = value | 0x0FFFFFFF
            self.port.apic_map_changed()
        return True

    def _write_spiv(self, value: int, now_ns: int) -> None:
        state = self.state
        old = state.spiv
        state.spiv = value & self._spiv_mask
        if not value & SW_ENABLE and self._knobs.sw_disable_masks_lvt:
            for lvt in range(self._lvt_count):
                state.lvt[lvt] |= MASKED
            self.timer.lvtt_written(now_ns)
            state.timer.pending = False
        if (old ^ value) & SW_ENABLE:
            self.port.apic_map_changed()

    def _kvm_write_lvt(self, lvt: int, value: int, now_ns: int) -> bool:
        if lvt >= self._lvt_count:
            return False
        if self._knobs.sw_disable_masks_lvt and not self.sw_enabled:
            value |= MASKED
        self.state.lvt[lvt] = value & self._lvt_masks[lvt]
        if lvt == LVT_TIMER:
            self.timer.lvtt_written(now_ns)
        return True

    def _kvm_write_x2apic_icr(self, value: int) -> bool:
        if value & X2APIC_ICR_RESERVED:
            return False
        value &= ~ICR_BUSY
        self._send_icr(value & 0xFFFFFFFF, value >> 32)
        if self.emit is not None:
            self.emit("kvm_apic", "write", "APIC_ICR", value)
        return True

    def _qemu_write(self, register: int, value: int, now_ns: int) -> bool:
        """``apic_mem_writel`` / ``apic_register_write``."""
        self._trace_qemu("write", register, value)
        state = self.state
        x2apic = self.x2apic_mode
        if register == EOI:
            self.eoi()
        elif register == ICR:
            if x2apic:
                state.icr2 = value >> 32
            self._send_icr(value & self._icr_mask)
        elif register == TPR:
            self.set_tpr(value & 0xFF)
        elif register in (ID, LDR, DFR, ICR2):
            if x2apic:
                return False
            self._qemu_write_id(register, value)
        elif register == SPIV:
            self._write_spiv(value & 0xFFFFFFFF, now_ns)
            self.port.request()
        elif register in LVTS and register != LVT_CMCI_REG:
            self._qemu_write_lvt(LVTS[register], value & 0xFFFFFFFF, now_ns)
        elif register == TMICT:
            self.timer.tmict_written(value & 0xFFFFFFFF, now_ns)
        elif register == TDCR:
            self.timer.tdcr_written(value, now_ns)
        elif register == SELF_IPI and self.profile.lapic.x2apic:
            if not x2apic:
                return False
            self._send(Shorthand.SELF << 18 | value & SELF_IPI_REGISTER.write_mask, 0)
        elif register not in QEMU_READABLE:
            self._illegal_register()
            return False
        return True

    def _illegal_register(self) -> None:
        if self._knobs.esr_sticky_illegal_register:
            self.state.esr |= ESR_ILLEGAL_REGISTER

    def _qemu_write_id(self, register: int, value: int) -> None:
        state = self.state
        if register == ID:
            state.id_reg = value & 0xFF000000
        elif register == LDR:
            state.ldr = value & 0xFF000000
        elif register == DFR:
            state.dfr = value & 0xF0000000 | 0x0FFFFFFF
        else:
            state.icr2 = value & self._knobs.icr2_mask

    def _qemu_write_lvt(self, lvt: int, value: int, now_ns: int) -> None:
        self.state.lvt[lvt] = value
        if lvt == LVT_TIMER:
            self.timer.lvtt_written(now_ns)
        elif lvt == LVT_LINT0 and self.check_pic():
            self.port.request()

    def check_pic(self) -> bool:
        """QEMU ``apic_check_pic``: deliver through LINT0 where the PIC's output is high."""
        if not self.accepts_pic_intr() or not self.port.pic_output():
            return False
        self.pic_intr(True)
        return True

    # ------------------------------------------------------------------ messages out

    def _send_icr(self, low: int, high: int | None = None) -> None:
        state = self.state
        if self._kvm:
            self._send(low, state.icr2 if high is None else high)
            state.icr = low
            if high is None:
                return
            if self._icr_split:
                state.icr2 = high
            else:
                state.icr_high = high
        else:
            state.icr = low
            self._send(low, state.icr2)

    def _send(self, low: int, high: int) -> None:
        """``kvm_apic_send_ipi`` / ``apic_deliver``."""
        dest = high if self.x2apic_mode else high >> 24
        message = LapicMessage(
            low & 0xFF,
            DELIVERY_MODES[low >> 8 & 7],
            DEST_MODES[low >> 11 & 1],
            dest,
            TRIGGERS[low >> 15 & 1],
            bool(low & 0x4000),
            SHORTHANDS[low >> 18 & 3],
        )
        if self._kvm and self.emit is not None:
            self.emit(
                "kvm_apic_ipi",
                dest,
                message.vector,
                DELIVERY_MODE_NAMES[message.delivery_mode],
                DEST_MODE_NAMES[message.dest_mode],
                LEVEL_NAMES[message.level],
                TRIGGER_NAMES[message.trigger],
                SHORTHAND_NAMES[message.shorthand],
            )
        self.port.send_ipi(message)

    # ------------------------------------------------------------------ small print

    def _check(self, offset: int, size: int) -> None:
        if size not in _SIZES or not 0 <= offset < 0x1000:
            raise AccessError(
                f"local APIC access at {offset:#x}",
                f"{size} bytes",
                "offsets are below 0x1000, sizes 1, 2, 4 or 8",
            )

    def _ignored(self, what: str) -> None:
        if self.emit is not None:
            self.emit("ignored", "lapic", what)


_READERS: Final[dict[int, Callable[[LapicState], int]]] = {
    ID: lambda state: state.id_reg,
    TPR: lambda state: state.tpr,
    PPR: lambda state: state.ppr,
    LDR: lambda state: state.ldr,
    DFR: lambda state: state.dfr,
    SPIV: lambda state: state.spiv,
    ESR: lambda state: state.esr,
    ICR: lambda state: state.icr,
    ICR2: lambda state: state.icr2,
    TMICT: lambda state: state.tmict,
    TDCR: lambda state: state.tdcr,
}
