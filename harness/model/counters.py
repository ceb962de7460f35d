"""Counters: totals by stage, controller, pin or vector, CPU and source; and what cannot be seen.

A counter that a source cannot see in a mode is never 0: :meth:`CounterSet.lookup` answers
:class:`NotObservable` with the reason.  A counter that a source could have seen and did not is 0.
Which event counts where is :data:`COUNT_RULES`; what is hidden from whom is :data:`BLIND_SPOTS`.
"""

from __future__ import annotations

import json
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from typing import Any, Final, Literal, TypeAlias, get_args

from pydantic import StrictInt, TypeAdapter, ValidationError

from harness.base import files
from harness.base.errors import CollectError
from harness.model.case import Irqchip
from userspace_chip.architecture import (
    ELCR,
    IOAPIC_BASES,
    IOAPIC_PAGE_BYTES,
    MASTER_COMMAND,
    MASTER_DATA,
    PIT_CONTROL,
    PIT_COUNTER_0,
    SLAVE_COMMAND,
    SLAVE_DATA,
)
from userspace_chip.events import KVM_EVENTS, QEMU_EVENTS, Arg, Event, event_type

SCHEMA: Final = "irqmatrix-counters"
SCHEMA_VERSION: Final = 1

Stage: TypeAlias = Literal[
    "raised",  # a line went high, by the caller's word
    "lowered",  # a line went low, by the caller's word
    "routed",  # a controller's input was driven, through an entry of the GSI's routes
    "coalesced",  # ... and the interrupt was already pending there
    "masked",  # ... and the pin was masked
    "throttled",  # a level interrupt was held back after too many EOIs in a row
    "msi",  # an MSI message was decoded
    "ipi",  # a local APIC sent an interprocessor interrupt
    "accepted",  # a local APIC took (or, software-disabled, dropped) a message
    "posted",  # ... and hardware delivers it without an exit
    "injected",  # a vector was given to the vCPU at entry
    "reinjected",  # ... again, because its delivery was broken off by an exit
    "acknowledged",  # a PIC or IOAPIC learnt that its interrupt was serviced
    "handled",  # the guest's handler ran
    "eoi",  # end of interrupt
    "access",  # a register was read or written
    "exit",  # the vCPU left the guest
    "activity",  # what the guest's kernel did besides: soft interrupts, context switches
    "time",  # where the guest's CPU time went
]

CounterSource: TypeAlias = Literal["kvm", "qemu", "qmp", "guest", "model", "harness"]
"""Who counted: kernel tracepoints, QEMU's trace events, QEMU's monitor, the guest itself, the
Python chips, the harness."""

_STAGES: Final[Mapping[str, int]] = {name: i for i, name in enumerate(get_args(Stage))}
_SOURCES: Final[tuple[str, ...]] = get_args(CounterSource)


@dataclass(frozen=True)
class CounterKey:
    """What is counted, where, and by whom.

    ``number`` is a pin, GSI or vector; ``name`` a device, register or statistic.  At least one of
    them is there; ``cpu`` is None for what belongs to no CPU, or to all together.
    """

    stage: Stage
    controller: str
    source: CounterSource
    number: int | None = None
    name: str | None = None
    cpu: int | None = None

    @property
    def what(self) -> str:
        """``4``, ``ttyS0`` or ``4:ttyS0``."""
        return ":".join(str(part) for part in (self.number, self.name) if part is not None)

    @property
    def path(self) -> str:
        """``stage/controller/what``: what the globs of rules are matched with."""
        return f"{self.stage}/{self.controller}/{self.what}"

    @property
    def on_any_cpu(self) -> CounterKey:
        """The same without its CPU."""
        if self.cpu is None:
            return self
        return CounterKey(self.stage, self.controller, self.source, self.number, self.name)

    @property
    def order(self) -> tuple[object, ...]:
        """For sorting: the order of the stages, then by controller, number, name, CPU."""
        return (
            _STAGES[self.stage],
            self.controller,
            self.number is None,
            self.number or 0,
            self.name or "",
            self.cpu is not None,
            self.cpu or 0,
            self.source,
        )

    def __str__(self) -> str:
        cpu = "" if self.cpu is None else f" cpu{self.cpu}"
        return f"{self.path}{cpu} [{self.source}]"


