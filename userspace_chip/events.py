"""Events: one normalised fact with a time, whatever its source, and the table of their types.

The vocabulary is that of the tracepoints themselves: the kernel's ``kvm:*`` group (Linux
``include/trace/events/kvm.h`` and ``arch/x86/kvm/trace.h``) and QEMU's ``trace-events`` files
(``hw/intc``, ``hw/i386``, ``accel/kvm``, ``target/i386/kvm``).  An :class:`EventType` is made from
one template, which serves both directions: it parses the text that the tracer prints, and it
prints an event in exactly that text.

Template language, in the order in which a field appears:

=================  ==============================================================
``{name:d}``       a decimal number, possibly negative
``{name:x}``       a hexadecimal number without prefix
``{name:#x}``      a hexadecimal number with ``0x``
``{name:#0Nx}``    the same, zero-padded to N digits after the prefix
``{name:w}``       a word (no white space, none of ``|()``)
``{name:s}``       the rest, or up to the literal that follows
``{name?text}``    a flag: True where ``text`` is there
=================  ==============================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, NamedTuple, TypeAlias

from userspace_chip.errors import EventError

Source: TypeAlias = Literal["kvm", "qemu", "guest", "model", "harness"]
"""Who saw it: the kernel, QEMU, the guest itself, the Python chips, or the harness (marks)."""

Arg: TypeAlias = int | str | bool


class Event(NamedTuple):
    """One fact with a time.

    A tuple and not a dataclass, because a recorded boot holds hundreds of thousands of them.
    ``args`` are in the order of ``EVENT_TYPES[name].fields``.
    """

    time_ns: int
    source: Source
    name: str
    vcpu: int | None
    """The vCPU in whose thread it happened, where the source tells."""
    args: tuple[Arg, ...]

    def arg(self, field: str) -> Arg:
        """A field by its name: ``event.arg("gsi")``."""
        return self.args[event_type(self.name).index[field]]

    @property
    def fields(self) -> dict[str, Arg]:
        """The fields by name."""
        return dict(zip(event_type(self.name).fields, self.args, strict=True))

    @property
    def text(self) -> str:
        """The event's text as its tracer prints it, without name and time."""
        return event_type(self.name).format(self.args)


_FIELD: Final = re.compile(r"\{(\w+)(?:\?([^}]*)|:(#?0?\d*[dxws]))\}")


def _hex(text: str) -> int:
    return int(text, 16)


_PARSERS: Final[Mapping[str, tuple[str, Callable[[str], Arg]]]] = {
    "d": (r"(-?\d+)", int),
    "x": (r"([0-9a-f]+)", _hex),
    "#x": (r"0x([0-9a-f]+)", _hex),
    "w": (r"([^\s|()]+)", str),
    "s": (r"(.*?)", str),
}


