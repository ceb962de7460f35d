"""The guest's own counts: ``/proc/interrupts`` and ``/proc/stat`` of Linux 6.1 and 6.12 on x86.

Sources: Linux ``kernel/irq/proc.c`` (show_interrupts), ``arch/x86/kernel/irq.c``
(arch_show_interrupts), ``fs/proc/stat.c`` (show_stat).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.base.errors import CollectError
from harness.base.text import LONG_NUMBER
from harness.model.counters import Counter, CounterKey, CounterSet, Stage

ALL_CPUS: Final = frozenset({"ERR", "MIS"})
"""Lines that have one number for the whole machine."""

CONTROLLERS: Final[Mapping[str, str]] = {"IO-APIC": "ioapic", "XT-PIC": "pic"}
"""Linux's names of interrupt chips, and ours; ``PCI-MSI...`` is ``msi``, the rest is kept."""

_CPU: Final = re.compile(r"CPU(\d+)")
_NUMBERED: Final = re.compile(r"(\S+)\s+(?:(\d+)(?:-(\S+))?\s*)?(?:\s(\S.*))?")


@dataclass(frozen=True)
class InterruptLine:
    """One line of ``/proc/interrupts``.

    ``irq`` is Linux's number or the name of a kind (``LOC``); ``counts`` are by CPU, and by None
    where the line has one number for all.  ``chip``, ``pin`` (the chip's own number), ``flow``
    (``edge``, ``fasteoi``) and ``actions`` are there for numbered lines only.
    """

    irq: str
    counts: Mapping[int | None, int]
    chip: str | None = None
    pin: int | None = None
    flow: str | None = None
    actions: tuple[str, ...] = ()

    @property
    def number(self) -> int | None:
        """Linux's interrupt number, or None for a kind such as ``LOC``."""
        return int(self.irq) if self.irq.isdecimal() else None

    @property
    def total(self) -> int:
        """Over all CPUs."""
        return sum(self.counts.values())

    def key(self, cpu: int | None) -> CounterKey:
        """The counter of this line on ``cpu``.

        A pin of IOAPIC or PIC goes by its number and device.  A message's number is Linux's own
        affair and differs between boots: it goes by its device alone.
        """
        name = ",".join(self.actions) or None
        if self.number is None:
            return CounterKey("handled", "cpu", "guest", name=self.irq, cpu=cpu)
        if self.chip is not None and "MSI" in self.chip and name is not None:
            return CounterKey("handled", "msi", "guest", name=name, cpu=cpu)
        controller = CONTROLLERS.get(self.chip or "", (self.chip or "none").lower())
        number = self.number if self.pin is None else self.pin
        return CounterKey("handled", controller, "guest", number, name, cpu)


def parse_interrupts(text: str) -> tuple[InterruptLine, ...]:
    """The lines of ``/proc/interrupts``.

    Only CPUs that are online have a column, so a column's CPU is what its heading says.
    :class:`CollectError` for a heading or a line that is none, and for a text cut off in a line.
    """
    if LONG_NUMBER.search(text) is not None:
        raise CollectError("the guest's counts cannot be read", "a number has no end")
    heading, _, body = text.partition("\n")
    words = heading.split()
    cpus = [int(match[1]) for word in words if (match := _CPU.fullmatch(word)) is not None]
    if not cpus or len(cpus) != len(words):
        raise CollectError("not /proc/interrupts", f"expected a line of CPUs, found {heading!r}")
    if not text.endswith("\n"):
        raise CollectError("/proc/interrupts was cut off", f"it ends in {text[-60:]!r}")
    return tuple(_interrupt_line(line, cpus) for line in body.splitlines() if line.strip())