@dataclass(frozen=True)
class Counter:
    """A key and its total."""

    key: CounterKey
    value: int


@dataclass(frozen=True)
class NotObservable:
    """A key whose total is unknown, and why."""

    key: CounterKey
    reason: str


@dataclass(frozen=True)
class BlindSpot:
    """A set of keys that a source cannot see, and why.

    ``counter`` is a glob for :attr:`CounterKey.path`.
    """

    source: CounterSource
    counter: str
    reason: str

    def hides(self, key: CounterKey) -> bool:
        """Whether ``key`` is one of them."""
        return key.source == self.source and fnmatchcase(key.path, self.counter)


# --- What cannot be seen ------------------------------------------------------------------------

_ON: Final = frozenset({Irqchip.ON})
_SPLIT: Final = frozenset({Irqchip.SPLIT})
_OFF: Final = frozenset({Irqchip.OFF})
_TCG: Final = frozenset({Irqchip.TCG})
_KERNEL_LAPIC: Final = _ON | _SPLIT
_ALL: Final = frozenset(Irqchip)


@dataclass(frozen=True)
class _Blindness:
    """A row of :data:`BLIND_SPOTS`: a :class:`BlindSpot` and the modes in which it is one.

    ``apicv`` narrows it to KVMs with (True) or without (False) hardware interrupt delivery.
    """

    source: CounterSource
    modes: frozenset[Irqchip]
    counters: tuple[str, ...]
    reason: str
    apicv: bool | None = None


BLIND_SPOTS: Final[tuple[_Blindness, ...]] = (
    _Blindness("kvm", _TCG, ("*",), "there is no KVM under TCG"),
    _Blindness(
        "kvm",
        _OFF,
        (
            "raised/*",
            "lowered/*",
            "routed/*",
            "coalesced/*",
            "masked/*",
            "throttled/*",
            "msi/*",
            "ipi/*",
            "accepted/*",
            "posted/*",
            "acknowledged/*",
            "eoi/*",
            "access/lapic/*",
        ),
        "every interrupt controller is in QEMU: KVM sees only the vector that it has to inject",
    ),
    _Blindness(
        "kvm",
        _OFF,
        ("injected/*",),
        "a vector that QEMU gives to KVM shows as injected again, even the first time",
    ),
    _Blindness(
        "kvm",
        _SPLIT,
        (
            "routed/*",
            "coalesced/*",
            "masked/*",
            "throttled/*",
            "acknowledged/*",
        ),
        "IOAPIC and PIC are in QEMU: KVM sees only the messages that they send",
    ),
    _Blindness(
        "kvm",
        _SPLIT,
        ("raised/gsi/0", "lowered/gsi/0"),
        "QEMU's IOAPIC takes input 0 as pin 2 and sends through route 2",
    ),
    _Blindness(
        "kvm",
        _KERNEL_LAPIC,
        ("injected/*", "reinjected/*", "eoi/*"),
        "hardware delivers and ends local APIC interrupts (APICv or AVIC) without an exit",
        apicv=True,
    ),
    _Blindness(
        "qemu",
        _ON,
        ("routed/*", "acknowledged/*", "throttled/*", "access/ioapic/*", "access/pic/*", "eoi/*"),
        "IOAPIC and PIC are in KVM, and QEMU's stand-ins for them have no trace events",
    ),
    _Blindness("qemu", _KERNEL_LAPIC, ("accepted/*", "access/lapic/*"), "the local APIC is in KVM"),
    _Blindness("qemu", _ALL, ("ipi/*", "injected/*"), "QEMU has no trace event for it"),
    _Blindness("qemu", _TCG, ("exit/*",), "a vCPU under TCG does not exit"),
    _Blindness(
        "qmp",
        _ON,
        ("raised/ioapic/0", "raised/pic/0"),
        "x-query-irq counts lines that QEMU raises; the PIT is in KVM and raises GSI 0 there",
    ),
    _Blindness(
        "qmp",
        _ALL,
        ("raised/msi/*", "msi/*"),
        "x-query-irq counts input lines; messages and irqfds go past them",
    ),
    _Blindness(
        "qmp",
        _TCG,
        ("injected/*", "exit/*", "activity/*"),
        "query-stats has no provider without KVM",
    ),
    _Blindness(
        "qmp",
        _KERNEL_LAPIC,
        ("injected/vcpu/irq_injections",),
        "hardware delivers local APIC interrupts (APICv or AVIC): the statistic does not count "
        "them",
        apicv=True,
    ),
)
"""What each source cannot see in which mode.

Sources: the place of the tracepoints and of the statistics in Linux ``arch/x86/kvm`` (6.1, 6.12)
and QEMU ``hw/intc``, ``hw/i386/kvm`` (7.2, 10.0).
"""


