"""Known faults of the lab's hardware, which is QEMU's TCG: ``configs/known/lab.yaml``.

They are of labs that TCG runs; a lab on a KVM that nests has none of them.  A fault::

    - id: svm-cr8-window
      what: QEMU aborts when ...    # in a few words
      cause: >                      # where it comes from, and where it was seen
        ...
      link: https://...             # or docs/...: where it can be read
      avoid: run the lab ...        # what avoids it
      qemu: ">=7.2"                 # of the QEMU that runs the lab; any, where it is not there
      linux: ">=6.14"               # of the lab's kernel; any, where it is not there
      aborts: assertion failed      # a pattern for what that QEMU says when it ends by this
      guest: flat-*eventinj*        # with checks: globs for what fails by it in a guest,
      checks: [NP exception]        # in every irqchip mode
      scenario: lab-cr8-window      # of configs/scenarios/lab/*.yaml: shows it
      one_cpu: true                 # a lab of one CPU does not have it if its QEMU stays on one

Beside them stands what was ``measured``: ``{qemu: "10.0", boots: 96, hung: 0}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from harness.base import resources, yamlfile
from harness.base.versions import Version, VersionRange
from harness.base.yamlfile import Strict

NAME: Final = "lab.yaml"


@dataclass(frozen=True)
class LabFault:
    """One fault; ``qemu`` and ``linux`` are the lab's own, and None is any."""

    id: str
    what: str
    cause: str
    link: str
    avoid: str
    qemu: VersionRange | None = None
    linux: VersionRange | None = None
    aborts: re.Pattern[str] | None = None
    """What QEMU says when it ends by this fault."""
    guest: str = "*"
    checks: tuple[str, ...] = ()
    scenario: str | None = None
    one_cpu: bool = False
    """Whether a lab of one CPU does not have it if all of its QEMU stays on one CPU."""

    def is_of(self, qemu: Version | None, linux: Version | None = None) -> bool:
        """Whether a lab of these versions has it; a version that is not known may be any."""
        return _may_be_in(self.qemu, qemu) and _may_be_in(self.linux, linux)

    def fails(self, guest: str, check: str) -> bool:
        """Whether ``check`` of the guest of this name is known to fail by it."""
        return fnmatchcase(guest, self.guest) and any(fnmatchcase(check, g) for g in self.checks)

    def __str__(self) -> str:
        return f"known fault of labs {self.id}: {self.what}; what avoids it: {self.avoid}"


@dataclass(frozen=True)
class MeasuredFault:
    """Boots of a nested Linux with two CPUs in labs that a QEMU of these versions ran."""

    qemu: VersionRange
    boots: int
    hung: int


def _may_be_in(wanted: VersionRange | None, version: Version | None) -> bool:
    return wanted is None or version is None or version in wanted


def of_death(faults: Iterable[LabFault], said: str) -> LabFault | None:
    """The fault that a lab's QEMU ended by, from what it said; None where it is none of them."""
    return next((f for f in faults if f.aborts is not None and f.aborts.search(said)), None)


# --- The file -----------------------------------------------------------------------------------


def _range(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError("a number: 6.10 would be 6.1, so write it in quotes")
    return VersionRange.parse(value) if isinstance(value, str) else value


def _pattern(value: object) -> object:
    try:
        return re.compile(value) if isinstance(value, str) else value
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


_Range: TypeAlias = Annotated[VersionRange, BeforeValidator(_range)]
_Pattern: TypeAlias = Annotated[re.Pattern[str], BeforeValidator(_pattern)]
_Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
_Text: TypeAlias = Annotated[str, Field(min_length=10)]
_Globs: TypeAlias = Annotated[list[str], BeforeValidator(yamlfile.as_list), Field(min_length=1)]


class FaultModel(Strict):
    """A fault as it stands in the file."""

    id: _Name
    what: _Text
    cause: _Text
    link: Annotated[str, Field(pattern=r"^(https?://|docs/)\S+$")]
    avoid: _Text
    qemu: _Range | None = None
    linux: _Range | None = None
    aborts: _Pattern | None = None
    guest: str | None = None
    checks: _Globs | None = None
    scenario: _Name | None = None
    one_cpu: bool = False

    @model_validator(mode="after")
    def _checks_of_a_guest(self) -> FaultModel:
        if (self.guest is None) is not (self.checks is None):
            raise ValueError("guest and checks go together")
        return self

    def frozen(self) -> LabFault:
        """As the type that everybody uses."""
        return LabFault(
            id=self.id,
            what=" ".join(self.what.split()),
            cause=" ".join(self.cause.split()),
            link=self.link,
            avoid=" ".join(self.avoid.split()),
            qemu=self.qemu,
            linux=self.linux,
            aborts=self.aborts,
            guest=self.guest or "*",
            checks=tuple(self.checks or ()),
            scenario=self.scenario,
            one_cpu=self.one_cpu,
        )


class MeasuredModel(Strict):
    """A :class:`MeasuredFault` as it stands in the file."""

    qemu: _Range
    boots: Annotated[int, Field(ge=1)]
    hung: Annotated[int, Field(ge=0)]


class FileModel(Strict):
    """The whole file."""

    version: Literal[1]
    faults: list[FaultModel]
    measured: list[MeasuredModel] = []

    @model_validator(mode="after")
    def _unlike(self) -> FileModel:
        ids = [fault.id for fault in self.faults]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"duplicate fault {name!r}")
        return self


def load(path: Path) -> tuple[LabFault, ...]:
    """The faults in ``path``; :class:`ConfigError` with file and line for what is wrong."""
    return tuple(model.frozen() for model in yamlfile.load(path).validate(FileModel).faults)


@cache
def shipped() -> tuple[LabFault, ...]:
    """Those of ``configs/known/lab.yaml``, which ships with us."""
    return load(_shipped_file())


@cache
def measured() -> tuple[MeasuredFault, ...]:
    """What was measured of QEMUs that run labs, in the same file."""
    model = yamlfile.load(_shipped_file()).validate(FileModel)
    return tuple(MeasuredFault(each.qemu, each.boots, each.hung) for each in model.measured)


def _shipped_file() -> Path:
    return resources.configs() / "known" / NAME
