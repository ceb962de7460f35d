"""What all books have in common: the stream, the findings, the debts, and the chips' state."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from harness.ledger.ledger import (
    STAGES,
    Kind,
    LawResult,
    Ledger,
    LedgerFinding,
    Row,
    RowKind,
    Window,
    check_guest,
    check_laws,
)
from harness.ledger.rules.state import (
    ACCEPTED,
    BY_LVT,
    BY_MSI,
    CHECK_EVERY,
    DROPPED,
    EOI,
    IN_SERVICE,
    INJECTED,
    KEPT_FINDINGS,
    KEPT_OF_SUBJECT,
    KEPT_WARNINGS,
    MERGED,
    NEAR_EVENTS,
    NEAR_NS,
    PENDING,
    RANGES,
    REDELIVERED,
    REDELIVERIES,
    SAME_TIME_NS,
    STUCK_INJECTIONS,
    STUCK_NS,
    Args,
    Cpu,
    Debt,
    Pin,
    Thread,
)
from harness.model.case import Irqchip
from harness.model.counters import CounterSet
from harness.model.marks import LOADED, MarkKind, mark_of
from userspace_chip.architecture import IOAPIC_PINS, IOREDTBL
from userspace_chip.events import Event, Source

NEEDED_SOURCES: Final[Mapping[Irqchip, frozenset[Source]]] = {
    Irqchip.ON: frozenset({"kvm"}),
    Irqchip.SPLIT: frozenset({"kvm", "qemu"}),
    Irqchip.OFF: frozenset({"kvm", "qemu"}),
    Irqchip.TCG: frozenset({"qemu"}),
}
"""Without these an account cannot be given at all."""


class Observer:
    """Is notified of what the books conclude of each event; by default does nothing with it."""

    def entry_written(self, pin: Pin, low: int | None) -> None:
        """Half of an IOAPIC entry was written, ``low`` where it was the low one."""

    def accepted(self, cpu: Cpu, vector: int) -> None:
        """A local APIC took a message with ``vector``."""

    def taken(self, cpu: Cpu, vector: int) -> None:
        """A vCPU took ``vector``."""

    def ended(self, cpu: Cpu, vector: int, index: int, was_taken: bool | None) -> None:
        """The event at ``index`` ended ``vector``; None where takings are not seen."""

    def reset(self, cpu: Cpu) -> None:
        """INIT is about to clear IRR and ISR of ``cpu``."""

    def pic_taken(self, cpu: Cpu, number: int) -> None:
        """A vCPU took an interrupt of KVM's PIC from input ``number`` of one of the two."""


Rule: TypeAlias = Callable[[Event, Args], None]