def blind_spots(irqchip: Irqchip, *, apicv: bool | None = None) -> tuple[BlindSpot, ...]:
    """What cannot be seen in mode ``irqchip``.

    ``apicv``: whether the KVM under test delivers interrupts by hardware; None means unknown, and
    is taken as no.
    """
    return tuple(
        BlindSpot(row.source, counter, row.reason)
        for row in BLIND_SPOTS
        if irqchip in row.modes and (row.apicv is None or row.apicv is bool(apicv))
        for counter in row.counters
    )


# --- Sets of counters ---------------------------------------------------------------------------

WRAP: Final = 1 << 32
"""The guest's interrupt counters are 32 bits wide (``kstat_irqs`` is unsigned int)."""


@dataclass(frozen=True)
class CounterSet:
    """Totals, the sources that were asked, and what those cannot see."""

    values: Mapping[CounterKey, int]
    sources: frozenset[CounterSource]
    blind: tuple[BlindSpot, ...] = ()

    @classmethod
    def of(
        cls,
        counters: Iterable[Counter],
        sources: Iterable[CounterSource] = (),
        blind: Iterable[BlindSpot] = (),
    ) -> CounterSet:
        """A set of ``counters``; equal keys add up; their sources count as asked."""
        values: dict[CounterKey, int] = defaultdict(int)
        for counter in counters:
            values[counter.key] += counter.value
        asked = frozenset(sources) | {key.source for key in values}
        return cls(dict(values), asked, tuple(blind))

    def __iter__(self) -> Iterator[Counter]:
        for key in sorted(self.values, key=lambda key: key.order):
            yield Counter(key, self.values[key])

    def __len__(self) -> int:
        return len(self.values)

    def lookup(self, key: CounterKey) -> Counter | NotObservable:
        """The counter of ``key``, summed over the CPUs where ``key`` names none."""
        for spot in self.blind:
            if spot.hides(key):
                return NotObservable(key, spot.reason)
        if key.source not in self.sources:
            return NotObservable(key, f"{key.source} was not asked")
        if key.cpu is not None or key in self.values:
            return Counter(key, self.values.get(key, 0))
        return Counter(key, sum(n for k, n in self.values.items() if k.on_any_cpu == key))

    def total(self, counter: str, source: CounterSource | None = None) -> int:
        """The sum of all whose path matches the glob ``counter``."""
        return sum(
            value
            for key, value in self.values.items()
            if (source is None or key.source == source) and fnmatchcase(key.path, counter)
        )

    def without_cpus(self) -> CounterSet:
        """The same, summed over the CPUs."""
        summed = (Counter(key.on_any_cpu, value) for key, value in self.values.items())
        return CounterSet.of(summed, self.sources, self.blind)

    def merged(self, other: CounterSet) -> CounterSet:
        """Both together; for keys that are in both, the sum."""
        return CounterSet.of(
            (*self, *other),
            self.sources | other.sources,
            dict.fromkeys((*self.blind, *other.blind)),
        )

    def since(self, earlier: CounterSet) -> CounterSet:
        """What was counted since the snapshot ``earlier``.

        A key that was not there earlier was 0; one that is gone is not observable; a source that
        was not asked both times is left out.  :class:`CollectError` for a counter that went down:
        two snapshots of different boots.
        """
        both = self.sources & earlier.sources
        deltas = [
            Counter(key, _increase(key, earlier.values.get(key, 0), value))
            for key, value in self.values.items()
            if key.source in both
        ]
        gone = dict.fromkeys(
            BlindSpot(key.source, escape(key.path), "it was there before, and is gone now")
            for key, value in earlier.values.items()
            if key.source in both and key not in self.values and value
        )
        return CounterSet.of(deltas, both, (*self.blind, *gone))

    def to_json(self) -> dict[str, Any]:
        """The content of ``counters.json``."""
        return {
            "schema": SCHEMA,
            "version": SCHEMA_VERSION,
            "sources": sorted(self.sources),
            "counters": [_to_json(counter) for counter in self],
            "not_observable": [
                {"source": spot.source, "counter": spot.counter, "reason": spot.reason}
                for spot in self.blind
            ],
        }

    def dumps(self) -> str:
        """``counters.json`` as text: one counter a line, so that two files can be diffed."""
        document = self.to_json()
        counters = document.pop("counters")
        head = json.dumps(document, indent=1)
        lines = ",\n  ".join(json.dumps(counter) for counter in counters)
        return f'{head[:-2]},\n "counters": [\n  {lines}\n ]\n}}\n'

    @classmethod
    def from_json(cls, document: object) -> CounterSet:
        """The inverse of :meth:`to_json`; :class:`CollectError` for anything else."""
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise CollectError("not a file of counters", f"expected the schema {SCHEMA!r}")
        if document.get("version") != SCHEMA_VERSION:
            raise CollectError(
                f"counters of version {document.get('version')!r}",
                f"this program reads version {SCHEMA_VERSION}",
            )
        try:
            stored = _ADAPTER.validate_python(document)
        except ValidationError as error:
            raise CollectError("damaged file of counters", files.first_problem(error)) from None
        return cls.of(map(_counter, stored.counters), stored.sources, stored.not_observable)

    @classmethod
    def loads(cls, text: str) -> CounterSet:
        """The inverse of :meth:`dumps`; :class:`CollectError` for a text that it did not make."""
        try:
            return cls.from_json(files.parse_json(text))
        except ValueError as error:
            raise CollectError("damaged file of counters", str(error)) from None


