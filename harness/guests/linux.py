"""The Linux guest: its workloads as a table, and the language of its console.

The other side is ``images/linux/init``.  On the serial port the guest says::

    irqmatrix: ready KERNEL CPUS
    irqmatrix> run NAME key=value ...
    irqmatrix: begin NAME
    ...                                    whatever the workload itself sends
    irqmatrix: end NAME ok|fail|skip key=value ... -- REASON
    irqmatrix> report
    ...                                    what follows, through gzip and base64
    irqmatrix>

The report is what the guest kept in memory around the work, so that no printing disturbs it::

    irqmatrix: section before/interrupts
    ...                                    /proc/interrupts
    irqmatrix: section before/stat
    irqmatrix: section after/interrupts
    irqmatrix: section after/stat

``state`` prints the sections ``now/interrupts`` and ``now/stat``; ``poweroff`` ends it.  Commands
may stand on the kernel's command line as well, see :func:`boot_words`.
"""

from __future__ import annotations

import base64
import gzip
import re
import shlex
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from harness.base.errors import CollectError
from harness.model.case import LinuxGuest

READY: Final = r"irqmatrix: ready (\S+) (\d+)"
"""Pattern of the line that says that the guest is up: kernel release, number of CPUs."""
PROMPT: Final = "irqmatrix> "

BOOT_INSTRUCTIONS: Final = 1.2e9
"""About what a distribution kernel executes to its prompt (measured under TCG with icount)."""

_DISK_BYTES: Final = 64 << 20
_NO_PCI: Final[Mapping[str, str]] = MappingProxyType(
    {"microvm": "microvm has no PCI bus, and the workload needs a PCI device"}
)


@dataclass(frozen=True)
class Workload:
    """A fixed amount of work for the guest; the work itself is ``images/linux/workloads/NAME``."""

    name: str
    summary: str
    parameters: Mapping[str, int]
    """Name to default; what each means is in the workload's file."""
    devices: tuple[tuple[str, str], ...] = ()
    """QEMU options, each with its value; two workloads may name the same one."""
    min_smp: int = 1
    impossible_on: Mapping[str, str] = field(default_factory=dict)
    """Machine to the reason why it cannot run there."""
    kernel_args: tuple[str, ...] = ()
    spoils_guest: bool = False
    """Leaves the guest unfit for other workloads: it has to be the last of a boot."""
    patience_s: float | None = None
    """So long the harness waits for an answer, where the guest may never give one."""

    def qemu_args(self, machine: str) -> tuple[tuple[str, str], ...]:
        """The QEMU options for its devices; none on a machine where it cannot run."""
        return () if machine in self.impossible_on else self.devices


def _disk(serial: str, slot: int, options: str = "") -> tuple[tuple[str, str], ...]:
    """A disk that is known by its serial number, with one queue and thus one line or message."""
    name = f"disk-{serial}"
    return (
        ("-blockdev", f"null-co,node-name={name},size={_DISK_BYTES},read-zeroes=on"),
        (
            "-device",
            f"virtio-blk-pci,drive={name},serial={serial},num-queues=1,addr={slot:#x}{options}",
        ),
    )


_INTX_DISK: Final = _disk("intx", 4, ",vectors=0")
_MSIX_DISK: Final = _disk("msix", 5)
_MMIO_DISK: Final = (
    ("-blockdev", f"null-co,node-name=disk-mmio,size={_DISK_BYTES},read-zeroes=on"),
    ("-device", "virtio-blk-device,drive=disk-mmio,serial=mmio,num-queues=1"),
)
_EDU: Final = (*_INTX_DISK, ("-device", "edu,addr=0x8,dma_mask=0xffffffff"))
"""INTA# of slots 4 and 8 is one line on pc and on q35 (slot modulo 4: QEMU 7.2
``hw/isa/piix3.c:pci_slot_get_pirq``, ``hw/isa/lpc_ich9.c:ich9_lpc_map_irq`` with the reset value
of D*IR), so the disk's driver makes the kernel listen to the line that edu pulls."""

