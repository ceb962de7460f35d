"""The catalogue of reproducers: what differs between irqchips, how to see it, and what was seen.

An entry is a YAML file in ``configs/repro``; its recipe is a configuration of the same language as
every other run's, its signs say what has to be measured in which mode.  The format is described in
``docs/repro.md``.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from harness.base import resources, suggest, yamlfile
from harness.base.errors import ConfigError
from harness.base.yamlfile import Strict, YamlFile
from harness.compare.known import AxisMatch, AxisModel, BackendFacts, Bounds, BoundsModel
from harness.config import config
from harness.config.config import RunConfig
from harness.guests.kinds.model import Text
from harness.guests.kinds.table import kind_of
from harness.model.case import MODES, Accel, Case, Irqchip, Vmm
from harness.model.counters import CounterSource
from harness.repro.field_signs import FieldEvidence, FieldModel


class EntryKind(StrEnum):
    """What an entry is."""

    KNOWN_BUG = "known-bug"
    BY_DESIGN = "by-design"
    CONTROL = "control"
    """A negative control: all modes agree, and the entry shows that they do."""


@dataclass(frozen=True)
class Expected:
    """What a sign is in one mode: a number in a range, or a text.

    ``text`` has to be the whole of it, ``pattern`` is found anywhere in it.
    """

    bounds: Bounds | None = None
    text: str | None = None
    pattern: str | None = None

    def met_by(self, value: float | str) -> bool:
        """Whether ``value`` is what is expected."""
        if self.bounds is not None:
            return isinstance(value, int | float) and value in self.bounds
        if self.text is not None:
            return plain(value) == self.text
        return re.search(self.pattern or "", plain(value)) is not None

    def __str__(self) -> str:
        if self.bounds is None:
            return self.text if self.text is not None else f"~ {self.pattern}"
        low, high = self.bounds.min, self.bounds.max
        if low is not None and high is not None:
            return f"{low:g} to {high:g}" if low != high else f"{low:g}"
        return f"at least {low:g}" if low is not None else f"at most {high:g}"


def plain(value: float | str) -> str:
    """A value as it is shown, and compared with a text."""
    return value if isinstance(value, str) else f"{value:.10g}"


class Quantity(StrEnum):
    """What a sign measures of a case."""

    COUNTER = "counter"
    METRIC = "metric"
    VERDICT = "verdict"
    OBSERVATION = "observation"
    DETAIL = "detail"
    LOG = "log"
    """How many lines of a scenario's log match a regular expression."""
    READ = "read"
    """The values that a step of a scenario read, as one text."""


@dataclass(frozen=True)
class Sign:
    """One thing to measure, and what it has to be in each mode.

    ``name`` is a glob for counters' paths, a metric's name, an observation's id, a regular
    expression for lines of a scenario's log, the number of a scenario's step; for a verdict and
    a detail it is the part, or ``*`` for the case as a whole.  ``per`` is ``second``, a metric,
    or another counter as ``PATH [SOURCE]``, that the counter is divided by.  ``cases`` is a glob
    for their ids.
    """

    what: str
    quantity: Quantity
    name: str
    part: str
    source: CounterSource | None
    per: str | None
    cases: str
    expect: Mapping[Irqchip, Expected]


@dataclass(frozen=True)
class Seen:
    """A run that showed it, or showed that it is not there: versions, and what was measured."""

    qemu: str
    linux: str | None
    host: str
    reproduced: bool
    saw: Mapping[Irqchip, str]


@dataclass(frozen=True)
class Tried:
    """Another hypothesis, how it was tried, and what that showed."""

    hypothesis: str
    showed: str


