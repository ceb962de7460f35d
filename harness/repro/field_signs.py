"""What one sees of a catalogued difference on a user's machine: ``evidence:`` of an entry.

Declarative: which VMs can have it (``needs``), what each kind of evidence shows then (``signs``,
by the names of :mod:`harness.explain.quantities`), and what to run to be sure (``decide``).  The
format is described in ``docs/explain.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from harness.base import yamlfile
from harness.base.yamlfile import Strict
from harness.compare.known import Bounds, BoundsModel
from harness.model.case import Irqchip, Machine


@dataclass(frozen=True)
class VmNeeds:
    """Which VMs can have it; None is any.  ``device`` is a glob for QEMU's models."""

    irqchip: frozenset[Irqchip] | None = None
    machine: frozenset[Machine] | None = None
    driftfix: str | None = None
    hpet: bool | None = None
    pit: bool | None = None
    device: str | None = None
    min_smp: int | None = None


@dataclass(frozen=True)
class FieldSign:
    """One thing that is seen, as a quantity within bounds.

    A ``strong`` one is seen of little else, and its absence speaks against the entry; one that is
    ``context`` is seen in guests without a problem, too, and is no symptom.
    """

    what: str
    quantity: str
    bounds: Bounds
    strong: bool
    context: bool


@dataclass(frozen=True)
class Deciding:
    """A command for the machine, and what its result says."""

    command: str
    tells: str


@dataclass(frozen=True)
class FieldEvidence:
    """The whole section."""

    needs: VmNeeds
    signs: tuple[FieldSign, ...]
    decide: tuple[Deciding, ...]


_Mode: TypeAlias = Annotated[Irqchip, BeforeValidator(yamlfile.on_or_off)]
_Modes: TypeAlias = Annotated[list[_Mode], BeforeValidator(yamlfile.as_list), Field(min_length=1)]
_Machines: TypeAlias = Annotated[list[Machine], BeforeValidator(yamlfile.as_list)]


class NeedsModel(Strict):
    """``needs`` as it stands in the file."""

    irqchip: _Modes | None = None
    machine: _Machines | None = None
    driftfix: str | None = None
    hpet: bool | None = None
    pit: bool | None = None
    device: str | None = None
    min_smp: Annotated[int, Field(ge=2)] | None = None

    def frozen(self) -> VmNeeds:
        """As the type that explanations use."""
        return VmNeeds(
            None if self.irqchip is None else frozenset(self.irqchip),
            None if self.machine is None else frozenset(self.machine),
            self.driftfix,
            self.hpet,
            self.pit,
            self.device,
            self.min_smp,
        )


class FieldSignModel(Strict):
    """A sign as it stands in the file."""

    what: Annotated[str, Field(min_length=10)]
    quantity: Annotated[str, Field(pattern=r"^[a-z]+/\S+$")]
    min: float | None = None
    max: float | None = None
    strong: bool = False
    context: bool = False

    def frozen(self) -> FieldSign:
        """As the type that explanations use."""
        bounds = Bounds(self.min, self.max)
        return FieldSign(
            " ".join(self.what.split()), self.quantity, bounds, self.strong, self.context
        )

    @model_validator(mode="after")
    def _has_bounds(self) -> FieldSignModel:
        BoundsModel(min=self.min, max=self.max)
        return self


class DecidingModel(Strict):
    """A command as it stands in the file."""

    command: Annotated[str, Field(min_length=3)]
    tells: Annotated[str, Field(min_length=10)]


class FieldModel(Strict):
    """``evidence`` as it stands in the file."""

    needs: NeedsModel = NeedsModel()
    signs: Annotated[list[FieldSignModel], Field(min_length=1)]
    decide: Annotated[list[DecidingModel], Field(min_length=1, max_length=3)]

    def frozen(self) -> FieldEvidence:
        """As the type that explanations use."""
        return FieldEvidence(
            self.needs.frozen(),
            tuple(sign.frozen() for sign in self.signs),
            tuple(
                Deciding(each.command.strip(), " ".join(each.tells.split())) for each in self.decide
            ),
        )
