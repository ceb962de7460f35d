"""The registers that a scenario can name: where they are, and their fields in datasheet names.

Sources: SDM volume 3A, chapter "Advanced Programmable Interrupt Controller (APIC)" (edition 081,
2023), tables "Local APIC Register Address Map" and "Local APIC Register Address Map Supported by
x2APIC"; Intel 82093AA I/O APIC, 8259A and 8254 datasheets; the ELCR is that of the 82371 (PIIX).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from harness.base import suggest
from harness.base.errors import ConfigError
from harness.scenario.program import Feature
from userspace_chip import lapic_registers as lapic
from userspace_chip.architecture import (
    ELCR,
    EOIR,
    HPET_BASE,
    IOAPIC_BASES,
    IOAPIC_PINS,
    IOAPICARB,
    IOAPICID,
    IOAPICVER,
    IOREDTBL,
    IOREGSEL,
    IOWIN,
    ISA_LINES,
    MASTER_COMMAND,
    MSR_APIC_BASE,
    MSR_TSC_DEADLINE,
    PIT_CONTROL,
    PIT_COUNTER_0,
    RTC_DATA,
    RTC_INDEX,
    SLAVE_COMMAND,
)
from userspace_chip.hpet import (
    GCAP_ID,
    GEN_CONF,
    GINTR_STA,
    MAIN_CNT,
    TIMER_0,
    TIMER_BYTES,
    TN_COMP,
    TN_CONF,
    TN_FSB,
)
from userspace_chip.rtc import (
    HOURS,
    HOURS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    REGISTER_A,
    REGISTER_B,
    REGISTER_C,
    REGISTER_D,
    SECONDS,
    SECONDS_ALARM,
)

LINES: Final = range(ISA_LINES)
"""Input lines that can be driven: QEMU's ``hw/misc/pc-testdev.c`` has the ISA bus's."""
LINES2: Final = range(IOAPIC_PINS, 2 * IOAPIC_PINS)
"""And on microvm those of its virtio-mmio transports, the pins of its second IOAPIC."""


class Space(Enum):
    """How a register is reached; its address is an offset, an index, a port or an MSR number."""

    LAPIC = "the executing CPU's local APIC, through its page or the x2APIC MSRs"
    IOAPIC = "an IOAPIC's select and window registers"
    PORT = "IN and OUT of bytes"
    MSR = "RDMSR and WRMSR"
    MEMORY = "physical memory"
    CR8 = "MOV to CR8, the priority in bits 7:4 of the local APIC's TPR"


class Access(Enum):
    """Which accesses mean something."""

    RW = "read and written"
    RO = "read"
    WO = "written"


class ApicMode(Enum):
    """What the local APIC's base register makes of it."""

    XAPIC = "xapic"
    X2APIC = "x2apic"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Field:
    """Bits ``high`` to ``low`` of a register.

    ``words`` are names of its values; ``cpus``: a destination, which ``cpu1`` may be written for.
    """

    name: str
    high: int
    low: int
    words: Mapping[str, int] | None = None
    cpus: bool = False

    @property
    def max(self) -> int:
        """The largest value."""
        return (1 << (self.high - self.low + 1)) - 1


@dataclass(frozen=True, slots=True)
class Register:
    """A register, or ``count`` of them in a row, ``stride`` apart (in memory 0 means any address).

    ``fixed``: bits that are set in every value made of fields.  ``select``: bytes written to
    ``address`` before a read.  ``modes``: local APIC modes in which it is there; ``write_modes``:
    in which it can be written.
    """

    name: str
    space: Space
    address: int
    about: str
    bits: int = 32
    fields: tuple[Field, ...] = ()
    access: Access = Access.RW
    count: int | None = None
    stride: int = 0
    chip: int = 0
    fixed: int = 0
    select: tuple[tuple[int, int], ...] = ()
    modes: frozenset[ApicMode] = frozenset(ApicMode)
    write_modes: frozenset[ApicMode] = frozenset(ApicMode)
    needs: Feature = Feature.NONE

    @property
    def raw(self) -> bool:
        """Whether the index is an address."""
        return self.count == 0


