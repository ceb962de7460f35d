"""The machine, its irqchip modes, and the options of its clocks and chips."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from harness.base.errors import CannotRun
from harness.base.text import shortened
from harness.base.versions import Version
from harness.config.feasibility import USERSPACE_LAPIC_REMOVED
from harness.explain.nearest.changes import NAME_CHARACTERS, VmChange, dotted, listed
from harness.model.case import Irqchip, Machine
from harness.record.collectors.foreign.model import VmMachine

FAMILIES: Final[Mapping[str, Machine]] = {
    "q35": Machine.Q35,
    "pc": Machine.PC,
    "isapc": Machine.PC,
    "microvm": Machine.MICROVM,
}
_TYPES_KEPT: Final = 5
"""Major versions for which QEMU keeps a machine type (6 years: ``docs/about/deprecated.rst``)."""


def machine_of(machine: VmMachine, changes: list[VmChange]) -> Machine:
    """The family of its machine type; :class:`CannotRun` where it is no PC."""
    if machine.family is None and machine.machine is not None:
        name = shortened(machine.machine, NAME_CHARACTERS)
        raise CannotRun(
            f"there is no guest near to machine {name!r}",
            "only q35, pc and microvm can run here",
            "irqmatrix repro --list shows what can be reproduced",
        )
    if machine.family is None:
        changes.append(VmChange("its machine type, which is not given", "pc", "QEMU's default"))
        return Machine.PC
    if machine.family == "isapc":
        changes.append(VmChange("machine isapc", "pc", "the nearest that can run here"))
    return FAMILIES[machine.family]


def type_version(
    machine: VmMachine, family: Machine, qemu: Version, changes: list[VmChange]
) -> Iterator[str]:
    """A versioned type where that QEMU has it; it freezes what the guest sees of an older QEMU."""
    if machine.version is None or family is Machine.MICROVM or machine.family == "isapc":
        return
    text = ".".join(map(str, machine.version))
    if (qemu[0] - _TYPES_KEPT, 0) <= machine.version <= qemu[:2]:
        name = "pc-q35" if family is Machine.Q35 else "pc-i440fx"
        yield f"-machine {name}-{text}"
    else:
        why = f"QEMU {dotted(qemu)} may not have it"
        changes.append(VmChange(f"version {text} of the machine type", "the newest", why))


def modes_of(
    own: Irqchip | None, iommu: str | None, qemu: Version, changes: list[VmChange]
) -> Iterator[Irqchip]:
    """The VM's own mode first, then the others that can be run."""
    if own is not None:
        yield own
    for mode in Irqchip:
        if mode is own:
            continue
        if mode in (Irqchip.ON, Irqchip.OFF) and iommu is not None and "intremap=on" in iommu:
            why = "QEMU refuses interrupt remapping with it"
        elif mode is Irqchip.OFF and qemu >= USERSPACE_LAPIC_REMOVED:
            why = f"QEMU {dotted(qemu)} refuses it; only 7.2 and older have it"
        else:
            yield mode
            continue
        changes.append(VmChange(f"mode {mode}", "", why))


def switches(machine: VmMachine, family: Machine) -> Iterator[str]:
    """What the machine does not have, and on microvm also what it is to have."""
    names = {"pic": machine.pic, "pit": machine.pit}
    if family is not Machine.MICROVM:
        names["hpet"] = machine.hpet
    for name, value in names.items():
        if value is False:
            yield f"-machine {name}=off"
        elif value and family is Machine.MICROVM:
            yield f"-machine {name}=on"


def clocks(machine: VmMachine) -> Iterator[str]:
    """What becomes of lost ticks, and of TPR accesses."""
    if machine.driftfix == "slew":
        yield "-rtc driftfix=slew"
    if machine.pit_policy in ("delay", "discard"):
        yield f"-global kvm-pit.lost_tick_policy={machine.pit_policy}"
    if machine.vapic is False:
        yield "-global apic-common.vapic=off"


_OF_CLOCKS: Final = frozenset(
    ("kvm-pit.lost_tick_policy", "mc146818rtc.lost_tick_policy", "apic-common.vapic")
)
"""Globals that are options above, wherever they were given."""
_GLOBALS: Final[Mapping[str, re.Pattern[str]]] = {
    "hpet.msi": re.compile("on|off|true|false"),
    "hpet.timers": re.compile("[3-9]|1[0-9]|2[0-4]"),
    "ioapic.version": re.compile("0x11|0x20|17|32"),
    "ICH9-LPC.noreboot": re.compile("on|off|true|false"),
}
"""Globals about interrupts, with the values that are passed on."""


def passed_globals(machine: VmMachine, changes: list[VmChange]) -> Iterator[str]:
    """Other properties of the chips that were given as ``-global``."""
    left = []
    for text in machine.globals:
        name, _, value = text.partition("=")
        if name in _GLOBALS and _GLOBALS[name].fullmatch(value) is not None:
            yield f"-global {name}={value}"
        elif name not in _OF_CLOCKS:
            left.append(name)
    if left:
        changes.append(VmChange(f"-global {listed(left)}", "", "not known to matter to interrupts"))
