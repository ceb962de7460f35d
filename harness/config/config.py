"""A matrix file: validated, and expanded into the cases that it means.  Pure but for reading files.

The product of the axes under ``matrix`` is taken, ``include`` adds to it and ``exclude`` takes
away, as in CI systems; every guest runs in every cell.  The language is described in
``docs/configuration.md``.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt

from harness.backends.owned_options import not_refused
from harness.base import limits, paths, resources, suggest, yamlfile
from harness.base.errors import ConfigError, HarnessError
from harness.base.yamlfile import Location, Strict, YamlFile
from harness.guests import protocol_files
from harness.guests.linux import WORKLOADS
from harness.images import multiboot
from harness.model.case import (
    WHOLE_CASE,
    Accel,
    Backend,
    Case,
    FlatGuest,
    Guest,
    Host,
    Irqchip,
    LinuxGuest,
    Machine,
    Output,
    ProbeGuest,
)
from harness.model.protocol import Protocol
from harness.scenario import choice

MAX_SMP = 4


KvmIrqchip: TypeAlias = Annotated[
    Literal["on", "split", "off"], BeforeValidator(yamlfile.on_or_off)
]
Smp: TypeAlias = Annotated[int, Field(ge=1, le=MAX_SMP)]


def _text(value: object) -> object:
    """A version such as ``10.0`` is a number to YAML; it is meant as it was written."""
    if isinstance(value, yamlfile.WrittenFloat):
        return value.written
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text: TypeAlias = Annotated[str, Field(min_length=1), BeforeValidator(_text)]


_T = TypeVar("_T")
Axis: TypeAlias = Annotated[list[_T], BeforeValidator(yamlfile.as_list), Field(min_length=1)]
"""One axis of the matrix: a list, or a single value without its list."""


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
    qemu: Text | None = None
    kernel: Text | None = None


class DefaultsModel(Strict):
    """What a guest takes when it does not say otherwise."""

    timeout_s: PositiveFloat = 60.0
    memory_mib: Annotated[int, Field(ge=16)] = 256


class LabModel(Strict):
    """The lab's own axis, what runs it, and its size."""

    kernel: Axis[Text] = ["default"]
    qemu: Text = "system"
    memory_mib: Annotated[int, Field(ge=512)] = 2048
    smp: Annotated[int, Field(ge=1, le=8)] = 1


Name: TypeAlias = Annotated[str, Field(pattern=r"^[\w.-]*$")]
"""A word for a case's id."""
ExpectedVerdict: TypeAlias = Literal[
    "pass",
    "fail",
    "storm",
    "lost",
    "stuck",
    "misrouted",
    "diverged",
    "hang",
    "timeout",
    "crash",
    "skip",
]


class _GuestModel(Strict):
    machine: Machine | None = None
    cpu: Text | None = None
    smp: Smp | None = None
    timeout_s: PositiveFloat | None = None
    memory_mib: Annotated[int, Field(ge=16)] | None = None
    append: str = ""
    devices: list[Text] = []
    options: list[
        Annotated[str, Field(pattern=r"^-\w[\w-]*( \S+)?$"), AfterValidator(not_refused)]
    ] = []
    expect: dict[str, ExpectedVerdict] = {}


class LinuxModel(_GuestModel):
    """``kind: linux``."""

    kind: Literal["linux"]
    workloads: Annotated[list[str], Field(min_length=1)]
    kernel: Text = "default"
    name: Name = ""
    parameters: dict[str, dict[str, Annotated[str, BeforeValidator(_text)]]] = {}
    migrate: bool = False


class FlatModel(_GuestModel):
    """``kind: flat``."""

    kind: Literal["flat"]
    path: Text
    name: Name = ""
    protocol: Text | dict[str, Any] = "auto"
    checks: Literal["reported", "none"] = "reported"
    output: Output = Output.COM1


class ProbeModel(_GuestModel):
    """``kind: probe``."""

    kind: Literal["probe"]
    scenarios: Axis[Text]
    only: Annotated[list[Text], BeforeValidator(yamlfile.as_list)] = []
    name: Name = ""
    trace: bool = False


GuestModel: TypeAlias = Annotated[LinuxModel | FlatModel | ProbeModel, Field(discriminator="kind")]


class LaneModel(Strict):
    """One pair of versions that reproducers are run with."""

    kernel: Text = "default"
    qemu: Text = "system"


class ReproModel(Strict):
    """Reproducers as regression tests."""

    entries: Axis[Text]
    lanes: Annotated[list[LaneModel], Field(min_length=1)] = [LaneModel()]


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
    guests: Annotated[list[GuestModel], Field(min_length=1)]
    repro: ReproModel | None = None
    repeat: PositiveInt = 1
    retries: Annotated[int, Field(ge=0, le=3)] = 0
    ran_nowhere: Literal["say", "error"] = "say"
    keep_raw: bool = True


