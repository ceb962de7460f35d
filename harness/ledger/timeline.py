"""The way of each interrupt in time: from line to IOAPIC, local APIC, vCPU, and its EOI.

It is the ledger's bookkeeper that knows in every mode what was accepted, taken and ended; a
:class:`TimelineBuilder` listens to it and keeps when.  What is on one track never overlaps, but on
a vCPU's, where the handler of a higher vector is nested in that of a lower one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from harness.ledger.bookkeeper import Bookkeeper
from harness.ledger.ledger import Ledger
from harness.ledger.rules.base import Observer
from harness.ledger.rules.state import Cpu
from harness.model.case import Irqchip
from userspace_chip.events import Event
from userspace_chip.lapic_registers import EOI, LVT_NAMES

MAX_INTERRUPTS: Final = 50_000
"""Number of interrupts kept of a case by default."""
_WAITING: Final = 16
"""Number of assertions of a pin that are kept until it is free, or one is accepted."""


class TrackKind(StrEnum):
    """What a track is of, in the order of an interrupt's way."""

    LINE = "line"
    PIN = "pin"
    LAPIC = "lapic"
    VCPU = "vcpu"


@dataclass(frozen=True, order=True)
class Track:
    """A line, a pin or a vCPU by its number, or a vector of the local APIC ``number``."""

    kind: TrackKind
    number: int
    vector: int | None = None


@dataclass(frozen=True)
class Slice:
    """Something that lasted, or (an EOI, a merge) was at a moment: both times are equal then.

    ``begins`` and ``ends`` order what has the same time.  ``flow`` is the interrupt that it is a
    part of; ``is_open``: the recording ended before it did.
    """

    track: Track
    name: str
    begin_ns: int
    end_ns: int
    begins: int
    ends: int
    flow: int | None = None
    vector: int | None = None
    is_open: bool = False


@dataclass(frozen=True)
class Depth:
    """How many vectors a local APIC has in IRR, and in ISR, from a time on."""

    time_ns: int
    cpu: int
    irr: int
    isr: int


@dataclass(frozen=True)
class Timeline:
    """The interrupts of a case; times are the recording's, in ns.

    ``ended`` are the EOIs: as many as the ledger counts, where nothing was ``cut``: the number of
    interrupts that came after the last one that is here.  ``merged`` are the acceptances that came
    to nothing: pending already, or dropped by a local APIC that is disabled.
    """

    slices: tuple[Slice, ...]
    ended: tuple[Slice, ...]
    merged: tuple[Slice, ...]
    depths: tuple[Depth, ...]
    ledger: Ledger
    cut: int


@dataclass
class _Open:
    """A slice that has not ended."""

    track: Track
    name: str
    begin_ns: int
    begins: int
    flow: int
    vector: int | None


@dataclass
class _PinState:
    """What an IOAPIC's pin is about."""

    line: _Open | None = None
    waiting: deque[int] = field(default_factory=lambda: deque(maxlen=_WAITING))
    """The assertions that no local APIC has accepted yet, by their flow."""
    delivered: _Open | None = None
    cpus: set[int] = field(default_factory=set)
    """Who has accepted what was delivered, and not ended it."""