@dataclass(frozen=True)
class Entry:
    """One reproducer.  ``modes`` are those that have to be run for the question to be answered."""

    id: str
    symptom: str
    kind: EntryKind
    modes: tuple[Irqchip, ...]
    affected: tuple[AxisMatch, ...]
    affected_text: str
    fixed: str
    links: tuple[str, ...]
    about: str
    signs: tuple[Sign, ...]
    seen: tuple[Seen, ...]
    tried: tuple[Tried, ...]
    host_kvm: str | None
    """The module whose KVM it takes on this machine; None where any will do, or the lab's."""
    again: tuple[Mapping[str, Any], ...]
    """Where it should show and does not: fragments that take the place of the recipe's, in turn."""
    field: FieldEvidence | None
    """What one sees of it on a user's machine; None where nothing is."""
    file: YamlFile

    def is_affected(self, facts: BackendFacts) -> bool:
        """Whether the entry says that a backend with these versions shows it."""
        return not self.affected or any(match.means(facts) for match in self.affected)

    def config(
        self,
        *,
        kernel: str | None = None,
        qemu: str | None = None,
        only: Iterable[Irqchip] | None = None,
        attempt: int = 0,
        live: bool = False,
    ) -> RunConfig:
        """The recipe as a configuration; ``kernel`` (the lab's), ``qemu`` and modes override it.

        ``live``: with the live chips in place of QEMU, where they can be; :class:`ConfigError`
        where they can nowhere.
        ``attempt`` counts from 0: the recipe itself, then what stands in :attr:`again`.
        """
        overrides = dict(self.again[attempt - 1]) if attempt else {}
        if kernel is not None:
            lab = overrides.get("lab", _mapping(_mapping(self.file.data).get("recipe")).get("lab"))
            overrides["lab"] = {**_mapping(lab), "kernel": kernel}
        if qemu is not None:
            overrides["qemu"] = qemu
        recipe = _recipe_file(self.file, self.id, overrides)
        expanded = config.expand(recipe)
        if live:
            expanded = dataclasses.replace(expanded, cases=self._on_live_chips(expanded.cases))
        if only is None:
            return expanded
        wanted = frozenset(only)
        cases = tuple(case for case in expanded.cases if case.backend.irqchip in wanted)
        return dataclasses.replace(expanded, cases=cases)

    def guests(self, attempt: int = 0) -> list[Mapping[str, Any]]:
        """The recipe's guests as they stand in the file; ``attempt`` as in :meth:`config`."""
        told = dict(_mapping(_mapping(self.file.data).get("recipe")))
        return list((told | dict(self.again[attempt - 1] if attempt else {})).get("guests", ()))

    def _on_live_chips(self, cases: Iterable[Case]) -> tuple[Case, ...]:
        found = tuple(map(_on_live_chips, cases))
        if not any(case.backend.vmm is Vmm.PYCHIP for case in found):
            why = "they have KVM's modes, and boot probes and flat images"
            raise ConfigError(f"{self.id} has nothing for the live chips", why)
        return found

    @property
    def digest(self) -> str:
        """Of what decides the outcome: the recipe and the signs."""
        data = _mapping(self.file.data)
        decisive = {key: data.get(key) for key in ("modes", "recipe", "host_kvm", "again", "signs")}
        return hashlib.sha256(json.dumps(decisive, default=str).encode()).hexdigest()[:16]

    @property
    def decisive_cases(self) -> tuple[Case, ...]:
        """The cases of :attr:`modes` alone: enough to answer the question."""
        return self.config(only=self.modes).cases


def _on_live_chips(case: Case) -> Case:
    """``case`` with the live chips in place of QEMU, where they have its mode and its guest."""
    backend = case.backend
    has_mode = (Vmm.PYCHIP, backend.irqchip) in MODES.values() and backend.accel is Accel.KVM
    kind = kind_of(case.guest)
    # What takes long to boot takes minutes there.
    if not has_mode or kind.live.missing is not None or kind.boot_instructions is not None:
        return case
    return dataclasses.replace(case, backend=dataclasses.replace(backend, vmm=Vmm.PYCHIP))


def shipped() -> dict[str, Path]:
    """The files that ship with irqmatrix, by the id of their entry."""
    return {path.stem: path for path in sorted((resources.configs() / "repro").glob("*.yaml"))}


@functools.cache
def shipped_entries() -> tuple[Entry, ...]:
    """The entries of those files."""
    return tuple(load(path) for path in shipped().values())