_TABLE: Final = (
    Workload("idle", "nothing, for a fixed time", {"seconds": 2}),
    Workload("serial", "bytes to the serial port (IRQ 4)", {"bytes": 2048}),
    Workload(
        "block-intx",
        "reads from a virtio disk with a level-triggered line",
        {"reads": 200},
        _INTX_DISK,
        impossible_on=_NO_PCI,
    ),
    Workload(
        "block-msix",
        "reads from a virtio disk with MSI-X",
        {"reads": 200},
        _MSIX_DISK,
        impossible_on=_NO_PCI,
    ),
    Workload(
        "block-mmio",
        "reads from a virtio disk on microvm's own bus, level-triggered",
        {"reads": 200},
        _MMIO_DISK,
        impossible_on=dict.fromkeys(("q35", "pc"), "only microvm has virtio-mmio"),
    ),
    Workload("ipi", "two pinned processes wake each other", {"rounds": 500}, min_smp=2),
    Workload(
        "rtc",
        "periodic interrupts of the real-time clock (IRQ 8)",
        {"ticks": 128},
        # An HPET in legacy mode would own IRQ 8.
        kernel_args=("hpet=disable",),
    ),
    Workload(
        "features",
        "what chips and CPU report about themselves",
        {},
        kernel_args=("apic=debug",),
    ),
    Workload(
        "edu-quiet",
        "the device of stuck-line, left alone",
        {"seconds": 2},
        _EDU,
        impossible_on=_NO_PCI,
    ),
    Workload(
        "stuck-line",
        "a level line that no handler acknowledges",
        {"milliseconds": 3000, "deliveries": 1000, "rounds": 5},
        _EDU,
        impossible_on=_NO_PCI,
        spoils_guest=True,
        # A slow guest is flooded: its user space never runs again before the kernel gives up.
        patience_s=60.0,
    ),
)

WORKLOADS: Final[Mapping[str, Workload]] = MappingProxyType({row.name: row for row in _TABLE})
"""Every workload by its name."""


def why_not_runnable(name: str, machine: str, smp: int) -> str | None:
    """Why the workload cannot run on that machine with that many CPUs; None if it can."""
    workload = WORKLOADS[name]
    if smp < workload.min_smp:
        return f"needs {workload.min_smp} CPUs, the guest has {smp}"
    return workload.impossible_on.get(machine)


def runnable(names: Iterable[str], machine: str, smp: int) -> tuple[str, ...]:
    """Those of ``names`` that can run, in the order in which one boot can run them."""
    able = [name for name in names if why_not_runnable(name, machine, smp) is None]
    return tuple(sorted(able, key=lambda name: WORKLOADS[name].spoils_guest))


REPORT: Final = "report"
"""The console command that prints what the last workload kept."""
POWER_OFF: Final = "poweroff"
"""The console command that ends it all."""


def command(name: str, parameters: Mapping[str, object]) -> str:
    """The console command that runs a workload."""
    pairs = (f"{key}={shlex.quote(str(value))}" for key, value in parameters.items())
    return " ".join(("run", name, *pairs))


def boot_words(guest: LinuxGuest, machine: str, smp: int) -> tuple[str, ...]:
    """The commands of a whole case as words of the kernel's command line, which end it.

    A guest that gets no input does the same every time.  Each command is one word of its own,
    ``do:run,idle,seconds=2``; so a parameter can have neither spaces nor commas.
    """
    commands: list[str] = []
    for name in runnable(guest.workloads, machine, smp):
        commands += [command(name, guest.parameters.get(name, {})), REPORT]
    words = (f"do:{text.replace(' ', ',')}" for text in (*commands, POWER_OFF))
    return ("--", *words)


def tsc_khz(cpuinfo: str) -> int | None:
    """The frequency of a machine's time-stamp counter; None where it is not said.

    Linux derives BogoMIPS from it, so ``cpuinfo`` (``/proc/cpuinfo``) has it: half of them, in MHz.
    """
    match = re.search(r"^bogomips\s*:\s*(\d+)\.(\d{2})$", cpuinfo, re.MULTILINE)
    return None if match is None else (int(match[1]) * 100 + int(match[2])) * 5


