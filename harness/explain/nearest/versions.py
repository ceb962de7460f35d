"""Which QEMU and which kernel of those that can be had here are nearest to the VM's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.base.versions import Version
from harness.compare.known import BackendFacts
from harness.config.feasibility import USERSPACE_LAPIC_REMOVED
from harness.explain.answer import Vm
from harness.explain.nearest.changes import VmChange, dotted
from harness.explain.nearest.machine import FAMILIES
from harness.model.case import Irqchip, Machine
from harness.repro.catalogue import Entry


@dataclass(frozen=True)
class Offered:
    """A QEMU or a kernel that can be had here: its name for the image cache, and its version."""

    name: str
    version: Version


@dataclass(frozen=True)
class VersionsHere:
    """What can be had here, the likeliest first."""

    qemus: tuple[Offered, ...]
    kernels: tuple[Offered, ...]


_QEMU_MINORS: Final = 3
"""QEMU has three releases of each major version."""
_LINUX_MINORS: Final = 20
"""Linux 4 had 20, 5 and 6 had 19."""


def nearest_qemu(
    vm: Vm, offered: Sequence[Offered], entry: Entry | None, changes: list[VmChange]
) -> Offered:
    """The nearest QEMU: for ``off`` one that has it, never older than the machine type."""
    able = offered
    if vm.irqchip is Irqchip.OFF:
        able = [each for each in offered if each.version < USERSPACE_LAPIC_REMOVED] or offered
    wanted, at_least = vm.qemu, ""
    if wanted is None and vm.qemu_at_least is not None:
        able = [each for each in able if each.version[:2] >= vm.qemu_at_least] or able
        wanted = vm.qemu_at_least if not _is_bound(entry) else None
        at_least = " or later, as its machine type says"
    if wanted is None:
        found = _shown_with(able, entry, lambda each: _facts(vm, each.version, None))
        changes.append(VmChange("QEMU's version, which is not known", found.name, _why(entry)))
        return found
    found = _near(able, wanted, _QEMU_MINORS)
    _say_near(f"QEMU {dotted(wanted)}{at_least}", wanted, found, changes)
    return found


def nearest_kernel(
    vm: Vm,
    offered: Sequence[Offered],
    qemu: Offered,
    entry: Entry | None,
    changes: list[VmChange],
) -> Offered:
    """The nearest kernel of the host."""
    if vm.linux is None:
        found = _shown_with(offered, entry, lambda each: _facts(vm, qemu.version, each.version))
        changes.append(VmChange("the host's kernel, which is not known", found.name, _why(entry)))
        return found
    found = _near(offered, vm.linux, _LINUX_MINORS)
    _say_near(f"the host's Linux {dotted(vm.linux[:2])}", vm.linux, found, changes)
    return found


def _is_bound(entry: Entry | None) -> bool:
    """Whether an entry shows with some versions of QEMU only."""
    return entry is not None and any(each.qemu is not None for each in entry.affected)


def _facts(vm: Vm, qemu: Version, linux: Version | None) -> BackendFacts:
    family = FAMILIES.get(vm.machine.family or "pc", Machine.PC)
    return BackendFacts(vm.irqchip or Irqchip.ON, family, qemu, linux)


def _shown_with(
    offered: Sequence[Offered], entry: Entry | None, facts: Callable[[Offered], BackendFacts]
) -> Offered:
    """The first with which the entry says that it shows."""
    if entry is not None:
        for each in offered:
            if entry.is_affected(facts(each)):
                return each
    return offered[0]


def _why(entry: Entry | None) -> str:
    return "a usual one" if entry is None else f"{entry.id} is to show with it"


def _near(offered: Sequence[Offered], wanted: Version, minors: int) -> Offered:
    """The one with the fewest releases between; of two the first."""

    def releases(each: Offered) -> float:
        if each.version[: len(wanted)] == wanted:  # that very build
            return -1
        if len(each.version) == 1:  # a name such as 11: the newest of it
            return 0.0 if each.version[0] == wanted[0] else _count(each.version, wanted, minors)
        return _count(each.version, wanted, minors)

    return min(offered, key=releases)


def _count(a: Version, b: Version, minors: int) -> float:
    def place(version: Version) -> int:
        return version[0] * minors + (version[1] if len(version) > 1 else 0)

    return abs(place(a) - place(b))


def _say_near(what: str, wanted: Version, found: Offered, changes: list[VmChange]) -> None:
    if found.version[:2] != wanted[:2]:
        changes.append(VmChange(what, dotted(found.version), "the nearest that can be had here"))