@dataclasses.dataclass(frozen=True)
class Lab:
    """How big a lab host is, and which QEMU runs it: not the one under test."""

    qemu: str = "system"
    memory_mib: int = 2048
    smp: int = 1


@dataclasses.dataclass(frozen=True)
class Lane:
    """Names of a lab kernel and a QEMU for the image cache."""

    kernel: str
    qemu: str


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


def find(name: str) -> Path:
    """The file that ``name`` means: a path, or else a configuration that ships with irqmatrix."""
    path = Path(name)
    if paths.first_file([path]) is not None:
        return path
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    if not path.is_absolute() and (shipped := resources.configs().joinpath(*parts)).is_file():
        return shipped
    ours = ", ".join(f"configs/{file.name}" for file in sorted(resources.configs().glob("*.yaml")))
    raise ConfigError(
        "no such configuration file", f"looked for {path.absolute()}", f"shipped: {ours}", path=path
    )


def load(path: Path, *, repeat: int | None = None) -> RunConfig:
    """The cases of the file ``path``; :class:`ConfigError` with file and line for what is wrong.

    ``repeat`` overrides the file's.
    """
    return expand(yamlfile.load(path), repeat=repeat)


def deterministic(config: RunConfig) -> RunConfig:
    """The same cases, with nothing from outside that could reach the guest."""
    cases = (dataclasses.replace(case, deterministic=True) for case in config.cases)
    return dataclasses.replace(config, cases=tuple(cases))


def expand(file: YamlFile, *, repeat: int | None = None) -> RunConfig:
    """The cases of a configuration that was parsed already; errors as of :func:`load`."""
    if not isinstance(file.data, dict):
        raise file.error((), "is not a configuration", f"expected a mapping, found {file.data!r}")
    model = file.validate(ConfigModel)
    cases = _cases(file, model, repeat or model.repeat)
    if not cases:
        raise file.error(
            ("matrix",), "the matrix is empty", "nothing is left to run", "look at exclude"
        )
    lab = Lab(model.lab.qemu, model.lab.memory_mib, model.lab.smp)
    name = model.name or file.path.stem
    return RunConfig(
        name,
        file.path,
        cases,
        lab,
        _repro(model.repro),
        model.retries,
        ran_nowhere_is_error=model.ran_nowhere == "error",
        keep_raw=model.keep_raw,
    )


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
        for guest in _guests(file, ("guests", index), guest_model):
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
        f"a second guest with the cases of the one in line {line}",
        f"both are called {case.id}",
        "give one of them a name of its own: name: WORD",
    )


def _check_size(file: YamlFile, cases: int) -> None:
    """:class:`ConfigError` for more cases than any run could have."""
    most = limits.current().cases
    if cases > most:
        raise file.error(("repeat",), f"{cases} cases", f"at most {most}", limits.hint("cases"))


def _repro(model: ReproModel | None) -> Repro | None:
    if model is None:
        return None
    lanes = tuple(Lane(lane.kernel, lane.qemu) for lane in model.lanes)
    return Repro(tuple(model.entries), lanes)


_Cell: TypeAlias = Mapping[str, Any]


