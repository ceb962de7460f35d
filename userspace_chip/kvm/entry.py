"""Where a loaded image is entered, and what its first CPU's registers say then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from userspace_chip.kvm import abi
from userspace_chip.kvm.fds import EFLAGS_RESERVED, VcpuFd

_CODE: Final = 0xB
"""Code, readable, accessed (SDM 3A, "Code- and Data-Segment Descriptor Types")."""
_DATA: Final = 0x3
"""Data, writable, accessed."""


@dataclass(frozen=True)
class Gdt:
    """A global descriptor table in memory: ``limit`` is its size in bytes less one."""

    base: int
    limit: int


@dataclass(frozen=True)
class Entry:
    """32-bit protected mode without paging, flat segments, interrupts off: at ``address``.

    ``code`` and ``data`` are selectors; without a ``gdt`` of its own the image has to load one.
    """

    address: int
    code: int
    data: int
    eax: int = 0
    ebx: int = 0
    esi: int = 0
    gdt: Gdt | None = None


def enter(vcpu: VcpuFd, entry: Entry) -> None:
    """Let ``vcpu`` start there."""
    sregs = vcpu.get_sregs()
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment: abi.KvmSegment = getattr(sregs, name)
        segment.base, segment.limit, segment.g, segment.db = 0, 0xFFFF_FFFF, 1, 1
        is_code = name == "cs"
        segment.selector = entry.code if is_code else entry.data
        segment.type = _CODE if is_code else _DATA
        segment.present, segment.s, segment.dpl, segment.l = 1, 1, 0, 0
    if entry.gdt is not None:
        sregs.gdt.base, sregs.gdt.limit = entry.gdt.base, entry.gdt.limit
    sregs.cr0 |= 1
    vcpu.set_sregs(sregs)
    vcpu.set_regs(
        abi.KvmRegs(
            rax=entry.eax,
            rbx=entry.ebx,
            rsi=entry.esi,
            rip=entry.address,
            rflags=EFLAGS_RESERVED,
        )
    )
