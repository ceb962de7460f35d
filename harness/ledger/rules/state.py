"""What the books remember: of pins, of local APICs, of threads, and what is owed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from harness.ledger.ledger import COLUMN, STAGES, Kind
from harness.ledger.rules.synic import SynicSource
from userspace_chip.architecture import (
    FIRST_VECTOR,
    IOAPIC_PINS,
    MASTER_COMMAND,
    MASTER_DATA,
    SLAVE_COMMAND,
    SLAVE_DATA,
)
from userspace_chip.events import Event, event_type
from userspace_chip.lapic_registers import LVT_NAMES

NEAR_EVENTS: Final = 200
NEAR_NS: Final = 20_000_000
FAR_NS: Final = 200_000_000
"""An event that is owed comes within this number of events or this time, whichever is more; within
the kernel sooner than where QEMU is between, whose threads may be held up by others."""
SAME_ACCESS: Final = 8
"""What one access brings about is traced within this number of events."""
SAME_TIME_NS: Final = 50_000
"""Events of different CPUs or tracers may be out of order by this."""
STUCK_INJECTIONS: Final = 100
STUCK_NS: Final = 1_000_000_000
"""In service at the end of the recording, and for so long before."""
REDELIVERIES: Final = 1000
"""A level interrupt that came back this often at once while its line stayed high is a storm."""
STRIKES: Final = 2
"""A vector that was passed over this often by lower ones is gone; once is a race at its arrival."""
KEPT_FINDINGS: Final = 100
KEPT_OF_SUBJECT: Final = 3
KEPT_WARNINGS: Final = 20
CHECK_EVERY: Final = 64
KVM_LVTS: Final = frozenset(f"APIC_{name}" for name in LVT_NAMES)
PIC_CHIPS: Final = {
    MASTER_COMMAND: (0, 0),
    MASTER_DATA: (0, 1),
    SLAVE_COMMAND: (1, 0),
    SLAVE_DATA: (1, 1),
}
"""By port: chip and address."""

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
BY_SYNIC: Final = COLUMN["by_synic"]
ACCEPTED: Final = COLUMN["accepted"]
DROPPED: Final = COLUMN["dropped"]
MERGED: Final = COLUMN["merged"]
INJECTED: Final = COLUMN["injected"]
REINJECTED: Final = COLUMN["reinjected"]
EOI: Final = COLUMN["eoi"]
PENDING: Final = COLUMN["pending"]
IN_SERVICE: Final = COLUMN["in_service"]

Args: TypeAlias = tuple[Any, ...]


class Debt:
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


class Message:
    """A message that was sent to the local APICs."""

    __slots__ = ("column", "debt", "dst", "index", "logical", "taken")

    def __init__(self, index: int, dst: int, logical: bool | None, column: int) -> None:
        self.index = index
        self.dst = dst
        self.logical = logical  # None: by shorthand, the destination says nothing
        self.column = column
        self.taken = 0  # CPUs that took it, as bits
        self.debt: Debt | None = None


class Thread:
    """What the current thread is about: a vCPU's, or (None) all others together."""

    __slots__ = (
        "eoi",
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
        self.route: Debt | None = None  # a GSI was raised whose message is to come
        self.messages: dict[int, Message] = {}
        self.open: list[tuple[int, int, Debt]] = []  # CPU, vector: accepted, no cause yet
        self.service = -NEAR_EVENTS  # when an IOAPIC last had reason to service its pins
        self.eoi = (-NEAR_EVENTS, -1)  # the last EOI: when, of what vector
        self.sent: tuple[int, Args] = (-1, ())  # QEMU's IOAPIC's last message, and when
        self.register = -NEAR_EVENTS  # the last write of an IOAPIC's EOI register


class Pin:
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
        self.ack: Debt | None = None
        self.acked = -NEAR_EVENTS  # the EOI that came to it last
        self.clear: Debt | None = None
        self.service: Debt | None = None

    @property
    def subject(self) -> str:
        """Its name in findings."""
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


class Cpu:
    """A local APIC's books."""

    __slots__ = (
        "armed",
        "broadcast",
        "count",
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
        "synic",
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
        self.synic: dict[int, SynicSource] = {}  # by the MSR that made it
        self.armed = 1  # expiries that a timer which is not periodic may still have
        self.count = 0  # the timer's initial count
        self.periodic = False
        self.ldr: int | None = None
        self.dfr_flat = True
        self.icr_high = 0
        self.early: dict[int, Debt] = {}  # injected, not accepted yet
        self.strikes: dict[int, tuple[int, int, Event]] = {}
        self.parked: int | None = None  # the PIC's vector that was taken last
        self.exit: Debt | None = None
        self.untold: Debt | None = None  # a broadcast for which KVM did not leave
        self.broadcast: tuple[int, Debt] | None = None
        self.outstanding: dict[int, int] = {}  # TCG: accepted and not ended, 2 at most
        self.ended: tuple[int, Event] | None = None  # TCG: an EOI whose vector is not known yet

    def row(self, vector: int) -> list[int]:
        """The columns of ``vector``, in the order of :data:`harness.ledger.ledger.STAGES`."""
        row = self.rows.get(vector)
        if row is None:
            row = self.rows[vector] = [0] * len(STAGES)
        return row

    def subject(self, vector: int) -> str:
        """The name of ``vector`` in findings."""
        return f"vector {vector} cpu{self.number}"


_VECTOR: Final = (0, 0x100)
_PIN: Final = (0, IOAPIC_PINS)
_VALUES: Final[Mapping[str, Mapping[str, tuple[int, int]]]] = {
    "kvm_set_irq": {"source": (0, 64)},
    "kvm_ioapic_set_irq": {"pin": _PIN, "vector": _VECTOR},
    "kvm_ioapic_delayed_eoi_inj": {"vector": _VECTOR},
    "kvm_msi_set_irq": {"vector": _VECTOR},
    "kvm_pic_set_irq": {"chip": (0, 2), "pin": (0, 8)},
    "kvm_apic_ipi": {"vector": _VECTOR},
    "kvm_apic_accept_irq": {"vector": _VECTOR},
    "kvm_eoi": {"vector": (-1, 0x100)},
    "kvm_pv_eoi": {"vector": _VECTOR},
    "kvm_ack_irq": {"pin": _PIN},
    "kvm_inj_virq": {"vector": _VECTOR},
    "pic_set_irq": {"irq": (0, 8)},
    "pic_interrupt": {"irq": (0, 16), "vector": _VECTOR},
    "ioapic_set_irq": {"pin": (0, 1 << 16)},
    "ioapic_set_remote_irr": {"pin": (0, 1 << 16)},
    "ioapic_clear_remote_irr": {"pin": (0, 1 << 16)},
    "ioapic_eoi_broadcast": {"vector": _VECTOR},
    "ioapic_eoi_delayed_reassert": {"pin": _PIN},
    "apic_deliver_irq": {"vector": _VECTOR},
}
RANGES: Final[Mapping[str, tuple[tuple[int, int, int], ...]]] = {
    name: tuple((event_type(name).index[field], *bounds) for field, bounds in fields.items())
    for name, fields in _VALUES.items()
}
"""By event: the place of a field, its least value, and the first above its greatest.

What has other values was traced by something else, or misread; no rule has to deal with it.
"""
