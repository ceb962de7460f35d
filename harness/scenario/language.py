"""The scenario language: a YAML file as it was written, checked for form.

What the words mean to the machine, and which of them are possible where, is in ``compile``.  The
language is described in ``docs/scenarios.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    RootModel,
    WithJsonSchema,
    model_validator,
)

from harness import yamlfile
from harness.errors import ConfigError
from harness.scenario.program import MAX_CPUS, Feature
from harness.scenario.registers import (
    DELIVERY,
    DEST_MODE,
    LEVEL,
    REGISTERS,
    SHORTHAND,
    TRIGGER,
    Target,
    find,
    nearest,
)
from harness.yamlfile import Location, Strict, YamlFile

DEFAULT_TIMEOUT_US: Final = 4_000_000
ANY: Final = "any"
SIPI_PAGES: Final = range(0x10, 0x80)
"""Where the probe has its start-up code (``images/probe/segments.h``)."""

# --- words


def _cpu(value: object) -> object:
    """``cpu1`` or 1."""
    if isinstance(value, str) and value[:3] == "cpu" and value[3:].isdecimal():
        return int(value[3:])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("write a CPU as cpu0, cpu1, ...")


def _word_of(words: Mapping[str, int], what: str) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"not a {what}: {nearest(str(value), words)}")
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
    int, BeforeValidator(_cpu), Field(ge=0, lt=MAX_CPUS), WithJsonSchema(CPU_SCHEMA)
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
    data: Annotated[int, Field(ge=0, lt=1 << 32)] | None = None

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
    "wait": Wait,
    "await": Await,
    "offline": Offline,
    "delay_us": Delay,
    "pic.init": PicInit,
    "pit.channel": PitChannel,
}
WORDS: Final = ("sti", "cli", "hlt", "eoi")
GROUPS: Final = ("do", "repeat", "parallel", "read")


@dataclass(frozen=True, slots=True)
class Write:
    """A register := a number, or fields by name."""

    target: Target
    name: str
    value: int | Mapping[str, object]
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Reads registers, in order; each with its access size where that is chosen."""

    targets: tuple[tuple[Target, int | None], ...]


@dataclass(frozen=True, slots=True)
class Do:
    """Actions in order, ``times`` times."""

    actions: tuple[Action, ...]
    times: int = 1


@dataclass(frozen=True, slots=True)
class Parallel:
    """CPUs that start together, each with its own actions."""

    blocks: tuple[tuple[int, tuple[Action, ...]], ...]


Verb: TypeAlias = (
    Line | Ipi | Msi | Wait | Await | Offline | Delay | PicInit | PitChannel | Word
) | (Write | Read | Do | Parallel)


