"""What the guest did to its interrupt controllers, and what it got of them: one stream a subject.

A real boot never takes the same timer ticks twice, so that two recordings cannot be aligned event
by event, and times mean nothing.  What the same guest does the same way every time is aligned:

* *set-up*: the writes of each register (an IOAPIC entry, a local APIC's register of one CPU, a
  PIC's port), in their order.  Registers that time drives are left out: EOI, the timer's counts,
  IPIs with a vector, the PIC's EOI commands and masks.
* *handling*: how interrupts of each source were handled on each CPU, each way once: taken and
  ended; with the entry written in between.  A source is a pin, an LVT entry, the PIC's input, or a
  vector that messages and IPIs carry.
* *identity*: the values of version registers.

How often is for the counters and the ledger.  Repetitions stand once in a stream (:func:`shape`):
a loop in the guest runs as often as it takes.

It is the ledger's bookkeeper that listens, since it knows in every mode what an EOI ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from harness.ledger.bookkeeper import Bookkeeper
from harness.ledger.ledger import Ledger
from harness.ledger.rules.base import Observer
from harness.ledger.rules.state import BY_IPI, BY_MSI, Args, Cpu, Pin
from harness.model.case import Irqchip
from harness.model.counters import CounterSet
from userspace_chip.architecture import (
    IOAPIC_BASES,
    IOAPICVER,
    IOREGSEL,
    IOWIN,
    MASTER_COMMAND,
    MASTER_DATA,
    SLAVE_COMMAND,
    SLAVE_DATA,
)
from userspace_chip.events import Event
from userspace_chip.lapic_registers import LVT_NAMES, SHORT_NAMES, VERSION

LONGEST_LOOP: Final = 6
"""A repetition of up to this number of steps stands once."""

_TIME_DRIVEN: Final = frozenset({"EOI", "TMICT", "ICR2"})
_LVTS: Final[Mapping[object, str]] = {
    **{f"APIC_{name}": name for name in LVT_NAMES},
    **dict(enumerate(LVT_NAMES)),
}
"""The keys of a bookkeeper's LVTs: KVM's names, or QEMU's indexes."""
_MODES: Final = ("Fixed", "LowPrio", "SMI", "reserved", "NMI", "INIT", "SIPI", "ExtINT")
_PIC_PORTS: Final[Mapping[int, str]] = {
    MASTER_COMMAND: "master/command",
    MASTER_DATA: "master/data",
    SLAVE_COMMAND: "slave/command",
    SLAVE_DATA: "slave/data",
}


_Handler: TypeAlias = Callable[[Event, Args], None]


class GuestStep(NamedTuple):
    """Something that the guest did or got: the event's place in the recording, from 0, and what."""

    place: int
    what: str


@dataclass(frozen=True)
class Stream:
    """The steps of one subject; with ``is_set`` their order means nothing and each stands once.

    ``counts`` says of a set how often each was there, where that matters.
    """

    steps: tuple[GuestStep, ...]
    is_set: bool = False
    counts: Mapping[str, int] | None = None


@dataclass(frozen=True)
class View:
    """A recording from the guest's side, by subject, and its account.

    Where ``sees_taking`` is False the books have interrupts' ends only, and not their taking.
    """

    streams: Mapping[str, Stream]
    ledger: Ledger
    sees_taking: bool = True


