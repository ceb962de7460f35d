"""The kernel's KVM interface as data: ioctl numbers and the structures that they carry.

Source: Linux ``include/uapi/linux/kvm.h``, ``arch/x86/include/uapi/asm/kvm.h`` and
``include/uapi/asm-generic/ioctl.h`` (facts about a stable interface; the text is our own).  Only
what interrupt controllers and a small VMM need is here.

A structure is declared once: the annotations are read by mypy as Python types and by
:func:`abi_struct` as C types.  All fields are in the machine's byte order (x86: little-endian) and
at their natural alignment, exactly as a C compiler lays them out.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Annotated, Final, TypeAlias, TypeVar, get_args, get_type_hints

from userspace_chip.architecture import IOAPIC_PINS

U8: TypeAlias = Annotated[int, ctypes.c_uint8]
U16: TypeAlias = Annotated[int, ctypes.c_uint16]
U32: TypeAlias = Annotated[int, ctypes.c_uint32]
U64: TypeAlias = Annotated[int, ctypes.c_uint64]
S64: TypeAlias = Annotated[int, ctypes.c_int64]

_T = TypeVar("_T", bound=type[ctypes.Structure] | type[ctypes.Union])


def abi_struct(cls: _T) -> _T:
    """Give a ctypes class its ``_fields_`` from its annotations, in their order."""
    hints = get_type_hints(cls, include_extras=True)
    fields = []
    for name in cls.__annotations__:
        metadata = get_args(hints[name])[1:]
        fields.append((name, metadata[0] if metadata else hints[name]))
    cls._fields_ = fields
    return cls


# ---------------------------------------------------------------- interrupt controllers

PIT_CHANNELS: Final = 3
LAPIC_REGISTERS_BYTES: Final = 0x400


@abi_struct
class KvmLapicState(ctypes.Structure):
    """``kvm_lapic_state``: the first 0x400 bytes of the register page, at datasheet offsets."""

    regs: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * LAPIC_REGISTERS_BYTES]


@abi_struct
class KvmIoapicState(ctypes.Structure):
    """``kvm_ioapic_state``."""

    base_address: U64
    ioregsel: U32
    id: U32
    irr: U32
    pad: U32
    redirtbl: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * IOAPIC_PINS]


@abi_struct
class KvmPicState(ctypes.Structure):
    """``kvm_pic_state``: one 8259 of the pair."""

    last_irr: U8
    irr: U8
    imr: U8
    isr: U8
    priority_add: U8
    irq_base: U8
    read_reg_select: U8
    poll: U8
    special_mask: U8
    init_state: U8
    auto_eoi: U8
    rotate_on_auto_eoi: U8
    special_fully_nested_mode: U8
    init4: U8
    elcr: U8
    elcr_mask: U8


@abi_struct
class _IrqchipUnion(ctypes.Union):
    dummy: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 512]
    pic: KvmPicState
    ioapic: KvmIoapicState


@abi_struct
class KvmIrqchip(ctypes.Structure):
    """``kvm_irqchip``: one chip of the VM, for ``KVM_GET_IRQCHIP`` and ``KVM_SET_IRQCHIP``.

    ``chip_id`` is a :class:`userspace_chip.ports.Irqchip`.
    """

    chip_id: U32
    pad: U32
    chip: _IrqchipUnion


@abi_struct
class KvmPitChannelState(ctypes.Structure):
    """``kvm_pit_channel_state``: one counter of the 8254."""

    count: U32
    latched_count: U16
    count_latched: U8
    status_latched: U8
    status: U8
    read_state: U8
    write_state: U8
    write_latch: U8
    rw_mode: U8
    mode: U8
    bcd: U8
    gate: U8
    count_load_time: S64


@abi_struct
class KvmPitState2(ctypes.Structure):
    """``kvm_pit_state2``: the three counters, and flags (:class:`PitFlag`)."""

    channels: Annotated[ctypes.Array[KvmPitChannelState], KvmPitChannelState * PIT_CHANNELS]
    flags: U32
    reserved: Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * 9]


class PitFlag(IntFlag):
    """``KVM_PIT_FLAGS_*`` of :class:`KvmPitState2`."""

    HPET_LEGACY = 1
    SPEAKER_DATA_ON = 2


@abi_struct
class KvmPitConfig(ctypes.Structure):
    """``kvm_pit_config``: flag 1 is the dummy speaker port."""

    flags: U32
    pad: Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * 15]


@abi_struct
class KvmReinjectControl(ctypes.Structure):
    """``kvm_reinject_control``: whether the PIT makes up for lost ticks."""

    pit_reinject: U8
    reserved: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 31]


# ---------------------------------------------------------------- lines, MSIs, routes


@abi_struct
class KvmIrqLevel(ctypes.Structure):
    """``kvm_irq_level``; ``irq`` is a union with the status that KVM writes back."""

    irq: U32
    level: U32


@abi_struct
class KvmMsi(ctypes.Structure):
    """``kvm_msi``."""

    address_lo: U32
    address_hi: U32
    data: U32
    flags: U32
    devid: U32
    pad: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 12]


@abi_struct
class KvmIrqRoutingIrqchip(ctypes.Structure):
    """``kvm_irq_routing_irqchip``."""

    irqchip: U32
    pin: U32


@abi_struct
class KvmIrqRoutingMsi(ctypes.Structure):
    """``kvm_irq_routing_msi``."""

    address_lo: U32
    address_hi: U32
    data: U32
    devid: U32


@abi_struct
class _RoutingUnion(ctypes.Union):
    irqchip: KvmIrqRoutingIrqchip
    msi: KvmIrqRoutingMsi
    pad: Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * 8]


class RoutingType(IntEnum):
    """``KVM_IRQ_ROUTING_*`` of a :class:`KvmIrqRoutingEntry`."""

    IRQCHIP = 1
    MSI = 2
    HV_SINT = 4
    XEN_EVTCHN = 5


@abi_struct
class KvmIrqRoutingEntry(ctypes.Structure):
    """``kvm_irq_routing_entry``: where one GSI goes; a GSI may have several entries."""

    gsi: U32
    type: U32
    flags: U32
    pad: U32
    u: _RoutingUnion


@abi_struct
class KvmIrqRouting(ctypes.Structure):
    """``kvm_irq_routing``: the header; ``nr`` entries follow it."""

    nr: U32
    flags: U32


@abi_struct
class KvmInterrupt(ctypes.Structure):
    """``kvm_interrupt``: the vector that user space injects (PIC outside the kernel)."""

    irq: U32


# ---------------------------------------------------------------- vCPU


@abi_struct
class KvmRegs(ctypes.Structure):
    """``kvm_regs``."""

    rax: U64
    rbx: U64
    rcx: U64
    rdx: U64
    rsi: U64
    rdi: U64
    rsp: U64
    rbp: U64
    r8: U64
    r9: U64
    r10: U64
    r11: U64
    r12: U64
    r13: U64
    r14: U64
    r15: U64
    rip: U64
    rflags: U64


@abi_struct
class KvmSegment(ctypes.Structure):
    """``kvm_segment``."""

    base: U64
    limit: U32
    selector: U16
    type: U8
    present: U8
    dpl: U8
    db: U8
    s: U8
    l: U8  # noqa: E741 - the field's name in the kernel
    g: U8
    avl: U8
    unusable: U8
    padding: U8


@abi_struct
class KvmDtable(ctypes.Structure):
    """``kvm_dtable``."""

    base: U64
    limit: U16
    padding: Annotated[ctypes.Array[ctypes.c_uint16], ctypes.c_uint16 * 3]


@abi_struct
class KvmSregs(ctypes.Structure):
    """``kvm_sregs``."""

    cs: KvmSegment
    ds: KvmSegment
    es: KvmSegment
    fs: KvmSegment
    gs: KvmSegment
    ss: KvmSegment
    tr: KvmSegment
    ldt: KvmSegment
    gdt: KvmDtable
    idt: KvmDtable
    cr0: U64
    cr2: U64
    cr3: U64
    cr4: U64
    cr8: U64
    efer: U64
    apic_base: U64
    interrupt_bitmap: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 4]


@abi_struct
class KvmTranslation(ctypes.Structure):
    """``kvm_translation``: a linear address, and the physical one where it is mapped."""

    linear_address: U64
    physical_address: U64
    valid: U8
    writeable: U8
    usermode: U8
    pad: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 5]


@abi_struct
class KvmMsrEntry(ctypes.Structure):
    """``kvm_msr_entry``."""

    index: U32
    reserved: U32
    data: U64


@abi_struct
class KvmMsrs(ctypes.Structure):
    """``kvm_msrs``: the header; ``nmsrs`` entries follow it."""

    nmsrs: U32
    pad: U32


@abi_struct
class KvmCpuidEntry2(ctypes.Structure):
    """``kvm_cpuid_entry2``."""

    function: U32
    index: U32
    flags: U32
    eax: U32
    ebx: U32
    ecx: U32
    edx: U32
    padding: Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * 3]


@abi_struct
class KvmCpuid2(ctypes.Structure):
    """``kvm_cpuid2``: the header; ``nent`` entries follow it."""

    nent: U32
    padding: U32


class MpState(IntEnum):
    """``KVM_MP_STATE_*``: what a vCPU does when it is run."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    INIT_RECEIVED = 2
    HALTED = 3
    SIPI_RECEIVED = 4


