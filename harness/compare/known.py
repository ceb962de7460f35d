"""Known differences: rules in YAML that say why two backends may differ, and for which versions.

A file has ``version: 1`` and a list ``rules``.  A rule::

    - id: ioapic-version
      kind: by-design             # or known-bug
      reason: KVM's IOAPIC has version 0x11 and no EOI register, QEMU's has 0x20.
      link: https://...
      match:
        a: {irqchip: "on"}        # axes: irqchip, qemu, linux, machine
        b: {irqchip: [split, "off", tcg]}
        guest: "*"                # globs
        workload: "*"
        check: monitor.ioapic.version       # or a list; or counter: stage/controller/what
      expect: {a: {min: 17, max: 17}, b: {min: 32, max: 32}}
      occurs: always              # or sometimes

``a`` and ``b`` are interchangeable: the rule holds for the two backends in either order.  Versions
are ranges such as ``">=9.1, <11"``; ``linux`` is the kernel whose KVM is used.  A difference that
matches but is not what ``expect`` says stays unexplained.  A known bug occurs ``always`` unless its
rule says otherwise, a difference by design ``sometimes``; :mod:`harness.compare.expectations` asks
for those that occur always.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from harness.base import resources, yamlfile
from harness.base.errors import ConfigError
from harness.base.versions import Version, VersionRange
from harness.base.yamlfile import Strict
from harness.model import lab_faults
from harness.model.case import Irqchip, Machine
from harness.model.counters import CounterSource
from harness.model.lab_faults import LabFault


class Kind(StrEnum):
    """What a rule says of a difference."""

    BY_DESIGN = "by-design"
    KNOWN_BUG = "known-bug"


@dataclass(frozen=True)
class BackendFacts:
    """What rules may ask of a backend; a version is None where it is unknown.

    ``linux`` is the kernel whose KVM runs the guest, and None under TCG.
    """

    irqchip: Irqchip
    machine: Machine
    qemu: Version | None = None
    linux: Version | None = None
    lab: Version | None = None
    """The version of the QEMU whose TCG is the lab's hardware; None without such a lab."""


@dataclass(frozen=True)
class Bounds:
    """An inclusive range; a side that is None is open."""

    min: float | None = None
    max: float | None = None

    def __contains__(self, value: float) -> bool:
        low = self.min is None or value >= self.min
        return low and (self.max is None or value <= self.max)


@dataclass(frozen=True)
class AxisMatch:
    """Which backends a side of a rule means; None is any.

    A backend whose version is not known is not one of a range of versions.
    """

    irqchip: frozenset[Irqchip] | None = None
    machine: frozenset[Machine] | None = None
    qemu: VersionRange | None = None
    linux: VersionRange | None = None
    lab: VersionRange | None = None
    """Only labs that TCG runs, of a QEMU of these versions; rules of a file say nothing of it."""

    def means(self, facts: BackendFacts) -> bool:
        """Whether ``facts`` is such a backend."""
        return (
            (self.irqchip is None or facts.irqchip in self.irqchip)
            and (self.machine is None or facts.machine in self.machine)
            and _in_range(self.qemu, facts.qemu)
            and _in_range(self.linux, facts.linux)
            and _in_range(self.lab, facts.lab)
        )


def _in_range(wanted: VersionRange | None, version: Version | None) -> bool:
    return wanted is None or (version is not None and version in wanted)


@dataclass(frozen=True)
class Scope:
    """Two backends that were compared, and on what."""

    a: BackendFacts
    b: BackendFacts
    guest: str
    workload: str

    @property
    def swapped(self) -> Scope:
        """The same comparison, from the other side."""
        return Scope(self.b, self.a, self.guest, self.workload)


@dataclass(frozen=True)
class CounterMatch:
    """Counters by a glob for their path, of one source or of all."""

    counter: str
    source: CounterSource | None = None


@dataclass(frozen=True)
class CheckMatch:
    """Checks, and things observed, by globs for their ids."""

    checks: tuple[str, ...]

    def means(self, check: str) -> bool:
        """Whether ``check`` matches one of the globs."""
        return any(fnmatchcase(check, glob) for glob in self.checks)


