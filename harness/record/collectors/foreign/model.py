"""What importers give: one frozen type for each kind of file that a user may have.

What a reader did not understand is in :attr:`Evidence.notes`, so that an answer can say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from harness.ledger.ledger import Ledger
from harness.record.collectors.monitor import Controllers, IrqStatistics, LapicPending
from harness.record.collectors.procfs import InterruptLine
from userspace_chip.info_pic import InfoPic


class FileKind(StrEnum):
    """What a file is; the words that ``--as`` takes."""

    INTERRUPTS = "interrupts"
    """Snapshots of the guest's ``/proc/interrupts``."""
    HOST_INTERRUPTS = "host-interrupts"
    """The host's; never guessed, because it looks like a guest's."""
    LOG = "dmesg"
    EXITS = "perf-kvm-stat"
    COUNTS = "perf-stat"
    KVM_STAT = "kvm_stat"
    TRACE = "trace"
    TRACE_DAT = "trace.dat"
    INFO_PIC = "info-pic"
    INFO_LAPIC = "info-lapic"
    INFO_IRQ = "info-irq"
    MONITOR = "monitor"
    """A session of QEMU's monitor, with several of these."""
    STATISTICS = "query-stats"
    THREADS = "threads"
    """Of :mod:`harness.collect`, as the next one."""
    PARAMETERS = "module-parameters"
    COMMAND_LINE = "qemu"
    XML = "libvirt"
    LSPCI = "lspci"
    VERSIONS = "versions"
    """``qemu-system-x86_64 --version`` and ``uname -a``."""
    ARCHIVE = "archive"
    """Of ``irqmatrix collect``."""


@dataclass(frozen=True)
class InterruptSnapshot:
    """One ``/proc/interrupts``; ``time_s`` on any clock, None where nothing says when."""

    time_s: float | None
    lines: tuple[InterruptLine, ...]


@dataclass(frozen=True)
class Snapshots:
    """Snapshots in the order in which they were taken."""

    snapshots: tuple[InterruptSnapshot, ...]
    is_host: bool = False


@dataclass(frozen=True)
class LogSign:
    """Kernel messages of one kind: which, about what, how many, and the first of them."""

    sign: str
    """A name of :data:`~harness.record.collectors.foreign.kernel_log.SIGNS`."""
    subject: str
    """The IRQ, CPU or clock that it is about; empty where it is about nothing more."""
    count: int
    text: str
    time_s: float | None


@dataclass(frozen=True)
class KernelLog:
    """A dmesg, or a serial console: what it says of interrupts, and of the machine."""

    signs: tuple[LogSign, ...]
    facts: Mapping[str, str]
    """By a name of :data:`~harness.record.collectors.foreign.kernel_log.FACTS`."""
    lines: int
    handlers: tuple[str, ...] = ()
    """Who listens to a line of which nobody cared, and is asked in vain."""


@dataclass(frozen=True)
class ExitTable:
    """Exits by reason; reasons have one name on Intel and AMD (``exits.py``).

    ``unit`` is ``exit`` for reasons, ``port`` for ports; ``duration_s`` is None where the text does
    not say over how long.  ``handled_us`` is the sum of all exits' time: halted CPUs' is in it.
    """

    unit: str
    counts: Mapping[str, int]
    duration_s: float | None
    handled_us: float | None = None


@dataclass(frozen=True)
class EventCounts:
    """Tracepoints or statistics, by name, and over how many seconds they were counted."""

    counts: Mapping[str, int]
    duration_s: float | None


@dataclass(frozen=True)
class TraceTally:
    """What a trace is in sum; ``duration_s`` is from its first event to its last.

    ``lines`` are the calls of KVM_IRQ_LINE and their like, by GSI and level (0 or 1); ``pins`` the
    assertions of IOAPIC pins; ``vectors`` what vCPUs took, ``messages`` the vectors of MSIs;
    ``windows`` the exits to user space by reason.
    """

    duration_s: float
    events: Mapping[str, int]
    exits: Mapping[str, int]
    windows: Mapping[str, int]
    lines: Mapping[tuple[int, int], int]
    pins: Mapping[int, int]
    pin_vectors: Mapping[int, int]
    messages: Mapping[int, int]
    vectors: Mapping[int, int]
    cpus: Mapping[int, int]
    """Events by vCPU."""
    guests: int
    """How many threads claim to be the same vCPU: 2 where two VMs are in one trace."""
    lost: int
    lines_read: int
    ledger: Ledger | None = None
    ledger_why: str = ""
    """Why there is no ledger, or of which part of the trace it is."""
    traced: frozenset[str] = frozenset()
    """All events that were traced, where the trace says so: others of them did not happen."""


