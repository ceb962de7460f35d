"""The state of the chips before and after an event, as far as the recording's events show it.

It is what the ledger's books know: IRR, ISR and TMR of each local APIC, and of each pin of the
IOAPIC its line, its redirection entry and its remote IRR.  Nothing of it is predicted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from harness.ledger.bookkeeper import Bookkeeper
from harness.ledger.rules.state import Cpu, Pin
from harness.model.case import Irqchip
from userspace_chip.bits import bits
from userspace_chip.events import Event


@dataclass(frozen=True)
class ChipRegister:
    """A register, or a part of one, before and after an event; ``-`` where nothing is in it."""

    chip: str
    """``LAPIC 0`` or ``IOAPIC pin 4``."""
    name: str
    before: str
    after: str

    @property
    def changed(self) -> bool:
        """Whether the event changed it."""
        return self.before != self.after


def registers_around(
    events: Iterable[Event], at: int, irqchip: Irqchip, *, smp: int = 1, ioapics: int = 1
) -> tuple[ChipRegister, ...]:
    """The registers before and after event number ``at``, from 0; those that hold nothing are out.

    Of a local APIC all three are there; pins, where two IOAPICs cannot be distinguished, are not.
    """
    books = Bookkeeper(irqchip, smp=smp, ioapics=ioapics)
    stream = iter(events)
    for event in islice(stream, at):
        books.add(event)
    before = _registers(books, with_pins=ioapics == 1)
    for event in islice(stream, 1):
        books.add(event)
    after = _registers(books, with_pins=ioapics == 1)
    return tuple(
        ChipRegister(*key, before.get(key, "-"), after.get(key, "-")) for key in before | after
    )


def _registers(books: Bookkeeper, *, with_pins: bool) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for cpu in books.cpus:
        chip = f"LAPIC {cpu.number}"
        found[chip, "IRR"] = _vectors(cpu.irr | _outstanding(cpu))
        found[chip, "ISR"] = _vectors(cpu.isr)
        found[chip, "TMR"] = _vectors(cpu.level)
    for pin in books.pins if with_pins else ():
        if pin.known and (not pin.masked or pin.lines or pin.remote_irr is not None):
            found[f"IOAPIC pin {pin.number}", "entry"] = _entry(pin)
            found[f"IOAPIC pin {pin.number}", "line"] = "high" if pin.lines else "low"
    return found


def _outstanding(cpu: Cpu) -> int:
    """What a CPU has accepted and not ended, where its taking is not seen."""
    return sum(1 << vector for vector, count in cpu.outstanding.items() if count)


def _vectors(register: int) -> str:
    return ", ".join(f"{vector:#x}" for vector in bits(register)) or "-"


def _entry(pin: Pin) -> str:
    words = [
        f"vector {pin.vector:#x}",
        "level" if pin.level else "edge",
        f"{'logical' if pin.logical else 'physical'} {pin.dst:#x}",
        *(["masked"] if pin.masked else []),
        *(["remote IRR"] if pin.remote_irr is not None else []),
    ]
    return ", ".join(words)