@dataclass(frozen=True)
class Rule:
    """One known difference; where it stands is in ``path`` and ``line``."""

    id: str
    kind: Kind
    reason: str
    link: str
    a: AxisMatch
    b: AxisMatch
    guest: str
    workload: str
    what: CounterMatch | CheckMatch
    always: bool
    path: Path
    line: int | None
    ratio: Bounds | None = None
    """Of a's value to b's."""
    a_bounds: Bounds | None = None
    b_bounds: Bounds | None = None

    def means(self, scope: Scope) -> bool:
        """Whether the rule speaks of these backends in this order, this guest and workload."""
        return (
            self.a.means(scope.a)
            and self.b.means(scope.b)
            and fnmatchcase(scope.guest, self.guest)
            and fnmatchcase(scope.workload, self.workload)
        )

    def expects(self, a: float | None, b: float | None) -> bool:
        """Whether the values are what the rule says, as far as it says anything of them."""
        for bounds, value in ((self.a_bounds, a), (self.b_bounds, b)):
            if bounds is not None and (value is None or value not in bounds):
                return False
        if self.ratio is None:
            return True
        return a is not None and b is not None and b != 0 and a / b in self.ratio

    def explains_counter(
        self,
        scope: Scope,
        path: str,
        source: CounterSource,
        values: tuple[float | None, float | None],
    ) -> bool:
        """Whether a counter may differ so, in either order of the backends.

        A value is None where the source cannot see it.
        """
        what = self.what
        return (
            isinstance(what, CounterMatch)
            and what.source in (None, source)
            and fnmatchcase(path, what.counter)
            and self._either_way(scope, values)
        )

    def explains_check(self, scope: Scope, check: str, values: tuple[str, str]) -> bool:
        """Whether a check, or a thing observed, may differ so; bounds are for numbers."""
        return (
            isinstance(self.what, CheckMatch)
            and self.what.means(check)
            and self._either_way(scope, (_as_number(values[0]), _as_number(values[1])))
        )

    def _either_way(self, scope: Scope, values: tuple[float | None, float | None]) -> bool:
        a, b = values
        return (self.means(scope) and self.expects(a, b)) or (
            self.means(scope.swapped) and self.expects(b, a)
        )


def _as_number(text: str) -> float | None:
    try:
        return float(int(text, 0))
    except ValueError:
        return None


@dataclass(frozen=True)
class KnownDifferences:
    """All rules; the first that explains a difference is its explanation."""

    rules: tuple[Rule, ...]

    @classmethod
    def load(cls, paths: Iterable[Path]) -> KnownDifferences:
        """The rules of ``paths``; :class:`ConfigError` also for a duplicate id."""
        rules: dict[str, Rule] = {}
        for path in paths:
            for rule in load(path):
                if (other := rules.get(rule.id)) is not None:
                    raise ConfigError(
                        f"duplicate rule {rule.id!r}",
                        f"the first is at {other.path}:{other.line}",
                        path=path,
                        line=rule.line,
                    )
                rules[rule.id] = rule
        return cls(tuple(rules.values()))

    @classmethod
    def shipped(cls) -> KnownDifferences:
        """The rules that ship with irqmatrix, ``configs/known/*.yaml``."""
        return cls.in_folders([resources.configs() / "known"])

    @classmethod
    def in_folders(cls, folders: Iterable[Path]) -> KnownDifferences:
        """The rules of all YAML files of ``folders``; one without any is a :class:`ConfigError`."""
        paths: list[Path] = []
        for folder in folders:
            found = sorted(folder.glob("*.yaml"))
            if not found:
                why = "it has no *.yaml" if folder.is_dir() else "there is no such directory"
                raise ConfigError(
                    "no known differences there",
                    why,
                    "a file with 'version: 1' and 'rules: []' means that nothing is known",
                    path=folder,
                )
            paths += found
        return cls.load(paths)

    def for_counter(
        self,
        scope: Scope,
        path: str,
        source: CounterSource,
        values: tuple[float | None, float | None],
    ) -> Rule | None:
        """Why a counter differs; see :meth:`Rule.explains_counter`."""
        found = (r for r in self.rules if r.explains_counter(scope, path, source, values))
        return next(found, None)

    def for_check(self, scope: Scope, check: str, values: tuple[str, str]) -> Rule | None:
        """Why a check, or a thing observed, differs; see :meth:`Rule.explains_check`."""
        return next((r for r in self.rules if r.explains_check(scope, check, values)), None)


# --- The files ----------------------------------------------------------------------------------