@dataclass(frozen=True, slots=True)
class Target:
    """A register by name: with its index, and the half that was asked for."""

    register: Register
    index: int = 0
    half: str | None = None

    @property
    def address(self) -> int:
        """The address, with the index worked in."""
        if self.register.raw:
            return self.index
        return self.register.address + self.index * self.register.stride

    @property
    def bits(self) -> int:
        """The width of what is accessed."""
        return self.register.bits if self.half is None else 32


DELIVERY: Final[Mapping[str, int]] = {
    "fixed": 0,
    "lowest": 1,
    "smi": 2,
    "reserved3": 3,
    "nmi": 4,
    "init": 5,
    "sipi": 6,
    "extint": 7,
}
DEST_MODE: Final[Mapping[str, int]] = {"physical": 0, "logical": 1}
TRIGGER: Final[Mapping[str, int]] = {"edge": 0, "level": 1}
SHORTHAND: Final[Mapping[str, int]] = {"none": 0, "self": 1, "all": 2, "others": 3}
POLARITY: Final[Mapping[str, int]] = {"high": 0, "low": 1}
LEVEL: Final[Mapping[str, int]] = {"deassert": 0, "assert": 1}
TIMER_MODE: Final[Mapping[str, int]] = {"oneshot": 0, "periodic": 1, "tsc_deadline": 2}
DIVIDE: Final[Mapping[str, int]] = {
    "by2": 0,
    "by4": 1,
    "by8": 2,
    "by16": 3,
    "by32": 8,
    "by64": 9,
    "by128": 10,
    "by1": 11,
}
DFR_MODEL: Final[Mapping[str, int]] = {"cluster": 0, "flat": 0xF}
OCW2: Final[Mapping[str, int]] = {
    "rotate_in_aeoi_clear": 0,
    "eoi": 1,
    "nop": 2,
    "specific_eoi": 3,
    "rotate_in_aeoi_set": 4,
    "rotate_on_eoi": 5,
    "set_priority": 6,
    "rotate_on_specific_eoi": 7,
}
OCW3_READ: Final[Mapping[str, int]] = {"keep": 0, "irr": 2, "isr": 3}
OCW3_SPECIAL_MASK: Final[Mapping[str, int]] = {"keep": 0, "clear": 2, "set": 3}

_VECTOR = Field("vector", 7, 0)
_DELIVERY = Field("mode", 10, 8, DELIVERY)
_DEST_MODE = Field("dest_mode", 11, 11, DEST_MODE)
_STATUS = Field("delivery_status", 12, 12)
_POLARITY = Field("polarity", 13, 13, POLARITY)
_REMOTE_IRR = Field("remote_irr", 14, 14)
_TRIGGER = Field("trigger", 15, 15, TRIGGER)
_MASK = Field("mask", 16, 16)

REDIR_FIELDS: Final = (
    *(_VECTOR, _DELIVERY, _DEST_MODE, _STATUS, _POLARITY, _REMOTE_IRR, _TRIGGER, _MASK),
    Field("dest", 63, 56, cpus=True),
)
ICR_FIELDS: Final = (
    *(_VECTOR, _DELIVERY, _DEST_MODE, _STATUS, Field("level", 14, 14, LEVEL), _TRIGGER),
    Field("shorthand", 19, 18, SHORTHAND),
    Field("dest", 63, 56, cpus=True),
)
X2APIC_DEST: Final = Field("dest", 63, 32, cpus=True)
"""The ICR's destination in x2APIC mode."""
_LINT = (_VECTOR, _DELIVERY, _STATUS, _POLARITY, _REMOTE_IRR, _TRIGGER, _MASK)
_LOCAL = (_VECTOR, _DELIVERY, _STATUS, _MASK)

_X = frozenset({ApicMode.XAPIC, ApicMode.DISABLED})
_X2 = frozenset({ApicMode.X2APIC})
_RO, _WO = Access.RO, Access.WO
_LAPIC, _IOAPIC, _PORT = Space.LAPIC, Space.IOAPIC, Space.PORT