@abi_struct
class KvmMpState(ctypes.Structure):
    """``kvm_mp_state``."""

    mp_state: U32


@abi_struct
class KvmVcpuEvents(ctypes.Structure):
    """``kvm_vcpu_events``: what is injected or pending; the kernel's nested structures, flat."""

    exception_injected: U8
    exception_nr: U8
    exception_has_error_code: U8
    exception_pending: U8
    exception_error_code: U32
    interrupt_injected: U8
    interrupt_nr: U8
    interrupt_soft: U8
    interrupt_shadow: U8
    nmi_injected: U8
    nmi_pending: U8
    nmi_masked: U8
    nmi_pad: U8
    sipi_vector: U32
    flags: U32
    smi_smm: U8
    smi_pending: U8
    smi_smm_inside_nmi: U8
    smi_latched_init: U8
    triple_fault_pending: U8
    reserved: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 26]
    exception_has_payload: U8
    exception_payload: U64


class EventsFlag(IntFlag):
    """``KVM_VCPUEVENT_VALID_*`` of :class:`KvmVcpuEvents`: the fields that a set is to take."""

    NMI_PENDING = 1
    SIPI_VECTOR = 2
    SHADOW = 4


@abi_struct
class KvmTprAccessCtl(ctypes.Structure):
    """``kvm_tpr_access_ctl``."""

    enabled: U32
    flags: U32
    reserved: Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * 8]