@dataclass(frozen=True, slots=True)
class Action:
    """A verb, on the CPU that was named (None: on that of what it is part of), and its place."""

    verb: Verb
    cpu: int | None
    at: Location


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a scenario, and how it was written."""

    action: Action
    label: str | None
    text: str


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
    log: Literal["full", "short", "count"] = "full"
    pins: list[int] = []
    limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


@dataclass(frozen=True, slots=True)
class HandlerText:
    """A handler as it was written; ``vector`` None is the default one."""

    vector: int | None
    model: HandlerModel
    body: tuple[Action, ...]
    first: tuple[Action, ...]
    at: Location


EventKind: TypeAlias = Literal[
    "irq", "read", "gp", "cut", "count", "nmi", "fault", "timeout", "woke", "asleep", "up"
]


class ExpectModel(Strict):
    """One clause: which events, and exactly one thing that is said of them."""

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
    """A scenario; what hangs on its place in the file is read apart."""

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


@dataclass(frozen=True, slots=True)
class ScenarioText:
    """A scenario as it was written."""

    file: YamlFile
    name: str
    model: ScenarioModel
    handlers: tuple[HandlerText, ...]
    steps: tuple[Step, ...]

    def error(
        self, at: Location, what: str, why: str | None = None, fix: str | None = None
    ) -> ConfigError:
        """A :class:`ConfigError` that names the file, the line, the scenario and the step."""
        return _error(self.file, self.name, at, what, why, fix)


def load(path: Path) -> tuple[ScenarioText, ...]:
    """The scenarios of the file ``path``; :class:`ConfigError` for the first wrong thing."""
    return read(yamlfile.load(path))


def read(file: YamlFile) -> tuple[ScenarioText, ...]:
    """The scenarios of a parsed file."""
    if not isinstance(file.data, dict):
        raise file.error((), "is no list of scenarios", f"expected a mapping, found {file.data!r}")
    model = file.validate(FileModel)
    return tuple(_Reader(file, name).scenario(data) for name, data in model.scenarios.items())


def _error(
    file: YamlFile,
    name: str,
    at: Location,
    what: str,
    why: str | None = None,
    fix: str | None = None,
) -> ConfigError:
    return file.error(at, f"{_place(name, at)}: {what}", why, fix)


def _place(name: str, at: Location) -> str:
    if len(at) > 3 and at[2] == "steps":
        return f"scenario {name}, step {at[3]}"
    if len(at) > 3 and at[2] == "handlers":
        return f"scenario {name}, handler {at[3]}"
    return f"scenario {name}"


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one scenario of a file."""

    file: YamlFile
    name: str

    def scenario(self, data: object) -> ScenarioText:
        at: Location = ("scenarios", self.name)
        if not isinstance(data, dict):
            raise self.error(at, "is not a scenario", f"found {data!r}")
        model = self.file.validate_part(at, ScenarioModel, data, what=_place(self.name, at))
        handlers = tuple(
            self._handler((*at, "handlers"), key, given) for key, given in model.handlers.items()
        )
        steps = tuple(
            self._step((*at, "steps", number), given) for number, given in enumerate(model.steps)
        )
        return ScenarioText(self.file, self.name, model, handlers, steps)

    def error(
        self, at: Location, what: str, why: str | None = None, fix: str | None = None
    ) -> ConfigError:
        return _error(self.file, self.name, at, what, why, fix)

    def _handler(self, at: Location, key: int | str, data: object) -> HandlerText:
        at = (*at, self._written(at, key))
        if key == "default":
            vector = None
        elif isinstance(key, int) and 0 <= key <= 0xFF:
            vector = key
        else:
            raise self.error(at, f"{key!r} is no vector", None, "write 0 to 0xff, or default")
        given = {} if data is None else data
        model = self.file.validate_part(at, HandlerModel, given, what=_place(self.name, at))
        body = self._actions((*at, "do"), model.do)
        first = () if model.first is None else self._actions((*at, "first", "do"), model.first.do)
        return HandlerText(vector, model, body, first, at)

    def _written(self, at: Location, key: int | str) -> str:
        """A key as it stands in the file: lines are kept by that."""
        if isinstance(key, str):
            return key
        depth = len(at)
        for place in self.file.lines:
            if place[:depth] == at and len(place) > depth and _number(place[depth]) == key:
                return str(place[depth])
        return str(key)

    def _actions(self, at: Location, data: object) -> tuple[Action, ...]:
        if not isinstance(data, list):
            raise self.error(at, "is no list of steps", f"found {data!r}")
        return tuple(self._action((*at, number), given) for number, given in enumerate(data))

    def _step(self, at: Location, data: object) -> Step:
        label = None
        if isinstance(data, dict) and "label" in data:
            label = data["label"]
            if not isinstance(label, str):
                raise self.error((*at, "label"), "a label is a word", f"found {label!r}")
            data = {key: value for key, value in data.items() if key != "label"}
        return Step(self._action(at, data), label, _text(data))

    def _action(self, at: Location, data: object) -> Action:
        cpu = None
        if isinstance(data, str):
            data = {data: None}
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            raise self.error(at, "is no step", f"found {data!r}")
        if "cpu" in data:
            cpu = self._cpu((*at, "cpu"), data["cpu"])
        keys = [key for key in data if key != "cpu"]
        if len(keys) != 1:
            what = f"does {' and '.join(keys)}" if keys else "does nothing"
            fix = "one step does one thing; several together: do: [...]"
            raise self.error(at, f"a step that {what}", None, fix)
        return Action(self._verb((*at, keys[0]), keys[0], data[keys[0]]), cpu, at)

    def _cpu(self, at: Location, value: object) -> int:
        try:
            number = _cpu(value)
        except ValueError as error:
            raise self.error(at, f"{value!r} is no CPU", None, str(error)) from None
        assert isinstance(number, int)
        return number

    def _verb(self, at: Location, key: str, data: Any) -> Verb:
        if key in WORDS:
            if data is not None:
                raise self.error(at, f"{key} takes nothing", f"found {data!r}")
            return Word.model_validate({"word": key})
        if (model := VERBS.get(key)) is not None:
            what = f"{_place(self.name, at)}: {key}"
            return self.file.validate_part(at, model, data, what=what)  # type: ignore[return-value]
        if key == "do":
            return Do(self._actions(at, data))
        if key == "repeat":
            return self._repeat(at, data)
        if key == "parallel":
            return self._parallel(at, data)
        if key == "read":
            return self._read(at, data)
        return self._write(at, key, data)

    def _repeat(self, at: Location, data: object) -> Do:
        if not isinstance(data, dict) or set(data) != {"times", "do"}:
            raise self.error(at, "repeat needs times and do", f"found {data!r}")
        times = data["times"]
        if not isinstance(times, int) or not 1 <= times <= 1000:
            raise self.error((*at, "times"), "bad number of times", f"found {times!r}", "1 to 1000")
        return Do(self._actions((*at, "do"), data["do"]), times)

    def _parallel(self, at: Location, data: object) -> Parallel:
        if not isinstance(data, dict) or len(data) < 2:
            raise self.error(at, "parallel needs two CPUs or more", f"found {data!r}")
        blocks = (
            (self._cpu((*at, str(key)), key), self._actions((*at, str(key)), value))
            for key, value in data.items()
        )
        return Parallel(tuple(sorted(blocks, key=lambda block: block[0])))

    def _read(self, at: Location, data: object) -> Read:
        entries = data if isinstance(data, list) else [data]
        if not entries:
            raise self.error(at, "reads nothing")
        return Read(tuple(self._readable(at, entry) for entry in entries))

    def _readable(self, at: Location, entry: object) -> tuple[Target, int | None]:
        if isinstance(entry, dict) and len(entry) == 1:
            ((name, options),) = entry.items()
            if isinstance(options, dict) and set(options) == {"size"}:
                target = self._target(at, str(name))
                return target, self._size(at, target, options["size"])
        if not isinstance(entry, str):
            raise self.error(at, "is no register", f"found {entry!r}", "as in lapic.isr.2")
        return self._target(at, entry), None

    def _write(self, at: Location, key: str, data: object) -> Write:
        target = self._target(at, key)
        if isinstance(data, int) and not isinstance(data, bool):
            return Write(target, key, data)
        if target.register.raw and isinstance(data, dict) and set(data) == {"value", "size"}:
            if not isinstance(data["value"], int):
                raise self.error((*at, "value"), "is no number", f"found {data['value']!r}")
            return Write(target, key, data["value"], self._size(at, target, data["size"]))
        if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
            fix = f"write a number, or fields: {_fields(target) or 'it has none'}"
            raise self.error(at, f"bad value for {key}", f"found {data!r}", fix)
        for name in data:
            fields = [field.name for field in target.register.fields]
            if name not in fields:
                fix = nearest(name, fields) if fields else "write a number"
                raise self.error((*at, name), f"{key} has no field {name!r}", None, fix)
        return Write(target, key, data)

    def _size(self, at: Location, target: Target, size: object) -> int:
        sizes = {"mem": (1, 2, 4, 8), "io": (1, 2, 4)}.get(target.register.name, ())
        if not isinstance(size, int) or size not in sizes:
            allowed = ", ".join(map(str, sizes)) or "only mem and io have sizes"
            raise self.error(at, f"bad size {size!r}", None, allowed)
        return size

    def _target(self, at: Location, name: str) -> Target:
        if not name.strip():
            raise self.error(at, "is no register", f"found {name!r}")
        try:
            return find(name)
        except ConfigError as error:
            words = {*VERBS, *WORDS, *GROUPS}
            fix = error.fix
            if "." not in name and "[" not in name:
                fix = nearest(name, {*words, *REGISTERS})
                raise self.error(at, f"unknown word or register {name!r}", None, fix) from None
            raise self.error(at, error.what, error.why, fix) from None


def _number(text: str | int) -> int | None:
    try:
        return int(str(text), 0)
    except ValueError:
        return None


def _fields(target: Target) -> str:
    return ", ".join(field.name for field in target.register.fields)


_DECIMAL: Final = frozenset({"count", "times", "delay_us", "timeout_us"})


def _text(data: object) -> str:
    """A step on one line, in YAML's flow style as far as it matters to a reader."""
    return _pairs(data) if isinstance(data, dict) else str(data)


def _pairs(data: Mapping[object, object]) -> str:
    words = (
        str(key) if value is None else f"{key}: {value if key in _DECIMAL else _value(value)}"
        for key, value in data.items()
    )
    return ", ".join(words)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if -10 < value < 10 else f"{value:#x}"
    if isinstance(value, dict):
        return "{" + _pairs(value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return str(value)
