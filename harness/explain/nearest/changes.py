"""What a guest does not have of the VM that it stands for, and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from harness.base.text import shortened
from harness.base.versions import Version
from harness.explain.answer import Vm
from harness.record.collectors.foreign.model import VmMachine

MEMORY_MIB: Final = 256
NAME_CHARACTERS: Final = 60
_NAMES: Final = 8


@dataclass(frozen=True)
class VmChange:
    """A part of the VM that the guest does not have, or has another of; ``why`` is the reason."""

    what: str
    instead: str
    """What it has in its place; empty where it has none."""
    why: str


def listed(names: Iterable[str]) -> str:
    """A few of ``names``, each once, and how many more."""
    unique = list(dict.fromkeys(shortened(name, NAME_CHARACTERS) for name in names))
    more = f" and {len(unique) - _NAMES} more" if len(unique) > _NAMES else ""
    return ", ".join(unique[:_NAMES]) + more


def dotted(version: Version) -> str:
    """A version as it is written."""
    return ".".join(map(str, version))


_DISK: Final = "disks are empty and take every read: nothing of the VM's storage is touched"
_NETWORK: Final = "an interface has no network"
_CONSOLE: Final = "a guest here has its own console and monitor"
_BOOT: Final = "an idle Linux boots from a RAM disk, and a firmware that ships with QEMU"
_MEMORY: Final = "memory does not matter to interrupts"
_PROCESS: Final = "about QEMU as a process of its host"
_GROUPS: Final[Mapping[str, str]] = {
    name: why
    for why, names in {
        _DISK: "drive blockdev cdrom hda hdb snapshot",
        _NETWORK: "net netdev nic",
        _CONSOLE: "chardev debugcon mon monitor parallel qmp serial trace",
        "a lab has no display, sound or USB of its host": (
            "audiodev display k nographic spice usb usbdevice vga vnc"
        ),
        _BOOT: "append bios boot fw_cfg initrd kernel smbios",
        _MEMORY: "m mem-path mem-prealloc numa object overcommit",
        "a guest here begins at power-on": "S incoming",
        _PROCESS: (
            "D L add-fd chroot d daemonize enable-fips msg name no-reboot no-shutdown "
            "no-user-config nodefaults pidfile realtime runas sandbox uuid"
        ),
    }.items()
    for name in names.split()
}
"""Why an option that says nothing of interrupts is left out."""


def left_options(machine: VmMachine) -> Iterator[VmChange]:
    """Options that are left out, by the reason."""
    groups: dict[str, list[str]] = {}
    for name in machine.quiet:
        groups.setdefault(_GROUPS.get(name, _PROCESS), []).append(f"-{name}")
    for why, names in groups.items():
        yield VmChange(listed(names), "", why)
    if machine.ignored:
        names = [f"-{name}" for name in machine.ignored]
        why = "not an option that is known here, and nothing unknown is passed on"
        yield VmChange(listed(names), "", why)


def always(vm: Vm) -> Iterator[VmChange]:
    """What no guest here has of a user's VM."""
    why = "only the parts of the VM that its interrupts depend on are rebuilt"
    yield VmChange("its operating system and its work", "an idle Linux with a RAM disk", why)
    yield VmChange(
        "its host's hardware",
        "an emulated AMD CPU, about 50 times slower",
        "the lab is KVM under TCG: clocks keep their rates, all work is slower; no APICv or AVIC",
    )
    if vm.machine.memory_mib is not None and vm.machine.memory_mib != MEMORY_MIB:
        yield VmChange(f"{vm.machine.memory_mib} MiB of memory", f"{MEMORY_MIB} MiB", _MEMORY)