def _cells(file: YamlFile, model: ConfigModel) -> list[_Cell]:
    """The cells of the matrix after ``include`` and ``exclude``, each once, in order."""
    axes: dict[str, list[Any]] = {
        **{name: getattr(model.matrix, name) for name in MatrixModel.model_fields},
        "qemu": model.qemu,
        "kernel": model.lab.kernel,
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
    return list({tuple(sorted(cell.items(), key=lambda i: i[0])): cell for cell in kept}.values())


def _product(axes: Mapping[str, list[Any]]) -> Iterator[_Cell]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _named(entry: CellModel) -> dict[str, Any]:
    return {name: value for name, value in entry if value is not None}


def _is_backend(cell: _Cell) -> bool:
    return not (cell["host"] is Host.LAB and cell["accel"] is Accel.TCG)


def _canonical(cell: _Cell) -> _Cell:
    """``cell`` without the axes that mean nothing in it."""
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
    irqchip = Irqchip.TCG if cell["irqchip"] is None else Irqchip(cell["irqchip"])
    machine, smp = model.machine or cell["machine"], model.smp or cell["smp"]
    if isinstance(guest, ProbeGuest):
        runnable = tuple(s for s in guest.scenarios if not s.machines or machine in s.machines)
        if not runnable:
            return None
        guest, smp = dataclasses.replace(guest, scenarios=runnable), runnable[0].program.cpus
    return Case(
        guest=guest,
        backend=Backend(cell["host"], cell["accel"], irqchip, cell["qemu"], cell["kernel"]),
        machine=machine,
        cpu=model.cpu or cell["cpu"],
        smp=smp,
        memory_mib=model.memory_mib or defaults.memory_mib,
        timeout_s=model.timeout_s or defaults.timeout_s,
        devices=tuple(model.devices),
        options=tuple(model.options),
        repeat=repeat,
    )


def _guests(file: YamlFile, location: Location, model: GuestModel) -> list[Guest]:
    if isinstance(model, FlatModel):
        return [_flat_guest(file, location, model)]
    if isinstance(model, ProbeModel):
        return list(_probe_guests(file, location, model))
    return [_linux_guest(file, location, model)]


def _probe_guests(file: YamlFile, location: Location, model: ProbeModel) -> Iterator[ProbeGuest]:
    """A guest for each number of CPUs that scenarios need."""
    if model.smp is not None or model.append:
        name = "smp" if model.append == "" else "append"
        raise file.error(
            (*location, name), f"a probe takes no {name}", "its scenarios determine it"
        )
    sources: list[Path] = []
    for index, pattern in enumerate(model.scenarios):
        at = (*location, "scenarios", index)
        try:
            found = choice.find(pattern, file.path.parent)
        except HarnessError as error:
            raise file.error(at, error.what, error.why) from None
        if not found:
            raise file.error(at, f"no file of scenarios matches {pattern!r}")
        sources += found
    scenarios = choice.selected(choice.load(sources), model.only)
    if not scenarios:
        raise file.error((*location, "only"), "no scenario is left", f"none matches {model.only}")
    names = {scenario.name for scenario in scenarios} | {WHOLE_CASE}
    for name in model.expect:
        if name not in names:
            fix = suggest.close(name, names)
            raise file.error((*location, "expect", name), f"no scenario {name!r}", None, fix)
    for group in choice.by_cpus(scenarios).values():
        yield ProbeGuest(group, model.name, dict(model.expect), trace=model.trace)


def _linux_guest(file: YamlFile, location: Location, model: LinuxModel) -> LinuxGuest:
    for index, name in enumerate(model.workloads):
        _check_workload(file, (*location, "workloads", index), name)
    for name, parameters in model.parameters.items():
        _check_workload(file, (*location, "parameters", name), name)
        for key in parameters:
            known = sorted(WORKLOADS[name].parameters)
            if key not in known:
                raise file.error(
                    (*location, "parameters", name, key),
                    f"workload {name} has no parameter {key!r}",
                    None,
                    f"it has: {', '.join(known) or 'none'}",
                )
    for name in model.expect:
        if name != WHOLE_CASE:
            _check_workload(file, (*location, "expect", name), name)
    return LinuxGuest(
        workloads=tuple(model.workloads),
        kernel=model.kernel,
        migrate=model.migrate,
        parameters=model.parameters,
        expect=dict(model.expect),
        append=model.append,
        label=model.name,
    )


def _check_workload(file: YamlFile, location: Location, name: str) -> None:
    if name not in WORKLOADS:
        fix = suggest.nearest(name, WORKLOADS)
        raise file.error(location, f"unknown workload {name!r}", None, fix)


def _flat_guest(file: YamlFile, location: Location, model: FlatModel) -> FlatGuest:
    return FlatGuest(
        path=_flat_path(file, location, model.path),
        append=model.append,
        expect=dict(model.expect),
        label=model.name,
        protocol=_protocol(file, (*location, "protocol"), model.protocol),
        has_checks=model.checks != "none",
        output=model.output,
    )


def _protocol(file: YamlFile, location: Location, said: str | dict[str, Any]) -> Protocol | None:
    """One that stands there itself, one that ships with us, or that of a file."""
    if not isinstance(said, str):
        return protocol_files.of_data(file, location, said)
    shipped = {protocol.name: protocol for protocol in protocol_files.shipped()}
    if said == "auto":
        return None
    if said in shipped:
        return shipped[said]
    here = paths.expanded(said)
    try:
        path = paths.first_file([file.path.parent / here, here])
    except HarnessError as error:
        raise file.error(location, error.what, error.why) from None
    if path is not None:
        return protocol_files.load(path)
    known = ["auto", *shipped]
    fix = suggest.nearest(said, known)
    raise file.error(location, f"no protocol {said!r}", "there is no such file either", fix)


def _flat_path(file: YamlFile, location: Location, text: str) -> Path:
    """The image that ``text`` names, beside the file or below the working directory, checked."""
    here, at = paths.expanded(text), (*location, "path")
    candidates = [here] if here.is_absolute() else [file.path.parent / here, here]
    try:
        path = paths.first_file(candidates)
        if path is None:
            looked = " and ".join(str(path.absolute()) for path in candidates)
            raise file.error(at, f"no flat image {text!r}", f"looked for {looked}")
        why = multiboot.file_defect(path)
    except ConfigError:
        raise
    except HarnessError as error:
        raise file.error(at, error.what, error.why) from None
    except OSError as error:
        raise file.error(at, f"{path} cannot be read", error.strerror) from None
    if why is not None:
        raise file.error(
            at,
            f"{path} is not a bootable multiboot image",
            why,
            "build it as kvm-unit-tests does: an ELF file with a multiboot header",
        )
    return path.absolute()
