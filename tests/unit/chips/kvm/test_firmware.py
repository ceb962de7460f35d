"""The tables that guests look for, read back from a guest's memory."""

from __future__ import annotations

import struct

from userspace_chip.kvm import firmware
from userspace_chip.kvm.devices import platform
from userspace_chip.kvm.memory import GuestMemory


class Board:
    """A VM that gives memory and nothing else."""

    def map_regions(self, regions):
        return bytearray(sum(size for _, size in regions))


def tables(cpus=1):
    """By signature, as RSDP and RSDT lead to them."""
    memory = GuestMemory(Board(), 2)
    firmware.install(memory, cpus)
    bios = memory.read(0xE0000, 0x20000)
    at = 0xE0000 + bios.index(b"RSD PTR ")
    rsdp = memory.read(at, 20)
    (rsdt_at,) = struct.unpack_from("<I", rsdp, 16)
    rsdt = table(memory, rsdt_at)
    found = [table(memory, at) for at in struct.unpack_from(f"<{len(rsdt) // 4 - 9}I", rsdt, 36)]
    assert at % 16 == sum(rsdp) & 0xFF == 0
    return {one[:4]: one for one in (rsdt, *found)}


def table(memory, at):
    (length,) = struct.unpack("<I", memory.read(at + 4, 4))
    return memory.read(at, length)


def test_tables_are_found_from_the_rsdp_and_add_up_to_zero():
    found = tables()

    assert set(found) == {b"RSDT", b"FACP", b"APIC"}
    assert {sum(one) & 0xFF for one in found.values()} == {0}


def test_fadt_names_the_ports_that_answer_and_no_8042():
    fadt = tables()[b"FACP"]

    ports = [struct.unpack_from("<I", fadt, offset)[0] for offset in (56, 64, 76)]
    assert (fadt[8], len(fadt)) == (3, 244)
    assert ports == [platform.PM_EVENT[0], platform.PM_CONTROL[0], platform.PM_TIMER[0]]
    assert struct.unpack_from("<QB", fadt, 120) == (platform.RESET_CONTROL[0], 0x0F)
    assert struct.unpack_from("<H", fadt, 109)[0] & 1 << 1 == 0


def test_madt_has_a_local_apic_for_each_cpu():
    madt = tables(cpus=3)[b"APIC"]

    kinds, at = [], 44
    while at < len(madt):
        kinds.append(madt[at])
        at += madt[at + 1]
    assert kinds == [0, 0, 0, 1, 2, 2, 2, 2, 2, 4]