def _range(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError("a number: 6.10 would be 6.1, so write it in quotes")
    return VersionRange.parse(value) if isinstance(value, str) else value


_Modes: TypeAlias = Annotated[
    list[Annotated[Irqchip, BeforeValidator(yamlfile.on_or_off)]],
    BeforeValidator(yamlfile.as_list),
    Field(min_length=1),
]
_Machines: TypeAlias = Annotated[
    list[Machine], BeforeValidator(yamlfile.as_list), Field(min_length=1)
]
_Range: TypeAlias = Annotated[VersionRange, BeforeValidator(_range)]
_Glob: TypeAlias = Annotated[str, Field(min_length=1)]
_Globs: TypeAlias = Annotated[list[_Glob], BeforeValidator(yamlfile.as_list), Field(min_length=1)]


class AxisModel(Strict):
    """One side of a rule's ``match``."""

    irqchip: _Modes | None = None
    machine: _Machines | None = None
    qemu: _Range | None = None
    linux: _Range | None = None

    def frozen(self) -> AxisMatch:
        """As the type that rules use."""
        return AxisMatch(
            None if self.irqchip is None else frozenset(self.irqchip),
            None if self.machine is None else frozenset(self.machine),
            self.qemu,
            self.linux,
        )


class MatchModel(Strict):
    """A rule's ``match``."""

    a: AxisModel = AxisModel()
    b: AxisModel = AxisModel()
    guest: _Glob = "*"
    workload: _Glob = "*"
    counter: _Glob | None = None
    source: CounterSource | None = None
    check: _Globs | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> MatchModel:
        if (self.counter is None) is (self.check is None):
            raise ValueError("give either counter or check, and not both")
        if self.check is not None and self.source is not None:
            raise ValueError("source is only for a counter")
        return self

    @property
    def what(self) -> CounterMatch | CheckMatch:
        """What is matched besides the backends."""
        if self.counter is not None:
            return CounterMatch(self.counter, self.source)
        return CheckMatch(tuple(self.check or ()))


class BoundsModel(Strict):
    """A range in ``expect``."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> BoundsModel:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class ExpectModel(Strict):
    """A rule's ``expect``."""

    ratio: BoundsModel | None = None
    a: BoundsModel | None = None
    b: BoundsModel | None = None


_OCCURS: Final = {Kind.KNOWN_BUG: "always", Kind.BY_DESIGN: "sometimes"}


class RuleModel(Strict):
    """A rule as it stands in the file."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    kind: Kind
    reason: Annotated[str, Field(min_length=10)]
    link: Annotated[str, Field(pattern=r"^(https?://|docs/)\S+$")]
    match: MatchModel
    expect: ExpectModel = ExpectModel()
    occurs: Literal["always", "sometimes"] | None = None

    @property
    def always(self) -> bool:
        """Whether it has to show: a known bug has to unless it says otherwise."""
        return (self.occurs or _OCCURS[self.kind]) == "always"


class FileModel(Strict):
    """The whole file."""

    version: Literal[1]
    rules: list[RuleModel]


def _bounds(model: BoundsModel | None) -> Bounds | None:
    return None if model is None else Bounds(model.min, model.max)


def _of_lab(fault: LabFault, path: Path) -> Rule:
    """That what a fault of labs fails there passes under plain TCG."""
    return Rule(
        id=fault.id,
        kind=Kind.KNOWN_BUG,
        reason=f"{fault.what}. {fault.cause}",
        link=fault.link,
        a=AxisMatch(_OF_KVM, linux=fault.linux, lab=fault.qemu or VersionRange(())),
        b=AxisMatch(frozenset({Irqchip.TCG})),
        guest=fault.guest,
        workload="*",
        what=CheckMatch(fault.checks),
        always=False,
        path=path,
        line=None,
    )


_OF_KVM: Final = frozenset({Irqchip.ON, Irqchip.SPLIT, Irqchip.OFF})


def load(path: Path) -> tuple[Rule, ...]:
    """The rules of one file; :class:`ConfigError` with file and line for what is wrong.

    The file of the lab's known faults gives a rule for each that checks are known to fail by.
    """
    if path.name == lab_faults.NAME:
        return tuple(_of_lab(fault, path) for fault in lab_faults.load(path) if fault.checks)
    file = yamlfile.load(path)
    model = file.validate(FileModel)
    return tuple(
        Rule(
            id=rule.id,
            kind=rule.kind,
            reason=" ".join(rule.reason.split()),
            link=rule.link,
            a=rule.match.a.frozen(),
            b=rule.match.b.frozen(),
            guest=rule.match.guest,
            workload=rule.match.workload,
            what=rule.match.what,
            always=rule.always,
            path=path,
            line=file.line(("rules", index)),
            ratio=_bounds(rule.expect.ratio),
            a_bounds=_bounds(rule.expect.a),
            b_bounds=_bounds(rule.expect.b),
        )
        for index, rule in enumerate(model.rules)
    )
