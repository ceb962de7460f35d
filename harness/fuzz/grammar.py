"""Grammars: what a random scenario may consist of, as data (``configs/fuzz/grammars/*.yaml``).

An action is a template in the language of scenarios.  ``$name`` in it stands for a value that is
drawn from the grammar's ``values``, once for the whole action; ``$cpu`` for one of the program's
CPUs.  A value may itself be a template.  Weights stand beside what they are the weights of:
``{false: 3, true: 1}``; in a list everything is equally likely.  ``docs/fuzz.md`` describes it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, Field

from harness.base import resources, suggest, yamlfile
from harness.base.errors import ConfigError
from harness.base.yamlfile import Location, Strict, YamlFile
from harness.scenario.program import MAX_CPUS
from harness.scenario.registers import ApicMode

CPU: Final = "cpu"
"""The name of the value that every grammar has."""
PLACEHOLDER: Final = re.compile(r"\$([a-z_][a-z0-9_]*)")


class Where(StrEnum):
    """Where an action may stand."""

    STEPS = "steps"
    HANDLERS = "handlers"
    NMI = "nmi"
    """In the handler of NMIs."""


@dataclass(frozen=True)
class Choice:
    """Values to draw from, each with its weight."""

    values: tuple[Any, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Action:
    """A template of one step; ``templates`` that are several become one step with ``do``.

    ``modes``: those of the local APIC of the CPU that executes it in which it makes sense;
    ``becomes``: which it is in afterwards.  ``cpus``: how many the program needs for it.
    """

    templates: tuple[Any, ...]
    weight: float
    where: tuple[Where, ...]
    modes: tuple[ApicMode, ...]
    becomes: ApicMode | None
    cpus: int


@dataclass(frozen=True)
class Handlers:
    """What handlers look like; probabilities are from 0 to 1.

    ``probability`` is of a vector of ``values.vector`` having one of its own, ``nmi`` of there
    being one of NMIs, ``first`` of other actions the first time, ``sti`` of it letting others in.
    ``default`` is the handler of every other vector.
    """

    probability: float
    nmi: float
    first: float
    sti: float
    eoi: Choice
    actions: Choice
    limit: Choice
    log: Choice
    pins: Choice
    default: Mapping[str, Any]


@dataclass(frozen=True)
class Grammar:
    """One grammar; ``weight`` is how often a program is of it."""

    name: str
    about: str
    weight: float
    cpus: Choice
    modes: Choice
    interrupts: Choice
    steps: tuple[int, int]
    """The least and the greatest number of actions."""
    model: str | None
    """Why the Python chips cannot predict it; None where they can."""
    machines: tuple[str, ...]
    needs: tuple[str, ...]
    values: Mapping[str, Choice]
    handlers: Handlers
    begin: tuple[Any, ...]
    """Steps before all others, as templates."""
    end: tuple[Any, ...]
    actions: tuple[Action, ...]


def shipped() -> tuple[Grammar, ...]:
    """All grammars that ship with irqmatrix, by name."""
    return tuple(load(path) for path in _files())


def selected(name: str | None, machine: str = "q35") -> tuple[Grammar, ...]:
    """The grammar ``name``, or the one in the file of that path.

    None: all shipped ones for ``machine``; so one for another machine does not change what programs
    a seed means.  :class:`ConfigError` for an unknown name.
    """
    if name is None:
        return tuple(one for one in shipped() if not one.machines or machine in one.machines)
    by_name = {path.stem: path for path in _files()}
    if name in by_name:
        return (load(by_name[name]),)
    if Path(name).is_file():
        return (load(Path(name)),)
    raise ConfigError(f"there is no grammar {name!r}", None, suggest.nearest(name, by_name))


def digest(grammars: Iterable[Grammar]) -> str:
    """Of all that decides what programs a seed means."""
    return hashlib.sha256(repr(tuple(grammars)).encode()).hexdigest()[:16]


def _files() -> list[Path]:
    return sorted((resources.configs() / "fuzz" / "grammars").glob("*.yaml"))


def load(path: Path) -> Grammar:
    """The grammar in ``path``; :class:`ConfigError` for what is wrong in it."""
    file = yamlfile.load(path)
    if not isinstance(file.data, dict):
        raise file.error((), "is not a grammar", f"expected a mapping, found {file.data!r}")
    model = file.validate(GrammarModel)
    grammar = model.frozen(path.stem)
    _check_names(file, grammar)
    if not any(Where.STEPS in action.where and action.weight > 0 for action in grammar.actions):
        raise file.error(("actions",), "generates nothing", "no action may stand in the steps")
    return grammar


def _check_names(file: YamlFile, grammar: Grammar) -> None:
    """Whether there is a value for every placeholder."""
    places: list[tuple[Location, Any]] = [
        (("values", name), choice.values) for name, choice in grammar.values.items()
    ]
    places += [(("actions", n), one.templates) for n, one in enumerate(grammar.actions)]
    places += [(("begin",), grammar.begin), (("end",), grammar.end)]
    places += [(("handlers", "default"), grammar.handlers.default)]
    for at, template in places:
        for name in sorted(placeholders(template) - grammar.values.keys() - {CPU}):
            fix = suggest.nearest(name, [*grammar.values, CPU])
            raise file.error(at, f"there is no value ${name}", None, fix)


def placeholders(template: object) -> set[str]:
    """The names of the values that ``template`` takes."""
    if isinstance(template, dict):
        return set().union(*(placeholders(one) for pair in template.items() for one in pair))
    if isinstance(template, list | tuple):
        return set().union(*map(placeholders, template))
    return set(PLACEHOLDER.findall(template)) if isinstance(template, str) else set()


# --- The files ----------------------------------------------------------------------------------


def _choice(value: object) -> object:
    """A list is of equal weights; a mapping has them as its values; anything else is certain."""
    if isinstance(value, dict):
        if not value or not all(isinstance(w, int | float) and w > 0 for w in value.values()):
            raise ValueError("weights are numbers above 0")
        return Choice(tuple(value), tuple(map(float, value.values())))
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError("there is nothing to choose from")
    return Choice(tuple(values), (1.0,) * len(values))


_Choice: TypeAlias = Annotated[Choice, BeforeValidator(_choice)]
_Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
_Templates: TypeAlias = Annotated[list[Any], BeforeValidator(yamlfile.as_list)]


class ActionModel(Strict):
    """An action as it stands in the file."""

    do: Annotated[list[Any], BeforeValidator(yamlfile.as_list), Field(min_length=1)]
    weight: Annotated[float, Field(ge=0)] = 1
    where: list[Where] = [Where.STEPS, Where.HANDLERS]
    modes: list[ApicMode] = list(ApicMode)
    becomes: ApicMode | None = None
    cpus: Annotated[int, Field(ge=1, le=MAX_CPUS)] = 1

    def frozen(self) -> Action:
        """As the type that the author uses."""
        where, modes = tuple(self.where), tuple(self.modes)
        return Action(tuple(self.do), self.weight, where, modes, self.becomes, self.cpus)


class HandlersModel(Strict):
    """``handlers`` as it stands in the file."""

    probability: _Probability = 0.5
    nmi: _Probability = 0
    first: _Probability = 0
    sti: _Probability = 0.25
    eoi: _Choice = Choice(("after", "before", "if_in_service", "never"), (4, 2, 4, 1))
    actions: _Choice = Choice((0, 1, 2), (2, 2, 1))
    limit: _Choice = Choice((3, 4, 6), (1, 1, 1))
    log: _Choice = Choice(("full",), (1,))
    pins: _Choice = Choice((0,), (1,))
    default: dict[str, Any] = {"limit": 4}

    def frozen(self) -> Handlers:
        """As the type that the author uses."""
        return Handlers(**{name: getattr(self, name) for name in type(self).model_fields})


class GrammarModel(Strict):
    """The whole file."""

    version: Annotated[int, Field(ge=1, le=1)]
    about: Annotated[str, Field(min_length=10)]
    weight: Annotated[float, Field(gt=0)] = 1
    cpus: _Choice = Choice((1,), (1,))
    modes: _Choice = Choice(("xapic",), (1,))
    interrupts: _Choice = Choice(("on",), (1,))
    steps: Annotated[list[Annotated[int, Field(ge=1, le=200)]], Field(min_length=2, max_length=2)]
    model: Annotated[str, Field(min_length=1)] | None = None
    machines: list[str] = []
    needs: list[str] = []
    values: dict[Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")], _Choice] = {}
    handlers: HandlersModel = HandlersModel()
    begin: _Templates = []
    end: _Templates = []
    actions: Annotated[list[ActionModel], Field(min_length=1)]

    def frozen(self, name: str) -> Grammar:
        """As the type that the author uses."""
        return Grammar(
            name=name,
            about=" ".join(self.about.split()),
            weight=self.weight,
            cpus=self.cpus,
            modes=self.modes,
            interrupts=self.interrupts,
            steps=(min(self.steps), max(self.steps)),
            model=self.model,
            machines=tuple(self.machines),
            needs=tuple(self.needs),
            values=self.values,
            handlers=self.handlers.frozen(),
            begin=tuple(self.begin),
            end=tuple(self.end),
            actions=tuple(action.frozen() for action in self.actions),
        )
