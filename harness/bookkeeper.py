"""Fills the ledger in one pass over a recording's events.

A :class:`Bookkeeper` follows each interrupt through the chips by what their tracers tell: lines and
redirection entries of the IOAPIC, messages, IRR and ISR of each local APIC.  It is no model of the
chips: it predicts nothing, it only checks that each event has a cause and each cause an event.
Its memory is the chips' own state, whatever the number of events.

Who traces what, and when, differs between the modes: :data:`HANDLERS`.  Where a cause may be
traced after its effect (two threads, two tracers), or an effect later than its cause, the missing
event is *owed*, and a finding only when it has not come in time: :class:`_Debt`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from harness.case import Irqchip
from harness.counters import CounterSet
from harness.ledger import (
    COLUMN,
    STAGES,
    Finding,
    Kind,
    LawResult,
    Ledger,
    Row,
    RowKind,
    Window,
    check_guest,
    check_laws,
)
from userspace_chip.events import Event

NEAR_EVENTS: Final = 200
NEAR_NS: Final = 20_000_000
FAR_NS: Final = 200_000_000
"""An event that is owed comes within so many events or so much time, whichever is more; within
the kernel sooner than where QEMU is between, whose threads may be held up by others."""
SAME_ACCESS: Final = 8
"""What one access brings about is traced within so many events."""
SAME_TIME_NS: Final = 50_000
"""Events of different CPUs or tracers may be out of order by so much."""
STUCK_INJECTIONS: Final = 100
STUCK_NS: Final = 1_000_000_000
"""In service at the end of the recording, and for so long before."""
REDELIVERIES: Final = 1000
"""A level interrupt that came back so often at once while its line stayed high is a storm."""
STRIKES: Final = 2
"""A vector that was passed over so often by lower ones is gone; once is a race at its arrival."""
KEPT_FINDINGS: Final = 100
KEPT_OF_SUBJECT: Final = 3
KEPT_WARNINGS: Final = 20
CHECK_EVERY: Final = 64
PINS: Final = 24
FIRST_VECTOR: Final = 16
"""Lower vectors are reserved; KVM's local APIC takes them and never delivers them (SDM 3A, Valid
Interrupt Vectors)."""
IOAPIC_BASE: Final = 0xFEC00000
IOAPIC_EOI_REASON: Final = 26
"""KVM_EXIT_IOAPIC_EOI (Linux include/uapi/linux/kvm.h)."""
KVM_LVTS: Final = frozenset(
    ("APIC_LVTT", "APIC_LVT0", "APIC_LVT1", "APIC_LVTPC", "APIC_LVTERR", "APIC_LVTTHMR")
)
QEMU_LVT_REGISTERS: Final = (0x32, 0x33, 0x34, 0x35, 0x36, 0x37)
"""By LVT index: timer, thermal, performance, LINT0, LINT1, error (QEMU
include/hw/i386/apic_internal.h)."""
PIC_PORTS: Final = {0x20: (0, 0), 0x21: (0, 1), 0xA0: (1, 0), 0xA1: (1, 1)}

RAISED: Final = COLUMN["raised"]
ASSERTED: Final = COLUMN["asserted"]
MASKED: Final = COLUMN["masked"]
COALESCED: Final = COLUMN["coalesced"]
HELD: Final = COLUMN["held"]
DELIVERED: Final = COLUMN["delivered"]
LEVEL_DELIVERED: Final = COLUMN["level_delivered"]
REDELIVERED: Final = COLUMN["redelivered"]
ACKNOWLEDGED: Final = COLUMN["acknowledged"]
THROTTLED: Final = COLUMN["throttled"]
BY_PIN: Final = COLUMN["by_pin"]
BY_MSI: Final = COLUMN["by_msi"]
BY_IPI: Final = COLUMN["by_ipi"]
BY_LVT: Final = COLUMN["by_lvt"]
ACCEPTED: Final = COLUMN["accepted"]
DROPPED: Final = COLUMN["dropped"]
MERGED: Final = COLUMN["merged"]
INJECTED: Final = COLUMN["injected"]
REINJECTED: Final = COLUMN["reinjected"]
EOI: Final = COLUMN["eoi"]
PENDING: Final = COLUMN["pending"]
IN_SERVICE: Final = COLUMN["in_service"]

_Args: TypeAlias = tuple[Any, ...]


class _Debt:
    """An event that has to come, and the finding where it does not."""

    __slots__ = ("broken", "detail", "event", "grace_ns", "index", "kind", "paid", "subject")

    def __init__(
        self, kind: Kind, subject: str, index: int, event: Event, detail: str, grace_ns: int
    ) -> None:
        self.grace_ns = grace_ns
        self.kind = kind
        self.subject = subject
        self.index = index
        self.event = event
        self.detail = detail
        self.paid = False
        self.broken: Callable[[], None] | None = None
        """What sets the books right when it is not paid."""


class _Message:
    """A message that was sent to the local APICs."""

    __slots__ = ("column", "debt", "dst", "index", "logical", "taken")

    def __init__(self, index: int, dst: int, logical: bool | None, column: int) -> None:
        self.index = index
        self.dst = dst
        self.logical = logical  # None: by shorthand, the destination says nothing
        self.column = column
        self.taken = 0  # CPUs that took it, as bits
        self.debt: _Debt | None = None


class _Thread:
    """What the current thread is about: a vCPU's, or (None) all others together."""

    __slots__ = (
        "eoi",
        "expect",
        "gsi",
        "level",
        "messages",
        "open",
        "raising",
        "register",
        "route",
        "sent",
        "service",
    )

    def __init__(self) -> None:
        self.gsi: int | None = None
        self.level = 0
        self.raising = False  # a line goes high, and the IOAPIC has not answered yet
        self.route: _Debt | None = None  # a GSI was raised whose message is to come
        self.messages: dict[int, _Message] = {}
        self.open: list[tuple[int, int, _Debt]] = []  # CPU, vector: accepted, no cause yet
        self.service = -NEAR_EVENTS  # when an IOAPIC last had reason to service its pins
        self.eoi = (-NEAR_EVENTS, -1)  # the last EOI: when, of what vector
        self.sent: tuple[int, _Args] = (-1, ())  # QEMU's IOAPIC's last message, and when
        self.register = -NEAR_EVENTS  # the last write of an IOAPIC's EOI register
        self.expect: list[tuple[_Pin, _Debt]] = []  # deliveries that QEMU's IOAPIC announced