@abi_struct
class KvmUserspaceMemoryRegion(ctypes.Structure):
    """``kvm_userspace_memory_region``."""

    slot: U32
    flags: U32
    guest_phys_addr: U64
    memory_size: U64
    userspace_addr: U64


MSR_FILTER_RANGES: Final = 16


class MsrAccess(IntFlag):
    """``KVM_MSR_FILTER_READ`` and ``_WRITE``."""

    READ = 1
    WRITE = 2
    BOTH = 3


@abi_struct
class KvmMsrFilterRange(ctypes.Structure):
    """``kvm_msr_filter_range``: a bit of ``bitmap`` for each MSR, 0 to deny the access."""

    flags: U32
    """:class:`MsrAccess`."""
    nmsrs: U32
    base: U32
    bitmap: Annotated[int | None, ctypes.c_void_p]


@abi_struct
class KvmMsrFilter(ctypes.Structure):
    """``kvm_msr_filter``: what is in no range is allowed with ``flags`` 0."""

    flags: U32
    ranges: Annotated[ctypes.Array[KvmMsrFilterRange], KvmMsrFilterRange * MSR_FILTER_RANGES]


@abi_struct
class KvmEnableCap(ctypes.Structure):
    """``kvm_enable_cap``."""

    cap: U32
    flags: U32
    args: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 4]
    pad: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 64]