_LOCAL_APIC = (
    Register("lapic.id", _LAPIC, lapic.ID, "APIC ID", write_modes=_X),
    Register("lapic.version", _LAPIC, lapic.VERSION, "version", access=_RO),
    Register("lapic.tpr", _LAPIC, lapic.TPR, "task priority"),
    Register("lapic.apr", _LAPIC, lapic.APR, "arbitration priority", access=_RO, modes=_X),
    Register("lapic.ppr", _LAPIC, lapic.PPR, "processor priority", access=_RO),
    Register("lapic.eoi", _LAPIC, lapic.EOI, "end of interrupt", access=_WO),
    Register("lapic.rrr", _LAPIC, lapic.RRR, "remote read", access=_RO, modes=_X),
    Register("lapic.ldr", _LAPIC, lapic.LDR, "logical destination", write_modes=_X),
    Register(
        *("lapic.dfr", _LAPIC, lapic.DFR, "destination format"),
        fields=(Field("model", 31, 28, DFR_MODEL),),
        fixed=0x0FFFFFFF,
        modes=_X,
    ),
    Register(
        *("lapic.svr", _LAPIC, lapic.SPIV, "spurious-interrupt vector"),
        fields=(
            *(_VECTOR, Field("enable", 8, 8), Field("focus_disabled", 9, 9)),
            Field("suppress_eoi_broadcast", 12, 12),
        ),
    ),
    Register("lapic.isr", _LAPIC, lapic.ISR, "in service", access=_RO, count=8, stride=0x10),
    Register("lapic.tmr", _LAPIC, lapic.TMR, "trigger mode", access=_RO, count=8, stride=0x10),
    Register("lapic.irr", _LAPIC, lapic.IRR, "interrupt request", access=_RO, count=8, stride=0x10),
    Register("lapic.esr", _LAPIC, lapic.ESR, "error status"),
    Register(
        "lapic.lvt_cmci", _LAPIC, lapic.LVT_CMCI_REG, "LVT: corrected machine check", fields=_LOCAL
    ),
    Register("lapic.icr", _LAPIC, lapic.ICR, "interrupt command", 64, ICR_FIELDS),
    Register("lapic.icr_high", _LAPIC, lapic.ICR2, "its upper half alone", modes=_X),
    Register(
        *("lapic.lvt_timer", _LAPIC, lapic.LVTT, "LVT: timer"),
        fields=(_VECTOR, _STATUS, _MASK, Field("mode", 18, 17, TIMER_MODE)),
    ),
    Register(
        "lapic.lvt_thermal",
        _LAPIC,
        lapic.LVTTHMR,
        "LVT: thermal sensor",
        fields=_LOCAL,
    ),
    Register(
        "lapic.lvt_perf",
        _LAPIC,
        lapic.LVTPC,
        "LVT: performance counters",
        fields=_LOCAL,
    ),
    Register("lapic.lvt_lint0", _LAPIC, lapic.LVT0, "LVT: LINT0", fields=_LINT),
    Register("lapic.lvt_lint1", _LAPIC, lapic.LVT1, "LVT: LINT1", fields=_LINT),
    Register(
        "lapic.lvt_error",
        _LAPIC,
        lapic.LVTERR,
        "LVT: error",
        fields=(_VECTOR, _STATUS, _MASK),
    ),
    Register("lapic.timer_initial", _LAPIC, lapic.TMICT, "timer: initial count"),
    Register("lapic.timer_current", _LAPIC, lapic.TMCCT, "timer: current count", access=_RO),
    Register(
        *("lapic.timer_divide", _LAPIC, lapic.TDCR, "timer: divide configuration"),
        fields=(Field("divide", 3, 0, DIVIDE),),
    ),
    Register(
        *("lapic.self_ipi", _LAPIC, lapic.SELF_IPI, "self-IPI"),
        fields=(_VECTOR,),
        access=_WO,
        modes=_X2,
        needs=Feature.X2APIC,
    ),
    Register("lapic", _LAPIC, 0, "any offset of the register page", count=0),
    Register(
        *("lapic.base", Space.MSR, MSR_APIC_BASE, "IA32_APIC_BASE", 64),
        fields=(
            *(Field("bsp", 8, 8), Field("x2apic", 10, 10), Field("enable", 11, 11)),
            Field("page", 51, 12),
        ),
    ),
    Register(
        *("lapic.tsc_deadline", Space.MSR, MSR_TSC_DEADLINE, "IA32_TSC_DEADLINE", 64),
        needs=Feature.TSC_DEADLINE,
    ),
)
"""``lapic.base``: what is not named is the page 0xfee00, and bsp on CPU 0."""