@dataclass(frozen=True)
class Registers:
    """``info pic``: what is pending, and the entries where they are shown."""

    pending: Controllers
    chips: InfoPic | None


@dataclass(frozen=True)
class LapicTexts:
    """``info lapic``, one or more CPUs."""

    lapics: tuple[LapicPending, ...]
    lint0_masked: tuple[int, ...]
    """CPUs whose LINT0 is masked."""


@dataclass(frozen=True)
class IrqTexts:
    """``info irq``; ``time_s`` on any clock, None where nothing says when."""

    statistics: tuple[IrqStatistics, ...]
    time_s: float | None = None


@dataclass(frozen=True)
class Statistics:
    """``query-stats`` of vCPUs: by CPU and name.  Totals since the guest began.

    ``time_s`` on any clock, None where nothing says when.
    """

    vcpus: tuple[Mapping[str, int], ...]
    time_s: float | None = None


@dataclass(frozen=True)
class ThreadUse:
    """What a thread of QEMU used, in percent of a CPU; a vCPU's user time is the guest's, too."""

    name: str
    user_percent: float
    system_percent: float

    @property
    def percent(self) -> float:
        """Both together."""
        return self.user_percent + self.system_percent


@dataclass(frozen=True)
class Threads:
    """The threads of a QEMU."""

    threads: tuple[ThreadUse, ...]


@dataclass(frozen=True)
class ModuleParameters:
    """``/sys/module/kvm*/parameters``: ``kvm_amd.avic`` and its like, with their values."""

    values: Mapping[str, str]

    @property
    def apicv(self) -> bool | None:
        """Whether hardware may deliver and end interrupts by itself; None where nothing says it."""
        found = [
            self.values[name]
            for name in ("kvm_intel.enable_apicv", "kvm_amd.avic")
            if name in self.values
        ]
        return None if not found else any(value in ("Y", "1") for value in found)


@dataclass(frozen=True)
class VmDevice:
    """One device of a VM: QEMU's model, its id, and where it sits (``pcie.0``, ``02.0``)."""

    model: str
    id: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class VmMachine:
    """A VM as its command line or XML describes it, as far as interrupts are concerned.

    None is what the text does not say; ``defaults`` has what follows from QEMU's defaults, and
    why.  ``family`` is q35, pc, microvm or isapc, ``version`` that of the machine type.
    """

    machine: str | None = None
    family: str | None = None
    version: tuple[int, ...] | None = None
    accel: str | None = None
    irqchip: str | None = None
    cpu: str | None = None
    smp: int | None = None
    memory_mib: int | None = None
    hpet: bool | None = None
    driftfix: str | None = None
    pit_policy: str | None = None
    pic: bool | None = None
    pit: bool | None = None
    iommu: str | None = None
    intremap: bool | None = None
    vapic: bool | None = None
    qemu: tuple[int, ...] | None = None
    globals: tuple[str, ...] = ()
    devices: tuple[VmDevice, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    """Options that are not known here: their names only."""
    quiet: tuple[str, ...] = ()
    """Options that say nothing of interrupts, such as its disks: their names only."""


@dataclass(frozen=True)
class PciFunction:
    """One function of ``lspci``; ``irq`` is Linux's number of its pin."""

    slot: str
    name: str
    irq: int | None
    is_msi: bool


@dataclass(frozen=True)
class PciList:
    """``lspci``, with ``-v`` or without."""

    functions: tuple[PciFunction, ...]


@dataclass(frozen=True)
class NamedVersions:
    """Versions that a text names: QEMU's, and the host's and the guest's kernel."""

    qemu: tuple[int, ...] | None = None
    linux: tuple[int, ...] | None = None
    linux_text: str | None = None


Content: TypeAlias = (
    Snapshots
    | KernelLog
    | ExitTable
    | EventCounts
    | TraceTally
    | Registers
    | LapicTexts
    | IrqTexts
    | Statistics
    | Threads
    | ModuleParameters
    | VmMachine
    | PciList
    | NamedVersions
)


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence: where it is from, what it is, and what of it was not understood."""

    file: str
    kind: FileKind
    content: Content
    notes: tuple[str, ...] = ()