class GuestView(Observer):
    """Takes events with :meth:`add`; :meth:`view` gives what the guest saw."""

    def __init__(self, irqchip: Irqchip, *, smp: int = 1, ioapics: int = 1) -> None:
        self._books = Bookkeeper(irqchip, smp=smp, ioapics=ioapics, observer=self)
        self._checks_pins = ioapics == 1
        self._in_kernel = irqchip is Irqchip.ON
        self._steps: dict[str, list[GuestStep]] = {}
        self._reads: dict[str, dict[str, GuestStep]] = {}
        self._ways: dict[str, dict[str, GuestStep]] = {}
        self._ways_counts: dict[str, dict[str, int]] = {}
        self._select = 0
        """The IOAPIC's register that its window shows."""
        self._pic_words: dict[str, int] = {}
        """By PIC: how many initialisation words are to come."""
        self._between: dict[int, list[str]] = {}
        """By pin: what was written to its entry while its interrupt was in service."""
        self._seen: dict[str, _Handler] = {
            "kvm_apic": self._kvm_apic,
            "kvm_mmio": self._kvm_mmio,
            "kvm_pio": self._kvm_pio,
            "pic_ioport_write": self._pic_written,
            "pic_interrupt": self._pic_interrupt,
            "apic_mem_readl": self._lapic_read,
            "apic_register_read": self._lapic_read,
            "apic_mem_writel": self._lapic_mem_written,
            "apic_register_write": self._lapic_register_written,
            "ioapic_mem_read": self._ioapic_read,
        }

    def add(self, event: Event) -> None:
        """Take ``event`` into account."""
        self._books.add(event)
        seen = self._seen.get(event.name)
        if seen is not None:
            seen(event, event.args)

    def view(
        self, *, damage: str | None = None, handled: Mapping[str, CounterSet] | None = None
    ) -> View:
        """The streams, and the ledger of :meth:`Bookkeeper.close`."""
        ledger = self._books.close(damage=damage, handled=handled)
        streams = {name: Stream(shape(steps)) for name, steps in self._steps.items()}
        for name, reads in self._reads.items():
            streams[name] = Stream(tuple(reads.values()), True)
        for name, ways in self._ways.items():
            streams[name] = Stream(tuple(ways.values()), True, self._ways_counts[name])
        return View(dict(sorted(streams.items())), ledger, self._books.sees_taking)

    # --- Registers ------------------------------------------------------------------------------

    def _written(self, subject: str, what: str) -> None:
        self._steps.setdefault(subject, []).append(GuestStep(self._books.place, what))

    def _read_once(self, subject: str, value: int) -> None:
        what = f"{value:#x}"
        self._reads.setdefault(subject, {}).setdefault(what, GuestStep(self._books.place, what))

    def entry_written(self, pin: Pin, low: int | None) -> None:
        """One half of an IOAPIC entry: its words, its destination once it is whole."""
        if not self._checks_pins:
            return
        subject = f"ioapic/pin{pin.number}"
        if low is not None:
            self._written(f"{subject}/entry", _entry(low))
            if (done := self._between.get(pin.number)) is not None:
                done.append("masked" if pin.masked else "written")
        if pin.known and not pin.masked:
            mode = "logical" if pin.logical else "physical"
            self._written(f"{subject}/destination", f"{mode} {pin.dst:#x}")

    def _kvm_apic(self, event: Event, args: Args) -> None:
        access, register, value = args
        name = str(register).removeprefix("APIC_")
        if access == "write":
            self._lapic_written(event, name, value)
        elif name == "LVR":
            self._read_once("lapic/LVR", value)

    def _lapic_mem_written(self, event: Event, args: Args) -> None:
        self._lapic_index_written(event, args[0] >> 4, args[1])

    def _lapic_register_written(self, event: Event, args: Args) -> None:
        self._lapic_index_written(event, args[0], args[1])

    def _lapic_index_written(self, event: Event, index: int, value: int) -> None:
        offset = index << 4
        self._lapic_written(event, SHORT_NAMES.get(offset, f"{offset:#x}"), value)

    def _lapic_written(self, event: Event, name: str, value: int) -> None:
        if name in _TIME_DRIVEN or event.vcpu is None:
            return
        what = f"{value & 0xFFFFFFFF:#x}"
        if name == "ICR":
            mode = value >> 8 & 7
            if mode in (0, 1):
                return
            what = f"{_MODES[mode]}, {'assert' if value >> 14 & 1 else 'de-assert'}"
        self._written(f"lapic{event.vcpu}/{name}", what)

    def _lapic_read(self, event: Event, args: Args) -> None:
        offset, value = args
        if offset == (VERSION if event.name == "apic_mem_readl" else VERSION >> 4):
            self._read_once("lapic/LVR", value)

    def _kvm_mmio(self, event: Event, args: Args) -> None:
        access, _length, address, value = args
        if not self._in_kernel or address & ~0xFF != IOAPIC_BASES[0]:
            return
        if access == "write" and address == IOAPIC_BASES[0] + IOREGSEL:
            self._select = value & 0xFF
        elif access == "read" and address == IOAPIC_BASES[0] + IOWIN and self._select == IOAPICVER:
            self._read_once("ioapic/VER", value)

    def _ioapic_read(self, event: Event, args: Args) -> None:
        address, select, _size, value = args
        if address & 0xFF == IOWIN and select == IOAPICVER:
            self._read_once("ioapic/VER", value)

    def _kvm_pio(self, event: Event, args: Args) -> None:
        access, port, value = args[0], args[1], args[4]
        if access == "write" and port in _PIC_PORTS and self._in_kernel:
            self._pic_port(_PIC_PORTS[port], value)

    def _pic_written(self, event: Event, args: Args) -> None:
        master, address, value = args
        chip = "master" if master else "slave"
        self._pic_port(f"{chip}/{'data' if address & 1 else 'command'}", value)

    def _pic_port(self, port: str, value: int) -> None:
        """Commands but EOIs, and initialisation words; masks are written at every tick."""
        chip, _, register = port.partition("/")
        if register == "data":
            self._pic_words[chip] = left = self._pic_words.get(chip, 0) - 1
            if left < 0:
                return
        elif value & 0x10:  # ICW1; ICW2 and ICW3 follow, and ICW4 where bit 0 says so
            self._pic_words[chip] = 2 + (value & 1)
        elif value & 0x18 == 0 and value >> 5 & 1:
            return
        self._written(f"pic/{port}", f"{value:#04x}")

    # --- Interrupts -----------------------------------------------------------------------------

    def _way(self, subject: str, what: str, index: int) -> None:
        self._ways.setdefault(subject, {}).setdefault(what, GuestStep(index, what))
        counts = self._ways_counts.setdefault(subject, {})
        counts[what] = counts.get(what, 0) + 1

    def taken(self, cpu: Cpu, vector: int) -> None:
        """From here on, what is written to its pins' entries is written in its handler."""
        for pin in self._books.pins:
            if pin.known and pin.vector == vector:
                self._between[pin.number] = []

    def ended(self, cpu: Cpu, vector: int, index: int, was_taken: bool | None) -> None:
        """One way of handling it; where takings are not seen, its end alone."""
        done: list[str] = []
        if was_taken is not None:
            done.append("taken" if was_taken else "not taken")
            for pin in self._books.pins:
                if pin.known and pin.vector == vector:
                    done += self._between.pop(pin.number, [])
        self._way(self._source(cpu, vector), ", ".join([*done, "ended"]), index)

    def pic_taken(self, cpu: Cpu, number: int) -> None:
        """ExtINT of KVM's PIC."""
        self._way(f"cpu{cpu.number}/pic irq{number}", "taken", self._books.place)

    def _pic_interrupt(self, event: Event, args: Args) -> None:
        self._way(f"cpu0/pic irq{args[1] & 7}", "taken", self._books.place)

    def _source(self, cpu: Cpu, vector: int) -> str:
        """Where ``vector`` comes from, in words that do not depend on its number where possible."""
        place = f"cpu{cpu.number}/"
        for register, own in cpu.lvts.items():
            if own == vector:
                return place + _LVTS.get(register, str(register))
        for pin in self._books.pins:
            if pin.known and pin.vector == vector and pin.fixed:
                return f"{place}ioapic pin{pin.number}"
        row = cpu.row(vector)
        kind = "ipi" if row[BY_IPI] > row[BY_MSI] else "msi" if row[BY_MSI] else "vector"
        return f"{place}{kind} {vector}"


def _entry(value: int) -> str:
    """The low half of an entry, without its destination (82093AA, I/O Redirection Table)."""
    words = [
        f"vector {value & 0xFF}",
        _MODES[value >> 8 & 7],
        "low" if value >> 13 & 1 else "high",
        "level" if value >> 15 & 1 else "edge",
    ]
    return ", ".join(words + ["masked"] * (value >> 16 & 1))


def shape(steps: Sequence[GuestStep]) -> tuple[GuestStep, ...]:
    """``steps`` with each immediate repetition, of up to :data:`LONGEST_LOOP` steps, once."""
    kept: list[GuestStep] = []
    for step in steps:
        kept.append(step)
        shortened = True
        while shortened:
            shortened = False
            for length in range(1, min(LONGEST_LOOP, len(kept) // 2) + 1):
                if [s.what for s in kept[-length:]] == [
                    s.what for s in kept[-2 * length : -length]
                ]:
                    del kept[-length:]
                    shortened = True
                    break
    return tuple(kept)
