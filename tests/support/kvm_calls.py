"""ioctls of KVM that QEMU makes seldom or never, and no module of the project: for tests alone.

Source: Linux ``Documentation/virt/kvm/api.rst`` and ``include/uapi/linux/kvm.h``.
"""

import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager

import pytest

from userspace_chip.kvm import abi
from userspace_chip.kvm.fds import KvmFd, VcpuFd, VmFd

IRQFD = 0x4020AE76
IOEVENTFD = 0x4040AE79
SET_VAPIC_ADDR = 0x4008AE93
GET_PIT, SET_PIT = 0xC048AE65, 0x8048AE66
PIT_BYTES = 72
SET_GSI_ROUTING = abi.SET_GSI_ROUTING.number
SIGNAL_MSI = abi.SIGNAL_MSI.number
CREATE_PIT2 = abi.CREATE_PIT2.number

DEASSIGN, RESAMPLE = 1, 2
"""``KVM_IRQFD_FLAG_*``."""
DATAMATCH, PIO, DEASSIGN_IO = 1, 2, 4
"""``KVM_IOEVENTFD_FLAG_*``."""
SPEAKER_DUMMY = 1
"""``KVM_PIT_SPEAKER_DUMMY``."""
CAP_HYPERV_SYNIC = 123
PATIENCE_S = 20.0


def refusal(fd, number: int, argument: bytes) -> str | None:
    """The name of the errno with which KVM refuses an ioctl; None where it does not."""
    try:
        fcntl.ioctl(fd.fileno(), number, bytearray(argument), True)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def linux_version() -> tuple[int, int]:
    """Of the kernel whose KVM this is: 6, 1."""
    major, minor = os.uname().release.split("-")[0].split(".")[:2]
    return int(major), int(minor)


def irqfd(vm: VmFd, fd: int, gsi: int, flags: int = 0, resample: int = 0) -> str | None:
    """``KVM_IRQFD``; how it was refused."""
    return refusal(vm, IRQFD, struct.pack("<IIII16x", fd & 0xFFFFFFFF, gsi, flags, resample))


def ioeventfd(
    vm: VmFd, fd: int, address: int, size: int, flags: int = 0, match: int = 0
) -> str | None:
    """``KVM_IOEVENTFD``; how it was refused."""
    words = struct.pack("<QQIiI36x", match, address, size, fd, flags)
    return refusal(vm, IOEVENTFD, words)


def routing(vm: VmFd, entries: Iterable[tuple[int, int, int, tuple[int, ...]]]) -> str | None:
    """``KVM_SET_GSI_ROUTING`` of (GSI, type, flags, words of the union); how it was refused."""
    packed = [
        struct.pack("<IIII", gsi, kind, flags, 0) + struct.pack(f"<{len(words)}I", *words)
        for gsi, kind, flags, words in entries
    ]
    table = b"".join(entry.ljust(48, b"\0") for entry in packed)
    return refusal(vm, SET_GSI_ROUTING, struct.pack("<II", len(packed), 0) + table)


def signal_msi(vm: VmFd, address: int, data: int, flags: int = 0) -> str | None:
    """``KVM_SIGNAL_MSI`` with flags; how it was refused."""
    low, high = address & 0xFFFFFFFF, address >> 32
    return refusal(vm, SIGNAL_MSI, struct.pack("<IIIII12x", low, high, data, flags, 0))


def create_pit_with_speaker(vm: VmFd) -> None:
    """``KVM_CREATE_PIT2`` with the port 0x61 in the kernel, too."""
    assert refusal(vm, CREATE_PIT2, struct.pack("<I60x", SPEAKER_DUMMY)) is None


def set_vapic_addr(vcpu: VcpuFd, address: int) -> str | None:
    """``KVM_SET_VAPIC_ADDR``; how it was refused."""
    return refusal(vcpu, SET_VAPIC_ADDR, struct.pack("<Q", address))


def become_hyperv(vcpu: VcpuFd, kvm: KvmFd) -> None:
    """A CPUID that says Hyper-V, and its SynIC; skips the test where this KVM has none."""
    if not kvm.check_extension(CAP_HYPERV_SYNIC):
        pytest.skip("this KVM has no SynIC")
    mine = [entry for entry in kvm.supported_cpuid() if entry.function >> 8 != 0x400000]
    words = (0x40000000, (0x40000006, 0x7263694D, 0x666F736F, 0x76482074))
    interface = (0x40000001, (0x31237648, 0, 0, 0))
    for function, (a, b, c, d) in (words, interface):
        mine.append(abi.KvmCpuidEntry2(function=function, eax=a, ebx=b, ecx=c, edx=d))
    vcpu.set_cpuid(mine)
    vcpu.enable_cap(CAP_HYPERV_SYNIC)


@contextmanager
def eventfds(count: int):
    """That many event descriptors."""
    with ExitStack() as owned:
        made = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(count)]
        for fd in made:
            owned.callback(os.close, fd)
        yield made


def kick(fd: int) -> None:
    """Signal an event descriptor."""
    os.eventfd_write(fd, 1)


def kicks(fd: int) -> int:
    """How often it was signalled since the last look."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def until(condition) -> bool:
    """Wait for what a thread of the kernel does; whether it did."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True
