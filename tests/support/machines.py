"""Machines of every mode, ready for interrupts, and what their logs say."""

from __future__ import annotations

from typing import Any

from userspace_chip.architecture import IOAPIC_BASES
from userspace_chip.irqchip import Machine
from userspace_chip.lapic_registers import LVT0, SPIV
from userspace_chip.profile import Profile, profile

MODES = ["on", "split", "off", "tcg"]
SUBJECTS = [
    profile("on"),
    profile("on", linux="6.1"),
    profile("on", linux="6.18"),
    profile("split", qemu="7.2", linux="6.1"),
    profile("split", qemu="7.2"),
    profile("split"),
    profile("split", linux="6.18"),
    profile("off"),
    profile("tcg", qemu="7.2"),
    profile("tcg"),
]
"""A profile of every behaviour that differs."""


def name_of(subject: Profile) -> str:
    return f"{subject.mode}-qemu{subject.qemu}-linux{subject.linux}"


def ready(which: Profile | str, cpus: int = 1, **options: Any) -> Machine:
    """Every local APIC enabled, every CPU running, nothing in the log."""
    chosen = profile(which) if isinstance(which, str) else which  # type: ignore[arg-type]
    machine = Machine(chosen, cpus, **options)
    for cpu in range(cpus):
        machine.mmio_write(cpu, 0xFEE00000 + SPIV, 4, 0x1FF)
        state = machine.vcpus[cpu].state
        state.mp_state = type(state.mp_state).RUNNABLE
        machine.enter(cpu)
    machine.log.take()
    return machine


def program(machine: Machine, pin: int, low: int, high: int = 0, *, ioapic: int = 0) -> None:
    """Write a redirection entry: upper half first."""
    base = IOAPIC_BASES[ioapic]
    for index, value in ((0x11 + 2 * pin, high), (0x10 + 2 * pin, low)):
        machine.mmio_write(0, base, 4, index)
        machine.mmio_write(0, base + 0x10, 4, value)


def scanned(machine: Machine) -> Machine:
    """Every CPU has entered once more, and the log is empty."""
    for vcpu in machine.vcpus:
        machine.enter(vcpu.vcpu_id)
    machine.log.take()
    return machine


def init_pics(machine: Machine, base: int = 0x20) -> None:
    """The usual ICWs, everything unmasked, LINT0 of CPU 0 in ExtINT mode."""
    for port, offset, wire in ((0x20, base, 4), (0xA0, base + 8, 2)):
        for value, at in ((0x11, port), (offset, port + 1), (wire, port + 1), (1, port + 1)):
            machine.pio_write(0, at, value)
        machine.pio_write(0, port + 1, 0)
    machine.mmio_write(0, 0xFEE00000 + LVT0, 4, 0x700)


def kernel_texts(machine: Machine) -> list[str]:
    """The kernel's events so far, without its register accesses, as the tracer prints them."""
    return [
        f"{event.name}: {event.text}"
        for event in machine.log.take()
        if event.name.startswith("kvm_")
        and not event.name.startswith(("kvm_irqchip", "kvm_run"))
        and event.name != "kvm_apic"
    ]


def texts(machine: Machine) -> list[str]:
    """Every event so far."""
    return [f"{event.name}: {event.text}" for event in machine.log.take()]
