"""Texts of an archive -> the same without what identifies persons, hosts, networks and disks.

Pure.  Of what has a form (command line, XML, tables), only what is known to be harmless is kept;
:mod:`harness.collect.placeholders` then goes over all that is left.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final
from xml.etree import ElementTree

from harness.base import files
from harness.base.errors import CollectError
from harness.base.text import LONG_NUMBER
from harness.collect.placeholders import Placeholders
from harness.record.collectors.foreign import archive, interrupts, machine, versions
from harness.record.collectors.foreign.model import FileKind, NamedVersions


@dataclass(frozen=True)
class Redacted:
    """Texts by member, how many things were replaced, and why a text was left out."""

    texts: Mapping[str, str]
    replaced: int
    left_out: Mapping[str, str]


def redacted(texts: Mapping[str, str], names: Collection[str] = ()) -> Redacted:
    """``texts`` of an archive's members without what identifies a person or a machine.

    ``names`` of guests, hosts and users are replaced wherever they stand, and so are those that the
    command line and the XML give.
    """
    known = {*names, *(name for each in texts.items() for name in names_in(*each))}
    placeholders = Placeholders(known, texts.values())
    found: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for member, text in texts.items():
        form = _FORMS.get(archive.kind_of_member(member) or FileKind.ARCHIVE, _plain)
        try:
            plain = form(text, placeholders)
            found[member] = plain if form is _trace else placeholders.in_text(plain)
        except CollectError as error:
            left_out[member] = str(error)
    return Redacted(found, placeholders.count, left_out)


_NAMED: Final = re.compile(r"<(?:name|title)>([^<]{1,200})</")
_NAMING: Final = frozenset({"-name", "-runas", "-user"})


def names_in(member: str, text: str) -> Collection[str]:
    """The names of guests and users that a command line or an XML gives."""
    kind = archive.kind_of_member(member)
    if kind is FileKind.XML:
        return {match[1].strip() for match in _NAMED.finditer(text)}
    if kind is not FileKind.COMMAND_LINE:
        return ()
    parts = [
        part
        for option, value in pairwise(_words(text))
        if option.replace("--", "-", 1) in _NAMING
        for part in value.split(",")
        if not part.startswith("debug-threads=")
    ]
    return {part.rpartition("=")[2] for part in parts}


def _plain(text: str, placeholders: Placeholders) -> str:
    return text


# --- Command line ---------------------------------------------------------------------------------

_WHOLE: Final = frozenset({"machine", "M", "accel", "cpu", "smp", "rtc", "global", "m"})
"""Options whose pairs are all about the machine."""
_KEPT_KEYS: Final = frozenset((
    "accel", "addr", "bus", "cache", "clock", "cores", "cpus", "dies", "driftfix", "driver",
    "if", "intremap", "irq", "kernel-irqchip", "kernel_irqchip", "lost_tick_policy", "max",
    "maxcpus", "mode", "model", "multifunction", "queues", "num-queues", "size", "slots",
    "sockets", "threads", "type", "vectors", "vhost",
))  # fmt: skip
_WORDS: Final = frozenset((
    "on", "off", "yes", "no", "true", "false", "none", "auto", "native", "threads", "io_uring",
    "raw", "qcow2", "host", "max", "utc", "localtime", "slew", "socket", "unix", "tcp", "udp",
    "pipe", "stdio", "null", "file", "pty", "vc", "user", "tap", "bridge", "control",
    "readline", "cd", "disk", "ide", "scsi", "virtio", "floppy", "pflash", "unsafe",
    "writeback", "writethrough", "directsync", "ignore", "unmap", "server", "nowait", "wait",
    "nodelay", "c", "d", "n", "once", "menu", "deny", "allow", "spawn", "obsolete",
    "elevateprivileges", "resourcecontrol", "debug-threads", "base", "std", "cirrus", "qxl",
    "vga", "sdl", "gtk", "vnc", "spice", "dbus", "q35", "pc", "microvm", "isapc", "kvm", "tcg",
    "delay", "discard", "merge", "catchup", "hvm", "destroy", "restart", "preserve", "pci",
    "network", "block", "virtio-blk", "virtio-net", "virtio-scsi", "qemu", "x86_64", "i686",
    "console", "ttyS0", "tty0", "quiet", "ro", "rw", "noapic", "nolapic", "nox2apic", "acpi",
    "noacpi", "apic", "lapic", "hpet", "clocksource", "tsc", "kvm-clock", "idle", "poll",
    "halt", "nohz", "nohz_full", "isolcpus", "rcu_nocbs", "threadirqs", "irqpoll", "irqfixup",
    "noirqdebug", "notsc", "tsc_deadline_timer", "lapic_timer_c2_ok", "nomsi", "msi", "panic",
    "root", "init", "nokaslr", "pcie.0", "pci.0", "pcie-root", "isa-serial", "ide.0",
))  # fmt: skip
"""Values that identify no one, whatever they belong to."""
_NUMBER: Final = re.compile(r"-?(?:\d{1,5}[kKmMgG]?|0x[0-9a-fA-F]{1,4})(?:\.\d{1,3})?", re.ASCII)
_MODEL: Final = re.compile(
    r"(?:pc-)?(?:q35|i440fx)-\d{1,3}\.\d{1,3}|[a-z][a-z0-9]*(?:-[a-z0-9]+){1,6}", re.ASCII
)
"""A machine's or a device's model."""
_BUS: Final = re.compile(r"(?:pcie?|ide|scsi|usb|root|rp)[._-]?\d{0,4}(?:\.\d{1,3})?", re.ASCII)
_CPU: Final = re.compile(r"[\w.+-]{1,60}", re.ASCII)


def _command_line(text: str, placeholders: Placeholders) -> str:
    words = _words(text)
    start = next((number for number, word in enumerate(words) if _is_qemu(word)), None)
    if start is None:
        raise CollectError("no QEMU is started there: it cannot be redacted")
    kept = [words[start].rpartition("/")[2]]
    option = ""
    for word in filter(None, (each.strip() for each in words[start + 1 :])):
        if word.startswith("-") and word.lstrip("-") in machine.OPTIONS:
            option = word.lstrip("-")
            kept.append(f"-{option}")
        else:
            kept.append(_option_value(option, word, placeholders))
            option = ""
    return shlex.join(kept) + "\n"


def _words(text: str) -> list[str]:
    if "\0" in text:
        return text.split("\0")
    joined = re.sub(r"\\\r?\n", " ", text)
    try:
        return shlex.split(joined)
    except ValueError:  # a quote without its end
        return joined.split()


def _is_qemu(word: str) -> bool:
    base = word.rpartition("/")[2]
    return re.fullmatch(r"qemu-kvm|kvm|qemu-system-(?:x86_64|i386)", base) is not None


def _option_value(option: str, value: str, placeholders: Placeholders) -> str:
    if option == "append":
        return " ".join(_pair(word, False, placeholders) for word in value.split())
    if value.startswith("{"):
        try:
            data = _json_value(files.parse_json(value), "", placeholders)
            return json.dumps(data, separators=(",", ":"))
        except (ValueError, RecursionError):
            return placeholders.of("value", value)
    is_whole = option in _WHOLE
    parts = re.split(r"(?<!,),(?!,)", value)
    first, rest = parts[0], parts[1:]
    if "=" not in first and option == "device":
        head = first if _MODEL.fullmatch(first) else _kept(first, placeholders)
    else:
        head = _pair(first, is_whole, placeholders)
    return ",".join([head, *(_pair(part, is_whole, placeholders) for part in rest)])


def _pair(text: str, is_whole: bool, placeholders: Placeholders) -> str:
    """``key=value``, or a word: its key, and the value where that is harmless."""
    key, equals, value = text.rpartition("=") if is_whole else text.partition("=")
    if not equals:
        word = text
        return word if is_whole and _CPU.fullmatch(word) else _kept(word, placeholders)
    if re.fullmatch(r"[\w.+=-]{1,80}", key, re.ASCII) is None:
        return placeholders.of("value", text)
    is_plain = (is_whole or key in _KEPT_KEYS) and _CPU.fullmatch(value) is not None
    return f"{key}={value if is_plain and not _is_name(key) else _kept(value, placeholders, key)}"


def _is_name(key: str) -> bool:
    """Keys of a machine whose values name something of its owner."""
    return (
        re.search(r"serial|model[-_]id|vendor|uuid|file|path|memory-backend|id$", key) is not None
    )


_SECRET: Final = re.compile(
    r"serial|passw|secret|uuid|wwn|key|token|user|owner|asset|vendor|model[-_]id", re.IGNORECASE
)
"""In the key of a value that is replaced even where it is a word or a number like any other."""


def _kept(value: str, placeholders: Placeholders, key: str = "") -> str:
    is_harmless = value in _WORDS or _NUMBER.fullmatch(value) or _BUS.fullmatch(value)
    is_kept = not value or (is_harmless and _SECRET.search(key) is None)
    return value if is_kept else placeholders.of("value", value)


def _json_value(data: Any, key: str, placeholders: Placeholders) -> Any:
    if isinstance(data, dict):
        return {
            _json_key(name, placeholders): _json_value(value, name, placeholders)
            for name, value in data.items()
        }
    if isinstance(data, list):
        return [_json_value(value, key, placeholders) for value in data]
    if isinstance(data, str):
        is_plain = key in _KEPT_KEYS and _CPU.fullmatch(data) is not None
        return data if is_plain else _kept(data, placeholders, key)
    is_small = isinstance(data, bool | None) or (abs(data) < 100_000 and not _SECRET.search(key))
    return data if is_small else 0


def _json_key(name: str, placeholders: Placeholders) -> str:
    is_plain = re.fullmatch(r"[\w.-]{1,60}", name, re.ASCII) is not None
    return name if is_plain else placeholders.of("value", name)


# --- libvirt --------------------------------------------------------------------------------------

_XML_KEPT: Final = frozenset((
    "arch", "machine", "driver", "tickpolicy", "present", "type", "model", "mode", "unit",
    "policy", "bus", "slot", "function", "domain", "fallback", "check", "migratable",
    "intremap", "offset", "queues", "index", "controller", "device", "cache", "io", "state",
    "multifunction", "cores", "sockets", "threads", "dies", "placement", "current",
))  # fmt: skip
_XML_NAMED: Final = frozenset({"timer", "feature", "driver", "model"})
"""Elements whose name is libvirt's, not a person's."""
_XML_TEXT: Final = frozenset({"vcpu", "memory", "currentMemory", "type", "model"})
_XML_WORD: Final = re.compile(r"[\w.+-]{1,60}", re.ASCII)
_TAG: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,40}", re.ASCII)


def _xml(text: str, placeholders: Placeholders) -> str:
    if "<!DOCTYPE" in text or "<!ENTITY" in text or LONG_NUMBER.search(text) is not None:
        raise CollectError("an XML with a document type or an endless number: not redacted")
    try:
        root = ElementTree.fromstring(text[max(text.find("<domain"), 0) :].strip())
        _element(root, placeholders)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise CollectError("not an XML document: it cannot be redacted", str(error)[:80]) from None
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _element(element: ElementTree.Element, placeholders: Placeholders) -> None:
    for child in list(element):
        if _TAG.fullmatch(child.tag) is None or child.tag == "metadata":
            element.remove(child)  # of another namespace: a person's or a tool's own
        else:
            _element(child, placeholders)
    for key, value in list(element.attrib.items()):
        is_kept = key in _XML_KEPT or (key == "name" and element.tag in _XML_NAMED)
        if _TAG.fullmatch(key) is None:
            del element.attrib[key]
        elif not (is_kept and _XML_WORD.fullmatch(value)):
            element.set(key, _kept(value, placeholders, f"{element.tag} {key}"))
    content = (element.text or "").strip()
    if content and not (element.tag in _XML_TEXT and _XML_WORD.fullmatch(content)):
        element.text = _kept(content, placeholders, element.tag)
    element.tail = "\n" if (element.tail or "").strip() else element.tail


# --- Tables ---------------------------------------------------------------------------------------

_ROW: Final = re.compile(r"\s*[\w-]{1,12}:\s")


def _interrupts(text: str, placeholders: Placeholders) -> str:
    """Headings, rows and times; of other lines a shell may have printed anything."""
    kept: list[str] = []
    for line in text.splitlines():
        if interrupts.HEADING.fullmatch(line) or _ROW.match(line):
            kept.append(line)
        elif (time_s := interrupts.time_of([line])) is not None:
            kept.append(f"{time_s:.6f}")
    return "\n".join([*kept, ""])


_EVENT: Final = re.compile(
    r"(?P<task>.{1,16}-\d{1,10})"
    r"(?P<rest>\s+\[\d+\] \S{0,8}\s+\d+\.\d{6}: kvm_\w+: [\w ():|=.,%-]*)",
    re.ASCII,
)
"""An event of KVM as tracefs prints it: numbers and KVM's own words, after the task's name."""


def _trace(text: str, placeholders: Placeholders) -> str:
    """The tasks' names are replaced like any text, and lines that are no event of KVM, too.

    A trace has millions of lines, and few tasks.
    """
    tasks: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        match = _EVENT.fullmatch(line)
        if match is None:
            lines.append(placeholders.in_text(line))
            continue
        task, rest = match.groups()
        if task not in tasks:
            tasks[task] = placeholders.in_text(task)
        lines.append(tasks[task] + rest)
    end = "\n" if text.endswith("\n") else ""
    return "\n".join(lines) + end


def _versions(text: str, placeholders: Placeholders) -> str:
    found = versions.read("versions.txt", text).content
    assert isinstance(found, NamedVersions)
    return version_text(found)


def version_text(found: NamedVersions) -> str:
    """As QEMU and the kernel print them, so that the reader of versions reads it."""
    lines = []
    if found.qemu is not None:
        lines.append(f"QEMU emulator version {'.'.join(map(str, found.qemu[:3]))}")
    if found.linux_text is not None:
        lines.append(f"Linux version {found.linux_text}")
    return "\n".join([*lines, ""])


_FORMS: Final[Mapping[FileKind, Callable[[str, Placeholders], str]]] = {
    FileKind.COMMAND_LINE: _command_line,
    FileKind.XML: _xml,
    FileKind.INTERRUPTS: _interrupts,
    FileKind.HOST_INTERRUPTS: _interrupts,
    FileKind.VERSIONS: _versions,
    FileKind.TRACE: _trace,
}
