"""What may be written in a scenario file: words, the forms of steps, of handlers, of the whole.

These are also what the JSON Schema is made of (``schema``).  What they become is in ``language``
and ``compile``; they are described in ``docs/scenarios.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PositiveInt,
    RootModel,
    Tag,
    WithJsonSchema,
    model_validator,
)

from harness.base import suggest, yamlfile
from harness.base.yamlfile import Strict
from harness.scenario.program import MAX_CPUS, Feature
from harness.scenario.registers import DELIVERY, DEST_MODE, LEVEL, SHORTHAND, TRIGGER
from harness.scenario.requests import Act, Command, Request, mistake

DEFAULT_TIMEOUT_US: Final = 4_000_000
ANY: Final = "any"
SIPI_PAGES: Final = range(0x10, 0x80)
"""Where the probe has its start-up code (``images/probe/segments.h``)."""
MAX_PAUSE_MS: Final = 20_000

# --- words


def cpu_number(value: object) -> object:
    """``cpu1`` or 1 as a number; :class:`ValueError` for anything else."""
    if isinstance(value, str) and value[:3] == "cpu" and value[3:].isdecimal():
        return int(value[3:])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("write a CPU as cpu0, cpu1, ...")


def _word_of(words: Mapping[str, int], what: str) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"not a {what}: {suggest.nearest(str(value), words)}")
        return words[value]

    return BeforeValidator(check)


def _words_schema(words: Mapping[str, int]) -> WithJsonSchema:
    return WithJsonSchema({"enum": list(words)})


def _one_or_more(item: Any) -> BeforeValidator:
    """A single value may stand without its list, in the schema, too."""
    return BeforeValidator(yamlfile.as_list, json_schema_input_type=item | list[item])


_CPU_PATTERN: Final = f"^cpu[0-{MAX_CPUS - 1}]$"
CPU_SCHEMA: Final = {"anyOf": [{"type": "string", "pattern": _CPU_PATTERN}, {"type": "integer"}]}
Cpu: TypeAlias = Annotated[
    int, BeforeValidator(cpu_number), Field(ge=0, lt=MAX_CPUS), WithJsonSchema(CPU_SCHEMA)
]
Vector: TypeAlias = Annotated[int, Field(ge=0, le=0xFF, strict=True)]
Delivery: TypeAlias = Annotated[int, _word_of(DELIVERY, "delivery mode"), _words_schema(DELIVERY)]
DestMode: TypeAlias = Annotated[
    int, _word_of(DEST_MODE, "destination mode"), _words_schema(DEST_MODE)
]
Trigger: TypeAlias = Annotated[int, _word_of(TRIGGER, "trigger mode"), _words_schema(TRIGGER)]
Assert: TypeAlias = Annotated[int, _word_of(LEVEL, "level"), _words_schema(LEVEL)]
Short: TypeAlias = Annotated[int, _word_of(SHORTHAND, "shorthand"), _words_schema(SHORTHAND)]
Micros: TypeAlias = Annotated[int, Field(ge=1, le=8_000_000, strict=True)]
"""A scenario that says nothing for ten seconds hangs (``harness.guests.probe.STALL_S``)."""
Destination: TypeAlias = int | str | list[str]
"""A number; ``cpu1``; ``all``; in logical mode also several CPUs."""
OnOff: TypeAlias = Annotated[Literal["on", "off"], BeforeValidator(yamlfile.on_or_off)]
IrqchipWord: TypeAlias = Annotated[
    Literal["on", "split", "off", "tcg"], BeforeValidator(yamlfile.on_or_off)
]

# --- verbs: what a step can be beside a register


class Line(RootModel[dict[int, Literal["high", "low", "pulse"]]]):
    """Drives input lines, in order: GSI to level; ``pulse`` is high, then low."""


class Ipi(Strict):
    """Sends an IPI through the ICR.  ``page`` is a SIPI's vector."""

    vector: Vector = 0
    page: Annotated[int, Field(ge=SIPI_PAGES[0], le=SIPI_PAGES[-1])] | None = None
    mode: Delivery = DELIVERY["fixed"]
    dest: Destination | None = None
    dest_mode: DestMode = DEST_MODE["physical"]
    shorthand: Short = SHORTHAND["none"]
    level: Assert = LEVEL["assert"]
    trigger: Trigger = TRIGGER["edge"]

    @model_validator(mode="after")
    def _somewhere(self) -> Ipi:
        if (self.dest is None) == (self.shorthand == SHORTHAND["none"]):
            raise ValueError("write either dest or shorthand")
        if (self.page is not None) != (self.mode == DELIVERY["sipi"]):
            raise ValueError("page goes with mode: sipi, and only with it")
        return self