def find(name: str) -> Entry:
    """The entry of that id, or in the file of that path; :class:`ConfigError` if there is none."""
    files = shipped()
    if name in files:
        return load(files[name])
    if Path(name).is_file():
        return load(Path(name))
    alike = [known for known in files if set(name.split("-")) & set(known.split("-"))][:3]
    fix = (
        suggest.close(name, files, count=3, cutoff=0.4)
        or suggest.close(name, alike, count=3, cutoff=0.0)
        or f"there are: {', '.join(files)}"
    )
    raise ConfigError(
        f"there is no reproducer {name!r}", None, f"{fix} irqmatrix repro --list shows all"
    )


def load(path: Path) -> Entry:
    """The entry in ``path``; :class:`ConfigError` with file and line for what is wrong in it."""
    file = yamlfile.load(path)
    if not isinstance(file.data, dict):
        raise file.error((), "is not a reproducer", f"expected a mapping, found {file.data!r}")
    model = file.validate(EntryModel)
    recipe = _completed(model.recipe, model.id)
    file.validate_part(("recipe",), config.file_model(), recipe)
    for index, fragment in enumerate(model.again):
        file.validate_part(("again", index), config.file_model(), recipe | fragment)
    entry = Entry(
        id=model.id,
        symptom=" ".join(model.symptom.split()),
        kind=model.kind,
        modes=tuple(model.modes),
        affected=tuple(axis.frozen() for axis in model.affected),
        affected_text="; ".join(map(_axis_text, model.affected)) or "every version",
        fixed=" ".join(model.fixed.split()),
        links=tuple(model.links),
        about=" ".join(model.about.split()),
        signs=tuple(sign.frozen() for sign in model.signs),
        seen=tuple(seen.frozen() for seen in model.seen),
        tried=tuple(
            Tried(" ".join(tried.hypothesis.split()), " ".join(tried.showed.split()))
            for tried in model.tried
        ),
        host_kvm=model.host_kvm,
        again=tuple(model.again),
        field=None if model.evidence is None else model.evidence.frozen(),
        file=file,
    )
    _check_modes(entry)
    return entry


def _check_modes(entry: Entry) -> None:
    """Every mode that is needed, or that a sign speaks of, has to be in the recipe."""
    there = {case.backend.irqchip for case in entry.config().cases}
    for index, sign in enumerate(entry.signs):
        for mode in sign.expect:
            if mode not in there:
                raise entry.file.error(
                    ("signs", index, "expect"),
                    f"the recipe runs nothing in the mode {mode}",
                    f"it runs {', '.join(sorted(there))}",
                    "add it to the recipe's matrix, or take it out here",
                )
    judged = {mode for sign in entry.signs for mode in sign.expect}
    for mode in entry.modes:
        if mode not in judged:
            raise entry.file.error(("modes",), f"no sign says what is expected in the mode {mode}")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _completed(recipe: Mapping[str, Any], entry_id: str) -> dict[str, Any]:
    return {"version": 1, "name": entry_id, **recipe}


def _recipe_file(file: YamlFile, entry_id: str, overrides: Mapping[str, Any]) -> YamlFile:
    """The recipe as a file of its own, whose lines are those of the entry."""
    data = {**_completed(_mapping(file.data).get("recipe", {}), entry_id), **overrides}
    lines = {loc[1:]: line for loc, line in file.lines.items() if loc[:1] == ("recipe",)}
    return YamlFile(file.path, data, lines)


# --- The files ----------------------------------------------------------------------------------


def _one_text(value: object) -> object:
    """A bare word or number is the text that has to be there."""
    if isinstance(value, yamlfile.WrittenFloat):
        return {"is": value.written}
    return {"is": str(value)} if isinstance(value, str | int | float) else value


