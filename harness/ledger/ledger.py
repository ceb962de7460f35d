"""The ledger of a case: where every interrupt came from and what became of it.

A row is one pin of a controller, or one vector of one CPU; its columns are the stages of an
interrupt's life.  :data:`LAWS` says which columns have to add up in which irqchip mode, and why;
:mod:`harness.ledger.bookkeeper` fills the rows in one pass over a recording's events.

::

    raised -> routed -> accepted -> injected -> (the guest's handler) -> EOI

The words are DESIGN's; sources of the laws are Linux ``arch/x86/kvm`` (6.1 to 6.18) and QEMU
``hw/intc`` (7.2 and 10.0), file and function with each law.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final, Literal, TypeAlias

from pydantic import TypeAdapter, ValidationError

from harness.base import files
from harness.base.errors import CollectError
from harness.base.files import first_problem
from harness.model import policy
from harness.model.case import Irqchip
from harness.model.counters import CounterKey, CounterSet
from userspace_chip.events import Event

SCHEMA: Final = "irqmatrix-ledger"
SCHEMA_VERSION: Final = 1

STAGES: Final = (
    "raised",  # the line went from low to high
    "asserted",  # the controller saw the line high
    "masked",  # ... and the pin was masked
    "coalesced",  # ... and the interrupt was already pending
    "held",  # ... and the pin's last level interrupt is still in service (remote IRR)
    "delivered",  # ... and a message went to the local APICs
    "level_delivered",  # ... of these, level-triggered ones, which await an EOI
    "redelivered",  # a message without a new assertion: the line was still high at EOI or unmask
    "acknowledged",  # EOI came back to the pin
    "throttled",  # re-delivery was put off after too many EOIs in a row
    "by_pin",  # accepted from an IOAPIC's pin
    "by_msi",  # accepted from an MSI
    "by_ipi",  # accepted from another local APIC, or from itself
    "by_lvt",  # accepted from the local APIC's own timer or lines
    "by_synic",  # accepted from Hyper-V's synthetic interrupt controller
    "accepted",  # a local APIC took the message
    "dropped",  # ... and dropped it: software-disabled, or reset before it was delivered
    "merged",  # ... and it was pending already: two become one
    "injected",  # the vCPU took it
    "reinjected",  # ... once more, because an exit broke its delivery off
    "eoi",  # end of interrupt
    "pending",  # at the end: accepted, not injected
    "in_service",  # at the end: injected, no EOI yet; of a pin: remote IRR
)
"""The columns of the ledger, in the order of an interrupt's life."""

COLUMN: Final[Mapping[str, int]] = {name: i for i, name in enumerate(STAGES)}

Kind: TypeAlias = Literal["lost", "storm", "stuck", "misrouted", "spurious"]
"""What is wrong: never delivered; delivered without end; in service without end; at the wrong CPU
or with the wrong vector; delivered without a cause."""

Status: TypeAlias = Literal["balanced", "broken", "not observable", "not checkable"]
"""Of a law: ``not observable`` by the mode's nature, ``not checkable`` because events are missing
from this recording."""

RowKind: TypeAlias = Literal["ioapic", "pic", "vector"]


@dataclass(frozen=True)
class Row:
    """One pin, or one vector of one CPU; ``counts`` by stage, without those that are 0."""

    kind: RowKind
    number: int
    cpu: int | None
    counts: Mapping[str, int]

    @property
    def name(self) -> str:
        """``ioapic pin 4``, ``pic pin 0`` or ``vector 236 cpu0``."""
        if self.kind == "vector":
            return f"vector {self.number} cpu{self.cpu}"
        return f"{self.kind} pin {self.number}"

    def sum(self, stages: Iterable[str]) -> int:
        """Over ``stages``."""
        return sum(self.counts.get(stage, 0) for stage in stages)


@dataclass(frozen=True)
class LedgerFinding:
    """A break of the account, and the first event where it shows.

    ``index`` counts the events of the recording from 0; ``text`` is the event as its tracer
    prints it.
    """

    kind: Kind
    subject: str
    index: int
    time_ns: int
    text: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.detail} (event {self.index}: {self.text})"