def _increase(key: CounterKey, before: int, after: int) -> int:
    if after >= before:
        return after - before
    if key.source == "guest" and key.stage == "handled" and WRAP // 2 < before < WRAP:
        return after + WRAP - before
    raise CollectError(
        f"counter {key} went backwards",
        f"it was {before}, it is {after} now",
        "the snapshots have to be of one boot, the earlier one first",
    )


_OPTIONAL: Final = ("number", "name", "cpu")


def _to_json(counter: Counter) -> dict[str, Any]:
    key = counter.key
    row: dict[str, Any] = {"stage": key.stage, "controller": key.controller, "source": key.source}
    row |= {name: value for name in _OPTIONAL if (value := getattr(key, name)) is not None}
    row["value"] = counter.value
    return row


@dataclass(frozen=True)
class _Row:
    """A counter as it is stored."""

    stage: Stage
    controller: str
    source: CounterSource
    value: StrictInt
    number: int | None = None
    name: str | None = None
    cpu: int | None = None


@dataclass(frozen=True)
class _Stored:
    """What is used of a ``counters.json``."""

    counters: list[_Row]
    sources: list[CounterSource]
    not_observable: list[BlindSpot]


_ADAPTER: Final = TypeAdapter(_Stored)


def _counter(row: _Row) -> Counter:
    key = CounterKey(row.stage, row.controller, row.source, row.number, row.name, row.cpu)
    return Counter(key, row.value)


# --- Counting events ----------------------------------------------------------------------------


@dataclass(frozen=True)
class CountRule:
    """One way in which an event counts.

    ``number`` and ``name`` are fields of the event (``name`` may have several, joined with
    blanks); ``cpu`` is a field, where ``"vcpu"`` is the vCPU in whose thread it happened if the
    event has no field of that name.
    ``when`` are the values that fields must have, ``within`` a field and its inclusive range.
    ``add`` goes on top of the number: pins of the second PIC are 8 to 15.
    """

    event: str
    stage: Stage
    controller: str
    number: str | None = None
    name: tuple[str, ...] = ()
    cpu: str | None = None
    when: Mapping[str, Arg] = field(default_factory=dict)
    within: tuple[str, int, int] | None = None
    add: int = 0

    def key(
        self, fields: Mapping[str, Arg], source: CounterSource, vcpu: int | None
    ) -> CounterKey | None:
        """The counter that an event with ``fields`` counts for, or None."""
        if any(fields.get(name) != value for name, value in self.when.items()):
            return None
        if self.within is not None:
            name, low, high = self.within
            value = fields.get(name)
            if not isinstance(value, int) or not low <= value <= high:
                return None
        number = None if self.number is None else int(fields[self.number])
        label = " ".join(
            f"{value:#x}" if isinstance(value := fields[name], int) else str(value)
            for name in self.name
        )
        if number is not None and number < 0:  # kvm_eoi with an empty ISR says vector -1
            number, label = None, "none"
        cpu = None if self.cpu is None else fields.get(self.cpu, vcpu)
        return CounterKey(
            self.stage,
            self.controller,
            source,
            None if number is None else number + self.add,
            label or None,
            None if cpu is None else int(cpu),
        )