class PvIpi(Strict):
    """Asks KVM for an IPI to several CPUs; ``first`` is the APIC ID that bit 0 stands for."""

    vector: Vector = 0
    mode: Delivery = DELIVERY["fixed"]
    cpus: list[Cpu]
    first: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    shorthand: Short = SHORTHAND["none"]
    level: Assert = LEVEL["assert"]
    trigger: Trigger = TRIGGER["edge"]


class Msi(Strict):
    """A device sends an MSI, in words or as its two numbers."""

    vector: Vector = 0
    mode: Delivery = DELIVERY["fixed"]
    dest: Destination = 0
    dest_mode: DestMode = DEST_MODE["physical"]
    redirection_hint: bool = False
    trigger: Trigger = TRIGGER["edge"]
    level: Assert = LEVEL["assert"]
    address: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    data: Annotated[int, Field(ge=0, lt=1 << 16)] | None = None
    """Of 16 bits (PCI Local Bus Specification 3.0, "Message Data")."""

    @model_validator(mode="after")
    def _one_form(self) -> Msi:
        numbers = {"address", "data"} & self.model_fields_set
        if numbers and self.model_fields_set != {"address", "data"}:
            raise ValueError("write either address and data, or the words")
        return self


class Wait(Strict):
    """Waits until a CPU has entered a vector ``count`` times since the scenario began."""

    vector: Vector | Literal["any"] = "any"
    cpu: Cpu | None = None
    count: PositiveInt = 1
    timeout_us: Micros = DEFAULT_TIMEOUT_US


class Await(Strict):
    """Waits until a CPU is out of its HLT, or has come up."""

    cpu: Cpu
    timeout_us: Micros = DEFAULT_TIMEOUT_US

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        return value if isinstance(value, dict) else {"cpu": value}


class Offline(RootModel[list[Cpu]]):
    """Nothing is asked of these CPUs, which are about to get an INIT, until they are awaited."""


class Delay(RootModel[Micros]):
    """Microseconds in which nothing is done."""


class Pause(Strict):
    """Milliseconds of the host's clock in which a stopped machine stays stopped."""

    pause_ms: Annotated[int, Field(ge=1, le=MAX_PAUSE_MS, strict=True)]


_CommandWord: TypeAlias = Literal["stop", "cont", "inject-nmi", "begin-count", "end-count", "move"]


def _form(value: object) -> str:
    return "pause" if isinstance(value, dict | Pause) else "command"


_Command: TypeAlias = Annotated[
    Annotated[_CommandWord, Tag("command")] | Annotated[Pause, Tag("pause")], Discriminator(_form)
]


class Ask(RootModel[Annotated[list[_Command], _one_or_more(_Command)]]):
    """Commands to the machine from outside, in order, while its guest waits."""

    @model_validator(mode="after")
    def _possible(self) -> Ask:
        if (why := mistake(self.request)) is not None:
            raise ValueError(why)
        return self

    @property
    def request(self) -> Request:
        """The same as the machine's keeper gets it."""
        return tuple(
            Act(Command.PAUSE, each.pause_ms) if isinstance(each, Pause) else Act(Command(each))
            for each in self.root
        )