class Books:
    """Takes events one by one; :meth:`close` gives the ledger.

    ``rules`` are by the event's name: what keeps the books of it.

    ``smp`` is the number of vCPUs.  With ``ioapics`` other than 1 (microvm) pins cannot be
    distinguished in QEMU's events, and are not checked.
    """

    def __init__(
        self,
        irqchip: Irqchip,
        rules: Mapping[str, Rule],
        *,
        smp: int,
        ioapics: int,
        observer: Observer,
    ) -> None:
        self._irqchip = irqchip
        self._rules = rules
        self._observer = observer
        self._smp = smp
        self._checks_pins = ioapics == 1
        self._in_kernel = irqchip is Irqchip.ON
        self._kvm_lapic = irqchip in (Irqchip.ON, Irqchip.SPLIT)
        self._tcg = irqchip is Irqchip.TCG
        """Interrupts are not seen taken, and IRR and ISR are kept as one."""
        # split: the announcement is QEMU's, the delivery the kernel's.
        self._skew_ns = SAME_TIME_NS if irqchip is Irqchip.SPLIT else -1
        self._sources: set[Source] = set()
        self._index = -1
        self._time_ns = 0
        self._cpus: dict[int, Cpu] = {}
        for number in range(smp):
            self._cpu(number)
        self._threads: dict[int | None, Thread] = {None: Thread()}
        self._pins = [Pin(number, [0] * len(STAGES)) for number in range(IOAPIC_PINS)]
        self._pic = [[0] * len(STAGES) for _ in range(16)]
        self._pic_lines = 0
        self._pic_latched = 0
        self._pic_bases: list[int | None] = [None, None]
        self._pic_next = [0, 0]  # which initialisation word is to come
        self._pic_parked: list[int] = []
        self._select = 0
        self._wired = 0  # vectors that an entry of an IOAPIC ever had
        self._named = 0  # vectors that an entry, a message, an IPI or an LVT ever named
        self._debts: deque[Debt] = deque()
        # What QEMU's IOAPIC said that it delivers; its lock orders that among all threads.
        self._announced: list[tuple[Pin, Debt]] = []
        self._findings: list[LedgerFinding] = []
        self._suppressed = 0
        self._found: dict[tuple[Kind, str], int] = {}
        self._warnings: dict[str, int] = {}
        self._damage: str | None = None
        self._hardware = False
        self._taken_total = 0
        self._windows: list[Window] = []
        self._open_window: tuple[str, dict[int, int], dict[int, int]] | None = None

    @property
    def pins(self) -> Sequence[Pin]:
        """The IOAPIC's pins as they are known now."""
        return self._pins

    @property
    def cpus(self) -> Sequence[Cpu]:
        """The local APICs as they are known now, by their numbers."""
        return [cpu for _, cpu in sorted(self._cpus.items())]

    @property
    def sees_taking(self) -> bool:
        """Whether it is seen when a vCPU takes an interrupt, and not only its end."""
        return not self._tcg

    @property
    def place(self) -> int:
        """The place of the last event in the recording, from 0."""
        return self._index

    def add(self, event: Event) -> None:
        """Take ``event`` into account; an error in a rule passes through, as a bug of irqmatrix.

        An event with values that no chip has is left out with a warning.
        """
        self._index += 1
        if event[0] < self._time_ns - SAME_TIME_NS:
            self._warn("times go back; the order is the recording's")
        self._time_ns = event[0]
        self._sources.add(event[1])
        rule = self._rules.get(event[2])
        if rule is not None:
            args: Args = event[4]
            if any(not least <= args[at] < end for at, least, end in RANGES.get(event[2], ())):
                self._warn(f"{event[2]} with values that no chip has")
            else:
                rule(event, args)
        if self._debts and not self._index & (CHECK_EVERY - 1):
            self._collect_debts()

    def close(
        self, *, damage: str | None = None, handled: Mapping[str, CounterSet] | None = None
    ) -> Ledger:
        """The ledger.

        ``damage`` says what is missing from the recording, or is None; ``handled`` are the
        guest's own counters by workload, which close the account.
        """
        self._collect_debts(all_of_them=True)
        if self._tcg:
            for cpu in self._cpus.values():
                self._settle(cpu)
        self._find_stuck()
        if damage is None and (silent := NEEDED_SOURCES[self._irqchip] - self._sources):
            damage = f"no events of {' and '.join(sorted(silent))}"
        if damage is not None and self._damage is None:
            # What is missing may be anywhere: nothing that was found is sure.
            self._damage = damage
            self._findings.clear()
            self._suppressed = 0
        damage = self._damage
        if damage is not None:
            self._warn(f"events are incomplete: {damage}")
        rows = tuple(self._rows())
        laws = check_laws(
            self._irqchip, rows, damage=damage, hardware=self._hardware, taken=not self._tcg
        )
        return Ledger(
            self._irqchip,
            self._index + 1,
            rows,
            (*laws, *self._check_guest(handled or {})),
            tuple(sorted(self._findings, key=lambda finding: finding.index)),
            self._suppressed,
            tuple(
                text if times == 1 else f"{text} ({times} times)"
                for text, times in self._warnings.items()
            ),
        )

    def _check_guest(self, handled: Mapping[str, CounterSet]) -> Iterable[LawResult]:
        for window in self._windows:
            if window.name not in handled or self._damage is not None or self._hardware:
                continue
            law, findings = check_guest(window, handled[window.name], self._irqchip)
            self._findings += findings
            yield law

    def _find_stuck(self) -> None:
        """What has been in service for long, while the CPUs went on to take interrupts."""
        for pin in self._pins:
            if pin.remote_irr is not None and pin.since is not None:
                self._find_held(pin.subject, *pin.since)
        for cpu in self._cpus.values():
            for vector, since in cpu.since.items():
                if cpu.isr >> vector & 1 and not self._hardware:
                    self._find_held(cpu.subject(vector), *since)

    def _find_held(self, subject: str, index: int, event: Event, before: int) -> None:
        taken = self._taken_total - before
        if taken >= STUCK_INJECTIONS and self._time_ns - event.time_ns >= STUCK_NS:
            detail = f"in service to the end, and {taken} interrupts went by without its EOI"
            self._find("stuck", subject, event, detail, index)

    def _rows(self) -> Iterable[Row]:
        kinds: tuple[tuple[RowKind, Iterable[list[int]]], ...] = (
            ("ioapic", (pin.row for pin in self._pins)),
            ("pic", self._pic),
        )
        for pin in self._pins:
            pin.row[IN_SERVICE] = int(pin.remote_irr is not None)
        for kind, rows in kinds:
            for number, row in enumerate(rows):
                if any(row):
                    yield Row(kind, number, None, _counts(row))
        for number, cpu in sorted(self._cpus.items()):
            for vector, row in sorted(cpu.rows.items()):
                row[PENDING] = cpu.irr >> vector & 1
                row[IN_SERVICE] = cpu.isr >> vector & 1
                if self._tcg:
                    row[PENDING], row[IN_SERVICE] = cpu.outstanding.get(vector, 0), 0
                if any(row):
                    yield Row("vector", vector, number, _counts(row))

    def _warn(self, text: str) -> None:
        if text in self._warnings or len(self._warnings) < KEPT_WARNINGS:
            self._warnings[text] = self._warnings.get(text, 0) + 1

    def _find(
        self, kind: Kind, subject: str, event: Event, detail: str, index: int | None = None
    ) -> None:
        """Report a break; none is reported where events are missing."""
        if self._damage is not None:
            return
        count = self._found.get((kind, subject), 0)
        self._found[kind, subject] = count + 1
        if len(self._findings) >= KEPT_FINDINGS or count >= KEPT_OF_SUBJECT:
            self._suppressed += 1
            return
        index = self._index if index is None else index
        text = f"{event.name}: {event.text}"
        self._findings.append(LedgerFinding(kind, subject, index, event.time_ns, text, detail))

    def _owe(
        self, kind: Kind, subject: str, event: Event, detail: str, grace_ns: int = NEAR_NS
    ) -> Debt:
        debt = Debt(kind, subject, self._index, event, detail, grace_ns)
        self._debts.append(debt)
        return debt

    def _is_due(self, debt: Debt) -> bool:
        return (
            self._index - debt.index >= NEAR_EVENTS
            and self._time_ns - debt.event.time_ns >= debt.grace_ns
        )

    def _collect_debts(self, *, all_of_them: bool = False) -> None:
        debts = self._debts
        if all_of_them:
            for debt in debts:
                if not debt.paid and self._is_due(debt):
                    self._break(debt)
        while debts:
            debt = debts[0]
            if not debt.paid:
                if not self._is_due(debt):
                    return
                self._break(debt)
            debts.popleft()

    def _break(self, debt: Debt) -> None:
        debt.paid = True
        self._find(debt.kind, debt.subject, debt.event, debt.detail, debt.index)
        if debt.broken is not None:
            debt.broken()

    def _cpu(self, number: int) -> Cpu:
        cpu = self._cpus.get(number)
        if cpu is None:
            cpu = self._cpus[number] = Cpu(number)
            if not self._kvm_lapic:
                cpu.ldr = 0  # every write is traced
        return cpu

    def _own_cpu(self, event: Event) -> Cpu | None:
        """The CPU in whose thread ``event`` happened."""
        number = event[3]
        if number is None:
            if self._smp == 1:
                return self._cpus[0]
            self._warn(f"{event[2]} in a thread that does not belong to a vCPU")
            return None
        return self._cpu(number)

    def _thread(self, vcpu: int | None) -> Thread:
        thread = self._threads.get(vcpu)
        if thread is None:
            thread = self._threads[vcpu] = Thread()
        return thread

    def _reaches(self, dst: int, logical: bool | None, cpu: Cpu) -> bool:
        """Whether ``cpu`` may be meant (SDM 3A, Determining IPI Destination)."""
        if logical is None or dst in (0xFF, 0xFFFFFFFF):
            return True
        if not logical:
            return dst in (cpu.id, cpu.number)
        if cpu.x2apic:  # QEMU's event has the lowest 8 bits, KVM's not always the cluster
            return self._kvm_lapic or bool(dst & 1 << (cpu.number & 15))
        if cpu.ldr is None or not cpu.dfr_flat:
            return True
        return bool(cpu.ldr >> 24 & dst)

    def _reaches_any(self, dst: int, logical: bool) -> bool:
        return any(self._reaches(dst, logical, cpu) for cpu in self._cpus.values())

    def _name(self, vector: int) -> None:
        self._named |= 1 << vector

    def lost(self, event: Event, args: Args) -> None:
        """From here on nothing that is missing is a break."""
        if self._damage is None:
            self._collect_debts(all_of_them=True)
            self._debts.clear()
            self._damage = f"events lost from event {self._index} on"

    def mark(self, event: Event, args: Args) -> None:
        """A workload's window opens or closes; a loaded guest's one-shot timers are due."""
        mark = mark_of(event)
        if mark is None:
            return
        if mark == LOADED and self._kvm_lapic:
            for cpu in self._cpus.values():
                # KVM takes a one-shot timer for due: harness.replay.kvm_stimuli.Stimuli.loaded.
                cpu.armed = int(cpu.count != 0)
        opened = self._open_window
        if mark.kind is MarkKind.BEGIN:
            self._open_window = mark.subject, self._taken(), self._vectors()
        elif mark.kind is MarkKind.END and opened is not None and opened[0] == mark.subject:
            self._windows.append(self._window(event, *opened))
            self._open_window = None

    def _vectors(self) -> dict[int, int]:
        """The vector of each unmasked pin; none where an entry may be either IOAPIC's."""
        if not (self._checks_pins or self._in_kernel):
            return {}
        return {pin.number: pin.vector for pin in self._pins if pin.known and not pin.masked}

    def _window(
        self, event: Event, name: str, before: dict[int, int], vectors: dict[int, int]
    ) -> Window:
        taken = {v: count - before.get(v, 0) for v, count in self._taken().items()}
        other = taken.pop(-1)
        rows = [row for cpu in self._cpus.values() for row in cpu.rows.items()]
        return Window(
            name,
            taken,
            other,
            {pin: v for pin, v in self._vectors().items() if vectors.get(pin, v) == v},
            frozenset(vector for vector, row in rows if row[BY_MSI]),
            frozenset(vector for vector, row in rows if row[BY_LVT]),
            self._index,
            event,
        )

    def _taken(self) -> dict[int, int]:
        """By vector, over all CPUs; what the PIC gave under -1."""
        column = EOI if self._tcg else INJECTED
        found = {-1: sum(row[INJECTED] for row in self._pic)}
        for cpu in self._cpus.values():
            for vector, row in cpu.rows.items():
                found[vector] = found.get(vector, 0) + row[column]
        return found

    def _entry_written(self, select: int, value: int) -> None:
        if not IOREDTBL <= select < IOREDTBL + 2 * IOAPIC_PINS:
            return
        pin = self._pins[(select - IOREDTBL) >> 1]
        if select & 1:
            pin.dst = value >> 24
            self._observer.entry_written(pin, None)
            return
        pin.write_low(value)
        self._observer.entry_written(pin, value)
        if not pin.masked:
            self._name(pin.vector)
            self._wired |= 1 << pin.vector

    def _set_remote_irr(self, pin: Pin, event: Event, vector: int) -> None:
        pin.remote_irr = vector
        pin.since = self._index, event, self._taken_total

    def _redelivered(self, pin: Pin, event: Event) -> None:
        """A level interrupt came back though nothing raised its line."""
        pin.row[REDELIVERED] += 1
        count, index, first = pin.streak or (0, self._index, event)
        pin.streak = count + 1, index, first
        if count + 1 == REDELIVERIES:
            detail = f"came back {REDELIVERIES} times while its line stayed high"
            self._find("storm", pin.subject, first, detail, index)

    def _settle_service(self, pin: Pin) -> None:
        """``pin`` was serviced, or need not be any more."""
        if pin.service is not None:
            pin.service.paid, pin.service = True, None

    def _request(self, event: Event, cpu: Cpu, vector: int, row: list[int], level: bool) -> None:
        """A fixed interrupt comes to IRR."""
        if not cpu.enabled:
            row[DROPPED] += 1
            return
        bit = 1 << vector
        cpu.level = cpu.level | bit if level else cpu.level & ~bit
        if cpu.early and (debt := cpu.early.pop(vector, None)) is not None and not debt.paid:
            if event[0] - debt.event.time_ns <= SAME_TIME_NS:
                debt.paid = True
                self._warn("injections that are traced before their acceptance")
                return
            cpu.early[vector] = debt
        if cpu.irr & bit:
            row[MERGED] += 1
            cpu.maybe |= bit
        else:
            cpu.irr |= bit

    def _accept(self, event: Event, cpu: Cpu, vector: int, column: int, level: bool) -> None:
        row = cpu.row(vector)
        row[ACCEPTED] += 1
        row[column] += 1
        self._observer.accepted(cpu, vector)
        if not self._tcg:
            self._request(event, cpu, vector, row, level)
            return
        bit = 1 << vector
        cpu.level = cpu.level | bit if level else cpu.level & ~bit
        count = cpu.outstanding.get(vector, 0)
        if count < 2:  # one in service and one pending
            cpu.outstanding[vector] = count + 1
        else:
            row[MERGED] += 1

    def _reset(self, cpu: Cpu) -> None:
        self._observer.reset(cpu)
        for vector, row in cpu.rows.items():
            row[DROPPED] += cpu.irr >> vector & 1
            row[EOI] += cpu.isr >> vector & 1
        cpu.irr = cpu.isr = cpu.maybe = 0
        cpu.lvts.clear()

    def _lvt(self, cpu: Cpu, register: object, value: int, *, timer: bool) -> None:
        """An LVT's vector counts while it is unmasked."""
        if value & 0x700 == 0 and not value >> 16 & 1:
            cpu.lvts[register] = value & 0xFF
            self._name(value & 0xFF)
        else:
            cpu.lvts.pop(register, None)
        if timer:
            periodic = value >> 17 & 3 == 1
            if cpu.periodic and not periodic:
                # One tick may be noted already, and the next one is on its way
                # (Linux 6.12 lapic.c: apic_update_lvtt, apic_timer_fn).
                cpu.armed = 2
            cpu.periodic = periodic

    def _ended(self, event: Event, cpu: Cpu, vector: int) -> None:
        bit = 1 << vector
        row = cpu.row(vector)
        row[EOI] += 1
        self._observer.ended(cpu, vector, self._index, bool(cpu.isr & bit))
        if cpu.isr & bit:
            top = cpu.isr.bit_length() - 1
            if top != vector:
                detail = f"EOI of vector {vector}, which it interrupted: its own EOI is missing"
                self._find("stuck", cpu.subject(top), event, detail)
                cpu.isr &= bit - 1
            cpu.isr &= ~bit
        elif cpu.irr & bit:
            detail = "ended, and accepted, but its injection is missing"
            self._find("lost", cpu.subject(vector), event, detail)
            cpu.irr &= ~bit
        else:
            detail = "EOI without an acceptance"
            self._find("spurious", cpu.subject(vector), event, detail)

    def _settle(self, cpu: Cpu) -> None:
        """TCG: the last EOI was no level interrupt's, or it would have been broadcast."""
        if cpu.ended is None:
            return
        index, event = cpu.ended
        cpu.ended = None
        # Vector 0 is accepted, and never delivered.
        edges = [v for v, n in cpu.outstanding.items() if n and v and not cpu.level >> v & 1]
        if edges:
            self._end_outstanding(event, index, cpu, max(edges))
            return
        if cpu.loose:
            vector = cpu.loose.bit_length() - 1
            self._accept(event, cpu, vector, BY_LVT, level=False)
            self._end_outstanding(event, index, cpu, vector)
            return
        levels = [v for v, n in cpu.outstanding.items() if n and v]
        if levels:
            detail = "EOI, and no broadcast followed though only this level interrupt can be ended"
            self._find("stuck", cpu.subject(max(levels)), event, detail, index)
            self._end_outstanding(event, index, cpu, max(levels))
            return
        self._warn("EOI with nothing in service")

    def _end_outstanding(self, event: Event, index: int, cpu: Cpu, vector: int) -> None:
        cpu.row(vector)[EOI] += 1
        self._observer.ended(cpu, vector, index, None)
        self._taken_total += 1
        count = cpu.outstanding.get(vector, 0)
        if not count:
            detail = "EOI without an acceptance"
            self._find("spurious", cpu.subject(vector), event, detail, index)
            return
        cpu.outstanding[vector] = count - 1


def _counts(row: list[int]) -> dict[str, int]:
    return {stage: count for stage, count in zip(STAGES, row, strict=True) if count}
