"""What the guest did to its interrupt controllers, and what it got of them: one stream a subject.

A real boot never takes the same timer ticks twice, so that two recordings cannot be aligned event
by event, and times mean nothing.  What the same guest does the same way every time is aligned:

* *set-up*: the writes of each register (an IOAPIC entry, a local APIC's register of one CPU, a
  PIC's port), in their order.  Registers that time drives are left out: EOI, the timer's counts,
  IPIs with a vector, the PIC's EOI commands and masks.
* *handling*: how interrupts of each source were handled on each CPU, each way once: taken and
  ended; with the entry written in between.  A source is a pin, an LVT entry, the PIC's input, or a
  vector that messages and IPIs carry.
* *identity*: what version registers told.

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
from harness.ledger.rules.state import BY_IPI, BY_MSI, IOAPIC_BASE, PINS, Args, Cpu
from harness.model.case import Irqchip
from harness.model.counters import CounterSet
from userspace_chip.events import Event

LONGEST_LOOP: Final = 6
"""A repetition of up to so many steps stands once."""

LAPIC_REGISTERS: Final[Mapping[int, str]] = {
    0x02: "ID",
    0x03: "LVR",
    0x08: "TASKPRI",
    0x0B: "EOI",
    0x0D: "LDR",
    0x0E: "DFR",
    0x0F: "SPIV",
    0x28: "ESR",
    0x2F: "LVTCMCI",
    0x30: "ICR",
    0x31: "ICR2",
    0x32: "LVTT",
    0x33: "LVTTHMR",
    0x34: "LVTPC",
    0x35: "LVT0",
    0x36: "LVT1",
    0x37: "LVTERR",
    0x38: "TMICT",
    0x3E: "TDCR",
}
"""By offset / 16 (SDM 3A, Local APIC Register Address Map), in the words of KVM's ``kvm_apic``."""

_TIME_DRIVEN: Final = frozenset({"EOI", "TMICT", "ICR2"})
_LVTS: Final[Mapping[object, str]] = {
    **{f"APIC_{name}": name for name in ("LVTT", "LVT0", "LVT1", "LVTPC", "LVTERR", "LVTTHMR")},
    **dict(enumerate(("LVTT", "LVTTHMR", "LVTPC", "LVT0", "LVT1", "LVTERR"))),
}
"""The keys of a bookkeeper's LVTs: KVM's names, or QEMU's indexes."""
_MODES: Final = ("Fixed", "LowPrio", "SMI", "reserved", "NMI", "INIT", "SIPI", "ExtINT")
_PIC_PORTS: Final[Mapping[int, str]] = {
    0x20: "master/command",
    0x21: "master/data",
    0xA0: "slave/command",
    0xA1: "slave/data",
}


_Handler: TypeAlias = Callable[[Event, Args], None]


class Step(NamedTuple):
    """Something that the guest did or got: the event's place in the recording, from 0, and what."""

    place: int
    what: str


@dataclass(frozen=True)
class Stream:
    """The steps of one subject; with ``is_set`` their order means nothing and each stands once.

    ``counts`` says of a set how often each was there, where that matters.
    """

    steps: tuple[Step, ...]
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


