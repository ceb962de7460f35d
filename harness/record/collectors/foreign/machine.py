"""Which VM it is: what a QEMU command line or a libvirt domain says of its interrupts.

QEMU's defaults that follow from it are distinguished from what it states: ``hw/i386/pc.c``,
``pc_q35.c`` (pc_q35_4_0 is split by default), ``microvm.c``; libvirt's names of the same options
are those of ``docs/formatdomain.rst``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from xml.etree import ElementTree

from harness.base.errors import CollectError
from harness.base.text import LONG_NUMBER
from harness.record.collectors.foreign.model import Evidence, FileKind, VmDevice, VmMachine

_FAMILY: Final = re.compile(
    r"(?:pc-)?(q35|i440fx|microvm|isapc)(?:-(\d{1,3})\.(\d{1,3})(?:\+pve\d+)?|-[a-z][\w.-]{0,40})?|pc"
)
"""A distribution's own type (``pc-q35-rhel9.4.0``, ``pc-i440fx-jammy``) has no version of QEMU."""
_TRUE: Final = frozenset({"on", "yes", "true", "1"})
_FALSE: Final = frozenset({"off", "no", "false", "0"})
_MOST_DEVICES: Final = 500
_QUIET: Final = frozenset((
    "D", "L", "S", "add-fd", "append", "audiodev", "bios", "blockdev", "boot", "cdrom",
    "chardev", "chroot", "d", "daemonize", "debugcon", "display", "drive", "enable-fips",
    "fw_cfg", "hda", "hdb", "incoming", "initrd", "k", "kernel", "mem-path", "mem-prealloc",
    "mon", "monitor", "msg", "name", "net", "netdev", "no-reboot", "no-shutdown",
    "no-user-config", "nodefaults", "nographic", "numa", "object", "overcommit", "parallel",
    "pidfile", "qmp", "realtime", "runas", "sandbox", "serial", "smbios", "snapshot", "spice",
    "trace", "usb", "usbdevice", "uuid", "vga", "vnc",
))  # fmt: skip
"""Options without a word about interrupts."""
_NO_VALUE: Final = frozenset((
    "S", "daemonize", "enable-fips", "enable-kvm", "h", "help", "mem-prealloc", "no-acpi",
    "no-fd-bootchk", "no-hpet", "no-reboot", "no-shutdown", "no-user-config", "nodefaults",
    "nographic", "snapshot", "usb", "version",
))  # fmt: skip
"""Options that take no value."""
_DRIVE_MODELS: Final = {"virtio": "virtio-blk-pci", "ide": "ide-hd", "scsi": "scsi-hd"}


# --- QEMU's command line ----------------------------------------------------------------------


def read_command_line(name: str, text: str) -> Evidence:
    """A command line as ``ps``, a log of libvirt or a script has it.

    ``/proc/PID/cmdline`` with its NULs is one, too.  :class:`CollectError` where there is no QEMU.
    """
    words = _words(text)
    start = next((i for i, word in enumerate(words) if _is_qemu(word)), None)
    if start is None:
        raise CollectError(
            f"{name}: no QEMU is started there", None, "expected qemu-system-x86_64 ... or kvm ..."
        )
    machine = VmMachine(accel="kvm" if words[start].rpartition("/")[2] in _KVM_NAMES else None)
    devices: list[VmDevice] = []
    globals_: list[str] = []
    ignored: list[str] = []
    quiet: list[str] = []
    for option, value in _options(words[start + 1 :]):
        if option == "device":
            devices += _device(value)
            machine = _with_iommu(machine, value)
        elif option == "global":
            globals_.append(value)
            machine = _with_global(machine, value)
        elif option in _READERS:
            machine = _READERS[option](machine, value)
        elif option in ("netdev", "nic", "drive", "serial"):
            devices += _implied(option, value)
            quiet.append(option)
        elif option in _QUIET | _NO_VALUE:
            quiet.append(option)
        else:
            ignored.append(option)
    machine = replace(
        machine,
        devices=tuple(devices[:_MOST_DEVICES]),
        globals=tuple(globals_[:_MOST_DEVICES]),
        ignored=tuple(dict.fromkeys(ignored))[:50],
        quiet=tuple(dict.fromkeys(quiet)),
    )
    return Evidence(name, FileKind.COMMAND_LINE, with_defaults(machine))


_KVM_NAMES: Final = frozenset({"kvm", "qemu-kvm"})


def _is_qemu(word: str) -> bool:
    base = word.rpartition("/")[2]
    return base in _KVM_NAMES or base.startswith(("qemu-system-x86_64", "qemu-system-i386"))


