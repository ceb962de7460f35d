"""The local APIC, xAPIC and x2APIC, as KVM's and as QEMU's.

Spec: Intel SDM volume 3A, chapter "Advanced Programmable Interrupt Controller (APIC)" (edition
081, 2023), sections "Local APIC", "Issuing Interprocessor Interrupts", "Handling Interrupts" and
"Extended XAPIC (x2APIC)".  Behaviour: Linux ``arch/x86/kvm/lapic.c`` (6.1.176, 6.12.94) and QEMU
``hw/intc/apic.c``, ``apic_common.c`` (7.2.22, 10.0.13); the profile says which.

Not modelled: focus processor checking, the arbitration ID protocol (RRR, APR read 0 in both
originals), error detection beyond QEMU's one ESR bit, Hyper-V SynIC and its auto-EOI, Xen's
up-call vector, the KVMVAPIC option ROM (TPR patching), nested virtualisation.

The parts: state and modes in ``lapic_modes``, IRR to EOI in ``lapic_delivery``, ICR in
``lapic_icr``, the timer in ``lapic_timer``, what all of them remember in ``lapic_state``; reset and
the registers are here.

One class for both originals.  ``profile.lapic`` says how they differ; where the difference is the
shape of the algorithm (timer, register access rules) and not a value, ``_kvm`` chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from userspace_chip.errors import AccessError, StateError
from userspace_chip.knobs import RegisterTrace
from userspace_chip.lapic_delivery import LapicDelivery
from userspace_chip.lapic_icr import Icr
from userspace_chip.lapic_registers import (
    APR,
    BITMAPS,
    BSP,
    DEFAULT_BASE,
    DFR,
    DIRECTED_EOI,
    ENABLE,
    EOI,
    ESR,
    ESR_ILLEGAL_REGISTER,
    ICR,
    ICR2,
    ID,
    ISR,
    KVM_READABLE,
    LDR,
    LVT_CMCI_REG,
    LVT_LINT0,
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
)
from userspace_chip.lapic_state import LapicState
from userspace_chip.lapic_timer import KvmTimer, QemuTimer
from userspace_chip.messages import (
    DeliveryMode,
)
from userspace_chip.ports import Emit, LapicPort
from userspace_chip.profile import Profile
from userspace_chip.snapshot import copy_state

_SIZES: Final = frozenset({1, 2, 4, 8})
_ALL: Final = (1 << 256) - 1


class Lapic(LapicDelivery):
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
        super().__init__(profile, port, vcpu_id, emit, physical_bits)
        knobs = profile.lapic
        directed = knobs.directed_eoi and knobs.x2apic
        self.version = knobs.version + (knobs.cmci << 16) | directed << 24
        self._spiv_mask = knobs.spiv_mask | (DIRECTED_EOI if directed else 0)
        self._lvt_count = 7 if knobs.cmci else 6
        self._readable_x2apic = KVM_READABLE if knobs.cmci else KVM_READABLE - {LVT_CMCI_REG}
        self._readable = self._readable_x2apic | {APR, DFR, ICR2}
        lvt_masks = [register.write_mask for register in LVT_REGISTERS]
        if not knobs.tsc_deadline:
            lvt_masks[LVT_TIMER] &= ~0x40000
        self._lvt_masks = lvt_masks if knobs.lvt_masks else [0xFFFFFFFF] * 7
        self.timer: KvmTimer | QemuTimer = (
            KvmTimer(self, tsc_khz=tsc_khz) if self._kvm else QemuTimer(self, tsc_khz=tsc_khz)
        )
        self.icr = Icr(self)
        self._write = self._kvm_write if self._kvm else self._qemu_write
        self.reset()

    # ------------------------------------------------------------------ state

    def save(self) -> LapicState:
        """An independent copy of the state."""
        return copy_state(self.state)

    def load(self, state: LapicState) -> None:
        """Take ``state`` over (a copy of it); :class:`StateError` where it cannot be one."""
        self.take(state)
        self.port.apic_map_changed()

    def take(self, state: LapicState) -> None:
        """As :meth:`load`, for a machine that loads others as well: it tells the bus once."""
        if len(state.lvt) != 7 or not all(0 <= lvt < 1 << 32 for lvt in state.lvt):
            raise StateError("local APIC", f"lvt = {state.lvt}", "it has 7 registers of 32 bits")
        for name in ("irr", "isr", "tmr"):
            if not 0 <= getattr(state, name) <= _ALL:
                raise StateError("local APIC", f"{name} = {getattr(state, name):#x}")
        self.state = copy_state(state)

    def reset(self, *, init: bool = False) -> None:
        """RESET, or with ``init`` the INIT that keeps APIC base and id.

        KVM ``kvm_lapic_reset``, QEMU ``apic_reset_common`` / ``apic_init_reset``.
        """
        bsp = self.vcpu_id == 0
        old = self.state
        self.timer.stop()
        self.state = state = LapicState()
        if init:
            state.apic_base, state.id_reg = old.apic_base, old.id_reg
            # A SIPI that came before its CPU got to act on the INIT is still to be acted on.
            state.sipi_vector = old.sipi_vector
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

    # ------------------------------------------------------------------ MMIO and MSRs

    def read_mmio(self, offset: int, size: int, now_ns: int) -> int:
        """A read of ``size`` bytes at ``offset`` from the APIC base."""
        self._check(offset, size)
        if not self._kvm and size < 4:
            return 0
        if self._knobs.reads_need_xapic_mode and self.state.apic_base & 0xC00 != ENABLE:
            return (1 << 8 * size) - 1
        if self._kvm:
            value = self._kvm_read(offset, size, now_ns)
            return 0 if value is None else value
        value = self._qemu_read(offset & 0xFF0, now_ns)
        return value if size == 4 else value | self._qemu_read(offset & 0xFF0, now_ns) << 32

    def write_mmio(self, offset: int, size: int, value: int, now_ns: int) -> None:
        """A write of ``size`` bytes at ``offset``; what the original drops is dropped."""
        self._check(offset, size)
        if value >> 8 * size:
            raise AccessError(f"write of {value:#x}", f"{size} bytes do not hold it")
        if self._knobs.writes_need_xapic_mode and self.state.apic_base & 0xC00 != ENABLE:
            self._ignored("write outside xAPIC mode")
        elif size < 4 or (self._kvm and (size > 4 or offset & 0xF)):
            self._ignored(f"{size}-byte write at {offset:#x}")
        elif self._kvm:
            self._kvm_write(offset, value, now_ns)
        else:
            for shift in range(0, 8 * size, 32):
                self._qemu_write(offset & 0xFF0, value >> shift & 0xFFFFFFFF, now_ns)

    def _check(self, offset: int, size: int) -> None:
        if size not in _SIZES or not 0 <= offset < 0x1000:
            raise AccessError(
                f"local APIC access at {offset:#x}",
                f"{size} bytes",
                "offsets are below 0x1000, sizes 1, 2, 4 or 8",
            )

    def read_msr(self, register: int, now_ns: int) -> int | None:
        """RDMSR of 0x800 + ``register`` >> 4; None is #GP.  ``register`` is an xAPIC offset."""
        if not self.x2apic_mode:
            return None if self._knobs.x2apic_msrs_fault else 0
        if self._kvm:
            return self.read_whole(register, now_ns)
        readable = register in QEMU_READABLE and register != DFR
        value = self._qemu_read(register, now_ns)
        return value if readable else None

    def write_msr(self, register: int, value: int, now_ns: int) -> bool:
        """WRMSR of 0x800 + ``register`` >> 4; False is #GP."""
        if not self.x2apic_mode:
            return not self._knobs.x2apic_msrs_fault
        if self._kvm:
            return self.write_whole(register, value, now_ns)
        return self._write(register, value, now_ns)

    def read_whole(self, register: int, now_ns: int) -> int | None:
        """``kvm_lapic_msr_read``, whatever the mode: ICR is one register of 64 bits."""
        if register == ICR:
            return self.icr.read_x2apic()
        return self._kvm_read(register, 4, now_ns)

    def write_whole(self, register: int, value: int, now_ns: int) -> bool:
        """``kvm_lapic_msr_write``, whatever the mode; False is #GP."""
        if register == ICR:
            return self.icr.write_x2apic(value)
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

    def expire(self, now_ns: int) -> None:
        """The armed timer is due."""
        self.timer.expire(now_ns)
        self.port.request()

    # ------------------------------------------------------------------ KVM's registers

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

    def _kvm_write(self, register: int, value: int, now_ns: int) -> bool:
        """``kvm_lapic_reg_write``: False is an error (#GP for an MSR, nothing for MMIO)."""
        if register == EOI and self._apicv:
            self.eoi_virtualised()
            return True
        if self.emit is not None:
            self.emit("kvm_apic", "write", NAMES.get(register) or hex(register), value)
        if register == EOI:
            self.eoi()
            return True
        if register == ICR:
            self.icr.write(value)
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
            self.icr.send_self(value)
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

    def _kvm_write_lvt(self, lvt: int, value: int, now_ns: int) -> bool:
        if lvt >= self._lvt_count:
            return False
        if self._knobs.sw_disable_masks_lvt and not self.sw_enabled:
            value |= MASKED
        self.state.lvt[lvt] = value & self._lvt_masks[lvt]
        if lvt == LVT_TIMER:
            self.timer.lvtt_written(now_ns)
        return True

    # ------------------------------------------------------------------ QEMU's registers

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
            self.icr.write(value)
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
            self.icr.send_self(value & SELF_IPI_REGISTER.write_mask)
        elif register not in QEMU_READABLE:
            self._illegal_register()
            return False
        return True

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

    def _illegal_register(self) -> None:
        if self._knobs.esr_sticky_illegal_register:
            self.state.esr |= ESR_ILLEGAL_REGISTER

    def _trace_qemu(self, access: str, register: int, value: int) -> None:
        if self.emit is None:
            return
        if self._knobs.register_trace is RegisterTrace.APIC_MEM:
            self.emit("apic_mem_readl" if access == "read" else "apic_mem_writel", register, value)
        else:
            self.emit(f"apic_register_{access}", register >> 4, value)

    # ------------------------------------------------------------------ both's

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
