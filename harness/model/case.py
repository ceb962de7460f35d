"""What is run: backends, guests and cases.  Pure data; everything else depends on it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar, Final
from typing import Protocol as Interface

from pydantic import PlainValidator

from harness.model.protocol import Protocol
from harness.scenario.program import Scenario
from userspace_chip.architecture import Board


class Host(StrEnum):
    """Where QEMU runs."""

    LOCAL = "local"
    LAB = "lab"


class Accel(StrEnum):
    """Who runs the vCPU."""

    KVM = "kvm"
    TCG = "tcg"


class Irqchip(StrEnum):
    """Who emulates which interrupt controller (DESIGN: irqchip mode)."""

    ON = "on"
    SPLIT = "split"
    OFF = "off"
    TCG = "tcg"
    """All in QEMU, the vCPU in TCG: what an irqchip mode is called without KVM."""


class Vmm(StrEnum):
    """Whose interrupt controllers are those outside the kernel, and who runs the machine."""

    QEMU = "qemu"
    PYCHIP = "pychip"
    """The chips of userspace_chip, live: see docs/live.md."""


class Machine(StrEnum):
    """QEMU's machine types that have the chips under test."""

    Q35 = "q35"
    PC = "pc"
    MICROVM = "microvm"


def board_of(machine: Machine) -> Board:
    """The machine, as the Python chips have it."""
    boards: Mapping[Machine, Board] = {
        Machine.Q35: "q35",
        Machine.PC: "pc",
        Machine.MICROVM: "microvm",
    }
    return boards[machine]


def mode_word(vmm: Vmm, irqchip: Irqchip) -> str:
    """How the two are written in one word."""
    return irqchip.value if vmm is Vmm.QEMU else f"{vmm.value}-{irqchip.value}"


MODES: Final[Mapping[str, tuple[Vmm, Irqchip]]] = {
    mode_word(vmm, irqchip): (vmm, irqchip)
    for vmm, irqchips in (
        (Vmm.QEMU, tuple(Irqchip)),
        (Vmm.PYCHIP, (Irqchip.ON, Irqchip.SPLIT, Irqchip.OFF)),
    )
    for irqchip in irqchips
}
"""The irqchip modes by the words that they are written as."""


@dataclass(frozen=True)
class Backend:
    """One subject under test: host, accelerator, irqchip mode, QEMU and host kernel.

    ``qemu`` and ``kernel`` are names for the image cache; ``kernel`` is the lab's and ``None`` on
    the local host, whose kernel is what it is.
    """

    host: Host
    accel: Accel
    irqchip: Irqchip
    qemu: str = "system"
    kernel: str | None = None
    vmm: Vmm = Vmm.QEMU
    """Where it is not QEMU, ``qemu`` says whose chips are mirrored."""

    @property
    def mode(self) -> str:
        """The irqchip mode as it is written: ``split``, ``pychip-split``."""
        return mode_word(self.vmm, self.irqchip)

    @property
    def is_live_in_lab(self) -> bool:
        """Whether a Python in a lab answers the guest's exits, a few milliseconds each."""
        return self.vmm is Vmm.PYCHIP and self.host is Host.LAB

    @property
    def is_shadowed(self) -> bool:
        """Whether KVM's chips are shown after each exit, to be compared with the Python ones."""
        return self.vmm is Vmm.PYCHIP and self.irqchip is Irqchip.ON

    @property
    def name(self) -> str:
        """``lab-kvm-split``, with QEMU and kernel where they are not the default ones."""
        parts = [self.host.value, self.accel.value]
        if self.irqchip is not Irqchip.TCG:
            parts.append(self.mode)
        if self.qemu != "system":
            parts.append(f"qemu{_slug(self.qemu)}")
        if self.kernel not in (None, "default"):
            parts.append(f"linux{_slug(str(self.kernel))}")
        return "-".join(parts)


WHOLE_CASE: Final = "*"
"""The name in a guest's ``expect`` that stands for the case as a whole."""


class Guest(Interface):
    """What is booted: frozen data, of one of the kinds in :mod:`harness.guests.kinds`."""

    kind: ClassVar[str]
    """Its kind, as a configuration calls it: ``linux``."""

    @property
    def name(self) -> str:
        """The name in a case's id."""

    @property
    def expect(self) -> Mapping[str, str]:
        """The verdicts that are expected, by the names of its parts."""


@dataclass(frozen=True)
class LinuxGuest:
    """A distribution kernel and our initramfs, running ``workloads`` one after the other.

    ``kernel`` is a name for the image cache.  With ``migrate`` the guest is saved once it is up,
    and loaded into a fresh QEMU, where it runs its workloads.
    """

    kind: ClassVar[str] = "linux"

    workloads: tuple[str, ...]
    kernel: str = "default"
    migrate: bool = False
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    expect: Mapping[str, str] = field(default_factory=dict)
    append: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        """The name in a case's id."""
        version = "" if self.kernel == "default" else _slug(self.kernel)
        label = f"-{_slug(self.label)}" if self.label else ""
        return f"linux{version}{'-migrated' if self.migrate else ''}{label}"