def _words(text: str) -> list[str]:
    if "\0" in text:
        return text.split("\0")
    joined = re.sub(r"\\\r?\n", " ", text)
    try:
        return shlex.split(joined, comments=False)
    except ValueError:  # a quote that does not end: as it is
        return joined.split()


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option, without its dashes, and its value."""
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("-") or word == "-":
            continue
        option = word.lstrip("-")
        value = ""
        following = words[position] if position < len(words) else ""
        if option not in _NO_VALUE and following and not re.match(r"-[a-zA-Z]", following):
            value = following
            position += 1
        yield option, value


def _pairs(value: str) -> dict[str, str]:
    """``a,b=c``: the first word's key is empty; a flag is ``on``."""
    found: dict[str, str] = {}
    for number, part in enumerate(re.split(r",(?!,)", value)[:200]):
        key, equals, rest = part.partition("=")
        if equals:
            found[key.strip()] = rest
        elif number == 0:
            found[""] = key
        elif key.startswith("no"):
            found[key[2:]] = "off"
        else:
            found[key] = "on"
    return found


def _bool(text: str | None) -> bool | None:
    if text is None:
        return None
    return True if text in _TRUE else False if text in _FALSE else None


def _int(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,9}", text, re.ASCII) else None


def _machine(machine: VmMachine, value: str) -> VmMachine:
    pairs = _pairs(value)
    name = pairs.get("", pairs.get("type"))
    if name:
        machine = _named(machine, name)
    irqchip = pairs.get("kernel-irqchip", pairs.get("kernel_irqchip"))
    accel = pairs.get("accel")
    hpet, pic, pit = (_bool(pairs.get(key)) for key in ("hpet", "pic", "pit"))
    return replace(
        machine,
        irqchip=_irqchip(irqchip) or machine.irqchip,
        accel=accel.split(":")[0] if accel else machine.accel,
        hpet=machine.hpet if hpet is None else hpet,
        pic=machine.pic if pic is None else pic,
        pit=machine.pit if pit is None else pit,
    )


def _named(machine: VmMachine, name: str) -> VmMachine:
    match = _FAMILY.fullmatch(name)
    if match is None:
        return replace(machine, machine=name)
    family = {"i440fx": "pc", None: "pc"}.get(match[1], match[1])
    version = (int(match[2]), int(match[3])) if match[2] else None
    return replace(machine, machine=name, family=family, version=version)


def _irqchip(value: str | None) -> str | None:
    if value is None:
        return None
    return "split" if value == "split" else {True: "on", False: "off"}.get(_bool(value))  # type: ignore[arg-type]


def _accel(machine: VmMachine, value: str) -> VmMachine:
    pairs = _pairs(value)
    accel = pairs.get("", pairs.get("accel", "")).split(":")[0]
    irqchip = _irqchip(pairs.get("kernel-irqchip"))
    return replace(machine, accel=accel or machine.accel, irqchip=irqchip or machine.irqchip)


def _rtc(machine: VmMachine, value: str) -> VmMachine:
    return replace(machine, driftfix=_pairs(value).get("driftfix", machine.driftfix))


def _cpu(machine: VmMachine, value: str) -> VmMachine:
    return replace(machine, cpu=value[:2000])


def _smp(machine: VmMachine, value: str) -> VmMachine:
    pairs = _pairs(value)
    count = _int(pairs.get("cpus", pairs.get("")))
    return replace(machine, smp=count if count else machine.smp)


def _memory(machine: VmMachine, value: str) -> VmMachine:
    size = _pairs(value).get("size", _pairs(value).get("", ""))
    match = re.fullmatch(r"(\d{1,9})([kKmMgG]?)[bB]?", size)
    if match is None:
        return machine
    scale = {"k": 1 / 1024, "g": 1024}.get(match[2].lower(), 1)
    return replace(machine, memory_mib=max(1, int(int(match[1]) * scale)))


def _with_global(machine: VmMachine, value: str) -> VmMachine:
    key, _, setting = value.replace(".", "=", 1).partition("=")
    name, _, setting = setting.partition("=")
    full = f"{key}.{name}"
    if full == "kvm-pit.lost_tick_policy":
        return replace(machine, pit_policy=setting)
    if full == "mc146818rtc.lost_tick_policy":
        return replace(machine, driftfix=setting)
    if full == "apic-common.vapic":
        return replace(machine, vapic=_bool(setting))
    return machine


