"""What can be asked of the VMM, for those who parse it: without the VMM, which takes its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from userspace_chip.architecture import Board
from userspace_chip.profile import Qemu

LiveMode: TypeAlias = Literal["on", "split", "off"]
Delivery: TypeAlias = Literal["route", "msi"]
"""How an IOAPIC's message reaches KVM: the pin's route and KVM_IRQ_LINE, or KVM_SIGNAL_MSI."""

MAX_CPUS: Final = 8


@dataclass(frozen=True)
class Options:
    """What was asked for.  ``qemu``: whose chips; ``raw_status``: QEMU's convention."""

    image: Path
    irqchip: LiveMode = "split"
    modules: tuple[Path, ...] = ()
    smp: int = 1
    append: str = ""
    memory_mib: int = 256
    timeout_s: float | None = None
    trace: bool = False
    raw_status: bool = False
    debug_ports: tuple[int, ...] = (0xE9,)
    delivery: Delivery = "route"
    qemu: Qemu = "7.2"
    edu: bool = True
    kvm: str = "/dev/kvm"
    board: Board = "q35"
    serial: bool = True
    """Whether there is a COM1."""
    virtio_serial: bool = False
    """Whether there is a virtio-serial port to write to."""
    x2apic: bool = False
    """``off``: whether the local APICs have x2APIC, which QEMU's lack; else they always have."""
    tsc_deadline: bool = False
    """Whether CPUID shows the TSC deadline timer, as of ``-cpu qemu64,+tsc-deadline``."""
    console: str | None = None
    """Where the guest's text goes, and of a socket or a device what COM1 receives comes from.

    A path, or ``fd:N``; None: standard output.
    """
    monitor: str | None = None
    """Where QMP is spoken: a path, or ``fd:N``."""
    trace_log: str | None = None
    """A file for what ``trace`` prints."""
    paused: bool = False
    """Whether the guest waits for the monitor's ``cont``."""


def arguments(options: Options, image: str, modules: Iterable[str]) -> list[str]:
    """``options`` as words for ``python -m userspace_chip.kvm``, with the files' names there."""
    words = [image, "--irqchip", options.irqchip, "--smp", str(options.smp)]
    words += [f"--append={options.append}", "--memory", str(options.memory_mib)]
    words += ["--delivery", options.delivery, "--qemu", options.qemu, "--device", options.kvm]
    words += ["--board", options.board]
    for module in modules:
        words += ["--module", module]
    for port in options.debug_ports:
        words += ["--debug-port", hex(port)]
    for name, value in (
        ("console", options.console),
        ("monitor", options.monitor),
        ("trace-log", options.trace_log),
        ("timeout", None if options.timeout_s is None else f"{options.timeout_s:g}"),
    ):
        words += [] if value is None else [f"--{name}", value]
    words += ["--trace"] * options.trace + ["--raw-status"] * options.raw_status
    words += ["--no-debug-port"] * (not options.debug_ports)
    words += ["--no-serial"] * (not options.serial) + ["--no-edu"] * (not options.edu)
    words += ["--virtio-serial"] * options.virtio_serial
    words += ["--x2apic"] * options.x2apic + ["--tsc-deadline"] * options.tsc_deadline
    words += ["--paused"] * options.paused
    return words