class GuestView(Bookkeeper):
    """Takes events with :meth:`add`; :meth:`view` gives what the guest saw."""

    def __init__(self, irqchip: Irqchip, *, smp: int = 1, ioapics: int = 1) -> None:
        super().__init__(irqchip, smp=smp, ioapics=ioapics)
        self._steps: dict[str, list[Step]] = {}
        self._reads: dict[str, dict[str, Step]] = {}
        self._ways: dict[str, dict[str, Step]] = {}
        self._ways_counts: dict[str, dict[str, int]] = {}
        self._pic_words: dict[str, int] = {}
        """By PIC: how many initialisation words are to come."""
        self._between: dict[int, list[str]] = {}
        """By pin: what was written to its entry while its interrupt was in service."""
        listened: dict[str, _Handler] = {
            "kvm_pio": self._pio_seen,
            "pic_ioport_write": self._pic_written,
            "apic_mem_readl": self._lapic_read,
            "apic_register_read": self._lapic_read,
            "ioapic_mem_read": self._ioapic_read,
        }
        for name, listener in listened.items():
            self._handlers[name] = _both(self._handlers.get(name), listener)

    def view(
        self, *, damage: str | None = None, handled: Mapping[str, CounterSet] | None = None
    ) -> View:
        """The streams, and the ledger of :meth:`Bookkeeper.close`."""
        ledger = self.close(damage=damage, handled=handled)
        streams = {name: Stream(shape(steps)) for name, steps in self._steps.items()}
        for name, reads in self._reads.items():
            streams[name] = Stream(tuple(reads.values()), True)
        for name, ways in self._ways.items():
            streams[name] = Stream(tuple(ways.values()), True, self._ways_counts[name])
        return View(dict(sorted(streams.items())), ledger, not self._tcg)

    # --- Registers ------------------------------------------------------------------------------

    def _written(self, subject: str, what: str) -> None:
        self._steps.setdefault(subject, []).append(Step(self._index, what))

    def _read_once(self, subject: str, value: int) -> None:
        what = f"{value:#x}"
        self._reads.setdefault(subject, {}).setdefault(what, Step(self._index, what))

    def _entry_written(self, select: int, value: int) -> None:
        super()._entry_written(select, value)
        number = (select - 0x10) >> 1
        if not 0 <= number < PINS or not self._checks_pins:
            return
        pin, subject = self._pins[number], f"ioapic/pin{number}"
        if not select & 1:
            self._written(f"{subject}/entry", _entry(value))
            if (done := self._between.get(number)) is not None:
                done.append("masked" if pin.masked else "written")
        if pin.known and not pin.masked:
            mode = "logical" if pin.logical else "physical"
            self._written(f"{subject}/destination", f"{mode} {pin.dst:#x}")

    def _kvm_apic(self, event: Event, args: Args) -> None:
        super()._kvm_apic(event, args)
        access, register, value = args
        name = str(register).removeprefix("APIC_")
        if access == "write":
            self._lapic_written(event, name, value)
        elif name == "LVR":
            self._read_once("lapic/LVR", value)

    def _register_written(self, event: Event, index: int, value: int) -> None:
        super()._register_written(event, index, value)
        self._lapic_written(event, LAPIC_REGISTERS.get(index, f"{index << 4:#x}"), value)

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
        if offset == (0x30 if event.name == "apic_mem_readl" else 0x03):
            self._read_once("lapic/LVR", value)

    def _kvm_mmio(self, event: Event, args: Args) -> None:
        super()._kvm_mmio(event, args)
        access, _length, address, value = args
        if access == "read" and address == IOAPIC_BASE + 0x10 and self._select == 1:
            self._read_once("ioapic/VER", value)

    def _ioapic_read(self, event: Event, args: Args) -> None:
        address, select, _size, value = args
        if address & 0xFF == 0x10 and select == 1:
            self._read_once("ioapic/VER", value)

    def _pio_seen(self, event: Event, args: Args) -> None:
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
        self._ways.setdefault(subject, {}).setdefault(what, Step(index, what))
        counts = self._ways_counts.setdefault(subject, {})
        counts[what] = counts.get(what, 0) + 1

    def _take(self, event: Event, cpu: Cpu, vector: int, bit: int) -> None:
        super()._take(event, cpu, vector, bit)
        for pin in self._pins:
            if pin.known and pin.vector == vector:
                self._between[pin.number] = []

    def _ended(self, event: Event, cpu: Cpu, vector: int) -> None:
        taken = cpu.isr >> vector & 1
        super()._ended(event, cpu, vector)
        done = ["taken"] if taken else ["not taken"]
        for pin in self._pins:
            if pin.known and pin.vector == vector:
                done += self._between.pop(pin.number, [])
        self._way(self._source(cpu, vector), ", ".join([*done, "ended"]), self._index)

    def _end_outstanding(self, event: Event, index: int, cpu: Cpu, vector: int) -> None:
        super()._end_outstanding(event, index, cpu, vector)
        self._way(self._source(cpu, vector), "ended", index)

    def _from_pic(self, cpu: Cpu, vector: int) -> bool:
        found = super()._from_pic(cpu, vector)
        if found and self._in_kernel:
            self._way(f"cpu{cpu.number}/pic irq{vector & 7}", "taken", self._index)
        return found

    def _pic_interrupt(self, event: Event, args: Args) -> None:
        super()._pic_interrupt(event, args)
        self._way(f"cpu0/pic irq{args[1] & 7}", "taken", self._index)

    def _source(self, cpu: Cpu, vector: int) -> str:
        """Where ``vector`` comes from, in words that do not hang on its number where possible."""
        place = f"cpu{cpu.number}/"
        for register, own in cpu.lvts.items():
            if own == vector:
                return place + _LVTS.get(register, str(register))
        for pin in self._pins:
            if pin.known and pin.vector == vector and pin.fixed:
                return f"{place}ioapic pin{pin.number}"
        row = cpu.row(vector)
        kind = "ipi" if row[BY_IPI] > row[BY_MSI] else "msi" if row[BY_MSI] else "vector"
        return f"{place}{kind} {vector}"


def _both(first: _Handler | None, second: _Handler) -> _Handler:
    if first is None:
        return second

    def both(event: Event, args: Args) -> None:
        first(event, args)
        second(event, args)

    return both


def _entry(value: int) -> str:
    """The low half of an entry, without its destination (82093AA, I/O Redirection Table)."""
    words = [
        f"vector {value & 0xFF}",
        _MODES[value >> 8 & 7],
        "low" if value >> 13 & 1 else "high",
        "level" if value >> 15 & 1 else "edge",
    ]
    return ", ".join(words + ["masked"] * (value >> 16 & 1))


def shape(steps: Sequence[Step]) -> tuple[Step, ...]:
    """``steps`` with each immediate repetition, of up to :data:`LONGEST_LOOP` steps, once."""
    kept: list[Step] = []
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
