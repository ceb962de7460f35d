"""What identifies a person or a machine, replaced in any text.

The same thing has the same placeholder everywhere.  The shapes are wide on purpose: what only
looks like an address is replaced, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

PLACEHOLDER: Final = re.compile(
    r"(?:address|mac|mail|name|path|uuid|value)-[1-9][0-9]{0,5}", re.ASCII
)
_KNOWN_MOST: Final = 10_000

_UUID: Final = re.compile(
    r"(?<![0-9a-fA-F])[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}(?![0-9a-fA-F])"
)
_MAIL: Final = re.compile(
    r"(?<![^\s@'\"<>,;=|()\[\]])[^\s@'\"<>,;=|()\[\]]*+@(?!pci:)[^\s'\"<>,;=|()\[\]:]++"
)
"""Mail addresses, and the prompt of a shell; mlx5_comp0@pci:... is a device's name."""
_PATH: Final = re.compile(
    r"(?<![\w.])/(?!/|(?<=</)[\w-]+>|proc/(?:interrupts|cmdline)\b|sys/(?:module|kernel)\b|machine/)"
    r"[^\s'\"<>,;|]++"
)
"""An absolute path, and no end of an XML element; /machine/... is QEMU's own tree of objects, and
CPU 0/KVM a thread."""
_COLONS: Final = re.compile(r"(?<![0-9a-fA-F:])[0-9a-fA-F]*+:[0-9a-fA-F:]*+(?:\.[0-9]{1,3}){0,3}")
_DASHED: Final = re.compile(
    r"(?<![0-9a-fA-F])[0-9a-fA-F]{2}(?:-[0-9a-fA-F]{2}){5,}(?![0-9a-fA-F])"
    r"|(?<![0-9a-fA-F.])[0-9a-fA-F]{4}\.[0-9a-fA-F]{4}\.[0-9a-fA-F]{4}(?![0-9a-fA-F.])"
)
"""MAC addresses as Windows and Cisco write them."""
_IPV4: Final = re.compile(r"(?<![0-9])[0-9]{1,3}(?:\.[0-9]{1,3}){3,}(?![0-9])")
_IPV6_COLONS: Final = 6
_MAC_COLONS: Final = 5


class Placeholders:
    """The placeholders of one archive.

    ``names`` are words to be replaced wherever they stand: of guests, hosts, users.  ``taken`` are
    texts whose placeholders, if they have any, are not given to something else.
    """

    def __init__(self, names: Collection[str] = (), taken: Iterable[str] = ()) -> None:
        self._given: dict[str, str] = {}
        highest = (int(m[0].rpartition("-")[2]) for t in taken for m in PLACEHOLDER.finditer(t))
        self._number = max(highest, default=0)
        longest = sorted(filter(_is_telling, names), key=len, reverse=True)[:_KNOWN_MOST]
        words = "|".join(map(re.escape, longest))
        self._names = re.compile(rf"(?<![a-zA-Z0-9])(?:{words})(?![a-zA-Z0-9])") if words else None

    @property
    def count(self) -> int:
        """How many things were replaced."""
        return len(self._given)

    def of(self, kind: str, secret: str) -> str:
        """The placeholder of ``secret``; a placeholder's is itself."""
        if PLACEHOLDER.fullmatch(secret):
            return secret
        if secret not in self._given:
            self._number += 1
            self._given[secret] = f"{kind}-{self._number}"
        return self._given[secret]

    def in_text(self, text: str) -> str:
        """``text`` with everything replaced that has the shape of an address, path or name."""
        if self._names is not None:
            text = self._names.sub(lambda match: self.of("name", match[0]), text)
        text = _MAIL.sub(lambda match: self.of("mail", match[0]), text)
        text = _UUID.sub(lambda match: self.of("uuid", match[0].lower()), text)
        text = _DASHED.sub(lambda match: self.of("mac", match[0].lower()), text)
        text = _COLONS.sub(self._colons, text)
        text = _IPV4.sub(lambda match: self.of("address", match[0]), text)
        return _PATH.sub(self._path, text)

    def _path(self, match: re.Match[str]) -> str:
        path = match[0].rstrip(":.)")
        return self.of("path", path) + match[0][len(path) :]

    def _colons(self, match: re.Match[str]) -> str:
        """A MAC or an IPv6 address; a time and a PCI address have fewer colons."""
        run = match[0]
        colons = run.count(":")
        if colons == _MAC_COLONS and "::" not in run:
            return self.of("mac", run.lower())
        is_short = "::" in run and re.search(r"[0-9a-fA-F]", run) is not None
        return self.of("address", run.lower()) if is_short or colons >= _IPV6_COLONS else run


COMMON: Final = frozenset((
    "cpu", "cpu0", "kvm", "qemu", "linux", "guest", "host", "timer", "rtc", "rtc0", "virtio",
    "apic", "ioapic", "lapic", "pic", "pit", "hpet", "irq", "msi", "edge", "level", "fasteoi",
    "local", "interrupts", "the", "and", "for", "name", "vm", "test", "debug", "default",
    "none", "true", "false", "null", "driver", "version", "stats", "provider", "value", "qom",
    "path", "vcpu", "root", "system", "x86", "x86_64", "ide", "ahci", "pci", "trace", "event",
    "mask", "pin", "address", "mac", "mail", "uuid", "masked", "fixed", "physical", "logical",
    "remote", "irr", "isr", "imr", "lvt", "vec", "dst", "dest", "pending", "delivery", "self",
    "all", "lowest", "extint", "init", "smi", "nmi", "perf", "error", "spurious", "gsi", "source",
    "reason", "chip", "ack", "poll", "user", "rip", "info", "high", "low", "read", "write",
))  # fmt: skip
"""Words that tools print, and that identify no one: a guest of this name stays readable."""
_SHORTEST_NAME: Final = 3


def _is_telling(name: str) -> bool:
    word = name.strip(" ().").lower()  # a host that was given no name is called "(none)"
    return (
        len(word) >= _SHORTEST_NAME
        and word not in COMMON
        and not word.isdecimal()
        and not word.startswith(("kvm_", "qemu-system", "qemu-kvm"))
        and PLACEHOLDER.fullmatch(word) is None
    )