def _ioapic(name: str, number: int, base: int, needs: Feature) -> tuple[Register, ...]:
    return (
        Register(f"{name}.id", _IOAPIC, IOAPICID, "IOAPIC ID", chip=number, needs=needs),
        Register(f"{name}.version", _IOAPIC, IOAPICVER, "version", chip=number, needs=needs),
        Register(f"{name}.arb", _IOAPIC, IOAPICARB, "arbitration ID", chip=number, needs=needs),
        Register(
            *(f"{name}.redir", _IOAPIC, IOREDTBL, "redirection table", 64, REDIR_FIELDS),
            count=IOAPIC_PINS,
            stride=2,
            chip=number,
            needs=needs,
        ),
        Register(
            *(f"{name}.index", _IOAPIC, 0, "any register by its index"),
            count=0x100,
            stride=1,
            chip=number,
            needs=needs,
        ),
        Register(f"{name}.select", Space.MEMORY, base + IOREGSEL, "IOREGSEL itself", needs=needs),
        Register(f"{name}.window", Space.MEMORY, base + IOWIN, "IOWIN itself", needs=needs),
        Register(
            f"{name}.eoi", Space.MEMORY, base + EOIR, "EOI register (version 0x20)", needs=needs
        ),
    )


def _pic(name: str, command: int) -> tuple[Register, ...]:
    data = command + 1
    read = "read through OCW3"
    return (
        Register(
            *(f"pic.{name}.icw1", _PORT, command, "initialisation begins", 8),
            fields=(Field("icw4", 0, 0), Field("single", 1, 1), Field("level", 3, 3)),
            access=_WO,
            fixed=0x10,
            needs=Feature.PIC,
        ),
        Register(
            *(f"pic.{name}.ocw2", _PORT, command, "EOI and priorities", 8),
            fields=(Field("command", 7, 5, OCW2), Field("level", 2, 0)),
            access=_WO,
            needs=Feature.PIC,
        ),
        Register(
            *(f"pic.{name}.ocw3", _PORT, command, "poll, special mask, read select", 8),
            fields=(
                Field("read", 1, 0, OCW3_READ),
                Field("poll", 2, 2),
                Field("special_mask", 6, 5, OCW3_SPECIAL_MASK),
            ),
            access=_WO,
            fixed=0x08,
            needs=Feature.PIC,
        ),
        Register(f"pic.{name}.command", _PORT, command, "the port itself", 8, needs=Feature.PIC),
        Register(f"pic.{name}.data", _PORT, data, "the port itself", 8, needs=Feature.PIC),
        Register(f"pic.{name}.imr", _PORT, data, "mask (OCW1)", 8, needs=Feature.PIC),
        *(
            Register(
                *(f"pic.{name}.{what}", _PORT, command, f"{about}, {read}", 8),
                access=_RO,
                select=((command, ocw3),),
                needs=Feature.PIC,
            )
            for what, about, ocw3 in (
                ("irr", "requests", 0x0A),
                ("isr", "in service", 0x0B),
                ("poll", "poll: an acknowledge", 0x0C),
            )
        ),
    )


_PIT = (
    Register("pit.control", _PORT, PIT_CONTROL, "control word", 8, access=_WO, needs=Feature.PIT),
    Register(
        *("pit.counter", _PORT, PIT_COUNTER_0, "a counter's port", 8),
        count=3,
        stride=1,
        needs=Feature.PIT,
    ),
    Register(
        *("pit.status", _PORT, PIT_COUNTER_0, "channel 0's status, by read-back", 8),
        access=_RO,
        select=((PIT_CONTROL, 0xE2),),
        needs=Feature.PIT,
    ),
)