class TimelineBuilder(Observer):
    """Takes events with :meth:`add`; :meth:`timeline` gives what became of them."""

    def __init__(
        self,
        irqchip: Irqchip,
        *,
        smp: int = 1,
        ioapics: int = 1,
        limit: int = MAX_INTERRUPTS,
    ) -> None:
        self._books = Bookkeeper(irqchip, smp=smp, ioapics=ioapics, observer=self)
        self._checks_pins = ioapics == 1
        self._limit = limit
        self._now_ns = 0
        self._order = 0
        self._flows = 0
        self._cut = 0
        self._slices: list[Slice] = []
        self._ended: list[Slice] = []
        self._merged: list[Slice] = []
        self._depths: list[Depth] = []
        self._last_depth: dict[int, tuple[int, int]] = {}
        self._touched: dict[int, Cpu] = {}
        self._pins: dict[int, _PinState] = {}
        self._pending: dict[tuple[int, int], deque[_Open]] = {}
        """By CPU and vector: accepted and not taken; under TCG one that is in service, too."""
        self._in_service: dict[int, list[_Open]] = {}
        """By CPU, the innermost handler last."""
        self._last_end: dict[int, int] = {}
        self._eoi_ns: dict[int | None, tuple[int, int]] = {}
        """By thread: the place and time of its last write to the EOI register."""

    def add(self, event: Event) -> None:
        """Take ``event`` into account; a time that goes back counts as that of the one before."""
        self._now_ns = max(self._now_ns, event.time_ns)
        self._books.add(event)
        if (shift := _REGISTER_WRITES.get(event.name)) is not None:
            if int(event.args[0]) << shift == EOI:
                self._eoi_ns[event.vcpu] = self._books.place, self._now_ns
        elif event.name in _LINE_EVENTS:
            self._line_moved(int(event.args[0]))
        if self._touched:
            self._count_depths()

    def timeline(self, *, damage: str | None = None) -> Timeline:
        """What there was; what had not ended is cut off at the last event."""
        ledger = self._books.close(damage=damage)
        if self._touched:
            self._count_depths()
        left = [opened for queue in self._pending.values() for opened in queue]
        for state in self._pins.values():
            left += [opened for opened in (state.line, state.delivered) if opened is not None]
        for opened in left:
            self._close(opened, is_open=True)
        for stack in self._in_service.values():
            while stack:
                self._close(stack.pop(), is_open=True)
        return Timeline(
            tuple(self._slices),
            tuple(self._ended),
            tuple(self._merged),
            tuple(self._depths),
            ledger,
            self._cut,
        )

    # --- Slices ---------------------------------------------------------------------------------

    def _next(self) -> int:
        self._order += 1
        return self._order

    def _new_flow(self) -> int:
        self._flows += 1
        return self._flows

    @property
    def _is_full(self) -> bool:
        return self._flows >= self._limit

    def _open(
        self,
        track: Track,
        name: str,
        flow: int,
        vector: int | None = None,
        begin_ns: int | None = None,
    ) -> _Open:
        begin_ns = self._now_ns if begin_ns is None else begin_ns
        return _Open(track, name, begin_ns, self._next(), flow, vector)

    def _close(self, opened: _Open, *, at_ns: int | None = None, is_open: bool = False) -> None:
        end_ns = max(opened.begin_ns, self._now_ns if at_ns is None else at_ns)
        self._slices.append(
            Slice(
                opened.track,
                opened.name,
                opened.begin_ns,
                end_ns,
                opened.begins,
                self._next(),
                opened.flow,
                opened.vector,
                is_open,
            )
        )

    def _moment(self, cpu: Cpu, vector: int, name: str, at_ns: int, flow: int | None) -> Slice:
        order = self._next()
        track = Track(TrackKind.LAPIC, cpu.number, vector)
        return Slice(track, name, at_ns, at_ns, order, order, flow, vector)

    # --- Lines and pins -------------------------------------------------------------------------

    def _state(self, number: int) -> _PinState:
        return self._pins.setdefault(number, _PinState())

    def _line_moved(self, gsi: int) -> None:
        """A line of the IOAPIC went up or down; the books have it already."""
        if gsi >= len(self._books.pins):
            return
        number = gsi or 2  # the PIT's line is wired to pin 2
        is_high = bool(self._books.pins[number].lines)
        state = self._state(number)
        if is_high and state.line is None and not self._is_full:
            flow = self._new_flow()
            state.line = self._open(Track(TrackKind.LINE, number), "high", flow)
            state.waiting.append(flow)
        elif not is_high and state.line is not None:
            self._close(state.line)
            state.line = None

    def _deliver(self, number: int, vector: int, flow: int, cpu: int) -> None:
        """The pin's interrupt is on its way, until its EOI."""
        state = self._state(number)
        state.cpus.add(cpu)
        if state.delivered is None:
            name = f"pin {number}, vector {vector:#x}"
            state.delivered = self._open(Track(TrackKind.PIN, number), name, flow, vector)

    def _pin_of(self, cpu: Cpu, vector: int) -> int | None:
        """The pin that sent ``vector``: one with this vector whose line was raised, or is high."""
        if not self._checks_pins or any(own == vector for own in cpu.lvts.values()):
            return None
        mine = [p for p in self._books.pins if p.known and p.vector == vector and p.fixed]
        raised = [p for p in mine if p.number in self._pins and self._pins[p.number].waiting]
        for pin in (*raised, *(p for p in mine if p.lines)):
            return pin.number
        return None

    # --- What the books conclude ----------------------------------------------------------------

    def accepted(self, cpu: Cpu, vector: int) -> None:
        """A local APIC took a message; of whom, as far as that shows."""
        self._touched[cpu.number] = cpu
        number = self._pin_of(cpu, vector)
        flow = None
        if number is not None and (waiting := self._state(number).waiting):
            flow = waiting.pop()
            waiting.clear()
        if flow is None:
            if self._is_full:
                self._cut += 1
                return
            flow = self._new_flow()
        if not cpu.enabled:
            self._merged.append(self._moment(cpu, vector, "dropped", self._now_ns, flow))
            return
        track = Track(TrackKind.LAPIC, cpu.number, vector)
        queue = self._pending.setdefault((cpu.number, vector), deque())
        if number is not None:
            self._deliver(number, vector, flow, cpu.number)
        if queue and (self._books.sees_taking or len(queue) > 1):
            self._merged.append(self._moment(cpu, vector, "merged", self._now_ns, flow))
            return
        queue.append(self._open(track, self._name(cpu, vector, number), flow, vector))

    def _name(self, cpu: Cpu, vector: int, pin: int | None) -> str:
        if pin is not None:
            return f"{vector:#x} of pin {pin}"
        for register, own in cpu.lvts.items():
            if own == vector:
                name = LVT_NAMES[register] if isinstance(register, int) else str(register)
                return f"{vector:#x} of {name.removeprefix('APIC_')}"
        return f"{vector:#x}"

    def taken(self, cpu: Cpu, vector: int) -> None:
        """From IRR to ISR: the handler begins."""
        self._touched[cpu.number] = cpu
        if (opened := self._no_longer_pending(cpu, vector)) is not None:
            self._close(opened)
            self._begin_service(cpu, opened, None)

    def ended(self, cpu: Cpu, vector: int, index: int, was_taken: bool | None) -> None:
        """The handler ends; one whose begin was not seen began when it could at the earliest."""
        self._touched[cpu.number] = cpu
        at_ns = self._time_of(index)
        stack = self._in_service.get(cpu.number, [])
        own = next((each for each in reversed(stack) if each.vector == vector), None)
        if own is None and (opened := self._no_longer_pending(cpu, vector)) is not None:
            began_ns = max(opened.begin_ns, min(at_ns, self._last_end.get(cpu.number, 0)))
            self._close(opened, at_ns=began_ns)
            own = self._begin_service(cpu, opened, began_ns)
            stack = self._in_service[cpu.number]
        while own is not None and own in stack:
            self._close(stack.pop(), at_ns=at_ns)
        self._last_end[cpu.number] = at_ns
        flow = None if own is None else own.flow
        if self._is_full and own is None:
            return
        self._ended.append(self._moment(cpu, vector, f"EOI {vector:#x}", at_ns, flow))
        self._end_pins(cpu, vector, at_ns)

    def reset(self, cpu: Cpu) -> None:
        """INIT: what was pending is gone, what was in service counts as ended."""
        self._touched[cpu.number] = cpu
        for (number, _), queue in self._pending.items():
            while number == cpu.number and queue:
                self._close(queue.popleft())
        for vector in range(256):
            if cpu.isr >> vector & 1:
                self.ended(cpu, vector, self._books.place, True)

    def _no_longer_pending(self, cpu: Cpu, vector: int) -> _Open | None:
        queue = self._pending.get((cpu.number, vector))
        return queue.popleft() if queue else None

    def _begin_service(self, cpu: Cpu, pending: _Open, begin_ns: int | None) -> _Open:
        track = Track(TrackKind.VCPU, cpu.number)
        opened = self._open(track, pending.name, pending.flow, pending.vector, begin_ns)
        self._in_service.setdefault(cpu.number, []).append(opened)
        return opened

    def _time_of(self, index: int) -> int:
        """When the event at ``index`` was: under TCG an EOI shows only after it whose it was."""
        times = (time_ns for place, time_ns in self._eoi_ns.values() if place == index)
        return next(times, self._now_ns)

    def _end_pins(self, cpu: Cpu, vector: int, at_ns: int) -> None:
        for state in self._pins.values():
            opened = state.delivered
            if opened is None or opened.vector != vector:
                continue
            state.cpus.discard(cpu.number)
            if not state.cpus:
                self._close(opened, at_ns=at_ns)
                state.delivered = None

    def _count_depths(self) -> None:
        for number, cpu in self._touched.items():
            irr = cpu.irr.bit_count() + sum(count > 0 for count in cpu.outstanding.values())
            depth = irr, cpu.isr.bit_count()
            if self._last_depth.get(number) != depth and not self._is_full:
                self._last_depth[number] = depth
                self._depths.append(Depth(self._now_ns, number, *depth))
        self._touched.clear()


_REGISTER_WRITES: Final = {"apic_mem_writel": 0, "apic_register_write": 4}
"""By event: by how much its first field is to be shifted to be a register's offset."""
_LINE_EVENTS: Final = frozenset({"kvm_set_irq", "ioapic_set_irq"})


def timeline(
    events: Iterable[Event],
    irqchip: Irqchip,
    *,
    smp: int = 1,
    ioapics: int = 1,
    limit: int = MAX_INTERRUPTS,
) -> Timeline:
    """The timeline of a recording's ``events``."""
    builder = TimelineBuilder(irqchip, smp=smp, ioapics=ioapics, limit=limit)
    for event in events:
        builder.add(event)
    return builder.timeline()