_R: TypeAlias = CountRule


def _ports(controller: str, first: int, last: int) -> CountRule:
    """Accesses to the ports from ``first`` to ``last``."""
    return CountRule(
        *("kvm_pio", "access", controller),
        name=("access", "port"),
        cpu="vcpu",
        within=("port", first, last),
    )


COUNT_RULES: Final[tuple[CountRule, ...]] = (
    # KVM: virt/kvm/irqchip.c, arch/x86/kvm/{ioapic,i8259,irq_comm,lapic,x86}.c
    _R("kvm_set_irq", "raised", "gsi", "gsi", when={"level": 1}),
    _R("kvm_set_irq", "lowered", "gsi", "gsi", when={"level": 0}),
    _R("kvm_pic_set_irq", "routed", "pic", "pin", when={"chip": 0}),
    _R("kvm_pic_set_irq", "routed", "pic", "pin", when={"chip": 1}, add=8),
    _R("kvm_pic_set_irq", "coalesced", "pic", "pin", when={"chip": 0, "coalesced": True}),
    _R("kvm_pic_set_irq", "coalesced", "pic", "pin", when={"chip": 1, "coalesced": True}, add=8),
    _R("kvm_ioapic_set_irq", "routed", "ioapic", "pin"),
    _R("kvm_ioapic_set_irq", "coalesced", "ioapic", "pin", when={"coalesced": True}),
    _R("kvm_ioapic_set_irq", "masked", "ioapic", "pin", when={"masked": True}),
    _R("kvm_ioapic_delayed_eoi_inj", "throttled", "ioapic-vector", "vector"),
    _R("kvm_msi_set_irq", "msi", "lapic", "vector"),
    _R("kvm_apic_ipi", "ipi", "lapic", "vector", ("delivery_mode",), cpu="vcpu"),
    _R("kvm_apic_accept_irq", "accepted", "lapic", "vector", cpu="apicid"),
    _R("kvm_apicv_accept_irq", "posted", "lapic", "vector", cpu="apicid"),
    _R(
        "kvm_inj_virq",
        "injected",
        "vcpu",
        "vector",
        cpu="vcpu",
        when={"kind": "IRQ", "reinjected": False},
    ),
    _R(
        "kvm_inj_virq",
        "reinjected",
        "vcpu",
        "vector",
        cpu="vcpu",
        when={"kind": "IRQ", "reinjected": True},
    ),
    _R("kvm_ack_irq", "acknowledged", "ioapic", "pin", when={"irqchip": "IOAPIC"}),
    _R("kvm_ack_irq", "acknowledged", "pic", "pin", when={"irqchip": "PIC master"}),
    _R("kvm_ack_irq", "acknowledged", "pic", "pin", when={"irqchip": "PIC slave"}),
    _R("kvm_eoi", "eoi", "lapic", "vector", cpu="apicid"),
    _R("kvm_pv_eoi", "eoi", "lapic-pv", "vector", cpu="apicid"),
    _R("kvm_apic", "access", "lapic", name=("access", "register"), cpu="vcpu"),
    _R("kvm_userspace_exit", "exit", "kvm", name=("reason",), cpu="vcpu"),
    _R(
        "kvm_mmio",
        "access",
        "ioapic",
        name=("access", "gpa"),
        cpu="vcpu",
        within=("gpa", IOAPIC_BASES[0], IOAPIC_BASES[0] + IOAPIC_PAGE_BYTES - 1),
    ),
    _ports("pic", MASTER_COMMAND, MASTER_DATA),
    _ports("pic", SLAVE_COMMAND, SLAVE_DATA),
    _ports("pic", ELCR, ELCR + 1),
    _ports("pit", PIT_COUNTER_0, PIT_CONTROL),
    # QEMU: hw/i386/x86.c (x86-common.c), hw/intc/{i8259,ioapic,apic}.c, accel/kvm/kvm-all.c
    _R("x86_gsi_interrupt", "raised", "gsi", "gsi", when={"level": 1}),
    _R("x86_gsi_interrupt", "lowered", "gsi", "gsi", when={"level": 0}),
    _R("pic_set_irq", "routed", "pic", "irq", when={"master": 1}),
    _R("pic_set_irq", "routed", "pic", "irq", when={"master": 0}, add=8),
    _R("pic_interrupt", "acknowledged", "pic", "irq"),
    _R("ioapic_set_irq", "routed", "ioapic", "pin"),
    _R("ioapic_eoi_broadcast", "eoi", "ioapic-vector", "vector"),
    _R("ioapic_clear_remote_irr", "acknowledged", "ioapic", "pin"),
    _R("ioapic_eoi_delayed_reassert", "throttled", "ioapic", "pin"),
    _R("ioapic_mem_read", "access", "ioapic", name=("addr", "regsel")),
    _R("ioapic_mem_write", "access", "ioapic", name=("addr", "regsel")),
    _R("pic_ioport_read", "access", "pic", name=("master", "addr")),
    _R("pic_ioport_write", "access", "pic", name=("master", "addr")),
    _R("apic_deliver_irq", "accepted", "lapic", "vector"),
    _R("apic_local_deliver", "accepted", "lapic-lvt", "lvt"),
    _R("apic_mem_readl", "access", "lapic", name=("addr",)),
    _R("apic_mem_writel", "access", "lapic", name=("addr",)),
    _R("apic_register_read", "access", "lapic", name=("index",)),
    _R("apic_register_write", "access", "lapic", name=("index",)),
    _R("kvm_run_exit", "exit", "kvm", "reason", cpu="vcpu"),
)
"""Which event counts at which stage."""