# ---------------------------------------------------------------- KVM_RUN


class ExitReason(IntEnum):
    """``KVM_EXIT_*``: why ``KVM_RUN`` came back."""

    UNKNOWN = 0
    EXCEPTION = 1
    IO = 2
    HYPERCALL = 3
    DEBUG = 4
    HLT = 5
    MMIO = 6
    IRQ_WINDOW_OPEN = 7
    SHUTDOWN = 8
    FAIL_ENTRY = 9
    INTR = 10
    SET_TPR = 11
    TPR_ACCESS = 12
    NMI = 16
    INTERNAL_ERROR = 17
    SYSTEM_EVENT = 24
    IOAPIC_EOI = 26
    HYPERV = 27
    X86_RDMSR = 29
    X86_WRMSR = 30
    DIRTY_RING_FULL = 31
    X86_BUS_LOCK = 33
    XEN = 34
    NOTIFY = 37
    MEMORY_FAULT = 39


@abi_struct
class ExitIo(ctypes.Structure):
    """``kvm_run.io``: the data is ``data_offset`` bytes into the mapped ``kvm_run``."""

    direction: U8
    """0: the guest reads (IN), 1: it writes (OUT)."""
    size: U8
    port: U16
    count: U32
    data_offset: U64


@abi_struct
class ExitMmio(ctypes.Structure):
    """``kvm_run.mmio``."""

    phys_addr: U64
    data: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 8]
    len: U32
    is_write: U8


@abi_struct
class ExitFailEntry(ctypes.Structure):
    """``kvm_run.fail_entry``."""

    hardware_entry_failure_reason: U64
    cpu: U32


@abi_struct
class ExitInternal(ctypes.Structure):
    """``kvm_run.internal``."""

    suberror: U32
    ndata: U32
    data: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 16]


@abi_struct
class ExitEoi(ctypes.Structure):
    """``kvm_run.eoi``: the vector that the IOAPIC in user space has to see the EOI of."""

    vector: U8


@abi_struct
class ExitSystemEvent(ctypes.Structure):
    """``kvm_run.system_event``."""

    type: U32
    ndata: U32
    data: Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 16]


@abi_struct
class ExitMsr(ctypes.Structure):
    """``kvm_run.msr``."""

    error: U8
    pad: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 7]
    reason: U32
    index: U32
    data: U64


class MsrExitReason(IntFlag):
    """``KVM_MSR_EXIT_REASON_*``: which accesses ``KVM_CAP_X86_USER_SPACE_MSR`` leaves to us."""

    INVAL = 1
    """What KVM would answer with #GP."""
    UNKNOWN = 2
    FILTER = 4
    """What the filter denies."""


@abi_struct
class _ExitUnion(ctypes.Union):
    io: ExitIo
    mmio: ExitMmio
    fail_entry: ExitFailEntry
    internal: ExitInternal
    eoi: ExitEoi
    system_event: ExitSystemEvent
    msr: ExitMsr
    padding: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 256]


@abi_struct
class KvmRun(ctypes.Structure):
    """``kvm_run``: the head of the page that a vCPU shares with user space."""

    request_interrupt_window: U8
    immediate_exit: U8
    padding1: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 6]
    exit_reason: U32
    ready_for_interrupt_injection: U8
    if_flag: U8
    flags: U16
    cr8: U64
    apic_base: U64
    exit: _ExitUnion
    kvm_valid_regs: U64
    kvm_dirty_regs: U64
    sync_regs: Annotated[ctypes.Array[ctypes.c_uint8], ctypes.c_uint8 * 2048]