class Output(StrEnum):
    """Where a flat image prints its results."""

    COM1 = "com1"
    DEBUGCON = "debugcon"
    """The debug console of Bochs and QEMU, port 0xe9."""


@dataclass(frozen=True)
class FlatGuest:
    """A multiboot image that reports on a console, by one of several protocols."""

    kind: ClassVar[str] = "flat"

    path: Path
    append: str = ""
    expect: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    protocol: Protocol | None = None
    """How it reports; None: as its lines show, by one of the protocols that ship with us."""
    has_checks: bool = True
    """Whether it reports at all; if not, its exit status alone says how it went."""
    output: Output = Output.COM1

    @property
    def name(self) -> str:
        """The name in a case's id: its label or the file's, and the arguments where it has any."""
        args = f"-{_slug(self.append)}" if self.append else ""
        return f"flat-{_slug(self.label or self.path.stem)}{args}"


@dataclass(frozen=True)
class ProbeGuest:
    """The bare-metal interpreter of scenarios, and those that one boot of it runs.

    ``first`` is the index of the scenario to begin with: a boot after one that hung goes on after
    it.  ``far_return``: handlers end with POPF and a far return, for a KVM that cannot emulate
    IRET.  ``trace``: the kernel's trace is recorded, too, for what no guest can see.
    """

    kind: ClassVar[str] = "probe"

    scenarios: tuple[Scenario, ...]
    label: str = ""
    expect: Mapping[str, str] = field(default_factory=dict)
    first: int = 0
    far_return: bool = False
    trace: bool = False

    @property
    def name(self) -> str:
        """The name in a case's id."""
        return f"probe-{_slug(self.label)}" if self.label else "probe"


def _unchanged(guest: Guest) -> Guest:
    return guest


@dataclass(frozen=True)
class Case:
    """One cell of the matrix: guest × backend × machine × CPU × smp."""

    guest: Annotated[Guest, PlainValidator(_unchanged)]
    """Who reads a case from a file knows its kind, and makes a guest of it first."""
    backend: Backend
    machine: Machine
    cpu: str
    smp: int
    memory_mib: int
    timeout_s: float
    devices: tuple[str, ...] = ()
    """Extra devices, each the argument of a ``-device``."""
    options: tuple[str, ...] = ()
    """Further options of QEMU, each with its value: ``-rtc driftfix=slew``."""
    repeat: int = 0
    """Which repetition of the same case this is, from 0."""
    group: str = ""
    """What it belongs to and is judged by, where that is not the matrix: a reproducer."""
    deterministic: bool = False
    """Whether nothing from outside is to reach the guest; TCG counts instructions for a clock."""

    @property
    def subject(self) -> str:
        """The case without its backend: what has to be equal for two cases to be compared."""
        parts = [self.group] if self.group else []
        parts += [self.guest.name, self.machine.value, _slug(self.cpu), f"smp{self.smp}"]
        parts += [_slug(text) for text in (*self.devices, *self.options)]
        parts += ["deterministic"] if self.deterministic else []
        return "/".join(parts)

    @property
    def family(self) -> str:
        """The case without its backend, machine, CPU and smp: what findings may have in common."""
        rest = [*self.devices, *self.options, *(["deterministic"] if self.deterministic else [])]
        return " ".join((*([self.group] if self.group else []), self.guest.name, *rest))

    @property
    def id(self) -> str:
        """Stable and readable; the name of the case in every report."""
        repeat = f"#{self.repeat + 1}" if self.repeat else ""
        return f"{self.subject}/{self.backend.name}{repeat}"

    @property
    def directory_name(self) -> str:
        """The case's folder below the run directory; a part and a hash of an id that is long."""
        return folder_name(self.id)

    @property
    def axes(self) -> dict[str, str | int | None]:
        """The axes by name, as they stand in ``result.json``."""
        return {
            "host": self.backend.host.value,
            "accel": self.backend.accel.value,
            "irqchip": self.backend.mode,
            "qemu": self.backend.qemu,
            "lab_kernel": self.backend.kernel,
            "machine": self.machine.value,
            "cpu": self.cpu,
            "smp": self.smp,
            "repeat": self.repeat,
        }


MAX_NAME_BYTES: Final = 200
"""Of a folder's or a file's name; Linux has 255 (``NAME_MAX``), and endings are appended."""
_HASH_DIGITS: Final = 12


def folder_name(text: str) -> str:
    """``text`` as the name of a folder; where it is too long, shortened, and with its hash."""
    name = re.sub(r"[^\w.,+=-]+", "_", text)
    encoded = name.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_DIGITS]
    kept = encoded[: MAX_NAME_BYTES - _HASH_DIGITS - 1].decode(errors="ignore")
    return f"{kept}-{digest}"


def _slug(text: str) -> str:
    """``text`` with only what is safe in a file name and readable in an id."""
    return re.sub(r"[^\w.+,=-]+", "-", text).strip("-")
