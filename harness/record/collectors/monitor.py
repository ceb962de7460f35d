"""What QEMU's monitor prints, read as far as counters and verdicts need it.

Texts: ``x-query-irq`` (``info irq``), ``info pic`` (``x-query-interrupt-controllers`` since 9.1)
and ``info lapic``; QEMU 7.2 and 10.0 print them alike (QEMU ``hw/intc/*``: print_info;
``target/i386/cpu-apic.c``, ``cpu-dump.c``: x86_cpu_dump_local_apic_state).  Data: ``query-stats``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from harness.base.errors import CollectError
from harness.base.text import LONG_NUMBER
from harness.model.counters import Counter, CounterKey, Stage

# --- x-query-irq --------------------------------------------------------------------------------

PROVIDERS: Final[Mapping[str, str]] = {
    "ioapic": "ioapic",
    "kvm-ioapic": "ioapic",
    "isa-i8259": "pic",
    "kvm-i8259": "pic",
}
"""The device types that keep statistics, by irqchip mode, and the controller that they are."""

_PROVIDER: Final = re.compile(r"IRQ statistics for (\S+):")
_NO_STATISTICS: Final = re.compile(r"IRQ statistics not available for (\S+)\.")
_COUNT: Final = re.compile(r" *(\d+): (\d+)")


@dataclass(frozen=True)
class IrqStatistics:
    """What one provider counted: rising edges by input, without the inputs that had none.

    ``controller`` tells a second IOAPIC (microvm) from the first: ``ioapic``, ``ioapic2``.
    """

    provider: str
    controller: str
    counts: Mapping[int, int]


def _check_numbers(text: str) -> None:
    """:class:`CollectError` for what no monitor says."""
    if (found := LONG_NUMBER.search(text)) is not None:
        raise CollectError("the monitor's text cannot be read", f"found {found[0][:40]}...")


def parse_irq_statistics(text: str) -> tuple[IrqStatistics, ...]:
    """The providers of ``x-query-irq``; :class:`CollectError` for a line that is none of its.

    An input counts under its number at the device: the PIT is input 0 of an IOAPIC, not pin 2.
    """
    _check_numbers(text)
    found: list[tuple[str, dict[int, int]]] = []
    for line in text.splitlines():
        if (match := _PROVIDER.fullmatch(line)) is not None:
            found.append((match[1], {}))
        elif (match := _COUNT.fullmatch(line)) is not None and found:
            found[-1][1][int(match[1])] = int(match[2])
        elif line.strip() and _NO_STATISTICS.fullmatch(line) is None:
            raise CollectError("x-query-irq cannot be read", f"found {line!r}")
    names = _numbered([PROVIDERS.get(provider, provider) for provider, _ in found])
    return tuple(
        IrqStatistics(provider, name, counts)
        for name, (provider, counts) in zip(names, found, strict=True)
    )


def _numbered(controllers: Sequence[str]) -> list[str]:
    """Names for ``controllers`` in the order in which QEMU lists them, ``ioapic``, ``ioapic2``.

    Numbers count from the end: the first IOAPIC is a child of the machine, a second one hangs
    below ``/machine/unattached``, which is visited before (QEMU 7.2 ``hw/i386/x86.c``:
    ioapic_init_gsi, ioapic_init_secondary; seen on microvm in all modes).
    """
    names: list[str] = []
    for position, controller in enumerate(controllers):
        later = controllers[position + 1 :].count(controller)
        names.append(f"{controller}{later + 1}" if later else controller)
    return names


def count_irq_statistics(statistics: Iterable[IrqStatistics]) -> list[Counter]:
    """The rising edges, as counters of stage ``raised``."""
    return [
        Counter(CounterKey("raised", provider.controller, "qmp", pin), count)
        for provider in statistics
        for pin, count in provider.counts.items()
    ]


# --- query-stats --------------------------------------------------------------------------------

STATISTICS: Final[Mapping[str, Stage]] = {
    "irq_injections": "injected",
    "nmi_injections": "injected",
    "exits": "exit",
    "io_exits": "exit",
    "mmio_exits": "exit",
    "signal_exits": "exit",
    "irq_exits": "exit",
    "irq_window_exits": "exit",
    "nmi_window_exits": "exit",
    "request_irq_exits": "exit",
    "halt_exits": "exit",
    "halt_wakeup": "activity",
    "req_event": "activity",
}
"""KVM's statistics of a vCPU that only grow and tell of interrupts (Linux ``arch/x86/kvm/x86.c``,
kvm_vcpu_stats_desc; 6.1 and 6.12), and what they count."""

_LAST_NUMBER: Final = re.compile(r"\[(\d{1,9})\]$")


def vcpu_stats(stats: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What ``query-stats`` with target ``vcpu`` returned, by vCPU and by the statistic's name.

    QEMU lists the vCPUs last one first and does not number them; their paths
    (``/machine/unattached/device[2]``) are numbered in the order of the vCPUs.
    :class:`CollectError` for an answer of another shape.
    """
    vcpus = []
    if not isinstance(stats, Sequence):
        raise CollectError("query-stats cannot be read", f"found {str(stats)[:100]}")
    for entry in stats:
        try:
            match = _LAST_NUMBER.search(entry["qom-path"])
            values = {
                stat["name"]: int(stat["value"])
                for stat in entry["stats"]
                if stat["name"] in STATISTICS
            }
        except (KeyError, TypeError, ValueError, OverflowError):
            match, values = None, {}
        if match is None:
            raise CollectError("query-stats cannot be read", f"found {str(entry)[:100]}")
        vcpus.append((int(match[1]), values))
    vcpus.sort(key=lambda vcpu: vcpu[0])
    return [values for _, values in vcpus]


