"""Versions that a line names: ``qemu-system-x86_64 --version``, ``uname -a``, ``info version``."""

from __future__ import annotations

import re
from typing import Final

from harness.base.errors import CollectError
from harness.record.collectors.foreign.model import Evidence, FileKind, NamedVersions

QEMU: Final = re.compile(r"QEMU emulator version (\d{1,4}(?:\.\d{1,4}){1,3})")
UNAME: Final = re.compile(r"\bLinux (?:\S+ |version )?(\d{1,4}\.\d{1,4}(?:\.\d{1,6})?)(\S*)")


def read(name: str, text: str) -> Evidence:
    """The versions in ``text``; :class:`CollectError` where there is none."""
    head = text[:100_000]
    qemu, linux = QEMU.search(head), UNAME.search(head)
    if qemu is None and linux is None:
        raise CollectError(f"{name}: names no version of QEMU or Linux")
    return Evidence(
        name,
        FileKind.VERSIONS,
        NamedVersions(
            None if qemu is None else dotted(qemu[1]),
            None if linux is None else dotted(linux[1]),
            None if linux is None else linux[1] + linux[2],
        ),
    )


def dotted(text: str) -> tuple[int, ...]:
    """``6.12.95`` as numbers; text after them does not count."""
    match = re.match(r"\d{1,6}(?:\.\d{1,6}){0,3}", text, re.ASCII)
    return () if match is None else tuple(map(int, match[0].split(".")))