@dataclass(frozen=True)
class LawResult:
    """A law in this recording: the sums of both sides, and the rows that break it.

    ``slack`` is by how much they may differ: see :data:`GUEST_SLACK`, the only one.
    """

    name: str
    status: Status
    left: int
    right: int
    slack: int
    reason: str
    """Why it cannot be seen or checked, or which rows break it."""
    relation: Literal["=", "<="] = "="


@dataclass(frozen=True)
class Ledger:
    """The account of a case."""

    irqchip: Irqchip
    events: int
    rows: tuple[Row, ...]
    laws: tuple[LawResult, ...]
    findings: tuple[LedgerFinding, ...]
    suppressed: int
    """Findings beyond those that are kept."""
    warnings: tuple[str, ...]

    @property
    def balanced(self) -> bool:
        """Nothing vanished and nothing appeared, as far as this recording shows."""
        return not self.findings and all(law.status != "broken" for law in self.laws)


# --- The laws -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """Two sums of columns that have to be equal in every row of a kind.

    No row may be out by any: what is on its way has its own columns.  ``unseen`` gives for a mode
    the reason why the events do not show it there.
    """

    name: str
    rows: RowKind
    left: tuple[str, ...]
    right: tuple[str, ...]
    source: str
    unseen: Mapping[Irqchip, str]
    needs_injections: bool = False
    """Hardware that delivers and ends interrupts by itself (APICv, AVIC) hides it."""


_TCG_INJECTS: Final = (
    "what TCG logs of a taken interrupt does not say of which CPU: IRR and ISR are kept as one"
)

LAWS: Final = (
    Law(
        "every assertion of a pin is accounted for",
        "ioapic",
        ("asserted",),
        ("masked", "coalesced", "held", "delivered"),
        "Linux ioapic.c:ioapic_set_irq, ioapic_service; QEMU hw/intc/ioapic.c:ioapic_set_irq, "
        "ioapic_service",
        {},
    ),
    Law(
        "every level delivery is acknowledged",
        "ioapic",
        ("level_delivered", "redelivered"),
        ("acknowledged", "in_service"),
        "Linux ioapic.c:kvm_ioapic_update_eoi_one; QEMU hw/intc/ioapic.c:ioapic_eoi_broadcast; "
        "SDM 3A, Signaling Interrupt Servicing Completion",
        {},
    ),
    Law(
        "every acceptance has a cause",
        "vector",
        ("accepted",),
        ("by_pin", "by_msi", "by_ipi", "by_lvt", "by_synic"),
        "Linux lapic.c:__apic_accept_irq and its callers; QEMU hw/intc/apic.c:apic_set_irq",
        {},
    ),
    Law(
        "every acceptance is injected once",
        "vector",
        ("accepted",),
        ("dropped", "merged", "injected", "pending"),
        "Linux lapic.c:kvm_get_apic_interrupt, kvm_apic_set_irr; SDM 3A, Interrupt Acceptance "
        "for Fixed Interrupts",
        {Irqchip.TCG: _TCG_INJECTS},
        needs_injections=True,
    ),
    Law(
        "every injection is ended",
        "vector",
        ("injected",),
        ("eoi", "in_service"),
        "Linux lapic.c:apic_set_eoi; QEMU hw/intc/apic.c:apic_eoi; SDM 3A, Signaling Interrupt "
        "Servicing Completion",
        {Irqchip.TCG: _TCG_INJECTS},
        needs_injections=True,
    ),
    Law(
        "no end of interrupt without an acceptance",
        "vector",
        ("accepted",),
        ("merged", "dropped", "eoi", "pending", "in_service"),
        "QEMU hw/intc/apic.c:apic_eoi, apic_set_irq",
        dict.fromkeys(
            (Irqchip.ON, Irqchip.SPLIT, Irqchip.OFF), "the stricter laws on injection say it"
        ),
    ),
)
"""What has to add up.  Besides these, single events have to follow from each other; those rules
are in :mod:`harness.ledger.rules`, with the finding that each gives."""


def check_laws(
    irqchip: Irqchip,
    rows: Iterable[Row],
    *,
    damage: str | None,
    hardware: bool,
    taken: bool = False,
) -> tuple[LawResult, ...]:
    """Each of :data:`LAWS` against ``rows``.

    ``damage`` says what is missing from the events, or is None; ``hardware`` whether interrupts
    were delivered by hardware; ``taken`` whether a mode that does not show what CPUs take did.
    """
    rows = tuple(rows)
    results = []
    for law in LAWS:
        own = [row for row in rows if row.kind == law.rows]
        sums = [(row, row.sum(law.left), row.sum(law.right)) for row in own]
        left, right = sum(s[1] for s in sums), sum(s[2] for s in sums)
        status: Status = "balanced"
        off = [f"{row.name}: {a} != {b}" for row, a, b in sums if a != b]
        reason = "; ".join(off[:8])
        if irqchip in law.unseen and not (law.needs_injections and taken):
            status, reason = "not observable", law.unseen[irqchip]
        elif law.needs_injections and hardware:
            status, reason = "not observable", "hardware delivers and ends interrupts by itself"
        elif damage is not None:
            status, reason = "not checkable", damage
        elif off:
            status = "broken"
        results.append(LawResult(law.name, status, left, right, 0, reason))
    return tuple(results)


# --- The guest's own counts ---------------------------------------------------------------------

GUEST_SLACK: Final = 16
GUEST_SLACK_RATIO: Final = 0.1
"""The marks stand before and after the guest reads its counters, so that a window holds somewhat
more than the guest counts.  The console's and the timers' interrupts go on all the time: for them
only the upper bound holds."""


@dataclass(frozen=True)
class Window:
    """What the vCPUs took between a workload's two marks, by vector.

    ``taken`` counts injections, or EOIs where there is no event for those; ``pins`` says which
    vector an unmasked pin had, of those whose vector did not change between the marks;
    ``messages`` and ``timers`` which vectors came by MSI and from local APICs.  ``end`` is the
    mark's event, and ``index`` its place.
    """

    name: str
    taken: Mapping[int, int]
    other: int
    """Interrupts that the PIC gave."""
    pins: Mapping[int, int]
    messages: frozenset[int]
    timers: frozenset[int]
    index: int
    end: Event


def check_guest(
    window: Window, handled: CounterSet, irqchip: Irqchip
) -> tuple[LawResult, tuple[LedgerFinding, ...]]:
    """Whether the guest counted, during a workload, what its vCPUs took.

    Linux counts a pin under its number, messages by device, timers as ``LOC``
    (:mod:`~harness.record.collectors.procfs`).  In TCG an EOI does not say of which vector it
    is, and only the sum is compared.
    """
    name = f"{window.name}: the guest handles what it was given"
    found = handled.without_cpus()
    counts = {c.key: c.value for c in found if c.key.stage == "handled" and c.key.source == "guest"}
    if not counts:
        reason = "the guest's counters were not read"
        return LawResult(name, "not checkable", 0, 0, 0, reason), ()
    total = sum(window.taken.values()) + window.other
    own = sum(value for key, value in counts.items() if key.path == "handled/all/total")
    pairs = [("all interrupts", own, total, False)]
    if irqchip is not Irqchip.TCG:
        pairs += _guest_pairs(window, counts)
    findings = tuple(
        finding
        for what, guest, taken, exact in pairs
        if (finding := _guest_finding(window, what, guest, taken, exact)) is not None
    )
    reason = "; ".join(f"{finding.subject}: {finding.detail}" for finding in findings)
    status: Status = "broken" if findings else "balanced"
    return LawResult(name, status, own, total, GUEST_SLACK, reason, "<="), findings


def _guest_pairs(
    window: Window, counts: Mapping[CounterKey, int]
) -> list[tuple[str, int, int, bool]]:
    """What, the guest's count, the vCPUs' count, and whether they have to be close."""
    pins: dict[int, int] = {}
    messages = 0
    timers = 0
    for key, value in counts.items():
        if key.controller == "ioapic" and key.number is not None:
            pins[key.number] = pins.get(key.number, 0) + value
        elif key.controller == "msi":
            messages += value
        elif key.path == "handled/cpu/LOC":
            timers += value
    pairs = []
    # A vector may be another source's on another CPU: what was taken is too much then.
    elsewhere = window.messages | window.timers
    for pin, value in pins.items():
        vector = window.pins.get(pin)
        if vector is not None and list(window.pins.values()).count(vector) == 1:
            own = pin not in policy.TIMER_PINS and pin != policy.CONSOLE_GSI
            exact = own and vector not in elsewhere
            pairs.append((f"ioapic pin {pin}", value, window.taken.get(vector, 0), exact))
    alone = window.messages.isdisjoint(window.pins.values()) and not (
        window.messages & window.timers
    )
    for what, value, vectors, exact in (
        ("MSI", messages, window.messages, alone),
        ("local APIC timer", timers, window.timers, False),
    ):
        pairs.append((what, value, sum(window.taken.get(v, 0) for v in vectors), exact))
    return pairs


def _guest_finding(
    window: Window, what: str, guest: int, taken: int, exact: bool
) -> LedgerFinding | None:
    text = f"{window.end.name}: {window.end.text}"
    where = (window.index, window.end.time_ns, text)
    subject = f"{what} in {window.name}"
    if guest > taken:
        return LedgerFinding(
            "spurious", subject, *where, f"the guest handled {guest} of {taken} taken"
        )
    if exact and taken - guest > GUEST_SLACK + GUEST_SLACK_RATIO * taken:
        return LedgerFinding("lost", subject, *where, f"the guest handled {guest} of {taken} taken")
    return None


# --- On disk, and as a table --------------------------------------------------------------------


_ADAPTER: Final = TypeAdapter(Ledger)
_FIELDS: Final = tuple(each.name for each in fields(Ledger))


def to_json(ledger: Ledger) -> dict[str, object]:
    """``ledger`` as JSON data."""
    return {"schema": SCHEMA, "version": SCHEMA_VERSION, **asdict(ledger)}


def dump(ledger: Ledger) -> str:
    """The text of ``ledger.json``."""
    return json.dumps(to_json(ledger), indent=1) + "\n"


def load(text: str) -> Ledger:
    """The ledger of a ``ledger.json``; :class:`CollectError` for another kind or version."""
    try:
        data = files.parse_json(text)
    except ValueError as error:
        raise CollectError("not a ledger", str(error)) from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise CollectError("not a ledger", f"expected the schema {SCHEMA!r}")
    if data.get("version") != SCHEMA_VERSION:
        raise CollectError(
            f"a ledger of version {data.get('version')!r}",
            f"this program reads version {SCHEMA_VERSION}",
        )
    try:
        return _ADAPTER.validate_python({name: data.get(name) for name in _FIELDS})
    except ValidationError as error:
        why = first_problem(error)
        raise CollectError("a ledger cannot be read", why, "run the case again") from None


def table(ledger: Ledger) -> str:
    """The ledger as text: a line for each row with the columns in use, laws, findings."""
    lines: list[str] = []
    for kinds in (("ioapic", "pic"), ("vector",)):
        rows = [row for row in ledger.rows if row.kind in kinds]
        used = [stage for stage in STAGES if any(row.counts.get(stage) for row in rows)]
        grid = [["", *used]]
        grid += [[row.name, *(str(row.counts.get(s, 0) or "-") for s in used)] for row in rows]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        lines += [
            "  ".join(
                cell.rjust(width) if i else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in grid
            if rows
        ]
        lines += [""] if rows else []
    for law in ledger.laws:
        reason = f" ({law.reason})" if law.reason else ""
        lines.append(f"{law.status}: {law.name}: {law.left} {law.relation} {law.right}{reason}")
    lines += [f"warning: {warning}" for warning in ledger.warnings]
    lines += [str(finding) for finding in ledger.findings]
    if ledger.suppressed:
        lines.append(f"and {ledger.suppressed} more findings")
    return "\n".join(lines) + "\n"
