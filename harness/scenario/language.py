"""The scenario language: a YAML file as it was written, checked for form.

What the words mean to the machine, and which of them are possible where, is in ``compile``.  The
language is described in ``docs/scenarios.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from harness.base import suggest, yamlfile
from harness.base.errors import ConfigError
from harness.base.yamlfile import Location, YamlFile
from harness.scenario.program import ANY_VECTOR, NMI_ENTRY
from harness.scenario.registers import REGISTERS, Target, find
from harness.scenario.vocabulary import (
    GROUPS,
    VERBS,
    WORDS,
    Ask,
    Await,
    Delay,
    FileModel,
    HandlerModel,
    Ipi,
    Line,
    Msi,
    Offline,
    PicInit,
    PitChannel,
    PvIpi,
    ScenarioModel,
    Wait,
    Word,
    cpu_number,
)


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
    logged: bool = True


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
    Line | Ipi | Msi | PvIpi | Wait | Await | Offline | Delay | Ask | PicInit | PitChannel | Word
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


@dataclass(frozen=True, slots=True)
class HandlerText:
    """A handler as it was written; ``vector`` may be ``ANY_VECTOR`` or ``NMI_ENTRY``."""

    vector: int
    model: HandlerModel
    body: tuple[Action, ...]
    first: tuple[Action, ...]
    at: Location


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

    def check_cpu(self, cpu: int, at: Location) -> None:
        """:class:`ConfigError` where the scenario has no such CPU."""
        if cpu >= self.model.cpus:
            why = f"the scenario has {self.model.cpus}, from cpu0"
            raise self.error(at, f"there is no CPU {cpu}", why, "see cpus")


def load(path: Path) -> tuple[ScenarioText, ...]:
    """The scenarios of the file ``path``; :class:`ConfigError` for the first wrong thing."""
    return read(yamlfile.load(path))


def read(file: YamlFile) -> tuple[ScenarioText, ...]:
    """The scenarios of a parsed file."""
    if not isinstance(file.data, dict):
        raise file.error(
            (), "is not a list of scenarios", f"expected a mapping, found {file.data!r}"
        )
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
        self._check_handlers((*at, "handlers"), len(model.handlers))
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

    def _check_handlers(self, at: Location, number: int) -> None:
        """Whether one vector was written in two ways: YAML keeps the last of equal keys."""
        written = [where[-1] for where in self.file.lines if where[:-1] == at]
        if len(written) > number:
            raise self.error(at, "duplicate vector", f"found {', '.join(map(str, written))}")

    def _handler(self, at: Location, key: int | str, data: object) -> HandlerText:
        at = (*at, self._written(at, key))
        if key == "default":
            vector = ANY_VECTOR
        elif key == "nmi":
            vector = NMI_ENTRY
        elif isinstance(key, int) and 0 <= key <= 0xFF:
            vector = key
        else:
            raise self.error(
                at, f"{key!r} is not a vector", None, "write 0 to 0xff, default, or nmi"
            )
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
            raise self.error(at, "is not a list of steps", f"found {data!r}")
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
            raise self.error(at, "is not a step", f"found {data!r}")
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
            number = cpu_number(value)
        except ValueError as error:
            raise self.error(at, f"{value!r} is not a CPU", None, str(error)) from None
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
        if key in ("read", "discard"):
            return self._read(at, data, logged=key == "read")
        return self._write(at, key, data)

    def _repeat(self, at: Location, data: object) -> Do:
        if not isinstance(data, dict) or set(data) != {"times", "do"}:
            raise self.error(at, "repeat needs times and do", f"found {data!r}")
        times = data["times"]
        if not isinstance(times, int) or isinstance(times, bool) or not 1 <= times <= 1000:
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

    def _read(self, at: Location, data: object, *, logged: bool) -> Read:
        entries = data if isinstance(data, list) else [data]
        if not entries:
            raise self.error(at, "reads nothing")
        return Read(tuple(self._readable(at, entry) for entry in entries), logged)

    def _readable(self, at: Location, entry: object) -> tuple[Target, int | None]:
        if isinstance(entry, dict) and len(entry) == 1:
            ((name, options),) = entry.items()
            if isinstance(options, dict) and set(options) == {"size"}:
                target = self._target(at, str(name))
                return target, self._size(at, target, options["size"])
        if not isinstance(entry, str):
            raise self.error(at, "is not a register", f"found {entry!r}", "as in lapic.isr.2")
        return self._target(at, entry), None

    def _write(self, at: Location, key: str, data: object) -> Write:
        target = self._target(at, key)
        if isinstance(data, int) and not isinstance(data, bool):
            return Write(target, key, data)
        if target.register.raw and isinstance(data, dict) and set(data) == {"value", "size"}:
            if not isinstance(data["value"], int):
                raise self.error((*at, "value"), "is not a number", f"found {data['value']!r}")
            return Write(target, key, data["value"], self._size(at, target, data["size"]))
        if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
            fix = f"write a number, or fields: {_fields(target) or 'it has none'}"
            raise self.error(at, f"bad value for {key}", f"found {data!r}", fix)
        for name in data:
            fields = [field.name for field in target.register.fields]
            if name not in fields:
                fix = suggest.nearest(name, fields) if fields else "write a number"
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
            raise self.error(at, "is not a register", f"found {name!r}")
        try:
            return find(name)
        except ConfigError as error:
            if not {".", "["} & {*name} and name not in REGISTERS:
                fix = suggest.nearest(name, {*VERBS, *WORDS, *GROUPS, *REGISTERS})
                raise self.error(at, f"unknown word or register {name!r}", None, fix) from None
            raise self.error(at, error.what, error.why, error.fix) from None


def _number(text: str | int) -> int | None:
    try:
        return int(str(text), 0)
    except ValueError:
        return None


def _fields(target: Target) -> str:
    return ", ".join(field.name for field in target.register.fields)


_DECIMAL: Final = frozenset({"count", "times", "delay_us", "pause_ms", "timeout_us"})


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
