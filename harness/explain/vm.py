"""Which VM it is, from all evidence together, and nothing invented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace

from harness.explain.answer import Vm
from harness.model.case import Irqchip
from harness.record.collectors.foreign.model import (
    EventCounts,
    Evidence,
    IrqTexts,
    KernelLog,
    ModuleParameters,
    NamedVersions,
    Registers,
    Snapshots,
    TraceTally,
    VmMachine,
)
from harness.record.collectors.foreign.versions import dotted

_ON_EVENTS = ("kvm_pic_set_irq", "kvm_ioapic_set_irq")
_IOAPIC_ON = 0x11


def vm_of(evidence: Sequence[Evidence]) -> Vm:
    """What ``evidence`` says of the VM; the first text that says something counts."""
    machine = _machine(evidence)
    mode, why = _irqchip(machine, evidence)
    qemu = next(
        (
            e.content.qemu
            for e in evidence
            if isinstance(e.content, NamedVersions) and e.content.qemu is not None
        ),
        machine.qemu,
    )
    linux = next(
        (
            e.content.linux
            for e in evidence
            if isinstance(e.content, NamedVersions) and e.content.linux is not None
        ),
        None,
    )
    apicv = next(
        (e.content.apicv for e in evidence if isinstance(e.content, ModuleParameters)), None
    )
    return Vm(machine, mode, why, qemu, machine.version, linux, _smp(machine, evidence), apicv)


def _machine(evidence: Sequence[Evidence]) -> VmMachine:
    """Command line and XML together: what one does not say, the other may."""
    found = [each.content for each in evidence if isinstance(each.content, VmMachine)]
    merged = found[0] if found else VmMachine()
    for other in found[1:]:
        missing = {
            each.name: getattr(other, each.name)
            for each in fields(VmMachine)
            if getattr(merged, each.name) in (None, ())
        }
        merged = replace(merged, **missing)
    if merged.family is None:
        family = next(
            (
                family
                for each in evidence
                if isinstance(each.content, KernelLog)
                and (family := _family(each.content)) is not None
            ),
            None,
        )
        merged = replace(merged, family=family)
    return merged


def _family(log: KernelLog) -> str | None:
    """From the DMI line: ``QEMU Standard PC (Q35 + ICH9, 2009)``."""
    named = log.facts.get("machine", "")
    if "Q35" in named:
        return "q35"
    return "pc" if "i440FX" in named else None


def _irqchip(machine: VmMachine, evidence: Sequence[Evidence]) -> tuple[Irqchip | None, str]:
    if machine.irqchip is not None:
        told = machine.defaults.get("irqchip", "")
        why = told.partition(": ")[2] if told else "its command line or XML says so"
        return Irqchip(machine.irqchip), why
    for mode, why in _shown(evidence):
        return mode, why
    return None, "nothing says it"


def _shown(evidence: Sequence[Evidence]) -> Iterator[tuple[Irqchip, str]]:
    """Modes that follow from what only one of them does."""
    for each in evidence:
        content = each.content
        if isinstance(content, TraceTally | EventCounts):
            events = content.events if isinstance(content, TraceTally) else content.counts
            for name in _ON_EVENTS:
                if events.get(name):
                    yield Irqchip.ON, f"{each.file}: {name} is of KVM's own IOAPIC and PIC"
            windows = content.windows if isinstance(content, TraceTally) else {}
            if windows.get("ioapic_eoi"):
                yield Irqchip.SPLIT, f"{each.file}: EOIs go to QEMU's IOAPIC"
        elif isinstance(content, IrqTexts):
            for one in content.statistics:
                if one.provider.startswith("kvm-"):
                    yield Irqchip.ON, f"{each.file}: its controller is {one.provider}"
        elif isinstance(content, Registers):
            if any(one.version == _IOAPIC_ON for one in content.pending.ioapics):
                yield Irqchip.ON, f"{each.file}: the IOAPIC's version is 0x11, KVM's own"
        elif isinstance(content, KernelLog) and _logged_ioapic(content) == _IOAPIC_ON:
            yield Irqchip.ON, f"{each.file}: the guest saw an IOAPIC of version 17, KVM's own"


def _logged_ioapic(log: KernelLog) -> int | None:
    version = log.facts.get("ioapic version", "")
    return int(version) if version.isdecimal() else None


def _smp(machine: VmMachine, evidence: Sequence[Evidence]) -> int | None:
    if machine.smp is not None:
        return machine.smp
    for each in evidence:
        if isinstance(each.content, Snapshots) and not each.content.is_host:
            lines = each.content.snapshots[-1].lines
            return max((len(line.counts) for line in lines), default=None)
        if isinstance(each.content, TraceTally) and each.content.cpus:
            return max(each.content.cpus) + 1
    return None


def guest_linux(evidence: Sequence[Evidence]) -> tuple[int, ...] | None:
    """The guest's kernel, where its log says it."""
    for each in evidence:
        if isinstance(each.content, KernelLog) and "kernel" in each.content.facts:
            return dotted(each.content.facts["kernel"]) or None
    return None
