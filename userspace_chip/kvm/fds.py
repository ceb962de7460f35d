"""File descriptors of KVM, one type each: :class:`KvmFd` makes :class:`VmFd` makes :class:`VcpuFd`.

Every descriptor is owned: use them in a ``with``, or call ``close()``.  Closing a VM closes its
vCPUs.  Mapped memory goes with the last reference to it, never while one is left.  A refused
ioctl raises :class:`~userspace_chip.kvm.errors.KvmError` with the ioctl's name and errno.

Source: Linux ``Documentation/virt/kvm/api.rst`` (the same for 6.1, 6.12 and 6.18, except where a
method says otherwise).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from types import TracebackType
from typing import Final, Self

from userspace_chip.architecture import IOAPIC_PINS
from userspace_chip.kvm import abi
from userspace_chip.kvm.errors import KvmError, KvmUnavailableError
from userspace_chip.messages import MsiMessage
from userspace_chip.ports import Irqchip
from userspace_chip.routing import IrqchipRoute, Route

KVM_API_VERSION: Final = 12
MAX_CPUID_ENTRIES: Final = 256
EFLAGS_RESERVED: Final = 1 << 1
EFLAGS_IF: Final = 1 << 9

_SPACE_SHIFT: Final = 16
"""A slot's number has its address space in the upper half (KVM_CAP_MULTI_ADDRESS_SPACE)."""
_REASONS: Final = {reason.value: reason for reason in abi.ExitReason}
_EXIT_OFFSET: Final = abi.KvmRun.exit.offset
_IO: Final = struct.Struct("<BBHIQ")
"""``kvm_run.io``: direction, size, port, count, data_offset."""
_MMIO: Final = struct.Struct("<Q8sIB")
"""``kvm_run.mmio``: phys_addr, data, len, is_write."""

_NOT_OPEN: Final = 0x7FFF_FFFF  # no process has it: never another owner's descriptor