def count_stats(stats: Iterable[Mapping[str, Any]]) -> list[Counter]:
    """The counters of what ``query-stats`` with target ``vcpu`` returned."""
    return [
        Counter(CounterKey(stage, "vcpu", "qmp", name=name, cpu=cpu), values[name])
        for cpu, values in enumerate(vcpu_stats(stats))
        for name, stage in STATISTICS.items()
        if name in values
    ]


# --- info pic -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class IoapicPending:
    """An IOAPIC in ``info pic``: its version register's number and its pending pins."""

    version: int
    irr: tuple[int, ...]
    remote_irr: tuple[int, ...]


@dataclass(frozen=True)
class PicPending:
    """A PIC in ``info pic``: its three bit masks, of its own eight inputs."""

    irr: int
    imr: int
    isr: int


@dataclass(frozen=True)
class Controllers:
    """What ``info pic`` says is pending; two IOAPICs on microvm, ``pics`` by 0 (master) and 1."""

    text: str
    ioapics: tuple[IoapicPending, ...]
    pics: Mapping[int, PicPending]

    @property
    def observations(self) -> dict[str, str]:
        """What two backends can be compared in, as checks: by id, the value as text."""
        names = _numbered(["ioapic"] * len(self.ioapics))
        return {
            f"monitor.{name}.version": f"{ioapic.version:#x}"
            for name, ioapic in zip(names, self.ioapics, strict=True)
        }


_IOAPIC: Final = re.compile(r"ioapic\d+: ver=0x([0-9a-f]+) ")
_PIC: Final = re.compile(r"pic(\d): irr=([0-9a-f]{2}) imr=([0-9a-f]{2}) isr=([0-9a-f]{2}) ")
_PINS: Final = re.compile(r"  (IRR|Remote IRR) +(\(none\)|[\d ]+)")


def parse_controllers(text: str) -> Controllers:
    """The text of ``info pic``; :class:`CollectError` where there is no controller in it."""
    _check_numbers(text)
    versions: list[int] = []
    pins: dict[str, list[tuple[int, ...]]] = {"IRR": [], "Remote IRR": []}
    pics: dict[int, PicPending] = {}
    for line in text.splitlines():
        if (match := _IOAPIC.match(line)) is not None:
            versions.append(int(match[1], 16))
        elif (match := _PINS.fullmatch(line)) is not None:
            pins[match[1]].append(_numbers(match[2]))
        elif (match := _PIC.match(line)) is not None:
            pics[int(match[1])] = PicPending(*(int(mask, 16) for mask in match.groups()[1:]))
    if not (len(versions) == len(pins["IRR"]) == len(pins["Remote IRR"])):
        raise CollectError("info pic was cut off", f"it ends in {text[-60:]!r}")
    if not versions and not pics:
        raise CollectError("info pic cannot be read", f"found {text[:100]!r}")
    ioapics = map(IoapicPending, versions, pins["IRR"], pins["Remote IRR"])
    return Controllers(text, tuple(ioapics), pics)


# --- info lapic ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LapicPending:
    """A local APIC in ``info lapic``: what is in service and what is pending there.

    ``level`` are those vectors of both whose trigger mode is level.
    """

    text: str
    cpu: int
    enabled: bool
    isr: tuple[int, ...]
    irr: tuple[int, ...]
    level: frozenset[int]


_LAPIC_CPU: Final = re.compile(r"dumping local APIC state for CPU (\d+)")
_VECTORS: Final = re.compile(r"^(ISR|IRR)\t +(.*)$", re.MULTILINE)
_SPIV: Final = re.compile(r"^SPIV\t +0x[0-9a-f]+ APIC (enabled|disabled)", re.MULTILINE)
_VECTOR: Final = re.compile(r"(\d+)(\(level\))?")


def parse_lapic(text: str) -> LapicPending:
    """The text of ``info lapic``; :class:`CollectError` where it is none, or was cut off."""
    _check_numbers(text)
    plain = text.replace("\r\n", "\n")
    cpu = _LAPIC_CPU.search(plain)
    spiv = _SPIV.search(plain)
    lists = {match[1]: match[2] for match in _VECTORS.finditer(plain)}
    if cpu is None or spiv is None or lists.keys() != {"ISR", "IRR"}:
        raise CollectError("info lapic cannot be read", f"found {text[:100]!r}")
    found = {name: _VECTOR.findall(words) for name, words in lists.items()}
    vectors = {name: tuple(int(vector) for vector, _ in items) for name, items in found.items()}
    level = {int(vector) for items in found.values() for vector, mark in items if mark}
    return LapicPending(
        text, int(cpu[1]), spiv[1] == "enabled", vectors["ISR"], vectors["IRR"], frozenset(level)
    )


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "(none)" else tuple(int(word) for word in text.split())
