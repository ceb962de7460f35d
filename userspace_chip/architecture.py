"""Where a PC's interrupt controllers are: pins, addresses, ports and MSRs, each named once.

What is inside a local APIC's register page, with the registers' names, is
:mod:`userspace_chip.lapic_registers`.  Neither imports a chip, so that everything may use them.

Sources: Intel SDM volume 3A, chapter "Advanced Programmable Interrupt Controller (APIC)", and
volume 4, "Architectural MSRs" (edition 081, 2023); 82093AA, 8259A and 8254 datasheets, and that of
the 82371 (PIIX) for the ELCR; QEMU ``hw/i386/{pc,microvm}.c`` for what a board has where.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Board: TypeAlias = Literal["pc", "q35", "microvm"]
"""What differs between QEMU's machine types."""

# ---------------------------------------------------------------- lines

IOAPIC_PINS: Final = 24
ISA_LINES: Final = 16
"""GSIs that go to the PIC as well; also the inputs of its two chips together."""
RTC_PIN: Final = 8
FIRST_VECTOR: Final = 16
"""Lower vectors are reserved; KVM's local APIC takes them and never delivers them (SDM 3A, "Valid
Interrupt Vectors")."""

# ---------------------------------------------------------------- memory

APIC_WINDOW: Final = 0xFEE00000
"""The local APIC's page after reset, and where a message is stored (SDM 3A, "Message Address
Register Format")."""
APIC_WINDOW_BYTES: Final = 0x100000
LAPIC_PAGE_BYTES: Final = 0x1000
IOAPIC_BASES: Final = (0xFEC00000, 0xFEC10000)
"""The second one is microvm's."""
IOAPIC_PAGE_BYTES: Final = 0x1000
HPET_BASE: Final = 0xFED00000
"""IA-PC HPET 1.0a, 2.3; QEMU ``include/hw/timer/hpet.h``."""
HPET_BYTES: Final = 0x400

# ---------------------------------------------------------------- the IOAPIC's registers

# Direct ones, by offset.
IOREGSEL: Final = 0x00
IOWIN: Final = 0x10
EOIR: Final = 0x40
"""Version 0x20 only."""

# Those that IOREGSEL selects, by index.
IOAPICID: Final = 0x00
IOAPICVER: Final = 0x01
IOAPICARB: Final = 0x02
IOREDTBL: Final = 0x10
"""The first of two indexes a pin."""

# ---------------------------------------------------------------- ports

MASTER_COMMAND: Final = 0x20
MASTER_DATA: Final = 0x21
SLAVE_COMMAND: Final = 0xA0
SLAVE_DATA: Final = 0xA1
ELCR: Final = 0x4D0
"""The master's edge/level control register; the slave's is next to it."""
ELCR_PORTS: Final = frozenset({ELCR, ELCR + 1})
PIC_PORTS: Final = frozenset({MASTER_COMMAND, MASTER_DATA, SLAVE_COMMAND, SLAVE_DATA}) | ELCR_PORTS

PIT_COUNTER_0: Final = 0x40
PIT_CONTROL: Final = 0x43
SPEAKER: Final = 0x61
"""Gate and OUT of the PIT's channel 2."""
PIT_PORTS: Final = frozenset({*range(PIT_COUNTER_0, PIT_CONTROL + 1), SPEAKER})

RTC_INDEX: Final = 0x70
RTC_DATA: Final = 0x71
RTC_PORTS: Final = frozenset({RTC_INDEX, RTC_DATA})

# ---------------------------------------------------------------- MSRs

MSR_APIC_BASE: Final = 0x1B
MSR_TSC_DEADLINE: Final = 0x6E0
MSR_X2APIC: Final = 0x800
"""The first of 0x100: an x2APIC register is at 0x800 + its offset in the page / 16."""
MSR_KVM_PV_EOI: Final = 0x4B564D04
"""``MSR_KVM_PV_EOI_EN`` (Linux ``arch/x86/include/uapi/asm/kvm_para.h``)."""
HYPERV_APIC_MSRS: Final = {0x40000070: 0xB0, 0x40000071: 0x300, 0x40000072: 0x80}
"""HV_X64_MSR_EOI, _ICR and _TPR, and the registers of the local APIC that they are (Hypervisor Top
Level Functional Specification, "Virtual Interrupt Controller")."""
