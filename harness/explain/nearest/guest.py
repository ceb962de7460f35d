"""A command line or XML -> the nearest guest.

A text of another person is data.  Nothing of it goes into the new guest: each part is looked up in
a table here, or is a number within bounds, and what is in no table is left out.  Every part that
is left out or replaced is a :class:`VmChange` with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.explain.answer import Vm
from harness.explain.nearest.changes import VmChange, always, left_options
from harness.explain.nearest.cpu import cpu_of, kernel_words, smp_of
from harness.explain.nearest.devices import devices_of, iommu_of
from harness.explain.nearest.machine import (
    clocks,
    machine_of,
    modes_of,
    passed_globals,
    switches,
    type_version,
)
from harness.explain.nearest.versions import Offered, VersionsHere, nearest_kernel, nearest_qemu
from harness.model.case import Irqchip, Machine
from harness.repro.catalogue import Entry


@dataclass(frozen=True)
class NearestGuest:
    """A guest in the shape of the VM.

    ``own`` is the VM's irqchip mode, None where it is not known; ``modes`` are all that are run,
    its own first.  ``devices`` and ``options`` are those of a configuration.
    """

    machine: Machine
    cpu: str
    smp: int
    devices: tuple[str, ...]
    options: tuple[str, ...]
    append: str
    own: Irqchip | None
    modes: tuple[Irqchip, ...]
    qemu: Offered
    kernel: Offered
    changes: tuple[VmChange, ...]


def nearest_guest(
    vm: Vm, here: VersionsHere, entry: Entry | None = None, *, command_line: str = ""
) -> NearestGuest:
    """The guest for ``vm``, with the versions of ``here`` that are nearest to its own.

    Where a version is not known, one is taken that ``entry`` says it shows with; ``command_line``
    is the guest kernel's own.  :class:`CannotRun` where it is no PC.
    """
    changes: list[VmChange] = []
    machine = machine_of(vm.machine, changes)
    own = vm.irqchip
    if own is None and vm.machine.accel not in (None, "kvm", "tcg"):
        changes.append(VmChange("its accelerator", "KVM and TCG", "the lab has no other"))
    qemu = nearest_qemu(vm, here.qemus, entry, changes)
    kernel = nearest_kernel(vm, here.kernels, qemu, entry, changes)
    options = [
        *type_version(vm.machine, machine, qemu.version, changes),
        *switches(vm.machine, machine),
        *clocks(vm.machine),
        *passed_globals(vm.machine, changes),
    ]
    iommu = iommu_of(vm.machine, machine)
    devices, disks = devices_of(vm.machine, machine, changes)
    if iommu is not None:
        devices.insert(0, iommu)
    return NearestGuest(
        machine,
        cpu_of(vm.machine.cpu, changes),
        smp_of(vm.smp, own, changes),
        tuple(devices),
        (*options, *disks),
        " ".join(kernel_words(command_line)),
        own,
        tuple(modes_of(own, iommu, qemu.version, changes)),
        qemu,
        kernel,
        (*changes, *always(vm), *left_options(vm.machine)),
    )
