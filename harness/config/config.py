"""A matrix file: validated, and expanded into the cases that it means.  Pure but for reading files.

The product of the axes under ``matrix`` is taken, ``include`` adds to it and ``exclude`` takes
away, as in CI systems; every guest runs in every cell.  The language is described in
``docs/configuration.md``.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, create_model

from harness.base import limits, paths, resources, yamlfile
from harness.base.errors import ConfigError
from harness.base.yamlfile import Location, Strict, YamlFile
from harness.config import lanes
from harness.config.lanes import Lane
from harness.guests.kinds.model import Axis, GuestModel, Smp, Text
from harness.guests.kinds.table import KINDS, kind_of
from harness.model.case import MODES, Accel, Backend, Case, Guest, Host, Irqchip, Machine

CAMPAIGNS: Final = ("campaign.yaml", "campaign-live.yaml")
"""Campaigns of random programs (:mod:`harness.fuzz.campaign_file`) lie beside the matrices."""

KvmIrqchip: TypeAlias = Annotated[
    Literal["on", "split", "off", "pychip-on", "pychip-split", "pychip-off"],
    BeforeValidator(yamlfile.on_or_off),
]


class MatrixModel(Strict):
    """The axes; a single value may stand without its list."""

    host: Axis[Host] = [Host.LAB]
    accel: Axis[Accel] = [Accel.KVM]
    irqchip: Axis[KvmIrqchip] = ["on", "split", "off"]
    machine: Axis[Machine] = [Machine.Q35]
    cpu: Axis[Text] = ["qemu64"]
    smp: Axis[Smp] = [1]


class CellModel(Strict):
    """Some axes with one value each: what ``include`` and ``exclude`` are made of."""

    host: Host | None = None
    accel: Accel | None = None
    irqchip: KvmIrqchip | None = None
    machine: Machine | None = None
    cpu: Text | None = None
    smp: Smp | None = None
    lane: Text | None = None
    qemu: Text | None = None
    kernel: Text | None = None


class DefaultsModel(Strict):
    """What a guest takes when it does not say otherwise."""

    timeout_s: PositiveFloat = 60.0
    memory_mib: Annotated[int, Field(ge=16)] = 256


class LabModel(Strict):
    """The lab's own axis, what runs it, and its size."""

    kernel: Axis[Text] = ["default"]
    qemu: Text = "default"
    memory_mib: Annotated[int, Field(ge=512)] = 2048
    smp: Annotated[int, Field(ge=1, le=8)] = 1


class LaneModel(Strict):
    """One pair of versions that reproducers are run with."""

    kernel: Text = "default"
    qemu: Text = "system"


class ReproModel(Strict):
    """Reproducers as regression tests; a lane is one of the shipped ones, or a pair of versions."""

    entries: Axis[Text]
    lanes: Annotated[list[Text | LaneModel], Field(min_length=1)] = [LaneModel()]


class ConfigModel(Strict):
    """The whole file."""

    version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    defaults: DefaultsModel = DefaultsModel()
    matrix: MatrixModel = MatrixModel()
    include: list[CellModel] = []
    exclude: list[CellModel] = []
    lab: LabModel = LabModel()
    qemu: Axis[Text] = ["system"]
    lane: Axis[Text] | None = None
    guests: Annotated[list[GuestModel], Field(min_length=1)]
    """Each as the model of its kind: see :func:`file_model`."""
    repro: ReproModel | None = None
    repeat: PositiveInt = 1
    retries: Annotated[int, Field(ge=0, le=3)] = 0
    ran_nowhere: Literal["say", "error"] = "say"
    keep_raw: bool = True
    store: Text | None = None


def file_model() -> type[ConfigModel]:
    """The whole file, with the kinds of guests that there are."""
    return _file_model(tuple(kind.model for kind in KINDS.values()))


@functools.cache
def _file_model(models: tuple[type[GuestModel], ...]) -> type[ConfigModel]:
    union: Any = functools.reduce(operator.or_, models)
    one: Any = Annotated[union, Field(discriminator="kind")]
    return create_model(
        "ConfigModel",
        __base__=ConfigModel,
        guests=(Annotated[list[one], Field(min_length=1)], ...),
    )


@dataclasses.dataclass(frozen=True)
class Lab:
    """How big a lab host is, and which QEMU runs it: not the one under test."""

    qemu: str = "default"
    memory_mib: int = 2048
    smp: int = 1
    coverage: bool = False
    """Whether to record which instructions of its KVM run."""


@dataclasses.dataclass(frozen=True)
class Repro:
    """The reproducers that a run tests: globs for ids, each with every pair of versions."""

    entries: tuple[str, ...]
    lanes: tuple[Lane, ...]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A matrix, expanded."""

    name: str
    path: Path
    cases: tuple[Case, ...]
    lab: Lab
    repro: Repro | None = None
    retries: int = 0
    """How often a case that is not as expected is run again."""
    ran_nowhere_is_error: bool = False
    """Whether a scenario, workload or check that ran on no backend fails the run."""
    keep_raw: bool = True
    """Whether the raw traces, compressed, are kept once they were analysed."""
    store: Path | None = None
    """The store's file, or ``none``; None where the configuration does not say."""


