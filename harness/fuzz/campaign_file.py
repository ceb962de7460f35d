"""A campaign as a configuration: which programs, how many, on which backends.

``irqmatrix fuzz CONFIG`` runs one; options of the command line override it.  The language is
described in ``docs/fuzz.md``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from harness.base import paths, resources, yamlfile
from harness.base.errors import ConfigError
from harness.base.yamlfile import Location, Strict, YamlFile
from harness.config import config
from harness.fuzz import grammar
from harness.fuzz.campaign import DEFAULT_CPU, FuzzRequest, sides_of
from harness.guests.kinds.model import Axis, Text
from harness.model.case import Machine

LEAST_MINUTES: Final = 0.01


class CampaignModel(Strict):
    """The whole file."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    seed: NonNegativeInt = 1
    programs: PositiveInt | None = None
    minutes: Annotated[float, Field(ge=LEAST_MINUTES, allow_inf_nan=False)] | None = None
    runs: PositiveInt | None = None
    only: Text | None = None
    machine: Machine = Machine.Q35
    cpu: Text = DEFAULT_CPU
    backends: Axis[Text]


def shipped_files() -> tuple[Path, ...]:
    """The campaigns that ship with irqmatrix."""
    return tuple(resources.configs() / name for name in config.CAMPAIGNS)


def find(name: str) -> Path:
    """The file that ``name`` means: a path, or else a campaign that ships with irqmatrix.

    :class:`ConfigError` where it is neither.
    """
    return config.find(name, shipped_files())


def load(path: Path) -> FuzzRequest:
    """The campaign in ``path``; :class:`ConfigError` with file and line for what is wrong."""
    file = yamlfile.load(path)
    if not isinstance(file.data, dict):
        raise file.error((), "is not a campaign", f"expected a mapping, found {file.data!r}")
    model = file.validate(CampaignModel)
    if model.programs is model.minutes is model.runs is None:
        fix = "add programs: N, runs: N for each backend, or minutes: T"
        raise file.error(
            (), "a campaign without an end", "it says neither how many nor how long", fix
        )
    for index, text in enumerate(model.backends):
        try:
            sides_of([text])
        except ConfigError as error:
            raise _at(file, ("backends", index), error) from None
    return FuzzRequest(
        sides=tuple(model.backends),
        seed=model.seed,
        programs=model.programs,
        minutes=model.minutes,
        runs=model.runs,
        only=_grammar(file, model.only),
        machine=model.machine,
        cpu=model.cpu,
        name=model.name or path.stem,
    )


def _grammar(file: YamlFile, name: str | None) -> str | None:
    """A shipped grammar's name, or the path of one beside the file."""
    if name is None:
        return None
    beside = file.path.parent / paths.expanded(name)
    chosen = str(beside) if paths.first_file([beside]) is not None else name
    try:
        grammar.selected(chosen)
    except ConfigError as error:
        raise error if error.path is not None else _at(file, ("only",), error) from None
    return chosen


def _at(file: YamlFile, location: Location, error: ConfigError) -> ConfigError:
    return file.error(location, error.what, error.why, error.fix)


def asked_for(config: str | None, sides: Sequence[str]) -> FuzzRequest:
    """The campaign that ``config`` names, or else one on ``sides``.

    :class:`ConfigError` for both: a file says itself on which backends its campaign runs.
    """
    if config is None:
        return FuzzRequest(sides=tuple(sides)) if sides else FuzzRequest()
    if sides:
        raise ConfigError(
            "--backend together with a configuration",
            f"{config} says itself on which backends its programs are compared",
            "leave out one of them, or copy the file and change its backends",
        )
    return load(find(config))


def overridden(
    request: FuzzRequest,
    *,
    seed: int | None = None,
    programs: int | None = None,
    minutes: float | None = None,
    only: str | None = None,
    machine: Machine | None = None,
    cpu: str | None = None,
) -> FuzzRequest:
    """``request`` with what the command line says; ``programs`` or ``minutes`` replaces its end."""
    runs = None
    if programs is None and minutes is None:
        programs, minutes, runs = request.programs, request.minutes, request.runs
    return dataclasses.replace(
        request,
        seed=request.seed if seed is None else seed,
        programs=programs,
        minutes=minutes,
        runs=runs,
        only=only or request.only,
        machine=machine or request.machine,
        cpu=cpu or request.cpu,
    )