def _interrupt_line(line: str, cpus: list[int]) -> InterruptLine:
    irq, colon, rest = line.partition(":")
    irq = irq.strip()
    columns = 1 if irq in ALL_CPUS else len(cpus)
    words = rest.split(maxsplit=columns)
    if not colon or not irq or len(words) < columns or not all(map(str.isdecimal, words[:columns])):
        raise CollectError("a line of /proc/interrupts cannot be read", f"found {line!r}")
    numbers = [int(word) for word in words[:columns]]
    counts: dict[int | None, int] = (
        {None: numbers[0]} if irq in ALL_CPUS else dict(zip(cpus, numbers, strict=True))
    )
    if not irq.isdecimal():
        return InterruptLine(irq, counts)
    match = _NUMBERED.fullmatch(words[columns].strip() if len(words) > columns else "")
    if match is None:
        return InterruptLine(irq, counts)
    chip, pin, flow, actions = match.groups()
    return InterruptLine(
        irq,
        counts,
        chip,
        None if pin is None else int(pin),
        flow,
        tuple(action.strip() for action in (actions or "").split(",") if action.strip()),
    )


CPU_TIMES: Final = (
    "user",
    "nice",
    "system",
    "idle",
    "iowait",
    "irq",
    "softirq",
    "steal",
    "guest",
    "guest_nice",
)
"""The columns of a ``cpu`` line, in clock ticks (USER_HZ, 100 a second)."""

SOFT_INTERRUPTS: Final = (
    "HI",
    "TIMER",
    "NET_TX",
    "NET_RX",
    "BLOCK",
    "IRQ_POLL",
    "TASKLET",
    "SCHED",
    "HRTIMER",
    "RCU",
)
"""The columns of ``softirq`` after the total (Linux ``include/linux/interrupt.h``)."""

_TOTALS: Final[Mapping[str, tuple[Stage, str, str]]] = {
    "intr": ("handled", "all", "total"),
    "ctxt": ("activity", "linux", "context switches"),
    "processes": ("activity", "linux", "forks"),
}


def parse_stat(text: str) -> tuple[Counter, ...]:
    """The counters of ``/proc/stat``; :class:`CollectError` for what is none."""
    if LONG_NUMBER.search(text) is not None:
        raise CollectError("the guest's counts cannot be read", "a number has no end")
    counters: list[Counter] = []
    seen: set[str] = set()
    for line in text.splitlines():
        name, *words = line.split() or [""]
        seen.add(name)
        try:
            counters += _stat_line(name, words)
        except (ValueError, IndexError):
            raise CollectError("a line of /proc/stat cannot be read", f"found {line!r}") from None
    if missing := {"cpu", "intr", "ctxt", "softirq"} - seen:
        raise CollectError("not all of /proc/stat", f"missing: {', '.join(sorted(missing))}")
    return tuple(counters)


def _stat_line(name: str, words: list[str]) -> list[Counter]:
    if name in _TOTALS:
        stage, controller, label = _TOTALS[name]
        return [Counter(CounterKey(stage, controller, "guest", name=label), int(words[0]))]
    if name == "softirq":
        values = [int(word) for word in words[1:]]
        return [
            Counter(CounterKey("activity", "softirq", "guest", name=label), value)
            for label, value in zip(SOFT_INTERRUPTS, values, strict=False)
        ]
    if name.startswith("cpu") and name != "cpu":
        cpu = int(name.removeprefix("cpu"))
        values = [int(word) for word in words]
        return [
            Counter(CounterKey("time", "cpu", "guest", name=label, cpu=cpu), value)
            for label, value in zip(CPU_TIMES, values, strict=False)
        ]
    return []


def count_guest(interrupts: str, stat: str | None = None) -> CounterSet:
    """All counters of a snapshot: the texts of ``/proc/interrupts`` and ``/proc/stat``."""
    counters = [
        Counter(line.key(cpu), value)
        for line in parse_interrupts(interrupts)
        for cpu, value in line.counts.items()
    ]
    return CounterSet.of(counters + list(parse_stat(stat) if stat is not None else ()), ["guest"])
