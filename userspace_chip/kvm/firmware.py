"""What a PC's firmware has set up when a guest starts: reset vector, chips, a few ACPI tables.

The ROM is ours: at a reset of CPU 0 it continues where the CMOS shutdown code says (0x0a: the far
pointer at 0x467), and resets the machine otherwise.  The state of the chips is what SeaBIOS 1.16
leaves (``src/{pic,fw/smp,fw/smm,timer}.c``): the virtual wire, and a PIT that ticks 18.2 times a
second.

Spec: ACPI 6.4, chapter "ACPI Software Programming Model".
"""

from __future__ import annotations

import struct
from typing import Final

from userspace_chip.architecture import (
    APIC_WINDOW,
    IOAPIC_BASES,
    MASTER_COMMAND,
    MASTER_DATA,
    PIC_PORTS,
    PIT_CONTROL,
    PIT_COUNTER_0,
    SLAVE_COMMAND,
    SLAVE_DATA,
)
from userspace_chip.irqchip import Machine
from userspace_chip.kvm.devices.platform import (
    PM_CONTROL,
    PM_EVENT,
    PM_TIMER,
    RESET_CONTROL,
)
from userspace_chip.kvm.fds import VcpuFd
from userspace_chip.kvm.memory import GuestMemory
from userspace_chip.lapic_registers import LVT_LINT0, LVT_LINT1
from userspace_chip.lapic_state import LapicState

_RESET_VECTOR: Final = 0xFFF0
_ROM_CODE_AT: Final = 0xFF00
_ROM_CODE: Final = bytes.fromhex(
    "fa"  #             cli
    "b0 8f"  #          mov  al, 0x8f
    "e6 70"  #          out  0x70, al
    "e4 71"  #          in   al, 0x71       CMOS shutdown code
    "88 c4"  #          mov  ah, al
    "30 c0"  #          xor  al, al
    "e6 71"  #          out  0x71, al
    "80 fc 0a"  #       cmp  ah, 0x0a       jump without EOI
    "75 08"  #          jne  reset
    "31 c0"  #          xor  ax, ax
    "8e d8"  #          mov  ds, ax
    "ff 2e 67 04"  #    jmp  far [0x467]
    "b0 fe"  #   reset: mov  al, 0xfe
    "e6 64"  #          out  0x64, al
    "f4"  #      stop:  hlt
    "eb fd"  #          jmp  stop
)
_JUMP_TO_CODE: Final = b"\xe9" + struct.pack("<h", _ROM_CODE_AT - (_RESET_VECTOR + 3))

SPIV_ENABLED: Final = 0x1FF
LINT0_EXTINT: Final = 0x8700
LINT1_NMI: Final = 0x8400

MSR_SMBASE: Final = 0x9E
SMBASE: Final = 0xA0000
"""Where SMM begins, minus 0x8000: as SeaBIOS relocates it, away from the guest's memory."""
_SMM_ENTRY: Final = SMBASE + 0x8000
_RSM: Final = b"\x0f\xaa"

LEGACY_SETUP: Final = (
    *((MASTER_COMMAND, 0x11), (SLAVE_COMMAND, 0x11)),
    *((MASTER_DATA, 0x08), (SLAVE_DATA, 0x70)),
    *((MASTER_DATA, 0x04), (SLAVE_DATA, 0x02)),
    *((MASTER_DATA, 0x01), (SLAVE_DATA, 0x01)),
    *((MASTER_DATA, 0xB8), (SLAVE_DATA, 0x8E)),
    *((PIT_CONTROL, 0x34), (PIT_COUNTER_0, 0), (PIT_COUNTER_0, 0)),
)
"""Port writes: both 8259 with vectors 0x08 and 0x70, and the PIT's channel 0 in mode 2."""

_HEADER_BYTES: Final = 36
_FADT_BYTES: Final = 244
_HAS_LEGACY_DEVICES: Final = 1 << 0
_HAS_NO_VGA: Final = 1 << 2
_WBINVD: Final = 1 << 0
_PROCESSOR_C1: Final = 1 << 2
_SLEEP_BUTTON: Final = 1 << 5
_RTC_WAKES_S4: Final = 1 << 7
_HAS_RESET: Final = 1 << 10
_SYSTEM_IO: Final = 1
_RESET_VALUE: Final = 0x0F
"""As QEMU's ``hw/i386/acpi-build.c`` has it."""

_RSDP_AT: Final = 0xF5A00
_TABLES_AT: Final = 0xE0000


def install(memory: GuestMemory, cpus: int) -> None:
    """Write the ROM, the tables and the handler of SMIs, which does nothing."""
    memory.write(_SMM_ENTRY, _RSM)
    memory.write_rom(_ROM_CODE_AT, _ROM_CODE)
    memory.write_rom(_RESET_VECTOR, _JUMP_TO_CODE)
    _write_tables(memory, cpus)