def clock_args(machine: str, khz: int | None) -> tuple[str, ...]:
    """Kernel arguments that tell a guest under TCG how fast its time-stamp counter is.

    A microvm has only the PIT to measure it against.  On a busy machine that fails, and Linux
    then waits for ever for a first tick (6.1 ``arch/x86/kernel/tsc.c``).
    """
    return () if machine != "microvm" or khz is None else (f"tsc_early_khz={khz}",)


@dataclass(frozen=True)
class Snapshot:
    """``/proc/interrupts`` and ``/proc/stat`` at one moment, as text."""

    interrupts: str
    stat: str


class WorkloadStatus(StrEnum):
    """How a workload ended, in the guest's words."""

    OK = "ok"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Transcript:
    """What a workload reported.

    ``metrics`` has ``elapsed_ms`` (the guest's time), ``units`` (work done) and mostly ``irq``
    (Linux's number or name, several with commas) and ``count`` (deliveries of it, all CPUs);
    stuck-line and edu-quiet have ``nobody_cared`` (0 or 1).
    """

    name: str
    status: WorkloadStatus
    metrics: Mapping[str, int | float | str]
    reason: str
    """Why it failed or was skipped; empty if it is ok."""
    before: Snapshot | None
    after: Snapshot | None


_SECTION: Final = re.compile(r"irqmatrix: section (\w+)/(\w+)")
_END: Final = re.compile(r"irqmatrix: end (\S+) (ok|fail|skip)((?: \S+=\S+)*) -- ?(.*)")


def parse_transcript(said: str, report: str) -> Transcript:
    """Read what stands between the commands ``run`` and ``report`` and the prompts after them.

    Raises :class:`CollectError` if there is no end, or if an ok workload lacks a snapshot.
    """
    rest = _sections(said)[1]
    sections = _sections(_unpacked(report))[0]
    match = next(filter(None, map(_END.fullmatch, rest)), None)
    if match is None:
        tail = " | ".join(line for line in said.splitlines()[-3:] if line.strip())
        raise CollectError("the guest's report of a workload has no end", f"it ends in {tail!r}")
    name, status, metrics, reason = match[1], WorkloadStatus(match[2]), match[3], match[4]
    before, after = _snapshot(sections, "before"), _snapshot(sections, "after")
    if status is WorkloadStatus.OK and (before is None or after is None):
        raise CollectError(f"the guest's report of {name} is incomplete", "a snapshot is missing")
    return Transcript(name, status, _metrics(metrics), reason, before, after)


def _unpacked(report: str) -> str:
    try:
        return gzip.decompress(base64.b64decode(report)).decode(errors="replace")
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise CollectError("the guest's report of a workload is damaged", str(error)) from None


def parse_state(text: str) -> Snapshot:
    """Read the answer to ``state``; :class:`CollectError` if it is incomplete."""
    snapshot = _snapshot(_sections(text)[0], "now")
    if snapshot is None:
        raise CollectError("the guest's state is incomplete", f"found {text[:80]!r}")
    return snapshot


def _sections(text: str) -> tuple[dict[str, str], list[str]]:
    """The sections by ``moment/file``, and the lines of the protocol itself."""
    sections: dict[str, list[str]] = {}
    protocol: list[str] = []
    current: list[str] | None = None
    for line in text.replace("\r", "").splitlines():
        match = _SECTION.fullmatch(line)
        if match is not None:
            current = sections.setdefault(f"{match[1]}/{match[2]}", [])
        elif line.startswith("irqmatrix: "):
            protocol.append(line)
            current = None
        elif current is not None:
            current.append(f"{line}\n")
    return {name: "".join(lines) for name, lines in sections.items()}, protocol


def _snapshot(sections: Mapping[str, str], moment: str) -> Snapshot | None:
    interrupts, stat = sections.get(f"{moment}/interrupts"), sections.get(f"{moment}/stat")
    if not interrupts or not stat:
        return None
    return Snapshot(interrupts, stat)


def _metrics(text: str) -> dict[str, int | float | str]:
    pairs = (word.split("=", 1) for word in text.split())
    return {key: _number(value) for key, value in pairs}


def _number(value: str) -> int | float | str:
    try:
        return int(value) if value.isdecimal() else float(value)
    except ValueError:
        return value