class PicInit(Strict):
    """ICW1 to ICW4 of one chip or of both, as the datasheet orders them."""

    chip: Literal["master", "slave", "both"] = "both"
    master_base: Annotated[int, Field(ge=0, le=0xF8, multiple_of=8)] = 0x20
    slave_base: Annotated[int, Field(ge=0, le=0xF8, multiple_of=8)] = 0x28
    auto_eoi: bool = False
    special_fully_nested: bool = False
    single: bool = False
    level: bool = False
    icw4: bool = True


class PitChannel(Strict):
    """Programs a counter: control word, then low and high byte of the count (0 is 65536)."""

    channel: Annotated[int, Field(ge=0, le=2)] = 0
    mode: Annotated[int, Field(ge=0, le=7)]
    count: Annotated[int, Field(ge=0, le=0xFFFF)]


class Word(Strict):
    """An instruction: ``sti``, ``cli``, ``hlt``, or ``eoi`` (to the local APIC)."""

    word: Literal["sti", "cli", "hlt", "eoi"]


VERBS: Final[Mapping[str, type[Strict] | type[RootModel[Any]]]] = {
    "line": Line,
    "ipi": Ipi,
    "msi": Msi,
    "pv_ipi": PvIpi,
    "wait": Wait,
    "await": Await,
    "offline": Offline,
    "delay_us": Delay,
    "monitor": Ask,
    "pic.init": PicInit,
    "pit.channel": PitChannel,
}
WORDS: Final = ("sti", "cli", "hlt", "eoi")
GROUPS: Final = ("do", "repeat", "parallel", "read", "discard")


# --- handlers, expectations, the file

Eoi: TypeAlias = Literal["after", "before", "never", "twice", "if_in_service"]


class FirstModel(Strict):
    """What a handler does the first times instead."""

    times: PositiveInt = 1
    do: list[Any] = []
    eoi: Eoi | None = None


class HandlerModel(Strict):
    """What happens when a vector is entered."""

    eoi: Eoi = "if_in_service"
    do: list[Any] = []
    first: FirstModel | None = None
    log: Literal["full", "short", "count", "none"] = "full"
    pins: list[int] = []
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


EventKind: TypeAlias = Literal[
    "irq", "read", "gp", "cut", "count", "nmi", "fault", "timeout", "woke", "asleep", "up"
]


class ExpectModel(Strict):
    """One clause: which events, and exactly one statement about them."""

    step: int | str | None = None
    cpu: Cpu | None = None
    event: EventKind = "irq"
    vector: Vector | None = None
    read: Annotated[list[int], _one_or_more(int)] | None = None
    vectors: list[Vector] | None = None
    count: Annotated[int, Field(ge=0)] | None = None
    irqchip: Annotated[list[IrqchipWord], _one_or_more(IrqchipWord)] = []

    @model_validator(mode="after")
    def _one_thing(self) -> ExpectModel:
        if sum(x is not None for x in (self.read, self.vectors, self.count)) != 1:
            raise ValueError("say exactly one of read, vectors and count")
        return self


FEATURES: Final[Mapping[str, Feature]] = {
    str(feature.name).lower(): feature for feature in Feature if feature
}
MachineName: TypeAlias = Literal["q35", "pc", "microvm"]


class ScenarioModel(Strict):
    """A scenario; what depends on its place in the file is read apart."""

    about: Annotated[str, Field(min_length=1)]
    cpus: Annotated[int, Field(ge=1, le=MAX_CPUS)] = 1
    mode: Literal["xapic", "x2apic"] = "xapic"
    interrupts: OnOff = "on"
    needs: list[Annotated[int, _word_of(FEATURES, "feature"), _words_schema(FEATURES)]] = []
    machines: Annotated[list[MachineName], _one_or_more(MachineName)] = []
    model: Literal[True] | Annotated[str, Field(min_length=1)] = True
    handlers: dict[int | str, Any] = {}
    steps: Annotated[list[Any], Field(min_length=1)]
    expect: list[ExpectModel] = []


class FileModel(Strict):
    """The whole file."""

    version: Literal[1]
    scenarios: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")], Any],
        Field(min_length=1),
    ]