class _Pin:
    """An input of an IOAPIC, and what is known of its redirection entry."""

    __slots__ = (
        "ack",
        "acked",
        "asserted",
        "clear",
        "driven",
        "dst",
        "known",
        "level",
        "lines",
        "logical",
        "masked",
        "mode",
        "number",
        "remote_irr",
        "row",
        "service",
        "since",
        "streak",
        "throttled",
        "vector",
    )

    def __init__(self, number: int, row: list[int]) -> None:
        self.number = number
        self.row = row
        self.lines = 0  # the sources that hold the line high, as bits
        self.known = False
        self.vector = 0
        self.mode = 0
        self.logical = False
        self.level = False
        self.masked = True
        self.dst = 0
        self.remote_irr: int | None = None  # the vector in service
        self.asserted = False  # an assertion waits for its delivery
        self.throttled = False
        self.since: tuple[int, Event, int] | None = None  # when remote IRR was set
        self.streak: tuple[int, int, Event] | None = None  # re-deliveries with the line high
        self.driven = (
            -SAME_TIME_NS * 2
        )  # when the kernel last saw it driven without an announcement
        self.ack: _Debt | None = None
        self.acked = -NEAR_EVENTS  # the EOI that came to it last
        self.clear: _Debt | None = None
        self.service: _Debt | None = None

    @property
    def subject(self) -> str:
        return f"ioapic pin {self.number}"

    @property
    def fixed(self) -> bool:
        """Whether it delivers by vector."""
        return self.mode in (0, 1) and self.vector >= FIRST_VECTOR

    def write_low(self, value: int) -> None:
        """The low half of the entry (82093AA, I/O Redirection Table Registers)."""
        self.known = True
        self.vector = value & 0xFF
        self.mode = value >> 8 & 7
        self.logical = bool(value >> 11 & 1)
        self.level = bool(value >> 15 & 1)
        self.masked = bool(value >> 16 & 1)
        if not self.level:
            self.remote_irr = None


