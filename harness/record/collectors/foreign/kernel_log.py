"""A kernel's log, from ``dmesg`` or a serial console: what it says of interrupts and the machine.

The messages are those of Linux 6.1 to 6.12: ``kernel/irq/spurious.c``, ``arch/x86/kernel/irq.c``,
``arch/x86/kernel/apic/io_apic.c`` and ``apic.c``, ``kernel/time/clocksource.c``,
``kernel/watchdog.c``, ``arch/x86/kernel/hpet.c``, ``kernel/time/hrtimer.c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from harness.base.text import LONG_NUMBER
from harness.record.collectors.foreign.model import Evidence, FileKind, KernelLog, LogSign

SIGNS: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "nobody-cared": r"irq (\d+): nobody cared",
        "irq-disabled": r"Disabling IRQ #(\d+)",
        "no-handler": r"(\d+\.\d+) No irq handler for vector",
        "timer-not-connected": r"8254 timer not connected to IO-APIC|IO-APIC \+ timer doesn't work",
        "spurious-8259": r"spurious 8259A interrupt: IRQ(\d+)",
        "apic-error": r"APIC error on CPU(\d+)",
        "clocksource-unstable": r"Marking clocksource '([\w-]+)' as unstable",
        "soft-lockup": r"soft lockup - CPU#(\d+) stuck",
        "rcu-stall": r"rcu: INFO: \w+ (?:self-)?detected stalls?",
        "hpet-lost": r"hpet: [Ll]ost (\d+) (?:rtc )?interrupts",
        "hrtimer-slow": r"hrtimer: interrupt took",
        "tx-timeout": r"NETDEV WATCHDOG: (\S+) .*transmit queue \d+ timed out",
        "unexpected-irq": r"unexpected IRQ trap at vector ([0-9a-f]+)",
        "lost-ticks": r"(?:[Ll]osing too many ticks|many lost ticks)",
    }.items()
}
"""What is recognised, by name; the group is what it is about."""

FACTS: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "kernel": r"Linux version (\d+\.\d+(?:\.\d+)?\S*)",
        "command line": r"Kernel command line: (.*)",
        "machine": r"(?:DMI|Hardware name): (QEMU [^,(]*(?:\([^)]*\))?)",
        "hypervisor": r"Hypervisor detected: (\w+)",
        "ioapic version": r"IOAPIC\[0\]: apic_id \d+, version (\d+)",
        "hpet": r"(hpet0: at MMIO 0x[0-9a-f]+)|ACPI: (HPET) 0x",
        "clocksource": r"Switched to clocksource ([\w-]+)",
        "timer pin": r"\.\.TIMER: (vector=0x[0-9A-Fa-f]+ apic1=-?\d+ pin1=-?\d+)",
        "x2apic": r"(x2apic enabled|Switched APIC routing to \w+)",
        "remapping": r"(DMAR-IR: Enabled IRQ remapping in \w+ mode|AMD-Vi: Interrupt remapping)",
    }.items()
}
"""What the log says of the machine, by name."""

_STAMP: Final = re.compile(r"\[ *(\d{1,9}\.\d{1,9})\]")
_KEYWORD: Final = re.compile(
    "nobody cared|Disabling IRQ|No irq handler|8254|IO-APIC|8259A|APIC error|clocksource|lockup|"
    "rcu: INFO|hpet|hrtimer|NETDEV|unexpected IRQ|ticks|Linux version|command line|DMI:|"
    "Hypervisor|Hardware name|IOAPIC|HPET|TIMER|x2apic|APIC routing|DMAR-IR|AMD-Vi"
)
_HANDLER: Final = re.compile(r"\[<[0-9a-fx]+>\] (\w+(?: \[\w+\])?)")
_MOST: Final = 200
"""Different messages that are kept."""
_LONGEST: Final = 2000
_SHOWN: Final = 8
"""Handlers."""


def is_log_line(line: str) -> bool:
    """Whether it is a line that a kernel may have logged, and only a kernel."""
    return _STAMP.search(line[:60]) is not None


def says_anything(line: str) -> bool:
    """Whether ``line`` is a message that is recognised."""
    return any(pattern.search(line) for pattern in SIGNS.values())


def read(name: str, lines: Iterable[str]) -> Evidence:
    """What ``lines`` say; an ordinary boot's log says no more than the machine's facts."""
    found: dict[tuple[str, str], LogSign] = {}
    facts: dict[str, str] = {}
    handlers: list[str] = []
    is_listing = False
    number = 0
    for raw in lines:
        number += 1
        line = raw.rstrip("\r\n")[:_LONGEST]
        if line.endswith("handlers:"):
            is_listing = True
        elif is_listing and (handler := _HANDLER.search(line)) is not None:
            handlers.append(handler[1][:100])
        else:
            is_listing = False
        if _KEYWORD.search(line) is None or LONG_NUMBER.search(line) is not None:
            continue
        for fact, pattern in FACTS.items():
            if (match := pattern.search(line)) is not None:
                facts[fact] = next(filter(None, match.groups()), match[0])
        for sign, pattern in SIGNS.items():
            if (match := pattern.search(line)) is not None:
                subject = match[1] if match.groups() and match[1] is not None else ""
                _count(found, sign, subject, line)
    log = KernelLog(tuple(found.values()), facts, number, tuple(dict.fromkeys(handlers))[:_SHOWN])
    return Evidence(name, FileKind.LOG, log)


def _count(found: dict[tuple[str, str], LogSign], sign: str, subject: str, line: str) -> None:
    known = found.get((sign, subject))
    if known is not None:
        found[sign, subject] = LogSign(sign, subject, known.count + 1, known.text, known.time_s)
    elif len(found) < _MOST:
        stamp = _STAMP.search(line)
        time_s = None if stamp is None else float(stamp[1])
        found[sign, subject] = LogSign(sign, subject, 1, line.strip(), time_s)