# ---------------------------------------------------------------- capabilities


class Cap(IntEnum):
    """``KVM_CAP_*``: what ``KVM_CHECK_EXTENSION`` and ``KVM_ENABLE_CAP`` are asked for."""

    IRQCHIP = 0
    USER_MEMORY = 3
    EXT_CPUID = 7
    NR_VCPUS = 9
    MP_STATE = 14
    REINJECT_CONTROL = 24
    IRQ_ROUTING = 25
    IRQ_INJECT_STATUS = 26
    IRQFD = 32
    PIT2 = 33
    SET_BOOT_CPU_ID = 34
    PIT_STATE2 = 35
    IOEVENTFD = 36
    VCPU_EVENTS = 41
    HYPERV = 44
    ENABLE_CAP = 54
    MAX_VCPUS = 66
    TSC_DEADLINE_TIMER = 72
    SIGNAL_MSI = 77
    IRQFD_RESAMPLE = 82
    ENABLE_CAP_VM = 98
    X86_SMM = 117
    MULTI_ADDRESS_SPACE = 118
    SPLIT_IRQCHIP = 121
    MAX_VCPU_ID = 128
    X2APIC_API = 129
    IMMEDIATE_EXIT = 136
    X86_DISABLE_EXITS = 143
    NESTED_STATE = 157
    X86_USER_SPACE_MSR = 188
    X86_MSR_FILTER = 189
    BINARY_STATS_FD = 203
    DISABLE_QUIRKS2 = 213
    X86_APIC_BUS_CYCLES_NS = 237


class X2apicApiFlag(IntFlag):
    """Arguments of ``KVM_CAP_X2APIC_API``; the last two came after 6.18."""

    USE_32BIT_IDS = 1
    DISABLE_BROADCAST_QUIRK = 2
    ENABLE_SUPPRESS_EOI_BROADCAST = 4
    DISABLE_SUPPRESS_EOI_BROADCAST = 8


# ---------------------------------------------------------------- ioctl numbers

_NONE: Final = 0
_WRITE: Final = 1
_READ: Final = 2
_KVMIO: Final = 0xAE


@dataclass(frozen=True)
class Ioctl:
    """One ioctl: its name and the number that direction, type, number and argument size make.

    ``number`` is ``direction << 30 | sizeof(argument) << 16 | 0xAE << 8 | nr``
    (``asm-generic/ioctl.h``: 2 + 14 + 8 + 8 bits).
    """

    name: str
    number: int


def _ioctl(
    name: str, nr: int, direction: int = _NONE, argument: type[ctypes.Structure] | None = None
) -> Ioctl:
    size = 0 if argument is None else ctypes.sizeof(argument)
    return Ioctl(f"KVM_{name}", direction << 30 | size << 16 | _KVMIO << 8 | nr)


GET_API_VERSION: Final = _ioctl("GET_API_VERSION", 0x00)
CREATE_VM: Final = _ioctl("CREATE_VM", 0x01)
CHECK_EXTENSION: Final = _ioctl("CHECK_EXTENSION", 0x03)
GET_VCPU_MMAP_SIZE: Final = _ioctl("GET_VCPU_MMAP_SIZE", 0x04)
GET_SUPPORTED_CPUID: Final = _ioctl("GET_SUPPORTED_CPUID", 0x05, _READ | _WRITE, KvmCpuid2)