def _rules_by_event() -> Mapping[str, tuple[CountRule, ...]]:
    rules: dict[str, list[CountRule]] = defaultdict(list)
    for rule in COUNT_RULES:
        rules[rule.event].append(rule)
    return {name: tuple(found) for name, found in rules.items()}


_RULES: Final = _rules_by_event()


def keys_of(
    event: str, fields: Mapping[str, Arg], source: CounterSource, vcpu: int | None = None
) -> list[CounterKey]:
    """The counters for which an event of that name and with these fields counts."""
    found = (rule.key(fields, source, vcpu) for rule in _RULES.get(event, ()))
    return [key for key in found if key is not None]


class EventTally:
    """Counts a stream of events as it goes by."""

    def __init__(self) -> None:
        self._tally: Tally[tuple[str, CounterSource, int | None, tuple[Arg, ...]]] = Tally()

    def add(self, event: Event) -> None:
        """Count ``event``."""
        self._tally[event.name, event.source, event.vcpu, event.args] += 1

    def counters(self) -> list[Counter]:
        """What was counted, by :data:`COUNT_RULES`."""
        return [
            Counter(key, count)
            for (name, source, vcpu, args), count in self._tally.items()
            if name in _RULES
            for key in keys_of(
                name, dict(zip(event_type(name).fields, args, strict=True)), source, vcpu
            )
        ]


def untraced(source: CounterSource, traced: Iterable[str]) -> tuple[BlindSpot, ...]:
    """What ``source`` does not see because only the events ``traced`` (globs) were on."""
    patterns = tuple(traced)
    names = KVM_EVENTS if source == "kvm" else QEMU_EVENTS
    rules = [rule for rule in COUNT_RULES if rule.event in names]
    on = {rule.event for rule in rules if any(fnmatchcase(rule.event, glob) for glob in patterns)}
    seen = {(rule.stage, rule.controller) for rule in rules if rule.event in on}
    return tuple(
        BlindSpot(source, f"{stage}/{controller}/*", f"the event {event} was not traced")
        for (stage, controller), event in {
            (rule.stage, rule.controller): rule.event for rule in rules
        }.items()
        if (stage, controller) not in seen
    )