class _Fd:
    """An owned descriptor that ioctls go to."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owned = ExitStack()
        self._owned.callback(os.close, fd)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def close(self) -> None:
        """Give everything back; closing twice does nothing, an ioctl afterwards is ``EBADF``."""
        self._owned.close()
        self._fd = _NOT_OPEN

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, ioctl: abi.Ioctl, value: int = 0) -> int:
        """An ioctl that takes a number."""
        try:
            result: int = fcntl.ioctl(self._fd, ioctl.number, value)
        except OSError as error:
            raise KvmError(ioctl.name, error.errno or errno.EIO) from None
        return result

    def _pass(self, ioctl: abi.Ioctl, argument: ctypes.Structure | bytearray) -> int:
        """An ioctl that reads or writes a structure."""
        try:
            result: int = fcntl.ioctl(self._fd, ioctl.number, argument, True)
        except OSError as error:
            raise KvmError(ioctl.name, error.errno or errno.EIO) from None
        return result

    def enable_cap(self, cap: abi.Cap, *args: int) -> None:
        """``KVM_ENABLE_CAP`` with up to four arguments."""
        request = abi.KvmEnableCap(cap=cap)
        request.args[: len(args)] = list(args)
        self._pass(abi.ENABLE_CAP, request)

    def check_extension(self, cap: abi.Cap) -> int:
        """``KVM_CHECK_EXTENSION``: 0 where it is missing, else 1 or what the capability counts."""
        return self._call(abi.CHECK_EXTENSION, cap)


class KvmFd(_Fd):
    """/dev/kvm itself.

    Raises :class:`~userspace_chip.kvm.errors.KvmUnavailableError` where it cannot be opened, or
    speaks another API version than 12 (the only one since 2.6.22).
    """

    def __init__(self, path: str = "/dev/kvm") -> None:
        try:
            super().__init__(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            raise KvmUnavailableError(path, error.errno or errno.EIO) from None
        try:
            version = self._call(abi.GET_API_VERSION)
            if version != KVM_API_VERSION:
                raise KvmUnavailableError(path, errno.ENOSYS, f"it speaks API {version}, not 12")
        except KvmError as error:
            self.close()
            if isinstance(error, KvmUnavailableError):
                raise
            raise KvmUnavailableError(path, error.errno or errno.EIO, "this is not KVM") from None

    @property
    def vcpu_mmap_bytes(self) -> int:
        """Bytes to map of a vCPU: ``kvm_run`` and what follows it."""
        return self._call(abi.GET_VCPU_MMAP_SIZE)

    def supported_cpuid(self) -> tuple[abi.KvmCpuidEntry2, ...]:
        """``KVM_GET_SUPPORTED_CPUID``: every leaf that KVM can show a guest here."""
        header = ctypes.sizeof(abi.KvmCpuid2)
        buffer = bytearray(header + MAX_CPUID_ENTRIES * ctypes.sizeof(abi.KvmCpuidEntry2))
        abi.KvmCpuid2.from_buffer(buffer).nent = MAX_CPUID_ENTRIES
        self._pass(abi.GET_SUPPORTED_CPUID, buffer)
        count = abi.KvmCpuid2.from_buffer(buffer).nent
        return tuple((abi.KvmCpuidEntry2 * count).from_buffer_copy(buffer, header))

    def create_vm(self) -> VmFd:
        """A new VM of the default machine type, without vCPUs, memory or irqchip."""
        return VmFd(self._call(abi.CREATE_VM), self.vcpu_mmap_bytes)


@lru_cache(maxsize=1024)
def _routing_entry(route: Route) -> bytes:
    """A ``kvm_irq_routing_entry``; the same ones come again and again, most of them unchanged."""
    entry = abi.KvmIrqRoutingEntry(gsi=route.gsi)
    if isinstance(route, IrqchipRoute):
        entry.type = abi.RoutingType.IRQCHIP
        entry.u.irqchip = abi.KvmIrqRoutingIrqchip(route.chip, route.pin)
    else:
        address, data = route.message
        entry.type = abi.RoutingType.MSI
        entry.u.msi = abi.KvmIrqRoutingMsi(address & 0xFFFF_FFFF, address >> 32, data)
    return bytes(entry)


class VmFd(_Fd):
    """A VM: irqchips, lines, MSIs, routes, memory.  Made by :meth:`KvmFd.create_vm`."""

    def __init__(self, fd: int, vcpu_mmap_bytes: int) -> None:
        super().__init__(fd)
        self._vcpu_mmap_bytes = vcpu_mmap_bytes
        self._memory: list[mmap.mmap] = []
        self._owned.callback(self._memory.clear)
        self._level = abi.KvmIrqLevel()
        self._msi = abi.KvmMsi()
        self._routes: tuple[Route, ...] = ()
        self._routing = bytearray(bytes(abi.KvmIrqRouting(nr=0)))

    # ------------------------------------------------------------ making

    def create_irqchip(self) -> None:
        """``KVM_CREATE_IRQCHIP``: LAPIC, IOAPIC and PIC in the kernel (mode ``on``)."""
        self._call(abi.CREATE_IRQCHIP)

    def enable_split_irqchip(self, reserved_routes: int = IOAPIC_PINS) -> None:
        """``KVM_CAP_SPLIT_IRQCHIP``: only LAPICs in the kernel (mode ``split``).

        The first ``reserved_routes`` GSIs are the pins of IOAPICs in user space: EOIs of their
        level-triggered MSI routes come back as ``KVM_EXIT_IOAPIC_EOI``.
        """
        self.enable_cap(abi.Cap.SPLIT_IRQCHIP, reserved_routes)

    def create_pit2(self) -> None:
        """``KVM_CREATE_PIT2``: the 8254 in the kernel; needs :meth:`create_irqchip`."""
        self._pass(abi.CREATE_PIT2, abi.KvmPitConfig())

    def set_pit_reinjection(self, enabled: bool) -> None:
        """``KVM_REINJECT_CONTROL``: ``True`` is the policy *delay*, ``False`` is *discard*."""
        self._pass(abi.REINJECT_CONTROL, abi.KvmReinjectControl(pit_reinject=enabled))

    def create_vcpu(self, index: int) -> VcpuFd:
        """``KVM_CREATE_VCPU``; ``index`` is the vCPU id and so the initial APIC id."""
        vcpu = VcpuFd(self._call(abi.CREATE_VCPU, index), index, self._vcpu_mmap_bytes)
        self._owned.enter_context(vcpu)
        return vcpu

    def set_tss_addr(self, address: int) -> None:
        """``KVM_SET_TSS_ADDR``: three pages for VMX CPUs that cannot run real mode by themselves.

        Ignored by the others; before the first run; below 2 GiB (``fcntl.ioctl`` takes an int).
        """
        self._call(abi.SET_TSS_ADDR, address)

    def map_memory(self, guest_address: int, size: int, slot: int = 0) -> mmap.mmap:
        """Anonymous memory of ``size`` bytes at a guest-physical address; owned by the VM."""
        return self.map_regions([(guest_address, size)], slot)

    def map_regions(self, regions: Sequence[tuple[int, int]], first_slot: int = 0) -> mmap.mmap:
        """One anonymous mapping for ``regions`` (guest address, bytes), one after the other.

        Each gets a slot, from ``first_slot`` on, also in the address space that a CPU has in SMM,
        where this KVM has one.  The mapping is owned by the VM.
        """
        spaces = max(self.check_extension(abi.Cap.MULTI_ADDRESS_SPACE), 1)
        total = sum(size for _, size in regions)
        memory = mmap.mmap(-1, total, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._memory.append(memory)
        for slot, (guest_address, size) in enumerate(regions, first_slot):
            for space in range(spaces):
                place = space << _SPACE_SHIFT | slot
                region = abi.KvmUserspaceMemoryRegion(place, 0, guest_address, size, address)
                self._pass(abi.SET_USER_MEMORY_REGION, region)
            address += size
        return memory

    # ------------------------------------------------------------ the chips' state

    def get_irqchip(self, chip: Irqchip) -> abi.KvmIrqchip:
        """``KVM_GET_IRQCHIP``."""
        state = abi.KvmIrqchip(chip_id=chip)
        self._pass(abi.GET_IRQCHIP, state)
        return state

    def set_irqchip(self, state: abi.KvmIrqchip) -> None:
        """``KVM_SET_IRQCHIP`` of the chip that ``state.chip_id`` names."""
        self._pass(abi.SET_IRQCHIP, state)

    def get_pit2(self) -> abi.KvmPitState2:
        """``KVM_GET_PIT2``."""
        state = abi.KvmPitState2()
        self._pass(abi.GET_PIT2, state)
        return state

    def set_pit2(self, state: abi.KvmPitState2) -> None:
        """``KVM_SET_PIT2``."""
        self._pass(abi.SET_PIT2, state)

    # ------------------------------------------------------------ interrupts

    def irq_line(self, gsi: int, level: bool) -> None:
        """``KVM_IRQ_LINE``: set a GSI's level; without a result."""
        self._level.irq, self._level.level = gsi, level
        self._pass(abi.IRQ_LINE, self._level)

    def irq_line_status(self, gsi: int, level: bool) -> int:
        """``KVM_IRQ_LINE_STATUS``: set a GSI's level and say what became of it.

        < 0: ignored or masked; 0: coalesced; > 0: how many accepted it, summed over the chips that
        the GSI is routed to (lowering a line counts as accepted).
        """
        self._level.irq, self._level.level = gsi, level
        self._pass(abi.IRQ_LINE_STATUS, self._level)
        return ctypes.c_int32(self._level.irq).value

    def signal_msi(self, message: MsiMessage) -> int:
        """``KVM_SIGNAL_MSI``: how many LAPICs took the message.

        0: blocked by the target; -1: no CPU matched.  The kernel's own -1 reaches user space as
        ``EPERM``, which is why that errno is no error here (``kvm_send_userspace_msi``).
        """
        msi = self._msi
        address, msi.data = message
        msi.address_lo, msi.address_hi = address & 0xFFFF_FFFF, address >> 32
        try:
            return self._pass(abi.SIGNAL_MSI, msi)
        except KvmError as error:
            if error.errno == errno.EPERM:
                return -1
            raise

    def leave_msrs(self, *, writes: Sequence[int], both: Sequence[int]) -> None:
        """Leave MSRs to user space, by exits ``X86_RDMSR`` and ``X86_WRMSR``.

        All that KVM would answer with #GP (``KVM_CAP_X86_USER_SPACE_MSR``), and of what it has
        itself the WRMSRs of ``writes`` and all accesses of ``both`` (``KVM_X86_SET_MSR_FILTER``,
        which never covers x2APIC's).
        """
        reasons = abi.MsrExitReason.INVAL | abi.MsrExitReason.FILTER
        self.enable_cap(abi.Cap.X86_USER_SPACE_MSR, reasons)
        denied = ctypes.create_string_buffer(1)
        address, request = ctypes.addressof(denied), abi.KvmMsrFilter()
        for at, msr in enumerate([*writes, *both]):
            access = abi.MsrAccess.WRITE if msr in writes else abi.MsrAccess.BOTH
            request.ranges[at] = abi.KvmMsrFilterRange(access, 1, msr, address)
        self._pass(abi.X86_SET_MSR_FILTER, request)

    def set_gsi_routing(self, routes: tuple[Route, ...]) -> None:
        """``KVM_SET_GSI_ROUTING``: replace the whole table.

        The order matters where a GSI goes to several chips: they are called in table order.
        """
        if routes is not self._routes:  # QEMU's IOAPIC sets the same ones again at each access
            header = bytes(abi.KvmIrqRouting(nr=len(routes)))
            self._routing = bytearray(b"".join([header, *map(_routing_entry, routes)]))
            self._routes = routes
        self._pass(abi.SET_GSI_ROUTING, self._routing)


