"""What a local APIC remembers; the rules are in :mod:`userspace_chip.lapic` and its timer's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from userspace_chip.lapic_registers import DEFAULT_BASE, ENABLE, MASKED

ONE_SHOT: Final = 0x00000
PERIODIC: Final = 0x20000
TSC_DEADLINE: Final = 0x40000
"""LVTT bits 18:17.  Both set is none of the three."""


@dataclass(slots=True)
class TimerState:
    """What the timer holds beside LVTT, TMICT and TDCR."""

    mode: int = ONE_SHOT
    """KVM: the mode in force (``timer_mode``): LVTT masked with the modes that the CPU has."""
    period_ns: int = 0
    """KVM: 0 while no count was started."""
    target_ns: int = 0
    """KVM: ``target_expiration``."""
    tsc_deadline: int = 0
    """IA32_TSC_DEADLINE."""
    pending: bool = False
    """KVM: expired, not yet delivered through LVTT."""
    armed_ns: int | None = None
    """The deadline that the machine was asked for."""
    load_ns: int = 0
    """QEMU: when TMICT was written."""
    shift: int = 0
    """QEMU: log2 of the divider in force (0 after reset, whatever TDCR reads)."""


@dataclass(slots=True)
class LapicState:
    """Everything that one local APIC remembers.  Bit maps are ints, bit n is vector n."""

    apic_base: int = DEFAULT_BASE | ENABLE
    id_reg: int = 0
    """Register 0x20 as stored: xAPIC id << 24; in KVM's x2APIC mode the 32-bit id."""
    tpr: int = 0
    ppr: int = 0
    """KVM: the register as last computed; QEMU computes it on read."""
    ldr: int = 0
    dfr: int = 0xFFFFFFFF
    spiv: int = 0xFF
    esr: int = 0
    icr: int = 0
    icr2: int = 0
    icr_high: int = 0
    """KVM on VMX: upper half of x2APIC's 64-bit ICR (page offset 0x304), apart from ICR2."""
    isr: int = 0
    tmr: int = 0
    irr: int = 0
    lvt: list[int] = field(default_factory=lambda: [MASKED] * 7)
    tmict: int = 0
    tdcr: int = 0
    arbitration: int = 0
    """KVM: messages accepted with lowest priority; QEMU: the arbitration id."""
    sipi_vector: int = 0
    irr_pending: bool = False
    """KVM's hint that IRR is not empty: True too often after a state was loaded (PV EOI)."""
    isr_cache: int | None = None
    """KVM's ``highest_isr_cache``: the vector last acknowledged, None after an EOI (PV EOI)."""
    timer: TimerState = field(default_factory=TimerState)
