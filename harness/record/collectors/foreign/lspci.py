"""``lspci``, with ``-v`` or without: which device sits in which slot, and its interrupt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Final

from harness.base.errors import CollectError
from harness.base.text import LONG_NUMBER
from harness.record.collectors.foreign.model import Evidence, FileKind, PciFunction, PciList

SLOT: Final = re.compile(
    r"(?:[0-9a-f]{4}:)?([0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (\S.*?)(?: \[[0-9a-f]{4}\])?: (\S.*)"
)
_IRQ: Final = re.compile(r"\s.*?(?:routed to IRQ|, IRQ) (\d{1,5})\b")
_MSI: Final = re.compile(r"\s+Capabilities: .*\bMSI(?:-X)?: .*Enable\+")
_MOST_LINES: Final = 100_000


def read(name: str, lines: Iterable[str]) -> Evidence:
    """The functions of ``lines``; :class:`CollectError` where there is none."""
    found: list[PciFunction] = []
    for raw in islice(lines, _MOST_LINES):
        line = raw.rstrip("\r\n")
        if LONG_NUMBER.search(line) is not None:
            continue
        if (slot := SLOT.match(line)) is not None:
            found.append(PciFunction(slot[1], f"{slot[2]}: {slot[3]}"[:200], None, False))
        elif found and (irq := _IRQ.match(line)) is not None:
            last = found[-1]
            found[-1] = PciFunction(last.slot, last.name, int(irq[1]), last.is_msi)
        elif found and _MSI.match(line) is not None:
            last = found[-1]
            found[-1] = PciFunction(last.slot, last.name, last.irq, True)
    if not found:
        raise CollectError(f"{name}: lspci lists no function there")
    return Evidence(name, FileKind.LSPCI, PciList(tuple(found)))