class VcpuFd(_Fd):
    """A vCPU with its shared page mapped as ``kvm_run``.  Made by :meth:`VmFd.create_vcpu`."""

    def __init__(self, fd: int, index: int, mmap_bytes: int) -> None:
        super().__init__(fd)
        self.index = index
        self.mapping = mmap.mmap(fd, mmap_bytes, mmap.MAP_SHARED)
        self.kvm_run = abi.KvmRun.from_buffer(self.mapping)

    # ------------------------------------------------------------ running

    def run(self) -> abi.ExitReason:
        """``KVM_RUN`` until the next exit; details are in :attr:`kvm_run`.

        A signal, or ``kvm_run.immediate_exit``, makes it ``ExitReason.INTR``.  An
        ``EAGAIN`` (a vCPU that waits for SIPI and was kicked) does as well.
        """
        try:
            fcntl.ioctl(self._fd, abi.RUN.number, 0)
        except OSError as error:
            if error.errno in (errno.EINTR, errno.EAGAIN):
                return abi.ExitReason.INTR
            raise KvmError(abi.RUN.name, error.errno or errno.EIO) from None
        return _REASONS[self.kvm_run.exit_reason]

    def io_data(self) -> memoryview:
        """The bytes of an ``ExitReason.IO``: ``count`` items of ``size``, writable for an IN."""
        io = self.kvm_run.exit.io
        return memoryview(self.mapping)[io.data_offset : io.data_offset + io.size * io.count]

    def io_exit(self) -> tuple[int, int, int, int, int]:
        """``kvm_run.io`` at once: direction (1 is OUT), size, port, count, offset of the data.

        Field by field, ctypes would take longer than the exit itself.
        """
        return _IO.unpack_from(self.mapping, _EXIT_OFFSET)

    def mmio_exit(self) -> tuple[int, bytes, int, int]:
        """``kvm_run.mmio`` at once: address, eight bytes of data, length, whether it is a store."""
        return _MMIO.unpack_from(self.mapping, _EXIT_OFFSET)

    def answer_mmio(self, data: bytes) -> None:
        """What the guest's load gets at the next :meth:`run`."""
        at = _EXIT_OFFSET + 8
        self.mapping[at : at + len(data)] = data

    # ------------------------------------------------------------ registers

    def get_regs(self) -> abi.KvmRegs:
        """``KVM_GET_REGS``."""
        state = abi.KvmRegs()
        self._pass(abi.GET_REGS, state)
        return state

    def set_regs(self, state: abi.KvmRegs) -> None:
        """``KVM_SET_REGS``."""
        self._pass(abi.SET_REGS, state)

    def get_sregs(self) -> abi.KvmSregs:
        """``KVM_GET_SREGS``."""
        state = abi.KvmSregs()
        self._pass(abi.GET_SREGS, state)
        return state

    def set_sregs(self, state: abi.KvmSregs) -> None:
        """``KVM_SET_SREGS``."""
        self._pass(abi.SET_SREGS, state)

    def start_real_mode(self, address: int, stack: int = 0x1000) -> None:
        """Begin at ``address`` (below 64 KiB) in real mode with interrupts disabled.

        CS, DS, ES and SS have base 0 and a limit of 4 GiB ("unreal mode"), so that a 32-bit
        address reaches the APIC and IOAPIC windows.
        """
        sregs = self.get_sregs()
        for name in ("cs", "ds", "es", "ss"):
            segment: abi.KvmSegment = getattr(sregs, name)
            segment.base, segment.selector = 0, 0
            segment.limit, segment.g = 0xFFFF_FFFF, 1
        self.set_sregs(sregs)
        self.set_regs(abi.KvmRegs(rip=address, rsp=stack, rflags=EFLAGS_RESERVED))

    def set_cpuid(self, entries: Iterable[abi.KvmCpuidEntry2]) -> None:
        """``KVM_SET_CPUID2``; before the first run."""
        leaves = tuple(entries)
        header = abi.KvmCpuid2(nent=len(leaves))
        self._pass(abi.SET_CPUID2, bytearray(b"".join(bytes(x) for x in [header, *leaves])))

    def get_msr(self, index: int) -> int | None:
        """``KVM_GET_MSRS`` of one register; ``None`` where a guest's RDMSR would fault."""
        buffer = self._msr_buffer(index, 0)
        done = self._pass(abi.GET_MSRS, buffer)
        entry = abi.KvmMsrEntry.from_buffer(buffer, ctypes.sizeof(abi.KvmMsrs))
        return entry.data if done else None

    def set_msr(self, index: int, value: int) -> bool:
        """``KVM_SET_MSRS`` of one register; ``False`` where KVM refuses the value."""
        return self._pass(abi.SET_MSRS, self._msr_buffer(index, value)) == 1

    @staticmethod
    def _msr_buffer(index: int, value: int) -> bytearray:
        entry = abi.KvmMsrEntry(index=index, data=value)
        return bytearray(bytes(abi.KvmMsrs(nmsrs=1)) + bytes(entry))

    def msr_exit(self) -> tuple[int, int]:
        """Of an exit for an MSR: its number and, of a WRMSR, the value."""
        exit_ = self.kvm_run.exit.msr
        return exit_.index, exit_.data

    def answer_msr(self, value: int | None) -> None:
        """What that RDMSR reads, anything for a WRMSR; None: #GP."""
        self.kvm_run.exit.msr.error = int(value is None)
        self.kvm_run.exit.msr.data = value or 0

    def tsc_khz(self) -> int:
        """``KVM_GET_TSC_KHZ``: the guest's."""
        return self._call(abi.GET_TSC_KHZ)

    def translate(self, linear: int) -> int | None:
        """``KVM_TRANSLATE``: the guest-physical address; None where nothing is mapped."""
        state = abi.KvmTranslation(linear_address=linear)
        self._pass(abi.TRANSLATE, state)
        return state.physical_address if state.valid else None

    # ------------------------------------------------------------ interrupts

    def get_lapic(self) -> abi.KvmLapicState:
        """``KVM_GET_LAPIC``."""
        state = abi.KvmLapicState()
        self._pass(abi.GET_LAPIC, state)
        return state

    def set_lapic(self, state: abi.KvmLapicState) -> None:
        """``KVM_SET_LAPIC``."""
        self._pass(abi.SET_LAPIC, state)

    def report_tpr_accesses(self, enabled: bool) -> None:
        """``KVM_TPR_ACCESS_REPORTING``: an exit (``TPR_ACCESS``) for each access of TPR's register.

        Only with the local APIC in the kernel.
        """
        self._pass(abi.TPR_ACCESS_REPORTING, abi.KvmTprAccessCtl(enabled=enabled))

    def interrupt(self, vector: int) -> None:
        """``KVM_INTERRUPT``: the vector of a PIC in user space (``split``, ``off``).

        ``EEXIST`` where one is parked already, ``ENXIO`` where the PIC is in the kernel,
        ``EINVAL`` above 255.
        """
        self._pass(abi.INTERRUPT, abi.KvmInterrupt(vector))

    def nmi(self) -> None:
        """``KVM_NMI``."""
        self._call(abi.NMI)

    def smi(self) -> bool:
        """``KVM_SMI``; False where this kernel was built without SMM."""
        try:
            self._call(abi.SMI)
        except KvmError as error:
            if error.errno == errno.ENOTTY:
                return False
            raise
        return True

    def get_events(self) -> abi.KvmVcpuEvents:
        """``KVM_GET_VCPU_EVENTS``."""
        state = abi.KvmVcpuEvents()
        self._pass(abi.GET_VCPU_EVENTS, state)
        return state

    def set_events(self, state: abi.KvmVcpuEvents) -> None:
        """``KVM_SET_VCPU_EVENTS``."""
        self._pass(abi.SET_VCPU_EVENTS, state)

    def finish_exit(self) -> None:
        """Complete the access that the last exit was about, without running the guest.

        Before that, registers that are set may be changed again by what KVM still has to do
        (``Documentation/virt/kvm/api.rst``, KVM_RUN).
        """
        self.kvm_run.immediate_exit = 1
        while self.run() is not abi.ExitReason.INTR:
            pass
        self.kvm_run.immediate_exit = 0

    def get_mp_state(self) -> abi.MpState:
        """``KVM_GET_MP_STATE``."""
        state = abi.KvmMpState()
        self._pass(abi.GET_MP_STATE, state)
        return abi.MpState(state.mp_state)

    def set_mp_state(self, mp_state: abi.MpState) -> None:
        """``KVM_SET_MP_STATE``."""
        self._pass(abi.SET_MP_STATE, abi.KvmMpState(mp_state))
