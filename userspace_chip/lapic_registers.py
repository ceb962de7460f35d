"""The local APIC's registers: where they are, what they hold, and who may read them.

Spec: Intel SDM volume 3A, chapter "Advanced Programmable Interrupt Controller (APIC)" (edition
081, 2023), tables "Local APIC Register Address Map" and "Local APIC Register Address Map Supported
by x2APIC".
"""

from __future__ import annotations

from typing import Final

from userspace_chip.architecture import APIC_WINDOW
from userspace_chip.bits import RES0, RO, WO, Field, Register
from userspace_chip.messages import DeliveryMode, DestMode, Shorthand, Trigger

# Offsets in the register page; an x2APIC MSR is 0x800 + offset / 16.
ID: Final = 0x20
VERSION: Final = 0x30
TPR: Final = 0x80
APR: Final = 0x90
PPR: Final = 0xA0
EOI: Final = 0xB0
RRR: Final = 0xC0
LDR: Final = 0xD0
DFR: Final = 0xE0
SPIV: Final = 0xF0
ISR: Final = 0x100
TMR: Final = 0x180
IRR: Final = 0x200
ESR: Final = 0x280
LVT_CMCI_REG: Final = 0x2F0
ICR: Final = 0x300
ICR2: Final = 0x310
LVTT: Final = 0x320
LVTTHMR: Final = 0x330
LVTPC: Final = 0x340
LVT0: Final = 0x350
LVT1: Final = 0x360
LVTERR: Final = 0x370
TMICT: Final = 0x380
TMCCT: Final = 0x390
TDCR: Final = 0x3E0
SELF_IPI: Final = 0x3F0

LVT_TIMER: Final = 0
LVT_THERMAL: Final = 1
LVT_PERF: Final = 2
LVT_LINT0: Final = 3
LVT_LINT1: Final = 4
LVT_ERROR: Final = 5
LVT_CMCI: Final = 6
"""Places in ``LapicState.lvt``."""
MASKED: Final = 0x10000
"""The mask bit of an LVT entry."""

_VECTOR: Final = Field("vector", 7, 0)
_MODE: Final = Field("delivery_mode", 10, 8, enum=DeliveryMode)
_STATUS: Final = Field("delivery_status", 12, 12)  # plain storage in both originals
_MASK: Final = Field("mask", 16, 16)

LVT_REGISTERS: Final[tuple[Register, ...]] = (
    Register("LVTT", 32, _VECTOR, _STATUS, _MASK, Field("timer_mode", 18, 17), reset=MASKED),
    Register("LVTTHMR", 32, _VECTOR, _MODE, _STATUS, _MASK, reset=MASKED),
    Register("LVTPC", 32, _VECTOR, _MODE, _STATUS, _MASK, reset=MASKED),
    *(
        Register(
            name,
            32,
            _VECTOR,
            _MODE,
            _STATUS,
            Field("polarity", 13, 13),
            Field("remote_irr", 14, 14),  # plain storage, too
            Field("trigger", 15, 15, enum=Trigger),
            _MASK,
            reset=MASKED,
        )
        for name in ("LVT0", "LVT1")
    ),
    Register("LVTERR", 32, _VECTOR, _STATUS, _MASK, reset=MASKED),
    Register("LVTCMCI", 32, _VECTOR, _MODE, _STATUS, _MASK, reset=MASKED),
)
"""KVM ``apic_lvt_mask[]``.  QEMU stores all 32 bits of each."""

SPIV_REGISTER: Final = Register(
    "SPIV",
    32,
    Field("vector", 7, 0),
    Field("enable", 8, 8),
    Field("focus_disabled", 9, 9),
    Field("suppress_eoi_broadcast", 12, 12),
    reset=0xFF,
)
ICR_REGISTER: Final = Register(
    "ICR",
    32,
    _VECTOR,
    _MODE,
    Field("dest_mode", 11, 11, enum=DestMode),
    Field("delivery_status", 12, 12, RO),
    Field("reserved13", 13, 13, RES0),
    Field("level", 14, 14),
    Field("trigger", 15, 15, enum=Trigger),
    Field("shorthand", 19, 18, enum=Shorthand),
)
APIC_BASE_REGISTER: Final = Register(
    "IA32_APIC_BASE",
    64,
    Field("bsp", 8, 8),
    Field("extd", 10, 10),
    Field("enable", 11, 11),
    Field("base", 51, 12),
)
SELF_IPI_REGISTER: Final = Register("SELF_IPI", 32, Field("vector", 7, 0, WO))

