"""What is shown of a guest that cannot go on: registers, instruction bytes, the last exits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from userspace_chip.kvm.errors import KvmError
from userspace_chip.kvm.fds import VcpuFd
from userspace_chip.kvm.memory import GuestMemory

_INSTRUCTION_BYTES: Final = 16
_GENERAL: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags"),
)


class Exit(NamedTuple):
    """One exit of a CPU: ``at`` is its port or address, ``data`` what was written or read."""

    cpu: int
    what: str
    at: int | None = None
    size: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        if self.at is None:
            return f"cpu {self.cpu}  {self.what}"
        value = int.from_bytes(self.data, "little")
        return f"cpu {self.cpu}  {self.what:5} {self.at:#x} size {self.size} value {value:#x}"


def describe(what: str, vcpu: VcpuFd, memory: GuestMemory, exits: Iterable[Exit]) -> str:
    """``what`` happened, on which CPU in which state, after which exits."""
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    values = [f"{name}={getattr(regs, name):#x}" for name in _GENERAL]
    lines = [f"{what}, on CPU {vcpu.index}"]
    lines += ["  " + " ".join(values[at : at + 6]) for at in range(0, len(values), 6)]
    lines.append(
        f"  cr0={sregs.cr0:#x} cr2={sregs.cr2:#x} cr3={sregs.cr3:#x} cr4={sregs.cr4:#x}"
        f" efer={sregs.efer:#x} cs={sregs.cs.selector:#x}/{sregs.cs.base:#x}"
        f" ss={sregs.ss.selector:#x} idt={sregs.idt.base:#x}/{sregs.idt.limit:#x}"
    )
    code = _code(vcpu, memory, sregs.cs.base + regs.rip)
    lines.append(f"  code at rip: {code.hex(' ') if code else 'not in memory'}")
    lines.append("  last exits:")
    lines += [f"    {exit_}" for exit_ in exits]
    return "\n".join(lines)


def _code(vcpu: VcpuFd, memory: GuestMemory, linear: int) -> bytes:
    try:
        physical = vcpu.translate(linear)
    except KvmError:
        return b""
    return b"" if physical is None else memory.read(physical, _INSTRUCTION_BYTES)
