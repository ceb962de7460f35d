"""The CPU's flags, the number of CPUs, and the words of a kernel's command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from harness.base.text import shortened
from harness.explain.nearest.changes import NAME_CHARACTERS, VmChange, listed
from harness.guests.kinds.model import MAX_SMP
from harness.model.case import Irqchip

_DEADLINE: Final = re.compile(
    r"host|max|base|(?:SandyBridge|IvyBridge|Haswell|Broadwell|Skylake|Cascadelake|Cooperlake|"
    r"Icelake|Snowridge|SapphireRapids|GraniteRapids|SierraForest|ClearwaterForest|Denverton|"
    r"KnightsMill)[\w.-]*"
)
"""Models whose local APIC has the TSC deadline timer (QEMU ``target/i386/cpu.c``), and what KVM
gives to a guest that sees the host's CPU."""
FLAGS: Final = frozenset((
    "apic", "arat", "hypervisor", "invtsc", "kvm", "kvm-asyncpf", "kvm-asyncpf-int",
    "kvm-hint-dedicated", "kvm-msi-ext-dest-id", "kvm-pv-eoi", "kvm-pv-ipi", "kvm-pv-unhalt",
    "kvmclock", "tsc-deadline", "x2apic", "hv-apicv", "hv-frequencies", "hv-ipi", "hv-relaxed",
    "hv-reset", "hv-runtime", "hv-stimer", "hv-stimer-direct", "hv-synic", "hv-time",
    "hv-tlbflush", "hv-vapic", "hv-vpindex",
))  # fmt: skip
"""CPU properties about interrupts and timers."""


def cpu_of(text: str | None, changes: list[VmChange]) -> str:
    """``qemu64`` with the flags that are about interrupts."""
    model, *given = (text or "qemu64").split(",")
    flags: dict[str, bool] = {}
    if _DEADLINE.fullmatch(model) is not None:
        flags["tsc-deadline"] = True
    left = []
    for word in given:
        name, value = _flag(word)
        if name in FLAGS and value is not None:
            flags[name] = value
        elif word:
            left.append(name)
    if model != "qemu64":
        why = "the lab's CPU is an emulated one; of a model only its flags matter to interrupts"
        changes.append(VmChange(f"CPU {shortened(model, NAME_CHARACTERS)}", "qemu64", why))
    if left:
        why = "not known to matter to interrupts"
        changes.append(VmChange(f"CPU flags {listed(left)}", "", why))
    return ",".join(["qemu64", *(f"{'+' if on else '-'}{name}" for name, on in flags.items())])


def _flag(word: str) -> tuple[str, bool | None]:
    """The name of a flag and whether it is on, in any of QEMU's ways to write it."""
    name, equals, value = word.partition("=")
    is_on = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
    if equals:
        on = is_on.get(value)
    else:
        on = not name.startswith("-")
        name = name.lstrip("+-")
    return name.strip().replace("_", "-"), on


def smp_of(smp: int | None, own: Irqchip | None, changes: list[VmChange]) -> int:
    """As many CPUs as a guest here can have; one where it is not known."""
    if smp is None:
        return 1
    if own is Irqchip.OFF and smp > 1:
        why = "with off the QEMU that can be had here hangs in the firmware with more than one"
        changes.append(VmChange(f"{smp} CPUs", "1", why))
        return 1
    if smp > MAX_SMP:
        changes.append(VmChange(f"{smp} CPUs", str(MAX_SMP), "a lab has no more"))
    return max(1, min(smp, MAX_SMP))


_KERNEL_WORDS: Final = frozenset((
    "acpi_skip_timer_override", "apic=debug", "clocksource=acpi_pm", "clocksource=hpet",
    "clocksource=jiffies", "clocksource=kvm-clock", "clocksource=tsc", "disable_timer_pin_1",
    "highres=off", "hpet=disable", "hpet=force", "idle=halt", "idle=poll", "irqfixup", "irqpoll",
    "no-kvmclock", "noapic", "noapictimer", "nohz=off", "nohz=on", "nointremap", "nolapic",
    "nolapic_timer", "nox2apic", "no_timer_check", "pci=nomsi", "threadirqs", "tsc=reliable",
    "tsc=unstable", "x2apic_phys",
))  # fmt: skip
"""Words of a kernel's command line about interrupts and timers."""


def kernel_words(command_line: str) -> Iterator[str]:
    """Those words of a kernel's command line that are about interrupts and timers."""
    for word in dict.fromkeys(command_line.split()):
        if word in _KERNEL_WORDS:
            yield word