def leave(machine: Machine) -> None:
    """The state of ``machine``'s PIC and local APICs when the guest starts."""
    for port, value in LEGACY_SETUP:
        if port in PIC_PORTS:
            machine.pic.write(port, value)
    for index, lapic in enumerate(machine.lapics):
        leave_lapic(index, lapic.state)
    machine.log.take()


def leave_lapic(index: int, state: LapicState) -> None:
    """The local APIC of CPU ``index``: only the first CPU's is enabled."""
    if index == 0:
        state.spiv = SPIV_ENABLED
    state.lvt[LVT_LINT0] = LINT0_EXTINT
    state.lvt[LVT_LINT1] = LINT1_NMI


def prepare_cpu(vcpu: VcpuFd) -> None:
    """Relocate SMM; a KVM without SMM refuses the MSR, and never enters it."""
    vcpu.set_msr(MSR_SMBASE, SMBASE)


def _write_tables(memory: GuestMemory, cpus: int) -> None:
    at = _TABLES_AT
    places = []
    facs_at = at
    memory.write(facs_at, struct.pack("<4sI56x", b"FACS", 64))
    at += 64
    dsdt = _table(b"DSDT", 1, _S5_OFF)
    dsdt_at, at = at, _next(at, dsdt)
    memory.write(dsdt_at, dsdt)
    for table in (_fadt(facs_at, dsdt_at), _madt(cpus)):
        memory.write(at, table)
        places.append(at)
        at = _next(at, table)
    rsdt = _table(b"RSDT", 1, struct.pack(f"<{len(places)}I", *places))
    memory.write(at, rsdt)
    rsdp = bytearray(struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"IRQMTX", 0, at))
    rsdp[8] = -sum(rsdp) & 0xFF
    memory.write(_RSDP_AT, bytes(rsdp))


_S5_OFF: Final = bytes.fromhex(
    "08 5c 5f 53 35 5f"  # Name (\_S5,
    "12 06 04 00 00 00 00"  # Package (4) {Zero, Zero, Zero, Zero})
)


def _next(at: int, table: bytes) -> int:
    return at + (len(table) + 15 & ~15)


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    length = _HEADER_BYTES + len(body)
    head = struct.pack("<4sIBB", signature, length, revision, 0)
    table = bytearray(head + struct.pack("<6s8sI4sI", b"IRQMTX", b"IRQMATRX", 1, b"IRQM", 1) + body)
    table[9] = -sum(table) & 0xFF
    return bytes(table)


def _fadt(facs: int, dsdt: int) -> bytes:
    """Revision 3: PM registers, SCI on IRQ 9, reset by port 0xcf9.

    IAPC_BOOT_ARCH says that there is no 8042 beyond its reset and no VGA, so that a guest does not
    wait for them.
    """
    body = bytearray(_FADT_BYTES - _HEADER_BYTES)

    def put(form: str, offset: int, *values: int) -> None:
        struct.pack_into(form, body, offset - _HEADER_BYTES, *values)

    put("<2I", 36, facs, dsdt)
    put("<H", 46, 9)
    put("<2I", 56, PM_EVENT.start, 0)
    put("<2I", 64, PM_CONTROL.start, 0)
    put("<I", 76, PM_TIMER.start)
    put("<4B", 88, 4, 2, 0, 4)
    put("<H", 109, _HAS_LEGACY_DEVICES | _HAS_NO_VGA)
    put("<I", 112, _WBINVD | _PROCESSOR_C1 | _SLEEP_BUTTON | _RTC_WAKES_S4 | _HAS_RESET)
    put("<4BQB", 116, _SYSTEM_IO, 8, 0, 1, RESET_CONTROL.start, _RESET_VALUE)
    return _table(b"FACP", 3, bytes(body))


def _madt(cpus: int) -> bytes:
    """Local APICs, one IOAPIC, ISA IRQ 0 on GSI 2; level-triggered, active-high IRQs 5, 9..11."""
    entries = [struct.pack("<2BBBI", 0, 8, cpu, cpu, 1) for cpu in range(cpus)]
    entries.append(struct.pack("<2BBBII", 1, 12, 0, 0, IOAPIC_BASES[0], 0))
    entries.append(struct.pack("<2BBBIH", 2, 10, 0, 0, 2, 0))
    entries += [struct.pack("<2BBBIH", 2, 10, 0, irq, irq, 0xD) for irq in (5, 9, 10, 11)]
    entries.append(struct.pack("<2BBHB", 4, 6, 0xFF, 0, 1))
    return _table(b"APIC", 1, struct.pack("<2I", APIC_WINDOW, 1) + b"".join(entries))