@dataclass(frozen=True)
class EventType:
    """One tracepoint: its name, its text template, and what the fields are."""

    name: str
    template: str
    fields: tuple[str, ...] = field(init=False)
    index: Mapping[str, int] = field(init=False, repr=False)
    _regex: str = field(init=False, repr=False)
    _convert: tuple[Callable[[str], Arg] | None, ...] = field(init=False, repr=False)
    _printers: tuple[str | tuple[str, str], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names: list[str] = []
        pattern: list[str] = []
        convert: list[Callable[[str], Arg] | None] = []
        printers: list[str | tuple[str, str]] = []
        position = 0
        for match in _FIELD.finditer(self.template):
            literal = self.template[position : match.start()]
            position = match.end()
            name, flag, spec = match.groups()
            pattern.append(re.escape(literal))
            printers.append(literal)
            names.append(name)
            if flag is not None:
                pattern.append(f"({re.escape(flag)})?")
                convert.append(None)
                printers.append(("flag", flag))
                continue
            padded = re.fullmatch(r"#0(\d+)x", spec)
            regex, converter = _PARSERS["#x" if padded else spec]
            pattern.append(regex)
            convert.append(converter)
            printers.append(("spec", f"#0{int(padded[1]) + 2}x" if padded else spec))
        tail = self.template[position:]
        pattern.append(re.escape(tail))
        printers.append(tail)
        set_ = object.__setattr__
        set_(self, "fields", tuple(names))
        set_(self, "index", {name: i for i, name in enumerate(names)})
        set_(self, "_regex", "".join(pattern))
        set_(self, "_convert", tuple(convert))
        set_(self, "_printers", tuple(printers))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # Compiled when first asked for: fifty of them would take a sixth of a VMM's imports.
        return re.compile(self._regex)

    def parse(self, text: str) -> tuple[Arg, ...]:
        """The fields of ``text``, or :class:`EventError` where it does not fit the template."""
        match = self._pattern.fullmatch(text) if len(text) <= MAX_TEXT else None
        if match is None:
            shown = text[:MAX_TEXT]
            raise EventError(f"{self.name}: {shown!r}", f"expected {self.template!r}")
        return tuple(
            [
                group is not None if convert is None else convert(group)
                for convert, group in zip(self._convert, match.groups(), strict=True)
            ]
        )

    def format(self, args: Iterable[Arg]) -> str:
        """The text of ``args``, exactly as the tracer prints it."""
        values = iter(args)
        out: list[str] = []
        for printer in self._printers:
            if isinstance(printer, str):
                out.append(printer)
                continue
            kind, spec = printer
            value = next(values)
            if kind == "flag":
                out.append(spec if value else "")
            else:
                out.append(str(value) if spec in ("w", "s", "d") else format(value, spec))
        return "".join(out)

    def args(self, **fields: Arg) -> tuple[Arg, ...]:
        """``fields`` in the order of the template; :class:`EventError` for a wrong set of names."""
        if fields.keys() != self.index.keys():
            raise EventError(
                f"{self.name}: fields {sorted(fields)}", f"expected {sorted(self.fields)}"
            )
        return tuple(fields[name] for name in self.fields)


MAX_TEXT: Final = 2000
"""Characters of an event's text: far above any tracer's, and few enough for any number in it."""

_LAPIC_MESSAGE: Final = "apicid {apicid:x} vec {vector:d} ({delivery_mode:w}|{trigger:w})"
_RTE: Final = "dst {dst:x} vec {vector:d} ({delivery_mode:w}|{dest_mode:w}|{trigger:w}"

KVM_EVENTS: Final[Mapping[str, EventType]] = {
    name: EventType(name, template)
    for name, template in {
        "kvm_set_irq": "gsi {gsi:d} level {level:d} source {source:d}",
        "kvm_ioapic_set_irq": f"pin {{pin:d}} {_RTE}{{masked?|masked}}){{coalesced? (coalesced)}}",
        "kvm_ioapic_delayed_eoi_inj": f"{_RTE}{{masked?|masked}})",
        "kvm_msi_set_irq": f"{_RTE}{{rh?|rh}})",
        "kvm_pic_set_irq": "chip {chip:d} pin {pin:d} ({trigger:w}{masked?|masked})"
        "{coalesced? (coalesced)}",
        "kvm_apic": "apic_{access:w} {register:w} = {value:#x}",
        "kvm_apic_ipi": "dst {dst:x} vec {vector:d} "
        "({delivery_mode:w}|{dest_mode:w}|{level:w}|{trigger:w}|{shorthand:w})",
        "kvm_apic_accept_irq": _LAPIC_MESSAGE,
        "kvm_apicv_accept_irq": _LAPIC_MESSAGE,
        "kvm_eoi": "apicid {apicid:x} vector {vector:d}",
        "kvm_pv_eoi": "apicid {apicid:x} vector {vector:d}",
        "kvm_ack_irq": "irqchip {irqchip:s} pin {pin:d}",
        "kvm_inj_virq": "{kind:s} {vector:#x}{reinjected? [reinjected]}",
        "kvm_userspace_exit": "reason {reason:w} ({number:d})",
        "kvm_msr": "msr_{access:w} {msr:x} = {value:#x}{gp? (#GP)}",
        "kvm_mmio": "mmio {access:s} len {length:d} gpa {gpa:#x} val {value:#x}",
        "kvm_pio": "pio_{access:w} at {port:#x} size {size:d} count {count:d} val {value:#x} "
        "{more?(...)}",
    }.items()
}
"""The kernel's ``kvm:*`` events that interrupts need."""

QEMU_EVENTS: Final[Mapping[str, EventType]] = {
    name: EventType(name, template)
    for name, template in {
        "pic_update_irq": "master {master:d} imr {imr:d} irr {irr:d} padd {priority_add:d}",
        "pic_set_irq": "master {master:d} irq {irq:d} level {level:d}",
        "pic_interrupt": "irq {irq:d} intno {vector:d}",
        "pic_ioport_write": "master {master:d} addr {addr:#x} val {value:#x}",
        "pic_ioport_read": "master {master:d} addr {addr:#x} val {value:#x}",
        "ioapic_set_irq": "vector: {pin:d} level: {level:d}",
        "ioapic_set_remote_irr": "set remote irr for pin {pin:d}",
        "ioapic_clear_remote_irr": "clear remote irr for pin {pin:d} vector {vector:d}",
        "ioapic_eoi_broadcast": "EOI broadcast for vector {vector:d}",
        "ioapic_eoi_delayed_reassert": "delayed reassert on EOI broadcast for vector {pin:d}",
        "ioapic_mem_read": "ioapic mem read addr {addr:#x} regsel: {regsel:#x} size {size:#x} "
        "retval {value:#x}",
        "ioapic_mem_write": "ioapic mem write addr {addr:#x} regsel: {regsel:#x} size {size:#x} "
        "val {value:#x}",
        "apic_local_deliver": "vector {lvt:d} delivery mode {delivery_mode:d}",
        "apic_deliver_irq": "dest {dst:d} dest_mode {dest_mode:d} delivery_mode {delivery_mode:d} "
        "vector {vector:d} trigger_mode {trigger:d}",
        "apic_mem_readl": "{addr:#x} = {value:#08x}",
        "apic_mem_writel": "{addr:#x} = {value:#08x}",
        "apic_register_read": "register {index:#02x} = {value:#x}",
        "apic_register_write": "register {index:#02x} = {value:#x}",
        "cpu_set_apic_base": "{value:#016x}",
        "cpu_get_apic_base": "{value:#016x}",
        "x86_gsi_interrupt": "GSI interrupt #{gsi:d} level:{level:d}",
        "x86_pic_interrupt": "PIC interrupt #{irq:d} level:{level:d}",
        "kvm_irqchip_commit_routes": "",
        "kvm_irqchip_add_msi_route": "dev {device:s} vector {vector:d} virq {gsi:d}",
        "kvm_irqchip_update_msi_route": "Updating MSI route virq={gsi:d}",
        "kvm_irqchip_release_virq": "virq {gsi:d}",
        "kvm_resample_fd_notify": "gsi {gsi:d}",
        "kvm_run_exit": "cpu_index {vcpu:d}, reason {reason:d}",
        "hardware_int": "INT={vector:#02x} TR={task:w}",
    }.items()
}
"""QEMU's trace events of the interrupt controllers, 7.2 and 10.0.

``hardware_int`` is what ``-d int`` says under TCG when a CPU takes an interrupt
(``target/i386/tcg``: x86_cpu_exec_interrupt): its vector, and the base of that CPU's task segment,
``?`` where it is not known."""

VMM_EVENTS: Final[Mapping[str, EventType]] = {
    "kvm_chips": EventType("kvm_chips", "cpu {cpu:d}, changed: {registers:s}"),
}
"""What the VMM of the live chips logs beside events with QEMU's names: ``kvm_chips``, in ``on``
after each exit to user space, says which registers of KVM's chips have changed (``kvm/shown.py``).
"""

HARNESS_EVENTS: Final[Mapping[str, EventType]] = {
    "mark": EventType("mark", "{text:s}"),
    "lost": EventType("lost", "{count:d} events lost on CPU {cpu:d}"),
}
"""Marks that the harness writes into a trace, and losses that a tracer admits."""

MODEL_EVENTS: Final[Mapping[str, EventType]] = {
    "ignored": EventType("ignored", "{chip:w} {what:s}"),
    "vcpu_request": EventType("vcpu_request", "{request:w}"),
    "vcpu_kick": EventType("vcpu_kick", ""),
    "vcpu_enter": EventType("vcpu_enter", "intr_info {intr_info:#08x}"),
}
"""What only the chips can tell: inputs that hardware, too, ignores without a trace, and the links
of the chain accept, request, kick, enter, inject for which there is no tracepoint."""

EVENT_TYPES: Final[Mapping[str, EventType]] = {
    **KVM_EVENTS,
    **QEMU_EVENTS,
    **VMM_EVENTS,
    **HARNESS_EVENTS,
    **MODEL_EVENTS,
}


def event_type(name: str) -> EventType:
    """The type of that name, or :class:`EventError` for an unknown one."""
    try:
        return EVENT_TYPES[name]
    except KeyError:
        raise EventError(
            f"unknown event {name!r}", None, "the known ones are in userspace_chip.events"
        ) from None


def check_names(names: Iterable[str]) -> None:
    """Where a table is by events' names: :class:`EventError` for an unknown one."""
    for name in names:
        event_type(name)