TIMER_TYPE: Final[Mapping[str, int]] = {"oneshot": 0, "periodic": 1}

_HPET_CONFIG: Final = (Field("enable", 0, 0), Field("legacy", 1, 1))
_HPET_TIMER: Final = (
    Field("trigger", 1, 1, TRIGGER),
    Field("interrupts", 2, 2),
    Field("type", 3, 3, TIMER_TYPE),
    Field("set_value", 6, 6),
    Field("bits32", 8, 8),
    Field("route", 13, 9),
    Field("fsb", 14, 14),
)


def _hpet(
    name: str, offset: int, about: str, fields: tuple[Field, ...] = (), access: Access = Access.RW
) -> Register:
    """32 bits in the HPET's page; offsets from 0x100 up are those of timer 0."""
    timer = offset >= TIMER_0
    return Register(
        *(f"hpet.{name}", Space.MEMORY, HPET_BASE + offset, about),
        fields=fields,
        access=access,
        count=3 if timer else None,
        stride=TIMER_BYTES if timer else 0,
        needs=Feature.HPET,
    )


_HPET: Final = (
    _hpet("id", GCAP_ID, "capabilities, vendor", access=_RO),
    _hpet("period", GCAP_ID + 4, "a tick, in femtoseconds", access=_RO),
    _hpet("config", GEN_CONF, "general configuration", _HPET_CONFIG),
    _hpet("status", GINTR_STA, "interrupt status; writing 1 clears"),
    _hpet("counter", MAIN_CNT, "main counter, lower half"),
    _hpet("counter_high", MAIN_CNT + 4, "main counter, upper half"),
    _hpet("timer", TIMER_0 + TN_CONF, "a timer's configuration", _HPET_TIMER),
    _hpet("routes", TIMER_0 + TN_CONF + 4, "the GSIs that it says it can reach", access=_RO),
    _hpet("comparator", TIMER_0 + TN_COMP, "a timer's comparator, lower half"),
    _hpet("comparator_high", TIMER_0 + TN_COMP + 4, "a timer's comparator, upper half"),
    _hpet("fsb_data", TIMER_0 + TN_FSB, "the message's data"),
    _hpet("fsb_address", TIMER_0 + TN_FSB + 4, "the message's address"),
)


def _rtc(
    name: str, index: int, about: str, fields: tuple[Field, ...] = (), access: Access = Access.RW
) -> Register:
    """A register that the index port selects."""
    return Register(
        *(f"rtc.{name}", _PORT, RTC_DATA, about, 8),
        fields=fields,
        access=access,
        select=((RTC_INDEX, index),),
        needs=Feature.RTC,
    )


_RTC: Final = (
    *(
        _rtc(name, index, about)
        for name, index, about in (
            ("seconds", SECONDS, "time of day"),
            ("seconds_alarm", SECONDS_ALARM, "alarm; 0xc0 and above: any"),
            ("minutes", MINUTES, "time of day"),
            ("minutes_alarm", MINUTES_ALARM, "alarm"),
            ("hours", HOURS, "time of day"),
            ("hours_alarm", HOURS_ALARM, "alarm"),
        )
    ),
    _rtc("a", REGISTER_A, "rate and divider", (Field("rate", 3, 0), Field("divider", 6, 4))),
    _rtc(
        *("b", REGISTER_B, "enables and modes"),
        (
            *(Field("hours24", 1, 1), Field("binary", 2, 2), Field("square_wave", 3, 3)),
            *(Field("update", 4, 4), Field("alarm", 5, 5), Field("periodic", 6, 6)),
            Field("set", 7, 7),
        ),
    ),
    _rtc("c", REGISTER_C, "flags; reading clears them", access=_RO),
    _rtc("d", REGISTER_D, "valid RAM and time", access=_RO),
)

