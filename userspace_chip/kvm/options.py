"""What can be asked of the VMM, for those who parse it: without the VMM, which takes its time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from userspace_chip.profile import Qemu

LiveMode: TypeAlias = Literal["split", "off"]
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