def _with_iommu(machine: VmMachine, value: str) -> VmMachine:
    pairs = _device_pairs(value)
    if not pairs[""].endswith("-iommu"):
        return machine
    return replace(machine, iommu=pairs[""][:40], intremap=_bool(pairs.get("intremap")))


def _kvm(machine: VmMachine, value: str) -> VmMachine:
    return replace(machine, accel="kvm")


def _no_hpet(machine: VmMachine, value: str) -> VmMachine:
    return replace(machine, hpet=False)


_READERS: Final[Mapping[str, Any]] = {
    "machine": _machine,
    "M": _machine,
    "accel": _accel,
    "enable-kvm": _kvm,
    "cpu": _cpu,
    "smp": _smp,
    "m": _memory,
    "rtc": _rtc,
    "no-hpet": _no_hpet,
}
OPTIONS: Final = (
    _QUIET | _NO_VALUE | frozenset(_READERS) | {"device", "global", "netdev", "nic", "drive"}
)
"""Options that are known here, without their dashes."""


def _device_pairs(value: str) -> dict[str, str]:
    """A device's properties; its model's key is empty."""
    if value.startswith("{"):  # libvirt's JSON form
        pairs = dict(re.findall(r'"?([\w-]{1,40})"?\s*:\s*"?([^",}]{0,200})', value))
    else:
        pairs = _pairs(value)
    return {"": pairs.get("driver", ""), **pairs}


def _device(value: str) -> Iterator[VmDevice]:
    pairs = _device_pairs(value)
    if model := pairs[""]:
        place = ":".join(filter(None, (pairs.get("bus"), pairs.get("addr")))) or None
        yield VmDevice(model[:100], pairs.get("id"), place)


def _implied(option: str, value: str) -> Iterator[VmDevice]:
    pairs = _pairs(value)
    if option == "serial" and value not in ("none", ""):
        yield VmDevice("isa-serial")
    model = pairs.get("model") if option == "nic" else None
    model = _DRIVE_MODELS.get(pairs.get("if", "")) if option == "drive" else model
    if model:
        yield VmDevice(model)


# --- libvirt ----------------------------------------------------------------------------------