CREATE_VCPU: Final = _ioctl("CREATE_VCPU", 0x41)
SET_USER_MEMORY_REGION: Final = _ioctl(
    "SET_USER_MEMORY_REGION", 0x46, _WRITE, KvmUserspaceMemoryRegion
)
SET_TSS_ADDR: Final = _ioctl("SET_TSS_ADDR", 0x47)
CREATE_IRQCHIP: Final = _ioctl("CREATE_IRQCHIP", 0x60)
IRQ_LINE: Final = _ioctl("IRQ_LINE", 0x61, _WRITE, KvmIrqLevel)
GET_IRQCHIP: Final = _ioctl("GET_IRQCHIP", 0x62, _READ | _WRITE, KvmIrqchip)
SET_IRQCHIP: Final = _ioctl("SET_IRQCHIP", 0x63, _READ, KvmIrqchip)
IRQ_LINE_STATUS: Final = _ioctl("IRQ_LINE_STATUS", 0x67, _READ | _WRITE, KvmIrqLevel)
SET_GSI_ROUTING: Final = _ioctl("SET_GSI_ROUTING", 0x6A, _WRITE, KvmIrqRouting)
REINJECT_CONTROL: Final = _ioctl("REINJECT_CONTROL", 0x71)
CREATE_PIT2: Final = _ioctl("CREATE_PIT2", 0x77, _WRITE, KvmPitConfig)
SET_BOOT_CPU_ID: Final = _ioctl("SET_BOOT_CPU_ID", 0x78)
GET_PIT2: Final = _ioctl("GET_PIT2", 0x9F, _READ, KvmPitState2)
SET_PIT2: Final = _ioctl("SET_PIT2", 0xA0, _WRITE, KvmPitState2)
ENABLE_CAP: Final = _ioctl("ENABLE_CAP", 0xA3, _WRITE, KvmEnableCap)
SIGNAL_MSI: Final = _ioctl("SIGNAL_MSI", 0xA5, _WRITE, KvmMsi)

X86_SET_MSR_FILTER: Final = _ioctl("X86_SET_MSR_FILTER", 0xC6, _WRITE, KvmMsrFilter)

RUN: Final = _ioctl("RUN", 0x80)
GET_REGS: Final = _ioctl("GET_REGS", 0x81, _READ, KvmRegs)
SET_REGS: Final = _ioctl("SET_REGS", 0x82, _WRITE, KvmRegs)
GET_SREGS: Final = _ioctl("GET_SREGS", 0x83, _READ, KvmSregs)
SET_SREGS: Final = _ioctl("SET_SREGS", 0x84, _WRITE, KvmSregs)
TRANSLATE: Final = _ioctl("TRANSLATE", 0x85, _READ | _WRITE, KvmTranslation)
INTERRUPT: Final = _ioctl("INTERRUPT", 0x86, _WRITE, KvmInterrupt)
GET_MSRS: Final = _ioctl("GET_MSRS", 0x88, _READ | _WRITE, KvmMsrs)
SET_MSRS: Final = _ioctl("SET_MSRS", 0x89, _WRITE, KvmMsrs)
GET_LAPIC: Final = _ioctl("GET_LAPIC", 0x8E, _READ, KvmLapicState)
SET_LAPIC: Final = _ioctl("SET_LAPIC", 0x8F, _WRITE, KvmLapicState)
SET_CPUID2: Final = _ioctl("SET_CPUID2", 0x90, _WRITE, KvmCpuid2)
TPR_ACCESS_REPORTING: Final = _ioctl("TPR_ACCESS_REPORTING", 0x92, _READ | _WRITE, KvmTprAccessCtl)
GET_MP_STATE: Final = _ioctl("GET_MP_STATE", 0x98, _READ, KvmMpState)
SET_MP_STATE: Final = _ioctl("SET_MP_STATE", 0x99, _WRITE, KvmMpState)
NMI: Final = _ioctl("NMI", 0x9A)
GET_TSC_KHZ: Final = _ioctl("GET_TSC_KHZ", 0xA3)
SMI: Final = _ioctl("SMI", 0xB7)
GET_VCPU_EVENTS: Final = _ioctl("GET_VCPU_EVENTS", 0x9F, _READ, KvmVcpuEvents)
SET_VCPU_EVENTS: Final = _ioctl("SET_VCPU_EVENTS", 0xA0, _WRITE, KvmVcpuEvents)
