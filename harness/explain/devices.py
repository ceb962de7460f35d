"""Which device may drive a line: from the guest's names, lspci, and what a PC wires there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from harness.explain.answer import LineSource, Vm
from harness.record.collectors.foreign.model import (
    Evidence,
    KernelLog,
    PciList,
    Snapshots,
    TraceTally,
)

_WIRED: Final[Mapping[int, str]] = {
    0: "the PIT, and the HPET's timer 0 in legacy replacement",
    1: "the keyboard controller",
    2: "the PIT's pin at the IOAPIC",
    3: "the second serial port",
    4: "the first serial port",
    6: "the floppy controller",
    7: "the parallel port",
    8: "the real-time clock, and the HPET's timer 1 in legacy replacement",
    9: "ACPI's SCI",
    12: "the PS/2 mouse",
    14: "the first IDE channel",
    15: "the second IDE channel",
}
"""A PC's own lines (QEMU ``hw/i386/pc.c``: pc_basic_device_init)."""
_MOST: Final = 40


def line_sources(
    lines: Iterable[int], irqs: Iterable[int], evidence: Sequence[Evidence], vm: Vm
) -> tuple[LineSource, ...]:
    """The devices of ``lines`` (pins, GSIs) and of ``irqs`` (Linux's numbers), each once."""
    found: dict[tuple[str, str], LineSource] = {}
    for line in lines:
        for one in (*_by_pin(line, evidence), *_by_wiring(line, vm)):
            found.setdefault((one.line, one.device), one)
    for irq in irqs:
        for one in (*_by_irq(irq, evidence), *_by_wiring(irq, vm)):
            found.setdefault((one.line, one.device), one)
    return tuple(found.values())[:_MOST]


def _by_pin(pin: int, evidence: Sequence[Evidence]) -> Iterator[LineSource]:
    for each in evidence:
        if isinstance(each.content, Snapshots) and not each.content.is_host:
            for line in each.content.snapshots[-1].lines:
                if line.pin == pin and line.chip == "IO-APIC" and line.actions:
                    names = ", ".join(line.actions)
                    yield LineSource(f"line {pin}", names, f"{each.file}: IRQ {line.irq}")
                    yield from _of_pci(line.number, evidence)
        elif isinstance(each.content, TraceTally) and pin in each.content.pin_vectors:
            vector = each.content.pin_vectors[pin]
            yield LineSource(f"line {pin}", f"vector {vector}", f"{each.file}: its IOAPIC entry")


def _by_irq(irq: int, evidence: Sequence[Evidence]) -> Iterator[LineSource]:
    for each in evidence:
        if isinstance(each.content, Snapshots) and not each.content.is_host:
            for line in each.content.snapshots[-1].lines:
                if line.number == irq and line.actions:
                    names = ", ".join(line.actions)
                    yield LineSource(f"IRQ {irq}", names, f"{each.file}: /proc/interrupts")
        elif isinstance(each.content, KernelLog):
            signs = {sign.subject for sign in each.content.signs if sign.sign == "nobody-cared"}
            for handler in each.content.handlers if str(irq) in signs else ():
                yield LineSource(f"IRQ {irq}", handler, f"{each.file}: its handlers")
    yield from _of_pci(irq, evidence)


def _of_pci(irq: int | None, evidence: Sequence[Evidence]) -> Iterator[LineSource]:
    for each in evidence:
        if isinstance(each.content, PciList):
            for function in each.content.functions:
                if function.irq == irq and irq is not None and not function.is_msi:
                    yield LineSource(f"IRQ {irq}", f"{function.slot} {function.name}", each.file)


def _by_wiring(line: int, vm: Vm) -> Iterator[LineSource]:
    machine = vm.machine
    if machine.family == "microvm":
        if line >= 24 or 5 <= line <= 23:
            yield LineSource(f"line {line}", "a virtio-mmio slot", "microvm's wiring")
        return
    if line in _WIRED:
        device = _WIRED[line]
        if line in (0, 8) and machine.hpet is False:
            device = device.split(",")[0]
        yield LineSource(f"line {line}", device, "a PC's wiring")
    elif 16 <= line <= 23 and machine.family == "q35":
        models = ", ".join(
            dict.fromkeys(
                each.model for each in machine.devices if each.model not in ("isa-serial",)
            )
        )
        others = f": one of {models}" if models else ""
        yield LineSource(f"line {line}", f"PCI pins (INTx) of q35{others}", "q35's wiring")
    elif line in (10, 11) and machine.family == "pc":
        yield LineSource(f"line {line}", "PCI pins (INTx) of pc", "pc's wiring")
