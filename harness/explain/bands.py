"""What is usual: bands of our own runs, from ``configs/explain/bands.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from harness.base import resources, yamlfile
from harness.base.yamlfile import Strict
from harness.explain.quantities import Amount

WORK_MARGIN: Final = 100
"""How much more than a lab's busiest guest is still ordinary, for what grows with the machine."""


@dataclass(frozen=True)
class UsualBand:
    """How often something happens, a second, in guests without a problem.

    ``idle`` and ``loaded`` are the highest that were measured; above ``limit`` it is unusual.
    """

    quantity: str
    name: str
    kind: Literal["timer", "work"]
    per_cpu: bool
    idle: float
    loaded: float
    limit: float
    why: str


@dataclass(frozen=True)
class Unusual:
    """A quantity above its band."""

    quantity: Amount
    band: UsualBand
    per_cpu: float
    """Its value, for one CPU where the band is of one."""


class BandModel(Strict):
    """A band as it stands in the file."""

    quantity: str
    name: str
    kind: Literal["timer", "work"]
    per_cpu: bool = False
    idle: Annotated[float, Field(ge=0)]
    loaded: Annotated[float, Field(ge=0)]
    limit: Annotated[float, Field(gt=0)] | None = None
    why: str = ""

    @model_validator(mode="after")
    def _limit_of_a_timer(self) -> BandModel:
        if (self.kind == "timer") is (self.limit is None):
            raise ValueError("limit goes with kind: timer, and is required there")
        return self

    def frozen(self) -> UsualBand:
        """As the type that explanations use."""
        most = max(self.idle, self.loaded)
        limit = self.limit if self.limit is not None else most * WORK_MARGIN
        why = self.why or f"{WORK_MARGIN} times what the busiest guest of a lab did"
        return UsualBand(
            self.quantity, self.name, self.kind, self.per_cpu, self.idle, self.loaded, limit, why
        )


class FileModel(Strict):
    """The whole file."""

    version: Annotated[int, Field(ge=1, le=1)]
    bands: list[BandModel]


def load(path: Path) -> tuple[UsualBand, ...]:
    """The bands of a file; :class:`ConfigError` for what is wrong in it."""
    model = yamlfile.load(path).validate(FileModel)
    return tuple(band.frozen() for band in model.bands)


def shipped() -> tuple[UsualBand, ...]:
    """The bands that ship with irqmatrix."""
    return load(resources.configs() / "explain" / "bands.yaml")


def band_of(quantity: Amount, bands: tuple[UsualBand, ...]) -> UsualBand | None:
    """The first band that is of this quantity."""
    if quantity.unit != "a second" and not quantity.name.startswith("thread/"):
        return None
    return next((band for band in bands if fnmatchcase(quantity.name, band.quantity)), None)


def unusual(
    quantities: list[Amount], bands: tuple[UsualBand, ...], smp: int
) -> tuple[Unusual, ...]:
    """Those of ``quantities`` that are above their band, furthest above first."""
    found = []
    for quantity in quantities:
        band = band_of(quantity, bands)
        if band is None:
            continue
        value = quantity.value / (smp if band.per_cpu else 1)
        if value > band.limit:
            found.append(Unusual(quantity, band, value))
    return tuple(sorted(found, key=lambda each: -each.per_cpu / each.band.limit))