def read_xml(name: str, text: str) -> Evidence:
    """A libvirt domain; :class:`CollectError` where it is none.

    A document type is refused: it has no use here, and can grow without bound.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise CollectError(f"{name}: an XML with a document type", "libvirt writes none")
    if LONG_NUMBER.search(text) is not None:
        raise CollectError(f"{name}: cannot be read", "a number has no end")
    start = text.find("<domain")
    end = text.rfind("</domain>")
    try:
        root = ElementTree.fromstring(text[max(start, 0) : end + 9 if end > 0 else None])
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise CollectError(f"{name}: not an XML document", str(error)[:100]) from None
    domain = root if root.tag == "domain" else root.find(".//domain")
    if domain is None:
        raise CollectError(f"{name}: no libvirt domain", f"its root is {root.tag[:40]!r}")
    machine = _of_domain(domain)
    return Evidence(name, FileKind.XML, with_defaults(machine))


def _of_domain(domain: ElementTree.Element) -> VmMachine:
    machine = VmMachine(accel={"kvm": "kvm", "qemu": "tcg"}.get(domain.get("type", "")))
    os_type = domain.find("./os/type")
    if os_type is not None and os_type.get("machine"):
        machine = _named(machine, str(os_type.get("machine")))
    ioapic = domain.find("./features/ioapic")
    if ioapic is not None:
        mode = {"kvm": "on", "qemu": "split"}.get(ioapic.get("driver", ""))
        machine = replace(machine, irqchip=mode)
    for timer in domain.findall("./clock/timer")[:20]:
        machine = _timer(machine, timer)
    devices = [
        device
        for parent in domain.findall("./devices")[:1]
        for element in list(parent)[:_MOST_DEVICES]
        for device in _of_element(element)
    ]
    iommu = domain.find("./devices/iommu")
    remap = domain.find("./devices/iommu/driver")
    vcpu = domain.findtext("./vcpu", "").strip()
    return replace(
        machine,
        smp=_int(vcpu),
        memory_mib=_memory_of(domain),
        cpu=_cpu_of(domain.find("./cpu")),
        iommu=None if iommu is None else f"{iommu.get('model', 'intel')}-iommu",
        intremap=None if remap is None else _bool(remap.get("intremap")),
        devices=tuple(devices[:_MOST_DEVICES]),
    )


def _timer(machine: VmMachine, timer: ElementTree.Element) -> VmMachine:
    """libvirt's tick policies in QEMU's words (``src/qemu/qemu_command.c``)."""
    policy = timer.get("tickpolicy")
    present = _bool(timer.get("present"))
    kind = timer.get("name")
    if kind == "rtc" and policy is not None:
        return replace(machine, driftfix="slew" if policy == "catchup" else "none")
    if kind == "hpet" and present is not None:
        return replace(machine, hpet=present)
    if kind == "pit" and policy is not None:
        return replace(machine, pit_policy={"catchup": "slew"}.get(policy, policy))
    return machine


_XML_MODELS: Final[Mapping[tuple[str, str], str]] = {
    ("interface", "virtio"): "virtio-net-pci",
    ("memballoon", "virtio"): "virtio-balloon-pci",
    ("rng", "virtio"): "virtio-rng-pci",
    ("input", "tablet"): "usb-tablet",
    ("serial", ""): "isa-serial",
    ("sound", "ich9"): "ich9-intel-hda",
    ("hostdev", ""): "vfio-pci",
}
_BUS_MODELS: Final = {"virtio": "virtio-blk-pci", "sata": "ide-hd", "ide": "ide-hd"}


def _of_element(element: ElementTree.Element) -> Iterator[VmDevice]:
    model = element.find("./model")
    word = (model.get("type", "") if model is not None else "") or element.get("model", "")
    word = word or (element.get("type", "") if element.tag == "input" else "")
    address = element.find("./address[@type='pci']")
    place = None
    if address is not None:
        place = f"{address.get('bus', '')}:{address.get('slot', '')}.{address.get('function', '')}"
    if element.tag == "disk":
        target = element.find("./target")
        bus = "" if target is None else target.get("bus", "")
        yield VmDevice(_BUS_MODELS.get(bus, f"{bus}-disk"), None, place)
    elif (known := _XML_MODELS.get((element.tag, word))) is not None:
        yield VmDevice(known, None, place)
    elif element.tag in ("interface", "controller", "sound", "watchdog", "tpm") and word:
        yield VmDevice(word[:100], None, place)
    elif element.tag in ("serial", "hostdev"):
        yield VmDevice(_XML_MODELS[element.tag, ""], None, place)


def _memory_of(domain: ElementTree.Element) -> int | None:
    element = domain.find("./memory")
    amount = None if element is None else _int((element.text or "").strip())
    if element is None or amount is None:
        return None
    scale = {"b": 1 / 2**20, "KiB": 1 / 1024, "MiB": 1, "GiB": 1024}.get(
        element.get("unit", "KiB"), 1 / 1024
    )
    return max(1, int(amount * scale))


def _cpu_of(cpu: ElementTree.Element | None) -> str | None:
    if cpu is None:
        return None
    model = cpu.findtext("./model", "").strip() or {
        "host-passthrough": "host",
        "host-model": "host",
    }.get(cpu.get("mode", ""), "")
    flags = [
        f"{'-' if feature.get('policy') in ('disable', 'forbid') else '+'}{feature.get('name')}"
        for feature in cpu.findall("./feature")[:200]
        if feature.get("name")
    ]
    return ",".join([model, *flags]) if model else None


# --- What follows from it -----------------------------------------------------------------------


def with_defaults(machine: VmMachine) -> VmMachine:
    """With what QEMU does where nothing is given; only where that is certain."""
    defaults: dict[str, str] = {}
    iommus = [each.model for each in machine.devices if each.model.endswith("-iommu")]
    iommu = machine.iommu or (iommus[0] if iommus else None)
    if machine.accel is None:
        defaults["accel"] = "tcg where the binary's name and its options do not say kvm"
    elif machine.accel == "kvm" and machine.irqchip is None:
        mode, why = _default_irqchip(machine)
        if mode is not None:
            defaults["irqchip"] = f"{mode}: {why}"
            machine = replace(machine, irqchip=mode)
    if machine.accel == "tcg":
        machine = replace(machine, irqchip="tcg")
    if machine.hpet is None and machine.family in ("q35", "pc"):
        defaults["hpet"] = "QEMU's default for pc and q35 is to have one"
        machine = replace(machine, hpet=True)
    if machine.pit is None and machine.family in ("q35", "pc", "isapc"):
        machine = replace(machine, pit=True)
    return replace(machine, iommu=iommu, defaults=defaults)


def _default_irqchip(machine: VmMachine) -> tuple[str | None, str]:
    if machine.family is None:
        return None, ""
    if machine.family == "q35" and machine.version == (4, 0):
        return "split", "pc-q35-4.0 has it by default"
    if machine.family == "microvm":
        return "split", "microvm has it by default"
    return "on", "nothing else is given, and it is QEMU's default"