REGISTERS: Final[Mapping[str, Register]] = {
    register.name: register
    for register in (
        *_LOCAL_APIC,
        *_ioapic("ioapic", 0, IOAPIC_BASES[0], Feature.NONE),
        *_ioapic("ioapic2", 1, IOAPIC_BASES[1], Feature.IOAPIC2),
        *_pic("master", MASTER_COMMAND),
        *_pic("slave", SLAVE_COMMAND),
        Register("pic.elcr", _PORT, ELCR, "edge/level control", 16, needs=Feature.PIC),
        *_PIT,
        *_HPET,
        *_RTC,
        Register("cr8", Space.CR8, 0, "priority class", 4, access=_WO, needs=Feature.CR8),
        Register("msr", Space.MSR, 0, "any MSR", 64, count=0),
        Register("io", _PORT, 0, "any port", 8, count=0),
        Register("mem", Space.MEMORY, 0, "any physical address", count=0),
    )
}

_INDEX: Final = re.compile(r"(?:0x[0-9a-f]+|[0-9]+)$", re.IGNORECASE)


def find(name: str) -> Target:
    """The register that ``name`` says: ``ioapic.redir.14.low``, ``ioapic.redir[14]``, ``io.0x61``.

    :class:`ConfigError` (without a place) for an unknown register, or an index that it has not.
    """
    parts = name.replace("[", ".").replace("]", "").split(".")
    half = parts.pop() if len(parts) > 1 and parts[-1] in {"low", "high"} else None
    index = int(parts.pop(), 0) if len(parts) > 1 and _INDEX.match(parts[-1]) else None
    base = ".".join(parts)
    register = REGISTERS.get(base)
    if register is None:
        fix = suggest.close(base, REGISTERS) or _families(base)
        raise ConfigError(f"unknown register {name!r}", None, fix)
    if half is not None and not (register.bits == 64 and register.space is Space.IOAPIC):
        raise ConfigError(f"{base} has no {half} half", "only redirection entries have two")
    if register.count is None:
        if index is not None:
            raise ConfigError(f"{base} has no index", f"found {name!r}")
        return Target(register, 0, half)
    what = "an address" if register.raw else f"an index, 0 to {register.count - 1}"
    if index is None:
        example = "0x10" if register.raw else "0"
        raise ConfigError(f"{base} needs {what}", None, f"as in {base}.{example}")
    if register.count and index >= register.count:
        raise ConfigError(f"{name} is out of range", f"{base} has {what}")
    return Target(register, index, half)


def _families(base: str) -> str:
    """The known names that begin as ``base`` does, or the first parts of all of them."""
    family = base.split(".")[0]
    members = sorted(name for name in REGISTERS if name.split(".")[0] == family)
    return f"known: {', '.join(members or sorted({name.split('.')[0] for name in REGISTERS}))}"


def field_value(register: Register, field: Field, given: object) -> int:
    """The number that ``given`` (a number, a word, true or false) means in ``field``.

    A destination's words are not here: they depend on its mode.  :class:`ConfigError` (without a
    place) for an unknown word or a number that does not fit.
    """
    where = f"{register.name}: {field.name}"
    if isinstance(given, bool):
        if field.max != 1 or field.words is not None:
            raise ConfigError(f"{where} is not true or false", None, _values(field))
        return int(given)
    if isinstance(given, int):
        if not 0 <= given <= field.max:
            raise ConfigError(
                f"{where} = {given:#x} does not fit",
                f"bits {field.high}:{field.low} hold 0 to {field.max:#x}",
            )
        return given
    if field.words is not None and isinstance(given, str):
        if given not in field.words:
            raise ConfigError(
                f"{where}: unknown word {given!r}", None, suggest.nearest(given, field.words)
            )
        return field.words[given]
    raise ConfigError(f"{where}: bad value", f"found {given!r}", _values(field))


def _values(field: Field) -> str:
    if field.words is not None:
        return f"write one of {', '.join(field.words)}"
    return "write true or false" if field.max == 1 else f"write 0 to {field.max:#x}"