DEFAULT_BASE: Final = APIC_WINDOW
BSP: Final = APIC_BASE_REGISTER.bsp.mask
EXTD: Final = APIC_BASE_REGISTER.extd.mask
ENABLE: Final = APIC_BASE_REGISTER.enable.mask
BASE: Final = 0xFFFFF000
"""MSR_IA32_APICBASE_BASE: both originals keep the register page below 4 GiB."""

SW_ENABLE: Final = SPIV_REGISTER.enable.mask
DIRECTED_EOI: Final = SPIV_REGISTER.suppress_eoi_broadcast.mask
ICR_BUSY: Final = ICR_REGISTER.delivery_status.mask
X2APIC_ICR_RESERVED: Final = 0xFFFFFFFF & ~(ICR_REGISTER.write_mask | ICR_REGISTER.read_mask)
ESR_ILLEGAL_REGISTER: Final = 0x80

LVT_NAMES: Final = ("LVTT", "LVTTHMR", "LVTPC", "LVT0", "LVT1", "LVTERR")
"""By place in ``LapicState.lvt``; CMCI has no name in traces."""
LVT_OFFSETS: Final = (LVTT, LVTTHMR, LVTPC, LVT0, LVT1, LVTERR)

SHORT_NAMES: Final[dict[int, str]] = {
    ID: "ID",
    VERSION: "LVR",
    TPR: "TASKPRI",
    APR: "ARBPRI",
    PPR: "PROCPRI",
    EOI: "EOI",
    RRR: "RRR",
    LDR: "LDR",
    DFR: "DFR",
    SPIV: "SPIV",
    ISR: "ISR",
    TMR: "TMR",
    IRR: "IRR",
    ESR: "ESR",
    ICR: "ICR",
    ICR2: "ICR2",
    **dict(zip(LVT_OFFSETS, LVT_NAMES, strict=True)),
    TMICT: "TMICT",
    TMCCT: "TMCCT",
    TDCR: "TDCR",
    SELF_IPI: "SELF_IPI",
    0x400: "EFEAT",
    0x410: "ECTRL",
}
"""Linux's names (``arch/x86/include/asm/apicdef.h``) without their ``APIC_``."""
NAMES: Final = {offset: f"APIC_{name}" for offset, name in SHORT_NAMES.items()}
"""The names of ``kvm_trace_symbol_apic``; other offsets are printed as numbers."""

BITMAPS: Final = frozenset(range(ISR, ESR, 0x10))
LVTS: Final[dict[int, int]] = {
    **{offset: place for place, offset in enumerate(LVT_OFFSETS)},
    LVT_CMCI_REG: LVT_CMCI,
}
"""Place by offset."""
KVM_READABLE: Final = (
    frozenset({ID, VERSION, TPR, PPR, LDR, SPIV, ESR, ICR, TMICT, TMCCT, TDCR})
    | BITMAPS
    | frozenset(LVTS)
)
QEMU_READABLE: Final = (
    frozenset({ID, VERSION, TPR, APR, PPR, EOI, LDR, DFR, SPIV, ESR, ICR, ICR2})
    | frozenset({TMICT, TMCCT, TDCR})
    | BITMAPS
    | frozenset(LVTS)
) - {LVT_CMCI_REG}


def x2apic_ldr(apic_id: int) -> int:
    """LDR of an x2APIC id: cluster and member (SDM, "Logical Destination Mode in x2APIC")."""
    return apic_id >> 4 << 16 | 1 << (apic_id & 0xF)