def shipped_files() -> tuple[Path, ...]:
    """The matrices that ship with irqmatrix."""
    files = sorted(resources.configs().glob("*.yaml"))
    return tuple(file for file in files if file.name not in (lanes.NAME, *CAMPAIGNS))


def find(name: str, shipped: Sequence[Path] | None = None) -> Path:
    """The file that ``name`` means: a path, or else one of ``shipped``, by default a matrix.

    Of a shipped one ``configs/`` and ``.yaml`` may be left out.  :class:`ConfigError` where it is
    neither.
    """
    path = Path(name)
    if paths.first_file([path]) is not None:
        return path
    files = shipped_files() if shipped is None else shipped
    asked = Path(*(path.parts[1:] if path.parts[:1] == ("configs",) else path.parts))
    for file in files:
        if asked in (Path(file.name), Path(file.stem)):
            return file
    ours = ", ".join(f"configs/{file.name}" for file in files)
    raise ConfigError(
        "no such configuration file", f"looked for {path.absolute()}", f"shipped: {ours}", path=path
    )


def load(path: Path, *, repeat: int | None = None, lane: str | None = None) -> RunConfig:
    """The cases of the file ``path``; :class:`ConfigError` with file and line for what is wrong.

    ``repeat`` overrides the file's, the name ``lane`` its versions.
    """
    return expand(yamlfile.load(path), repeat=repeat, lane=lane)


def deterministic(config: RunConfig) -> RunConfig:
    """The same cases, with nothing from outside that could reach the guest."""
    cases = (dataclasses.replace(case, deterministic=True) for case in config.cases)
    return dataclasses.replace(config, cases=tuple(cases))


def with_coverage(config: RunConfig) -> RunConfig:
    """The same, with a record of what the labs' KVM executes.

    :class:`ConfigError` where no case is in a lab.
    """
    if not any(case.backend.host is Host.LAB for case in config.cases):
        raise ConfigError(
            "--coverage has nothing to record",
            "no case is in a lab, and only a lab shows what its KVM executes",
            "add host: lab",
            path=config.path,
        )
    return dataclasses.replace(config, lab=dataclasses.replace(config.lab, coverage=True))


def expand(file: YamlFile, *, repeat: int | None = None, lane: str | None = None) -> RunConfig:
    """The cases of a configuration that was parsed already; errors as of :func:`load`."""
    if not isinstance(file.data, dict):
        raise file.error((), "is not a configuration", f"expected a mapping, found {file.data!r}")
    model = file.validate(file_model())
    _check_lanes(file, model)
    if lane is not None:
        model = _in_lane(model, lane)
    cases = _cases(file, model, repeat or model.repeat)
    if not cases:
        raise file.error(
            ("matrix",), "the matrix is empty", "nothing is left to run", "check exclude"
        )
    lab = Lab(model.lab.qemu, model.lab.memory_mib, model.lab.smp)
    name = model.name or file.path.stem
    return RunConfig(
        name,
        file.path,
        cases,
        lab,
        _repro(file, model.repro),
        model.retries,
        ran_nowhere_is_error=model.ran_nowhere == "error",
        keep_raw=model.keep_raw,
        store=_store(file, model.store),
    )


def _store(file: YamlFile, text: str | None) -> Path | None:
    """The store's file, from the directory of the configuration; ``none`` stays that."""
    if text is None or text == "none":
        return None if text is None else Path(text)
    return file.path.parent / paths.expanded(text)


def _cases(file: YamlFile, model: ConfigModel, repeat: int) -> tuple[Case, ...]:
    """Every guest in every cell, each case once.

    A guest that says itself what a cell says has the same case in several of them.  Two guests
    with cases of one name would be one to every report, and one of them not run: an error.
    """
    cells = _cells(file, model)
    _check_size(file, len(model.guests) * len(cells) * repeat)
    cases: dict[str, Case] = {}
    origins: dict[str, int] = {}
    for index, guest_model in enumerate(model.guests):
        for guest in guest_model.guests(file, ("guests", index)):
            for cell, number in itertools.product(cells, range(repeat)):
                case = _case(model.defaults, guest_model, guest, cell, number)
                if case is None:
                    continue
                name = case.directory_name
                if origins.setdefault(name, index) != index or cases.get(name, case) != case:
                    raise _same_name(file, case, origins[name], index)
                cases[name] = case
    return tuple(cases.values())


def _same_name(file: YamlFile, case: Case, first: int, second: int) -> ConfigError:
    line = file.line(("guests", first))
    return file.error(
        ("guests", second),
        f"a second guest with the same cases as the one in line {line}",
        f"both are called {case.id}",
        "give one of them a name of its own: name: WORD",
    )


def _check_size(file: YamlFile, cases: int) -> None:
    """:class:`ConfigError` for more cases than any run could have."""
    most = limits.current().cases
    if cases > most:
        raise file.error(("repeat",), f"{cases} cases", f"at most {most}", limits.hint("cases"))


