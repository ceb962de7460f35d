"""Devices with an interrupt line or messages, without what is on their other side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from harness.explain.nearest.changes import VmChange, listed
from harness.model.case import Machine
from harness.record.collectors.foreign.model import VmDevice, VmMachine

PCI: Final[Mapping[str, str]] = {
    "virtio-net-pci": "virtio-net-pci,romfile=",
    "virtio-balloon-pci": "virtio-balloon-pci",
    "virtio-rng-pci": "virtio-rng-pci",
    "virtio-serial-pci": "virtio-serial-pci",
    "virtio-scsi-pci": "virtio-scsi-pci",
    "virtio-keyboard-pci": "virtio-keyboard-pci",
    "virtio-tablet-pci": "virtio-tablet-pci",
    "e1000": "e1000,romfile=",
    "e1000e": "e1000e,romfile=",
    "rtl8139": "rtl8139,romfile=",
    "vmxnet3": "vmxnet3,romfile=",
    "ich9-ahci": "ich9-ahci",
    "lsi53c895a": "lsi53c895a",
    "qemu-xhci": "qemu-xhci",
    "nec-usb-xhci": "nec-usb-xhci",
    "usb-ehci": "usb-ehci",
    "piix3-usb-uhci": "piix3-usb-uhci",
    "intel-hda": "intel-hda",
    "ich9-intel-hda": "ich9-intel-hda",
    "i6300esb": "i6300esb",
    "edu": "edu",
    "pci-serial": "pci-serial",
}
"""Devices with an interrupt line or messages, and how they are given without their backends."""
MMIO: Final[Mapping[str, str]] = {
    "virtio-net-device": "virtio-net-device",
    "virtio-balloon-device": "virtio-balloon-device",
    "virtio-rng-device": "virtio-rng-device",
    "virtio-serial-device": "virtio-serial-device",
}
DISKS: Final[Mapping[str, str]] = {
    "virtio-blk-pci": "virtio-blk-pci,drive={0}",
    "nvme": "nvme,serial={0},drive={0}",
    "ide-hd": "ide-hd,drive={0}",
}
MMIO_DISKS: Final[Mapping[str, str]] = {"virtio-blk-device": "virtio-blk-device,drive={0}"}
USB: Final[Mapping[str, str]] = {
    "usb-tablet": "usb-tablet",
    "usb-kbd": "usb-kbd",
    "usb-mouse": "usb-mouse",
}
USB_BUSES: Final = frozenset(("qemu-xhci", "nec-usb-xhci", "usb-ehci", "piix3-usb-uhci"))
_ALIASES: Final[Mapping[str, str]] = {
    "virtio": "virtio-net-pci",
    "virtio-net": "virtio-net-pci",
    "virtio-blk": "virtio-blk-pci",
    "virtio-balloon": "virtio-balloon-pci",
    "virtio-rng": "virtio-rng-pci",
    "virtio-serial": "virtio-serial-pci",
    "virtio-scsi": "virtio-scsi-pci",
    "ahci": "ich9-ahci",
    "ich9": "ich9-intel-hda",
}
"""QEMU's own other names (``system/qdev-monitor.c``), and libvirt's."""
_OURS: Final = frozenset(("isa-serial", "virtserialport", "virtconsole"))
"""A guest here has its own console."""
_OF_PASSTHROUGH: Final = re.compile(r"(?:vfio|vhost|pci-assign|ivshmem|u2f|usb-host|scsi-generic)")
_OF_BUSES: Final = re.compile(r"pcie-root(?:-port)?|pcie?-.*bridge|pci-root|ioh3420|.*switch.*")
_OF_DISPLAYS: Final = re.compile(
    r"(?:vga|qxl|cirrus|virtio-(?:gpu|vga)|bochs|ramfb|secondary)", re.I
)
_ONE: Final = frozenset(("virtio-balloon-pci", "virtio-balloon-device"))
"""Of these a machine may have one."""
_EACH: Final = 2
_MOST: Final = 10
"""Devices in all: a machine has 32 slots, and the guests' own disks need some."""


def devices_of(
    machine: VmMachine, family: Machine, changes: list[VmChange]
) -> tuple[list[str], list[str]]:
    """The devices, each the argument of a ``-device``, and the empty disks for them."""
    is_mmio = family is Machine.MICROVM
    plain, disks = (MMIO, MMIO_DISKS) if is_mmio else (PCI, DISKS)
    found: list[str] = []
    backends: list[str] = []
    left: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    models = [_model(each) for each in machine.devices]
    for model in models:
        template = plain.get(model) or disks.get(model)
        if template is None and model in USB and USB_BUSES & set(models) and not is_mmio:
            template = USB[model]
        if template is None:
            if model not in _OURS and not (model in REMAPPING and family is Machine.Q35):
                left.setdefault(_why_left(model, family), []).append(model)
            continue
        counts[model] += 1
        if counts[model] > (1 if model in _ONE else _EACH) or len(found) >= _MOST:
            left.setdefault(f"{_EACH} of a kind and {_MOST} in all are enough", []).append(model)
            continue
        if model in disks:
            node = f"vm-disk{len(backends)}"
            size = "size=67108864,read-zeroes=on"
            backends.append(f"-blockdev null-co,node-name={node},{size}")
            template = template.format(node)
        found.append(template)
    # A bus has to be there before what is on it.
    found.sort(key=lambda each: each in USB.values())
    changes.extend(VmChange(f"devices {listed(names)}", "", why) for why, names in left.items())
    if found:
        why = "QEMU places them; which of them share a line may differ"
        changes.append(VmChange("the slots of its devices", "others", why))
    return found, backends


def _model(device: VmDevice) -> str:
    name = re.sub(r"-(?:non-)?transitional$", "", device.model)
    return _ALIASES.get(name, name)


def _why_left(model: str, family: Machine) -> str:
    if _OF_PASSTHROUGH.match(model) is not None:
        return "passed through from its host, or a process there: this machine has none"
    if _OF_BUSES.fullmatch(model) is not None:
        return "a bus or port; devices are put on the machine's own"
    if _OF_DISPLAYS.match(model) is not None:
        return "a lab has no display"
    if "-iommu" in model:
        return "only one that remaps interrupts matters to them, and that is of q35"
    if family is Machine.MICROVM and model in PCI.keys() | DISKS.keys():
        return "microvm has no PCI bus here"
    return "not a device that is known here, and nothing unknown is started"


REMAPPING: Final = ("intel-iommu", "amd-iommu")


def iommu_of(machine: VmMachine, family: Machine) -> str | None:
    """The IOMMU that remaps interrupts, where there is one.

    By default it does where the IOAPIC is QEMU's (QEMU ``hw/i386/x86-iommu.c``).
    """
    model = next((each for each in REMAPPING if each == machine.iommu), None)
    if family is not Machine.Q35 or model is None:
        return None
    given = {True: ",intremap=on", False: ",intremap=off", None: ""}[machine.intremap]
    return f"{model}{given}"