def _check_pattern(pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


class ExpectedModel(Strict):
    """What a sign is in a mode: ``{min: 1, max: 2}``, ``{is: text}``, ``{matches: regex}``."""

    min: float | None = None
    max: float | None = None
    is_: str | None = Field(default=None, alias="is")
    matches: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> ExpectedModel:
        numeric = self.min is not None or self.max is not None
        if numeric + (self.is_ is not None) + (self.matches is not None) != 1:
            raise ValueError("exactly one of min/max, is and matches is required")
        if numeric:
            BoundsModel(min=self.min, max=self.max)
        _check_pattern(self.matches)
        return self

    def frozen(self) -> Expected:
        """As the type that assessments use."""
        numeric = self.is_ is None and self.matches is None
        return Expected(Bounds(self.min, self.max) if numeric else None, self.is_, self.matches)


_Mode: TypeAlias = Annotated[Irqchip, BeforeValidator(yamlfile.on_or_off)]
_Modes: TypeAlias = Annotated[list[_Mode], BeforeValidator(yamlfile.as_list), Field(min_length=1)]
_Sentence: TypeAlias = Annotated[str, Field(min_length=10)]


_OF_A_PART: Final = (Quantity.COUNTER, Quantity.METRIC, Quantity.LOG, Quantity.READ)


class SignModel(Strict):
    """A sign as it stands in the file."""

    what: _Sentence
    counter: str | None = None
    source: CounterSource | None = None
    per: str | None = None
    metric: str | None = None
    verdict: str | None = None
    observation: str | None = None
    detail: str | None = None
    log: str | None = None
    read: Annotated[int, Field(ge=0)] | None = None
    part: str | None = None
    cases: str = "*"
    expect: Annotated[
        dict[_Mode, Annotated[ExpectedModel, BeforeValidator(_one_text)]], Field(min_length=1)
    ]

    @model_validator(mode="after")
    def _one_quantity(self) -> SignModel:
        named = [quantity for quantity in Quantity if getattr(self, quantity) is not None]
        if len(named) != 1:
            raise ValueError(f"exactly one of {', '.join(Quantity)} is required")
        if (named[0] is Quantity.COUNTER) is (self.source is None):
            raise ValueError("source is required with counter, and goes with nothing else")
        if (named[0] in _OF_A_PART) is (self.part is None):
            kinds = ", ".join(_OF_A_PART)
            raise ValueError(f"part goes with {kinds}, and with nothing else")
        if self.per is not None and self.source is None:
            raise ValueError("per goes with counter only")
        _check_pattern(self.log)
        return self

    def frozen(self) -> Sign:
        """As the type that assessments use."""
        quantity = next(quantity for quantity in Quantity if getattr(self, quantity) is not None)
        name = str(getattr(self, quantity))
        part = self.part if self.part is not None else name
        expect = {mode: expected.frozen() for mode, expected in self.expect.items()}
        return Sign(
            " ".join(self.what.split()),
            quantity,
            name,
            part,
            self.source,
            self.per,
            self.cases,
            expect,
        )


class SeenModel(Strict):
    """A run that was made, as it stands in the file."""

    qemu: Text
    linux: Text | None = None
    host: Annotated[str, Field(pattern=r"^(lab|local)$")] = "lab"
    reproduced: bool = True
    saw: Annotated[dict[_Mode, Text], Field(min_length=1)]

    def frozen(self) -> Seen:
        """As the type that lists and bundles use."""
        return Seen(self.qemu, self.linux, self.host, self.reproduced, dict(self.saw))


class TriedModel(Strict):
    """Another hypothesis, as it stands in the file."""

    hypothesis: _Sentence
    showed: _Sentence


class EntryModel(Strict):
    """The whole file."""

    version: Annotated[int, Field(ge=1, le=1)]
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    symptom: Annotated[str, Field(min_length=10, max_length=160)]
    kind: EntryKind
    modes: _Modes
    affected: list[AxisModel] = []
    fixed: str = ""
    links: Annotated[list[Annotated[str, Field(pattern=r"^https?://\S+$")]], Field(min_length=1)]
    about: _Sentence
    recipe: dict[str, Any]
    signs: Annotated[list[SignModel], Field(min_length=1)]
    seen: Annotated[list[SeenModel], Field(min_length=1)]
    tried: list[TriedModel] = []
    host_kvm: Annotated[str, Field(pattern=r"^kvm_\w+$")] | None = None
    again: list[dict[str, Any]] = []
    evidence: FieldModel | None = None


def _axis_text(axis: AxisModel) -> str:
    """``QEMU >=9.1, Linux <6.3``."""
    names = {"qemu": "QEMU", "linux": "Linux"}
    ranges = [f"{name} {value}" for key, name in names.items() if (value := getattr(axis, key))]
    kinds = [*(axis.machine or ()), *(axis.irqchip or ())]
    return " and ".join([*ranges, *map(str, kinds)])