class _Cpu:
    """A local APIC's books."""

    __slots__ = (
        "armed",
        "broadcast",
        "dfr_flat",
        "early",
        "enabled",
        "ended",
        "exit",
        "icr_high",
        "id",
        "irr",
        "isr",
        "ldr",
        "level",
        "loose",
        "lvts",
        "maybe",
        "number",
        "outstanding",
        "parked",
        "periodic",
        "progress",
        "rows",
        "since",
        "spurious",
        "strikes",
        "untold",
        "x2apic",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = number  # the xAPIC id, which a guest may change
        self.x2apic = False
        self.spurious: int | None = None  # the vector of spurious interrupts
        self.rows: dict[int, list[int]] = {}
        self.since: dict[int, tuple[int, Event, int]] = {}  # when a vector was taken last
        self.irr = 0
        self.isr = 0
        self.level = 0  # TMR
        self.loose = 0  # accepted by this CPU or another
        self.maybe = 0  # merged, unless the one before was just being taken
        self.enabled = True
        self.progress = False  # the guest has executed something since the last injection
        self.lvts: dict[Any, int] = {}
        self.armed = True
        self.periodic = False
        self.ldr: int | None = None
        self.dfr_flat = True
        self.icr_high = 0
        self.early: dict[int, _Debt] = {}  # injected, not accepted yet
        self.strikes: dict[int, tuple[int, int, Event]] = {}
        self.parked: int | None = None  # the PIC's vector that was taken last
        self.exit: _Debt | None = None
        self.untold: _Debt | None = None  # a broadcast for which KVM did not leave
        self.broadcast: tuple[int, _Debt] | None = None
        self.outstanding: dict[int, int] = {}  # TCG: accepted and not ended, 2 at most
        self.ended: tuple[int, Event] | None = None  # TCG: an EOI whose vector is not known yet

    def row(self, vector: int) -> list[int]:
        row = self.rows.get(vector)
        if row is None:
            row = self.rows[vector] = [0] * len(STAGES)
        return row

    def subject(self, vector: int) -> str:
        return f"vector {vector} cpu{self.number}"


class Bookkeeper:
    """Takes events one by one; :meth:`close` gives the ledger.

    ``smp`` is the number of vCPUs.  With ``ioapics`` other than 1 (microvm) pins cannot be told
    apart in QEMU's events, and are not checked.
    """

    def __init__(self, irqchip: Irqchip, *, smp: int = 1, ioapics: int = 1) -> None:
        self._irqchip = irqchip
        self._smp = smp
        self._checks_pins = ioapics == 1
        self._in_kernel = irqchip is Irqchip.ON
        self._kvm_lapic = irqchip in (Irqchip.ON, Irqchip.SPLIT)
        self._tcg = irqchip is Irqchip.TCG
        # split: the announcement is QEMU's, the delivery the kernel's.
        self._skew_ns = SAME_TIME_NS if irqchip is Irqchip.SPLIT else -1
        self._handlers = {name: getattr(self, "_" + name) for name in HANDLERS[irqchip]}
        if irqchip is Irqchip.OFF:
            self._handlers |= dict.fromkeys(("kvm_mmio", "kvm_pio"), self._guest_access)
        self._index = -1
        self._time_ns = 0
        self._cpus: dict[int, _Cpu] = {}
        for number in range(smp):
            self._cpu(number)
        self._threads: dict[int | None, _Thread] = {None: _Thread()}
        self._pins = [_Pin(number, [0] * len(STAGES)) for number in range(PINS)]
        self._pic = [[0] * len(STAGES) for _ in range(16)]
        self._pic_lines = 0
        self._pic_latched = 0
        self._pic_bases: list[int | None] = [None, None]
        self._pic_next = [0, 0]  # which initialisation word is to come
        self._pic_parked: list[int] = []
        self._select = 0
        self._named = 0  # vectors that an entry, a message, an IPI or an LVT ever named
        self._debts: deque[_Debt] = deque()
        self._findings: list[Finding] = []
        self._suppressed = 0
        self._found: dict[tuple[Kind, str], int] = {}
        self._warnings: dict[str, int] = {}
        self._damage: str | None = None
        self._hardware = False
        self._taken_total = 0
        self._windows: list[Window] = []
        self._open_window: tuple[str, dict[int, int]] | None = None

    # --- the stream ---

    def add(self, event: Event) -> None:
        """Take ``event`` into account."""
        self._index += 1
        if event[0] < self._time_ns - SAME_TIME_NS:
            self._warn("times go back; the order is the recording's")
        self._time_ns = event[0]
        handler = self._handlers.get(event[2])
        if handler is not None:
            try:
                handler(event, event[4])
            except (ValueError, TypeError, IndexError):
                self._warn(f"{event[2]} with other fields than expected")
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
        if damage is not None and self._damage is None:
            # What is missing may be anywhere: nothing that was found is sure.
            self._damage = damage
            self._findings.clear()
            self._suppressed = 0
        damage = self._damage
        if damage is not None:
            self._warn(f"events are incomplete: {damage}")
        rows = tuple(self._rows())
        laws = check_laws(self._irqchip, rows, damage=damage, hardware=self._hardware)
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

    # --- findings ---

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
        self._findings.append(Finding(kind, subject, index, event.time_ns, text, detail))

    def _owe(
        self, kind: Kind, subject: str, event: Event, detail: str, grace_ns: int = NEAR_NS
    ) -> _Debt:
        debt = _Debt(kind, subject, self._index, event, detail, grace_ns)
        self._debts.append(debt)
        return debt

    def _is_due(self, debt: _Debt) -> bool:
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

    def _break(self, debt: _Debt) -> None:
        debt.paid = True
        self._find(debt.kind, debt.subject, debt.event, debt.detail, debt.index)
        if debt.broken is not None:
            debt.broken()

    # --- who and where ---

    def _cpu(self, number: int) -> _Cpu:
        cpu = self._cpus.get(number)
        if cpu is None:
            cpu = self._cpus[number] = _Cpu(number)
            if not self._kvm_lapic:
                cpu.ldr = 0  # every write is traced
        return cpu

    def _own_cpu(self, event: Event) -> _Cpu | None:
        """The CPU in whose thread ``event`` happened."""
        number = event[3]
        if number is None:
            if self._smp == 1:
                return self._cpus[0]
            self._warn(f"{event[2]} in a thread that is no vCPU's")
            return None
        return self._cpu(number)

    def _thread(self, vcpu: int | None) -> _Thread:
        thread = self._threads.get(vcpu)
        if thread is None:
            thread = self._threads[vcpu] = _Thread()
        return thread

    def _reaches(self, dst: int, logical: bool | None, cpu: _Cpu) -> bool:
        """Whether ``cpu`` may be meant (SDM 3A, Determining IPI Destination)."""
        if logical is None or dst in (0xFF, 0xFFFFFFFF):
            return True
        if not logical:
            return dst in (cpu.id, cpu.number)
        if cpu.x2apic and not self._kvm_lapic:
            return bool(dst & 1 << (cpu.number & 15))  # the event has the lowest 8 bits
        if cpu.ldr is None or not cpu.dfr_flat:
            return True
        return bool(cpu.ldr >> 24 & dst)

    def _reaches_any(self, dst: int, logical: bool) -> bool:
        return any(self._reaches(dst, logical, cpu) for cpu in self._cpus.values())

    def _name(self, vector: int) -> None:
        self._named |= 1 << vector

    # --- harness ---

    def _lost(self, event: Event, args: _Args) -> None:
        if self._damage is None:
            self._collect_debts(all_of_them=True)
            self._debts.clear()
            self._damage = f"events lost from event {self._index} on"

    def _mark(self, event: Event, args: _Args) -> None:
        action, _, name = str(args[0]).partition(" ")
        if action == "begin":
            self._open_window = name, self._taken()
        elif action == "end" and self._open_window is not None and self._open_window[0] == name:
            self._windows.append(self._window(event, *self._open_window))
            self._open_window = None

    def _window(self, event: Event, name: str, before: dict[int, int]) -> Window:
        taken = {v: count - before.get(v, 0) for v, count in self._taken().items()}
        other = taken.pop(-1)
        rows = [row for cpu in self._cpus.values() for row in cpu.rows.items()]
        return Window(
            name,
            taken,
            other,
            {pin.number: pin.vector for pin in self._pins if pin.known and not pin.masked},
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

    # --- KVM: lines and routes ---

    def _kvm_set_irq(self, event: Event, args: _Args) -> None:
        gsi, level, source = args
        thread = self._thread(event[3])
        thread.gsi, thread.level = gsi, level
        thread.raising = bool(level)
        if self._in_kernel:
            if gsi < PINS:
                pin = self._pins[gsi or 2]
                before, bit = pin.lines, 1 << source
                pin.lines = before | bit if level else before & ~bit
                if level and not before:
                    pin.row[RAISED] += 1
                if not pin.lines:
                    pin.streak = None
                    self._settle_service(pin)
        elif level:
            self._driven(event, thread, gsi)

    def _driven(self, event: Event, thread: _Thread, gsi: int) -> None:
        """split: a route was raised, by QEMU's IOAPIC or by a device; its message follows."""
        detail = "its route was raised, and no message followed"
        pin = self._pins[gsi] if gsi < PINS else None
        if pin is not None:
            for number, (expected, debt) in enumerate(thread.expect):
                if expected is pin:
                    debt.paid = True
                    del thread.expect[number]
                    break
            else:
                pin.driven = event[0]
        thread.route = self._owe("lost", f"gsi {gsi}", event, detail)
        if pin is None:
            thread.route.paid = True  # a device's route may be none
            self._debts.pop()

    def _kvm_msi_set_irq(self, event: Event, args: _Args) -> None:
        dst, vector, mode, dest_mode, _trigger, _hint = args
        thread = self._thread(event[3])
        route, thread.route = thread.route, None
        # A vCPU decodes all routes when it rebuilds its EOI map, and sends nothing.
        sent = route is not None or event[3] is None or self._in_kernel
        column = BY_MSI
        if route is not None:
            route.paid = True
            gsi = thread.gsi
            if gsi is not None and gsi < PINS:
                column = BY_PIN
                self._check_route(event, self._pins[gsi], vector, dst)
        message = _Message(self._index, dst, dest_mode == "logical", column)
        if sent:
            self._name(vector)
            if (
                mode in ("Fixed", "LowPrio")
                and vector >= FIRST_VECTOR
                and self._reaches_any(dst, dest_mode == "logical")
            ):
                detail = "the message was sent and no local APIC accepted it"
                message.debt = self._owe("lost", f"vector {vector}", event, detail)
        thread.messages[vector] = message

    def _check_route(self, event: Event, pin: _Pin, vector: int, dst: int) -> None:
        if not (pin.known and self._checks_pins and pin.fixed and not pin.masked):
            return
        if vector != pin.vector or dst != pin.dst:
            self._find(
                "misrouted",
                pin.subject,
                event,
                f"its entry says vector {pin.vector} to {pin.dst:x}",
            )

    def _kvm_ioapic_set_irq(self, event: Event, args: _Args) -> None:
        number, dst, vector, mode, dest_mode, trigger, masked, coalesced = args
        pin = self._pins[number]
        thread = self._thread(event[3])
        self._learn(pin, args)
        thread.raising = taken = False
        if thread.open:
            taken = self._claim(thread, pin, dst, dest_mode == "logical")
        if thread.gsi is None or (thread.gsi or 2) != number or not thread.level:
            return
        row = pin.row
        row[ASSERTED] += 1
        level = trigger == "level"
        if masked:
            row[MASKED] += 1
        elif taken:
            row[DELIVERED] += 1
            if level:
                row[LEVEL_DELIVERED] += 1
                self._in_service(pin, event, vector)
        elif coalesced:
            row[COALESCED] += 1
        elif level and pin.remote_irr is not None:
            row[HELD] += 1
        elif (
            mode in ("Fixed", "LowPrio")
            and vector >= FIRST_VECTOR
            and self._reaches_any(dst, dest_mode == "logical")
        ):
            detail = "asserted, neither masked nor coalesced, and no local APIC accepted it"
            self._find("lost", pin.subject, event, detail)
        else:
            row[DELIVERED] += 1

    def _learn(self, pin: _Pin, args: _Args) -> None:
        _, dst, vector, mode, dest_mode, trigger, masked, _ = args
        pin.known, pin.vector, pin.dst, pin.masked = True, vector, dst, masked
        pin.mode = {"Fixed": 0, "LowPrio": 1}.get(mode, 7)
        pin.logical, pin.level = dest_mode == "logical", trigger == "level"
        if not masked:
            self._name(vector)
        if not pin.level:
            pin.remote_irr = None

    def _claim(self, thread: _Thread, pin: _Pin, dst: int, logical: bool) -> bool:
        """The acceptances that this pin has caused: the tracepoint comes after them."""
        rest, taken = [], 0
        for item in thread.open:
            number, vector, debt = item
            if debt.paid:
                continue
            if vector != pin.vector:
                rest.append(item)
                continue
            if pin.masked or taken >> number & 1:
                self._break(debt)
                continue
            taken |= 1 << number
            debt.paid = True
            cpu = self._cpu(number)
            cpu.row(vector)[BY_PIN] += 1
            if not self._reaches(dst, logical, cpu):
                detail = f"{pin.subject} sends it to {dst:x}"
                self._find("misrouted", debt.subject, debt.event, detail, debt.index)
        thread.open = rest
        return bool(taken)

    def _in_service(self, pin: _Pin, event: Event, vector: int) -> None:
        if pin.remote_irr is not None:
            detail = "delivered again while its last interrupt is in service"
            self._find("stuck", pin.subject, event, detail)
        self._set_remote_irr(pin, event, vector)

    def _set_remote_irr(self, pin: _Pin, event: Event, vector: int) -> None:
        pin.remote_irr = vector
        pin.since = self._index, event, self._taken_total

    def _redelivered(self, pin: _Pin, event: Event) -> None:
        """A level interrupt came back though nothing raised its line."""
        pin.row[REDELIVERED] += 1
        count, index, first = pin.streak or (0, self._index, event)
        pin.streak = count + 1, index, first
        if count + 1 == REDELIVERIES:
            detail = f"came back {REDELIVERIES} times while its line stayed high"
            self._find("storm", pin.subject, first, detail, index)

    def _kvm_ack_irq(self, event: Event, args: _Args) -> None:
        irqchip, number = args
        if irqchip != "IOAPIC":
            self._pic[number][ACKNOWLEDGED] += 1
            return
        pin = self._pins[number]
        thread = self._thread(event[3])
        when, vector = thread.eoi
        again, pin.acked = pin.acked == when, when
        if again or self._index - when > NEAR_EVENTS or (pin.known and vector != pin.vector):
            detail = "acknowledged without an EOI of its vector"
            self._find("spurious", pin.subject, event, detail)
        thread.service = self._index
        if pin.ack is not None:
            pin.ack.paid, pin.ack = True, None
        if pin.remote_irr is not None:
            pin.remote_irr = None
            pin.row[ACKNOWLEDGED] += 1
            if pin.lines and pin.level and not pin.masked:
                detail = "its line is still high after EOI, and it was not delivered again"
                pin.service = self._owe("lost", pin.subject, event, detail, FAR_NS)

    def _kvm_ioapic_delayed_eoi_inj(self, event: Event, args: _Args) -> None:
        for pin in self._pins:
            if pin.vector == args[1] and pin.level and pin.lines:
                pin.throttled = True
                pin.row[THROTTLED] += 1
                self._settle_service(pin)
        detail = "the IOAPIC put its delivery off: it comes back at once after each EOI"
        self._find("storm", f"vector {args[1]}", event, detail)

    def _kvm_mmio(self, event: Event, args: _Args) -> None:
        access, _length, gpa, value = args
        if access != "write" or gpa & ~0xFF != IOAPIC_BASE:
            return
        if gpa & 0xFF == 0:
            self._select = value & 0xFF
        elif gpa & 0xFF == 0x10:
            self._thread(event[3]).service = self._index
            self._entry_written(self._select, value)

    def _entry_written(self, select: int, value: int) -> None:
        if not 0x10 <= select < 0x10 + 2 * PINS:
            return
        pin = self._pins[(select - 0x10) >> 1]
        if select & 1:
            pin.dst = value >> 24
            return
        pin.write_low(value)
        if not pin.masked:
            self._name(pin.vector)

    def _kvm_pic_set_irq(self, event: Event, args: _Args) -> None:
        chip, number, _trigger, masked, coalesced = args
        number += 8 * chip
        thread = self._thread(event[3])
        if thread.gsi != number:
            return
        bit = 1 << number
        if not thread.level:
            self._pic_lines &= ~bit
            return
        row = self._pic[number]
        row[ASSERTED] += 1
        if not self._pic_lines & bit:
            row[RAISED] += 1
        self._pic_lines |= bit
        self._pic_latched |= bit
        row[MASKED if masked else COALESCED if coalesced else DELIVERED] += 1

    def _kvm_pio(self, event: Event, args: _Args) -> None:
        port = PIC_PORTS.get(args[1])
        if port is None or args[0] != "write":
            return
        chip, address = port
        value = args[4]
        if address == 0:
            if value & 0x10:
                self._pic_next[chip] = 1
            return
        if self._pic_next[chip] == 1:
            self._pic_bases[chip] = value & 0xF8
        # ICW3 and ICW4 may follow; an IMR write in their place sets no base.
        self._pic_next[chip] = 0

    # --- KVM: local APICs ---

    def _kvm_apic_ipi(self, event: Event, args: _Args) -> None:
        dst, vector, mode, dest_mode, _level, _trigger, shorthand = args
        logical = dest_mode == "logical" if shorthand == "dst" else None
        if mode in ("Fixed", "LowPrio"):
            self._name(vector)
        self._thread(event[3]).messages[vector] = _Message(self._index, dst, logical, BY_IPI)

    def _kvm_apic_accept_irq(self, event: Event, args: _Args) -> None:
        number, vector, mode, trigger = args
        cpu = self._cpu(number)
        if mode not in ("Fixed", "LowPrio"):
            if mode == "INIT":
                self._reset(cpu)
            return
        row = cpu.row(vector)
        row[ACCEPTED] += 1
        self._find_cause(event, cpu, vector, row)
        self._request(event, cpu, vector, row, trigger == "level")

    def _request(self, event: Event, cpu: _Cpu, vector: int, row: list[int], level: bool) -> None:
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
            cpu.maybe &= ~bit

    def _find_cause(self, event: Event, cpu: _Cpu, vector: int, row: list[int]) -> None:
        thread = self._thread(event[3])
        message = thread.messages.get(vector)
        misled = False
        if (
            message is not None
            and self._index - message.index <= NEAR_EVENTS
            and not message.taken >> cpu.number & 1
        ):
            if self._reaches(message.dst, message.logical, cpu):
                self._take_message(message, cpu, row)
                return
            misled = True
        if self._from_lvt(cpu, vector):
            row[BY_LVT] += 1
            return
        # Between kvm_set_irq and kvm_ioapic_set_irq the cause is the line.
        if (
            self._in_kernel
            and not thread.raising
            and self._from_service(event, thread, cpu, vector, row)
        ):
            return
        if misled and message is not None:
            self._take_message(message, cpu, row)
            detail = f"the message was for {message.dst:x}"
            self._find("misrouted", cpu.subject(vector), event, detail)
            return
        if event[3] is not None and event[3] != cpu.number and not thread.raising:
            # KVM's hypercall for IPIs (Linux lapic.c:kvm_pv_send_ipi) has no event of its own.
            self._warn("acceptances from other vCPUs without an IPI's event: taken for IPIs")
            row[BY_IPI] += 1
            return
        known = self._named >> vector & 1
        detail = (
            "accepted, and no message was sent"
            if known
            else "accepted, and nothing has this vector"
        )
        kind: Kind = "spurious" if known else "misrouted"
        debt = self._owe(kind, cpu.subject(vector), event, detail)
        if self._in_kernel:
            thread.open = [item for item in thread.open if not item[2].paid]
            thread.open.append((cpu.number, vector, debt))

    def _take_message(self, message: _Message, cpu: _Cpu, row: list[int]) -> None:
        message.taken |= 1 << cpu.number
        row[message.column] += 1
        if message.debt is not None:
            message.debt.paid = True

    def _from_lvt(self, cpu: _Cpu, vector: int) -> bool:
        for register, own in cpu.lvts.items():
            if own == vector:
                if register != "APIC_LVTT" or cpu.periodic:
                    return True
                if cpu.armed:
                    cpu.armed = False
                    return True
        return False

    def _from_service(
        self, event: Event, thread: _Thread, cpu: _Cpu, vector: int, row: list[int]
    ) -> bool:
        """on: a pin whose line is still high was serviced again, which has no tracepoint."""
        near = self._index - thread.service <= NEAR_EVENTS
        for pin in self._pins:
            if pin.vector != vector or not pin.lines or not (near or pin.throttled):
                continue
            if pin.masked or (pin.level and pin.remote_irr is not None):
                continue
            if not self._reaches(pin.dst, pin.logical, cpu):
                continue
            if not pin.level and not near:
                continue
            row[BY_PIN] += 1
            pin.throttled = False
            if pin.level:
                self._settle_service(pin)
                self._redelivered(pin, event)
                self._set_remote_irr(pin, event, vector)
            return True
        return False

    def _kvm_apicv_accept_irq(self, event: Event, args: _Args) -> None:
        self._hardware = True

    def _reset(self, cpu: _Cpu) -> None:
        for vector, row in cpu.rows.items():
            row[DROPPED] += cpu.irr >> vector & 1
            row[EOI] += cpu.isr >> vector & 1
        cpu.irr = cpu.isr = cpu.maybe = 0
        cpu.lvts.clear()

    def _kvm_apic(self, event: Event, args: _Args) -> None:
        access, register, value = args
        if access != "write":
            return
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        if register == "APIC_TMICT":
            cpu.armed = bool(value)
        elif register in KVM_LVTS:
            self._lvt(cpu, register, value, timer=register == "APIC_LVTT")
        elif register == "APIC_ID":
            cpu.id = value >> 24
        elif register == "APIC_SPIV":
            cpu.enabled = bool(value & 0x100)
        elif register == "APIC_LDR":
            cpu.ldr = value
        elif register == "APIC_DFR":
            cpu.dfr_flat = value >> 28 == 0xF

    def _lvt(self, cpu: _Cpu, register: object, value: int, *, timer: bool) -> None:
        """An LVT's vector counts while it is unmasked."""
        if value & 0x700 == 0 and not value >> 16 & 1:
            cpu.lvts[register] = value & 0xFF
            self._name(value & 0xFF)
        else:
            cpu.lvts.pop(register, None)
        if timer:
            cpu.periodic = value >> 17 & 3 == 1

    def _kvm_msr(self, event: Event, args: _Args) -> None:
        if args[1] == 0x6E0 and args[0] == "write":  # IA32_TSC_DEADLINE
            cpu = self._own_cpu(event)
            if cpu is not None:
                cpu.armed = bool(args[2])

    def _kvm_inj_virq(self, event: Event, args: _Args) -> None:
        kind, vector, again = args
        if kind != "IRQ" or self._hardware:
            return
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        bit = 1 << vector
        progress, cpu.progress = cpu.progress, False
        if progress and not self._kvm_lapic:
            self._check_ended(event, cpu, vector, bit)
        # With the chips in QEMU every injection is KVM_INTERRUPT's, and printed as re-injected.
        if cpu.isr & bit if not self._kvm_lapic else again:
            self._reinjected(event, cpu, vector)
        elif cpu.irr & bit:
            self._take(event, cpu, vector, bit)
        elif cpu.maybe & bit and not self._kvm_lapic:
            # It came while QEMU was just taking the one before it, which shows only now.
            cpu.maybe &= ~bit
            cpu.row(vector)[MERGED] -= 1
            self._take(event, cpu, vector, bit)
        elif cpu.loose & bit:
            self._accept(event, cpu, vector, BY_LVT, level=False)
            self._take(event, cpu, vector, bit)
        elif not self._kvm_lapic and vector == cpu.spurious:
            self._warn("spurious vectors were injected")
        elif not self._from_pic(cpu, vector):
            self._inject_spurious(event, cpu, vector)

    def _check_ended(self, event: Event, cpu: _Cpu, vector: int, bit: int) -> None:
        """off: a re-injection comes before the guest does anything else."""
        cpu.parked = None
        if cpu.isr & bit:
            detail = "injected again though it is in service: its EOI is missing"
            self._find("stuck", cpu.subject(vector), event, detail)
            cpu.isr &= ~bit

    def _guest_access(self, event: Event, args: _Args) -> None:
        number = event[3]
        if number is not None:
            self._cpu(number).progress = True

    def _reinjected(self, event: Event, cpu: _Cpu, vector: int) -> None:
        if cpu.isr >> vector & 1:
            cpu.row(vector)[REINJECTED] += 1
        elif cpu.parked != vector:
            detail = "re-injected, and was never injected"
            self._find("spurious", cpu.subject(vector), event, detail)

    def _take(self, event: Event, cpu: _Cpu, vector: int, bit: int) -> None:
        """From IRR to ISR (SDM 3A, Interrupt Acceptance for Fixed Interrupts)."""
        top = cpu.isr.bit_length() - 1
        if top >> 4 >= vector >> 4:
            detail = f"vector {vector} was injected though it is in service: its EOI is missing"
            self._find("stuck", cpu.subject(top), event, detail)
            cpu.isr &= ~(1 << top)
        if cpu.irr >> (vector + 1):
            self._passed_over(event, cpu, vector)
        elif cpu.strikes:
            cpu.strikes.clear()
        cpu.irr &= ~bit
        cpu.isr |= bit
        cpu.parked = None
        cpu.row(vector)[INJECTED] += 1
        self._taken_total += 1
        cpu.since[vector] = self._index, event, self._taken_total

    def _passed_over(self, event: Event, cpu: _Cpu, vector: int) -> None:
        """A pending vector of a higher class lets a lower one go first: it is not there."""
        highest = cpu.irr.bit_length() - 1
        if highest >> 4 <= vector >> 4:
            return
        count, index, first = cpu.strikes.get(highest, (0, self._index, event))
        if count + 1 < STRIKES:
            cpu.strikes[highest] = count + 1, index, first
            return
        detail = f"accepted, and passed over by vector {vector} and others: it vanished from IRR"
        self._find("lost", cpu.subject(highest), first, detail, index)
        cpu.irr &= ~(1 << highest)
        cpu.strikes.clear()

    def _from_pic(self, cpu: _Cpu, vector: int) -> bool:
        """Whether the PIC gave this vector (ExtINT); it has no IRR or ISR in the local APIC."""
        if not self._in_kernel:
            if vector in self._pic_parked:
                self._pic_parked.remove(vector)
                cpu.parked = vector
                return True
            return cpu.parked == vector and not self._kvm_lapic
        for chip, base in enumerate(self._pic_bases):
            if base is not None and base <= vector < base + 8:
                number = vector - base
                bit = 1 << number + 8 * chip
                if not self._pic_latched & bit and number != 7:
                    return False
                self._pic_latched &= ~bit | self._pic_lines
                self._pic[number + 8 * chip][INJECTED] += 1
                cpu.parked = vector
                return True
        return False

    def _inject_spurious(self, event: Event, cpu: _Cpu, vector: int) -> None:
        detail = "injected, and was never accepted"
        cpu.early[vector] = self._owe("spurious", cpu.subject(vector), event, detail)
        cpu.isr |= 1 << vector
        cpu.row(vector)[INJECTED] += 1

    def _kvm_eoi(self, event: Event, args: _Args) -> None:
        number, vector = args
        thread = self._thread(event[3])
        thread.eoi = self._index, vector
        if vector < 0 or self._hardware:
            return
        if event[3] is not None and event[3] != number:
            self._warn("local APIC ids that are not the vCPUs' numbers")
        cpu = self._cpu(number)
        self._ended(event, cpu, vector)
        for pin in self._pins:
            if pin.remote_irr == vector:
                self._await_ack(event, cpu, pin, vector)

    def _ended(self, event: Event, cpu: _Cpu, vector: int) -> None:
        bit = 1 << vector
        row = cpu.row(vector)
        row[EOI] += 1
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

    def _await_ack(self, event: Event, cpu: _Cpu, pin: _Pin, vector: int) -> None:
        def free() -> None:
            pin.remote_irr = None

        if self._in_kernel:
            if pin.vector == vector:
                detail = "EOI of its vector did not come to the pin: remote IRR stays set"
                pin.ack = self._owe("stuck", pin.subject, event, detail)
                pin.ack.broken = free
        else:
            if cpu.exit is not None and not cpu.exit.paid:
                self._break(cpu.exit)
            detail = f"EOI of level vector {vector}, and QEMU was not told: remote IRR stays set"
            cpu.exit = self._owe("stuck", pin.subject, event, detail, FAR_NS)
            cpu.exit.broken = free

    def _kvm_pv_eoi(self, event: Event, args: _Args) -> None:
        thread = self._thread(event[3])
        when, vector = thread.eoi
        thread.eoi = when, -1
        if vector != args[1] or self._index - when > NEAR_EVENTS:
            detail = "ended through memory (PV EOI), and its EOI is missing"
            self._find("spurious", f"vector {args[1]} cpu{args[0]}", event, detail)

    def _kvm_userspace_exit(self, event: Event, args: _Args) -> None:
        if args[1] != IOAPIC_EOI_REASON:
            return
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        if cpu.exit is not None:
            cpu.exit.paid, cpu.exit = True, None
        early, cpu.untold = cpu.untold, None
        if early is not None and event[0] - early.event.time_ns <= SAME_TIME_NS:
            early.paid = True
            return
        vector = self._thread(event[3]).eoi[1]
        detail = f"KVM left for the EOI of vector {vector}, and no broadcast followed"
        cpu.broadcast = vector, self._owe("stuck", f"vector {vector}", event, detail, FAR_NS)

    # --- QEMU: IOAPIC ---

    def _ioapic_mem_write(self, event: Event, args: _Args) -> None:
        address, select, size, value = args
        if size != 4:
            return
        if address & 0xFF == 0x10:
            self._entry_written(select, value)
        elif address & 0xFF == 0x40:
            thread = self._thread(event[3])
            thread.eoi = self._index, value & 0xFF
            thread.register = self._index

    def _ioapic_set_irq(self, event: Event, args: _Args) -> None:
        number, level = args
        if number >= PINS:
            return
        pin = self._pins[number or 2]
        before, pin.lines = pin.lines, level
        self._check_expected(event)
        if not level:
            pin.streak = None
            # QEMU services its pins under its lock, before the line can change.
            if pin.service is not None and not pin.service.paid:
                self._break(pin.service)
            pin.service, pin.asserted = None, False
            return
        row = pin.row
        if not before:
            row[RAISED] += 1
        if not pin.known or not self._checks_pins:
            return
        row[ASSERTED] += 1
        if pin.masked:
            row[MASKED] += 1
        elif not pin.level:
            row[DELIVERED] += 1
            self._expect(event, pin)
        elif pin.remote_irr is not None:
            row[HELD] += 1
        else:
            pin.asserted = True
            row[DELIVERED] += 1
            detail = "asserted, neither masked nor in service, and not delivered"
            pin.service = self._owe("lost", pin.subject, event, detail, FAR_NS)

    def _settle_service(self, pin: _Pin) -> None:
        """``pin`` was serviced, or need not be any more."""
        if pin.service is not None:
            pin.service.paid, pin.service = True, None

    def _check_expected(self, event: Event) -> None:
        """QEMU delivers under its lock: what was announced is out before the next assertion."""
        for thread in self._threads.values():
            if not thread.expect:
                continue
            rest = []
            for pin, debt in thread.expect:
                if event[0] - debt.event.time_ns <= self._skew_ns:
                    rest.append((pin, debt))
                elif not debt.paid:
                    self._break(debt)
            thread.expect = rest

    def _expect(self, event: Event, pin: _Pin) -> None:
        """The delivery of ``pin`` has to follow in this thread."""
        if not pin.fixed:
            return
        if event[0] - pin.driven <= SAME_TIME_NS:
            pin.driven = event[0] - 2 * SAME_TIME_NS
            return
        detail = "asserted, not masked, and no message followed"
        thread = self._thread(event[3])
        if len(thread.expect) > PINS:
            del thread.expect[0]
        thread.expect.append((pin, self._owe("lost", pin.subject, event, detail, FAR_NS)))

    def _ioapic_set_remote_irr(self, event: Event, args: _Args) -> None:
        if args[0] >= PINS or not self._checks_pins:
            return
        pin = self._pins[args[0]]
        self._settle_service(pin)
        if pin.remote_irr is not None:
            return  # every pass over the pins prints it again
        self._set_remote_irr(pin, event, pin.vector)
        if pin.asserted:
            pin.row[LEVEL_DELIVERED] += 1
        else:
            self._redelivered(pin, event)
        pin.asserted = False
        self._expect(event, pin)

    def _ioapic_eoi_broadcast(self, event: Event, args: _Args) -> None:
        vector = args[0]
        thread = self._thread(event[3])
        when, ended = thread.eoi
        cpu = self._own_cpu(event)
        if cpu is not None:
            self._broadcast(event, cpu, vector)
        elif self._smp > 1:
            return
        if not self._tcg and (ended != vector or self._index - when > NEAR_EVENTS):
            detail = "broadcast, and no EOI of this vector came before"
            self._find("spurious", f"vector {vector}", event, detail)
        if not self._checks_pins:
            return
        for pin in self._pins:
            if pin.remote_irr is not None and pin.vector == vector and pin.level:
                detail = "EOI of its vector was broadcast, and remote IRR stays set"
                pin.clear = self._owe("stuck", pin.subject, event, detail, FAR_NS)

                def free(pin: _Pin = pin) -> None:
                    pin.remote_irr = None

                pin.clear.broken = free

    def _broadcast(self, event: Event, cpu: _Cpu, vector: int) -> None:
        if cpu.broadcast is not None and cpu.broadcast[0] == vector:
            cpu.broadcast[1].paid = True
            cpu.broadcast = None
        elif self._kvm_lapic and self._index - self._thread(event[3]).register > SAME_ACCESS:
            detail = "broadcast, and KVM did not leave for an EOI of this vector"
            cpu.untold = self._owe("spurious", f"vector {vector}", event, detail)
            if cpu.exit is not None:
                cpu.exit.paid, cpu.exit = True, None
        if not self._tcg:
            return
        if cpu.ended is None:
            if self._index - self._thread(event[3]).register > SAME_ACCESS:
                detail = "broadcast, and no EOI came before"
                self._find("spurious", f"vector {vector}", event, detail)
            return
        cpu.ended = None
        self._end_outstanding(event, self._index, cpu, vector)

    def _ioapic_clear_remote_irr(self, event: Event, args: _Args) -> None:
        number, _vector = args
        if number >= PINS or not self._checks_pins:
            return
        pin = self._pins[number]
        if pin.clear is not None:
            pin.clear.paid, pin.clear = True, None
        elif pin.remote_irr is not None:
            detail = "remote IRR cleared, and no EOI of its vector was broadcast"
            self._find("spurious", pin.subject, event, detail)
        if pin.remote_irr is not None:
            pin.remote_irr = None
            pin.row[ACKNOWLEDGED] += 1
        if pin.lines and pin.level and not pin.masked:
            detail = "its line is still high after EOI, and it was not delivered again"
            pin.service = self._owe("lost", pin.subject, event, detail, FAR_NS)

    def _ioapic_eoi_delayed_reassert(self, event: Event, args: _Args) -> None:
        pin = self._pins[args[0]]
        pin.row[THROTTLED] += 1
        self._settle_service(pin)
        detail = "the IOAPIC put its delivery off: it comes back at once after each EOI"
        self._find("storm", pin.subject, event, detail)

    # --- QEMU: PIC ---

    def _pic_set_irq(self, event: Event, args: _Args) -> None:
        master, number, level = args
        number += 0 if master else 8
        bit = 1 << number
        if not level:
            self._pic_lines &= ~bit
            return
        if not self._pic_lines & bit:
            self._pic[number][RAISED] += 1
        self._pic_lines |= bit
        self._pic_latched |= bit

    def _pic_interrupt(self, event: Event, args: _Args) -> None:
        number, vector = args
        bit = 1 << number
        if not self._pic_latched & bit and number & 7 != 7:
            detail = "given to the CPU, and was never raised"
            self._find("spurious", f"pic pin {number}", event, detail)
        self._pic_latched &= ~bit | self._pic_lines
        self._pic[number][INJECTED] += 1
        if not self._tcg:
            if len(self._pic_parked) > 16:
                del self._pic_parked[0]
            self._pic_parked.append(vector)

    # --- QEMU: local APICs ---

    def _apic_deliver_irq(self, event: Event, args: _Args) -> None:
        dst, logical, mode, vector, trigger = args
        thread = self._thread(event[3])
        column = BY_MSI
        if thread.expect:
            pin, debt = thread.expect.pop(0)
            if not debt.paid:
                debt.paid = True
                column = BY_PIN
                if vector != pin.vector or dst != pin.dst or bool(logical) != pin.logical:
                    detail = f"its entry says vector {pin.vector} to {pin.dst:x}"
                    self._find("misrouted", pin.subject, event, detail)
                thread.sent = self._index, event[4]
        elif thread.sent == (self._index - 1, event[4]):
            detail = "sent twice for one assertion"
            self._find("spurious", f"vector {vector}", event, detail)
        self._name(vector)
        if mode > 1:
            return
        for cpu in tuple(self._cpus.values()):
            if self._reaches(dst, bool(logical), cpu):
                self._accept(event, cpu, vector, column, bool(trigger))
                if mode == 1:
                    return

    def _accept(self, event: Event, cpu: _Cpu, vector: int, column: int, level: bool) -> None:
        row = cpu.row(vector)
        row[ACCEPTED] += 1
        row[column] += 1
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

    def _apic_local_deliver(self, event: Event, args: _Args) -> None:
        lvt, mode = args
        if mode != 0:
            return
        if event[3] is None and self._smp > 1:
            # A timer runs in QEMU's main thread, and the event does not say whose it is.
            for other in self._cpus.values():
                if lvt in other.lvts:
                    other.loose |= 1 << other.lvts[lvt]
            return
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        vector = cpu.lvts.get(lvt)
        if vector is not None:  # a masked one is printed, too
            self._accept(event, cpu, vector, BY_LVT, level=False)

    def _cpu_set_apic_base(self, event: Event, args: _Args) -> None:
        cpu = self._own_cpu(event)
        if cpu is not None:
            cpu.x2apic = bool(args[0] >> 10 & 1)

    def _apic_mem_writel(self, event: Event, args: _Args) -> None:
        self._register_written(event, args[0] >> 4, args[1])

    def _apic_register_write(self, event: Event, args: _Args) -> None:
        self._register_written(event, args[0], args[1])

    def _register_written(self, event: Event, index: int, value: int) -> None:
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        cpu.progress = True
        if index == 0x0B:
            self._qemu_eoi(event, cpu)
        elif index == 0x02:
            cpu.id = value >> 24
        elif index == 0x0F:
            cpu.spurious = value & 0xFF
        elif index == 0x0D:
            cpu.ldr = value
        elif index == 0x0E:
            cpu.dfr_flat = value >> 28 & 0xF == 0xF
        elif index == 0x31:
            cpu.icr_high = value
        elif index == 0x30:
            self._qemu_ipi(event, cpu, value)
        elif index in QEMU_LVT_REGISTERS:
            self._lvt(cpu, index - 0x32, value, timer=False)

    def _qemu_ipi(self, event: Event, cpu: _Cpu, value: int) -> None:
        """ICR (SDM 3A, Interrupt Command Register): fixed IPIs have no trace event of their own."""
        if value >> 8 & 7 > 1:
            if value >> 8 & 7 == 5 and value >> 14 & 1:
                for other in self._targets(cpu, value):
                    self._reset(other)
            return
        self._name(value & 0xFF)
        for other in self._targets(cpu, value):
            self._accept(event, other, value & 0xFF, BY_IPI, level=False)

    def _targets(self, cpu: _Cpu, value: int) -> list[_Cpu]:
        """The CPUs that ICR's ``value`` names."""
        shorthand = value >> 18 & 3
        if shorthand == 1:
            return [cpu]
        if shorthand:
            return [other for other in self._cpus.values() if shorthand == 2 or other is not cpu]
        dst = value >> 32 if cpu.x2apic else cpu.icr_high >> 24
        logical = bool(value >> 11 & 1)
        found = [other for other in self._cpus.values() if self._reaches(dst, logical, other)]
        return found[:1] if value >> 8 & 7 == 1 else found

    def _qemu_eoi(self, event: Event, cpu: _Cpu) -> None:
        thread = self._thread(event[3])
        if self._tcg:
            thread.eoi = self._index, -1
            self._settle(cpu)
            cpu.ended = self._index, event
            return
        vector = cpu.isr.bit_length() - 1
        thread.eoi = self._index, vector
        if vector < 0:
            pending = cpu.irr.bit_length() - 1
            if pending < 0:
                self._warn("EOI with nothing in service")
                return
            vector = pending
        self._ended(event, cpu, vector)
        if cpu.level >> vector & 1:
            detail = f"EOI of level vector {vector}, and no broadcast followed"
            cpu.broadcast = vector, self._owe("stuck", f"vector {vector}", event, detail, FAR_NS)

    def _settle(self, cpu: _Cpu) -> None:
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

    def _end_outstanding(self, event: Event, index: int, cpu: _Cpu, vector: int) -> None:
        cpu.row(vector)[EOI] += 1
        self._taken_total += 1
        count = cpu.outstanding.get(vector, 0)
        if not count:
            detail = "EOI without an acceptance"
            self._find("spurious", cpu.subject(vector), event, detail, index)
            return
        cpu.outstanding[vector] = count - 1


def _counts(row: list[int]) -> dict[str, int]:
    return {stage: count for stage, count in zip(STAGES, row, strict=True) if count}


_ALWAYS: Final = ("mark", "lost")
_KVM_LAPIC: Final = (
    "kvm_set_irq",
    "kvm_msi_set_irq",
    "kvm_apic_ipi",
    "kvm_apic_accept_irq",
    "kvm_apicv_accept_irq",
    "kvm_apic",
    "kvm_msr",
    "kvm_inj_virq",
    "kvm_eoi",
    "kvm_pv_eoi",
)
_QEMU_IOAPIC: Final = (
    "ioapic_mem_write",
    "ioapic_set_irq",
    "ioapic_set_remote_irr",
    "ioapic_clear_remote_irr",
    "ioapic_eoi_broadcast",
    "ioapic_eoi_delayed_reassert",
    "pic_set_irq",
    "pic_interrupt",
)
_QEMU_LAPIC: Final = (
    "apic_deliver_irq",
    "apic_local_deliver",
    "apic_mem_writel",
    "apic_register_write",
    "cpu_set_apic_base",
)
HANDLERS: Final = {
    Irqchip.ON: (
        *_ALWAYS,
        *_KVM_LAPIC,
        "kvm_ioapic_set_irq",
        "kvm_ioapic_delayed_eoi_inj",
        "kvm_ack_irq",
        "kvm_pic_set_irq",
        "kvm_mmio",
        "kvm_pio",
    ),
    Irqchip.SPLIT: (*_ALWAYS, *_KVM_LAPIC, "kvm_userspace_exit", *_QEMU_IOAPIC),
    Irqchip.OFF: (*_ALWAYS, *_QEMU_IOAPIC, *_QEMU_LAPIC, "kvm_inj_virq"),
    Irqchip.TCG: (*_ALWAYS, *_QEMU_IOAPIC, *_QEMU_LAPIC),
}
"""The events that each mode's books are kept by."""


def account(
    events: Iterable[Event],
    irqchip: Irqchip,
    *,
    smp: int = 1,
    ioapics: int = 1,
    damage: str | None = None,
    handled: Mapping[str, CounterSet] | None = None,
) -> Ledger:
    """The ledger of ``events``; see :class:`Bookkeeper`."""
    books = Bookkeeper(irqchip, smp=smp, ioapics=ioapics)
    for event in events:
        books.add(event)
    return books.close(damage=damage, handled=handled)
