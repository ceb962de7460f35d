"""Lanes: which kernel of the lab and which QEMU go together, by a name (``configs/lanes.yaml``)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Final, Literal

from pydantic import Field

from harness.base import resources, suggest, yamlfile
from harness.base.errors import ConfigError
from harness.base.yamlfile import Strict

NAME: Final = "lanes.yaml"


@dataclasses.dataclass(frozen=True)
class Lane:
    """Names of a lab kernel and a QEMU for the image cache."""

    kernel: str
    qemu: str


class _LaneModel(Strict):
    kernel: Annotated[str, Field(min_length=1)]
    qemu: Annotated[str, Field(min_length=1)]


class _LanesModel(Strict):
    version: Literal[1]
    lanes: dict[str, _LaneModel]


@cache
def shipped() -> Mapping[str, Lane]:
    """Every lane, in the order of their versions."""
    model = yamlfile.load(resources.configs() / NAME).validate(_LanesModel)
    return {name: Lane(lane.kernel, lane.qemu) for name, lane in model.lanes.items()}


def named(name: str) -> Lane:
    """The lane of that name; :class:`ConfigError` where there is none."""
    lanes = shipped()
    if name not in lanes:
        raise ConfigError(f"no lane {name!r}", None, suggest.nearest(name, lanes))
    return lanes[name]


def names() -> dict[tuple[str, str], str]:
    """The name of each lane by its kernel and its QEMU."""
    return {(lane.kernel, lane.qemu): name for name, lane in shipped().items()}


def version(kind: str, text: str) -> str:
    """``text``, or the version that a lane of that name has of its ``kernel`` or ``qemu``."""
    lane = shipped().get(text)
    if lane is None:
        return text
    return lane.kernel if kind == "kernel" else lane.qemu