def _repro(file: YamlFile, model: ReproModel | None) -> Repro | None:
    if model is None:
        return None
    chosen = (
        _lane(file, ("repro", "lanes", index), lane)
        if isinstance(lane, str)
        else Lane(lane.kernel, lane.qemu)
        for index, lane in enumerate(model.lanes)
    )
    return Repro(tuple(model.entries), tuple(chosen))


def _lane(file: YamlFile, location: Location, name: str) -> Lane:
    try:
        return lanes.named(name)
    except ConfigError as error:
        raise file.error(location, error.what, error.why, error.fix) from None


def _check_lanes(file: YamlFile, model: ConfigModel) -> None:
    """Lanes are named right, and stand alone: they say which versions there are."""
    for index, name in enumerate(model.lane or ()):
        _lane(file, ("lane", index), name)
    if model.lane is not None:
        for location, said in (
            (("qemu",), "qemu" in model.model_fields_set),
            (("lab", "kernel"), "kernel" in model.lab.model_fields_set),
        ):
            if said:
                raise file.error(location, "versions and a lane", None, "leave out one of them")
    for part in ("include", "exclude"):
        for index, entry in enumerate(getattr(model, part)):
            if entry.lane is not None:
                _lane(file, (part, index, "lane"), entry.lane)


def _in_lane(model: ConfigModel, name: str) -> ConfigModel:
    """``model`` with the versions of one lane in place of its own."""
    lanes.named(name)
    changes: dict[str, Any] = {"lane": [name]}
    if model.repro is not None:
        changes["repro"] = model.repro.model_copy(update={"lanes": [name]})
    return model.model_copy(update=changes)


_Cell: TypeAlias = Mapping[str, Any]


def _cells(file: YamlFile, model: ConfigModel) -> list[_Cell]:
    """The cells of the matrix after ``include`` and ``exclude``, each once, in order."""
    axes: dict[str, list[Any]] = {
        **{name: getattr(model.matrix, name) for name in MatrixModel.model_fields},
        "lane": model.lane or [None],
        "qemu": model.qemu if model.lane is None else [None],
        "kernel": model.lab.kernel if model.lane is None else [None],
    }
    _check_size(file, math.prod(map(len, axes.values())))
    cells = [cell for cell in _product(axes) if _is_backend(cell)]
    for index, entry in enumerate(model.include):
        named = _named(entry)
        _check_size(file, math.prod(len(axes[name]) for name in axes if name not in named))
        added = list(_product(axes | {name: [value] for name, value in named.items()}))
        if not any(_is_backend(cell) for cell in added):
            raise file.error(
                ("include", index), "TCG in a lab is not a backend", None, "use host: local"
            )
        cells += [cell for cell in added if _is_backend(cell)]
    excluded = [_named(entry) for entry in model.exclude]
    kept = (
        cell
        for cell in map(_canonical, cells)
        if not any(
            all(cell.get(name) == value for name, value in entry.items()) for entry in excluded
        )
    )
    return list({_without_lane(cell): dict(_without_lane(cell)) for cell in kept}.values())


def _without_lane(cell: _Cell) -> tuple[tuple[str, Any], ...]:
    """What makes a cell another one: two lanes may have a version in common."""
    return tuple(sorted((item for item in cell.items() if item[0] != "lane"), key=lambda i: i[0]))


def _product(axes: Mapping[str, list[Any]]) -> Iterator[_Cell]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _named(entry: CellModel) -> dict[str, Any]:
    return {name: value for name, value in entry if value is not None}


def _is_backend(cell: _Cell) -> bool:
    return not (cell["host"] is Host.LAB and cell["accel"] is Accel.TCG)


def _canonical(cell: _Cell) -> _Cell:
    """``cell`` with its lane's versions, and without the axes that mean nothing in it."""
    if cell["lane"] is not None:
        lane = lanes.named(cell["lane"])
        qemu, kernel = cell["qemu"] or lane.qemu, cell["kernel"] or lane.kernel
        cell = {**cell, "qemu": qemu, "kernel": kernel}
    tcg = {"irqchip": None} if cell["accel"] is Accel.TCG else {}
    local = {"kernel": None} if cell["host"] is Host.LOCAL else {}
    return {**cell, **tcg, **local}


def _case(
    defaults: DefaultsModel,
    model: GuestModel,
    guest: Guest,
    cell: _Cell,
    repeat: int,
) -> Case | None:
    """The case of ``guest`` in ``cell``; None where the guest has nothing to do on that machine."""
    vmm, irqchip = MODES[cell["irqchip"] or Irqchip.TCG]
    machine, smp = model.machine or cell["machine"], model.smp or cell["smp"]
    fitted = kind_of(guest).fitted(machine, smp)
    if fitted is None:
        return None
    guest, smp = fitted
    return Case(
        guest=guest,
        backend=Backend(cell["host"], cell["accel"], irqchip, cell["qemu"], cell["kernel"], vmm),
        machine=machine,
        cpu=model.cpu or cell["cpu"],
        smp=smp,
        memory_mib=model.memory_mib or defaults.memory_mib,
        timeout_s=model.timeout_s or defaults.timeout_s,
        devices=tuple(model.devices),
        options=tuple(model.options),
        repeat=repeat,
    )
