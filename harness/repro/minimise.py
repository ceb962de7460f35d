"""A scenario in which two subjects differ, made as short as it can be and still show it.

What "it" is, is in :mod:`harness.scenario.finding`; how it is made shorter, in
:mod:`harness.scenario.shrink`.  Each round's candidates go to their subjects together, in one boot.
"""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import yaml

from harness import __version__
from harness.base import files, resources, suggest, yamlfile
from harness.base.errors import CannotRun, ConfigError, HarnessError, PredictionError, StoreError
from harness.base.yamlfile import YamlFile
from harness.guests.kinds.table import kind_of
from harness.images.cache import ImageCache
from harness.model.case import Machine
from harness.repro import bench as bench_module
from harness.repro import catalogue
from harness.repro.bench import Bench, Chips, Place, Side, Stage
from harness.scenario import compile as scenario_compile
from harness.scenario import language
from harness.scenario.authoring import authoring_problems
from harness.scenario.compare import unordered_steps
from harness.scenario.finding import LogFinding, findings
from harness.scenario.log import Log
from harness.scenario.program import Scenario
from harness.scenario.shrink import Data, shrink
from userspace_chip.architecture import Board

MODEL: Final = "model"
"""The subject that is the Python chips of the other one's versions."""
CONFIRMATIONS: Final = 3
"""How often a real backend executes the result at the end."""
_UNUSABLE: Final = {"dirty", "skip"}
Subjects: TypeAlias = tuple[Side | Chips, Side | Chips]


@dataclass(frozen=True)
class MinimiseRequest:
    """What is asked for on the command line."""

    name: str
    backend: str
    against: str = MODEL
    file: Path | None = None
    finding: int = 1
    """Which of the differences, in the order of the steps, from 1."""
    machine: Machine | None = None
    cpu: str = "qemu64"
    out: Path | None = None
    jobs: int = 1


@dataclass(frozen=True)
class Minimised:
    """A scenario that was made shorter.

    ``all_findings`` are those of the scenario as it was, ``finding`` the one that is kept, as the
    result shows it.  ``shown`` of ``asked`` executions of the result showed it.
    """

    name: str
    path: Path
    finding: LogFinding
    all_findings: tuple[LogFinding, ...]
    steps_before: int
    steps: tuple[str, ...]
    boots: int
    shown: int
    asked: int


@dataclass(frozen=True)
class Source:
    """A scenario as it stands in its file, or would."""

    path: Path
    name: str
    data: Data


def find(name: str, file: Path | None) -> Source:
    """The scenario ``name`` of ``file``, else of the shipped ones or of a reproducer.

    :class:`ConfigError` for an unknown name, with the closest matches.
    """
    shipped = sorted((resources.configs() / "scenarios").glob("*.yaml"))
    known: list[str] = [] if file is not None else list(catalogue.shipped())
    for path in shipped if file is None else [file]:
        loaded = yamlfile.load(path)
        names = {text.name for text in language.read(loaded)}
        if name in names:
            data: Any = loaded.data
            return Source(path, name, data["scenarios"][name])
        known += sorted(names)
    if file is None and name in catalogue.shipped():
        return _of_entry(catalogue.find(name))
    where = "in the scenarios that ship with irqmatrix" if file is None else f"in {file}"
    fix = suggest.close(name, known, count=3) or "--file names another file"
    raise ConfigError(f"there is no scenario {name!r}", f"looked {where}", fix)


def _of_entry(entry: catalogue.Entry) -> Source:
    kinds = [kind_of(case.guest) for case in entry.config().cases]
    found = {scenario.name: scenario for kind in kinds for scenario in kind.scenarios}
    if len(found) == 1:
        ((name, scenario),) = found.items()
        return find(name, scenario.path)
    if found:
        names = ", ".join(found)
        raise ConfigError(
            f"reproducer {entry.id} has {len(found)} scenarios", None, f"one of {names}"
        )
    raise ConfigError(f"reproducer {entry.id} has no scenario", "there is nothing to shorten")


async def minimise(request: MinimiseRequest, tell: Callable[[str], None]) -> Minimised:
    """Make it shorter, write it to ``request.out``; ``tell`` gets the progress.

    :class:`CannotRun` where there is no difference, or a backend that cannot be run here;
    :class:`ConfigError` for a scenario, backend or number that is none; :class:`StoreError` where
    the result cannot be written.
    """
    source = find(request.name, request.file)
    out = request.out or Path(f"{source.name}-minimised.yaml")
    _check_out(out, source.path)
    original = _compiled(source.data, source.name, source.path)
    with tempfile.TemporaryDirectory(prefix="irqmatrix-minimise-") as folder:
        stage = Stage(_machine(request, original), request.cpu, request.jobs, Path(folder))
        bench = Bench(stage, ImageCache())
        comparison = _comparison(request, bench)
        (found,) = await comparison.findings([original])
        wanted = _chosen(request, comparison.subjects, found)
        tell(f"{original.name}: {len(original.steps)} steps show: {wanted.text}")
        judge = Judge(comparison, wanted, source, comparison.problems(original))
        left = await smallest(judge, tell)
        name = f"{source.name}-minimised"
        text = _text(request, source, name, left, wanted)
        (final,) = map(scenario_compile.compile_text, language.read(yamlfile.parse(text, out)))
        times = CONFIRMATIONS if bench.boots else 1
        shown = [judge.finding(one) for one in await comparison.findings([final] * times)]
    seen = [finding for finding in shown if finding is not None]
    if not seen:
        why = f"the result showed it once, and not again in {times} executions: it is a race"
        raise HarnessError(f"{source.name} cannot be shortened", why, "try it again")
    files.write_text(out, text)
    return Minimised(
        final.name,
        out,
        seen[0],
        found or (),
        len(original.steps),
        final.steps,
        bench.boots,
        len(seen),
        times,
    )


async def smallest(judge: Judge, tell: Callable[[str], None]) -> Data:
    """What is left of the judge's scenario, without what it expects."""
    bench = judge.comparison.bench

    def report(candidates: int, data: Data) -> None:
        tell(f"{candidates} candidates, {bench.boots} boots: {len(data['steps'])} steps")

    bare = {key: value for key, value in judge.source.data.items() if key != "expect"}
    return await shrink(await _as_on_chips(judge, bare), judge.holds, report)


async def _as_on_chips(judge: Judge, data: Data) -> Data:
    """What is left of ``data`` when the chips of both sides are asked instead of backends.

    That costs no boot, and where the backends show it in what is left as well, most is done.
    Otherwise, or where the chips do not differ in this, it is ``data``.
    """
    comparison = judge.comparison
    if not isinstance(comparison, TwoSubjects) or comparison.is_pure:
        return data
    if comparison.chips[0] == comparison.chips[1]:
        return data
    on_chips = replace(judge, comparison=replace(comparison, subjects=comparison.chips))
    if not (await on_chips.holds([data]))[0]:
        return data
    left = await shrink(data, on_chips.holds, lambda *_: None)
    return left if (await judge.holds([left]))[0] else data


def _check_out(out: Path, source: Path) -> None:
    """See, before anything is run, that ``out`` can be written, and is not what is read."""
    fix = "name a file in a directory that can be written: --out FILE"
    if out.is_dir():
        raise StoreError(f"cannot write {out}", "it is a directory", fix)
    if out.exists() and out.samefile(source):
        raise StoreError(f"will not write {out}", "it contains the scenario itself", fix)
    try:
        with tempfile.TemporaryFile(dir=out.absolute().parent):
            pass
    except OSError as error:
        raise StoreError(f"cannot write {out}", error.strerror, fix) from None


def _machine(request: MinimiseRequest, scenario: Scenario) -> Machine:
    possible = sorted(scenario.machines)
    if request.machine is None:
        return Machine(possible[0]) if possible else Machine.Q35
    if possible and request.machine not in possible:
        what = f"{scenario.name} is not for the machine {request.machine}"
        raise ConfigError(what, None, f"it is for {', '.join(possible)}")
    return request.machine


def _comparison(request: MinimiseRequest, bench: Bench) -> TwoSubjects:
    """What is compared with what; :class:`ConfigError` for what cannot be."""
    first = bench_module.parse(request.backend)
    own = bench.chips_of(first)
    mine = own if first.place is Place.MODEL else first
    if request.against == MODEL:
        if isinstance(mine, Chips):
            raise ConfigError(
                "a model against itself", None, "choose another one: --against model:on"
            )
        return TwoSubjects(bench, (mine, own), (own, own))
    second = bench_module.parse(request.against)
    reference = bench.chips_of(second)
    other = reference if second.place is Place.MODEL else second
    return TwoSubjects(bench, (mine, other), (own, reference))


def _chosen(
    request: MinimiseRequest, subjects: Subjects, found: Sequence[LogFinding] | None
) -> LogFinding:
    mine, other = subjects
    if found is None:
        why = "a log is missing: the backend lacks what it needs, or the chips cannot tell"
        raise CannotRun(f"{request.name} cannot be compared on {mine} and {other}", why)
    if not found:
        what = f"{request.name} shows no difference between {mine} and {other}"
        raise CannotRun(what, None, "choose others with --backend, --against")
    if not 1 <= request.finding <= len(found):
        lines = "".join(f"\n  {number}: {one.text}" for number, one in enumerate(found, 1))
        raise ConfigError(f"there is no difference {request.finding}", f"there are:{lines}")
    return found[request.finding - 1]


class Comparison(Protocol):
    """In what a scenario differs, and from what."""

    @property
    def bench(self) -> Bench:
        """Where it is found out."""

    @property
    def is_pure(self) -> bool:
        """Whether nothing is booted."""

    async def findings(self, scenarios: Sequence[Scenario]) -> list[tuple[LogFinding, ...] | None]:
        """The differences of each scenario; None where it has no log to be used."""

    def problems(self, scenario: Scenario) -> frozenset[str]:
        """The kinds of mistakes in a scenario, as the chips show them."""


@dataclass(frozen=True)
class TwoSubjects:
    """Two subjects, the chips that stand for each of them, and what differs between them.

    The second one is what the first should be like.
    """

    bench: Bench
    subjects: Subjects
    chips: tuple[Chips, Chips]

    @property
    def is_pure(self) -> bool:
        """Whether nothing is booted."""
        return all(isinstance(subject, Chips) for subject in self.subjects)

    async def findings(self, scenarios: Sequence[Scenario]) -> list[tuple[LogFinding, ...] | None]:
        """The differences of each scenario; None where one of the two has no log to be used."""
        found, expected = await self.bench.logs(self.subjects, scenarios)
        return [
            _findings(one, *logs) for one, *logs in zip(scenarios, expected, found, strict=True)
        ]

    def problems(self, scenario: Scenario) -> frozenset[str]:
        """The kinds of mistakes in a scenario, as the chips show them."""
        # What is a storm on the chips is no good example of what should happen.
        return mistakes(scenario, self.chips[1], self.bench.stage.board, and_kinds={"cut"})


def mistakes(
    scenario: Scenario, chips: Chips, board: Board, and_kinds: Collection[str] = ()
) -> frozenset[str]:
    """The kinds of mistakes in a scenario, as the chips show them, and those kinds of events."""
    log = bench_module.predicted(scenario, chips.profile, board)
    if log is None:
        return frozenset() if scenario.no_model is not None else frozenset({"program"})
    try:
        found = authoring_problems(scenario.program, chips.profile, log, board=board)
    except PredictionError:
        return frozenset({"program"})
    events = frozenset(event.kind for event in log.events if event.kind in and_kinds)
    return events | frozenset(problem.kind for problem in found)


def _findings(
    scenario: Scenario, expected: Log | None, found: Log | None
) -> tuple[LogFinding, ...] | None:
    if expected is None or found is None:
        return None
    if any(event.kind in _UNUSABLE for log in (expected, found) for event in log.events):
        return None
    unordered = unordered_steps(scenario.program)
    return findings(expected, found, unordered=unordered, steps=scenario.steps)


@dataclass(frozen=True)
class Judge:
    """Says of candidates whether they show the finding that is looked for.

    ``allowed``: the kinds of mistakes that the scenario had from the beginning.  ``whole`` puts
    back what no candidate may lack.
    """

    comparison: Comparison
    wanted: LogFinding
    source: Source
    allowed: frozenset[str]
    whole: Callable[[Data], Data] = lambda data: data

    async def holds(self, candidates: Sequence[Data]) -> list[bool]:
        """Which of them compile, make no new mistake, and show it."""
        scenarios = {}
        for index, data in enumerate(candidates):
            # Where nothing is booted, this is the one moment at which Ctrl-C is heard.
            await asyncio.sleep(0)
            try:
                scenario = _compiled(self.whole(data), self.source.name, self.source.path)
            except ConfigError:
                continue
            # Executing it on the chips is dearer than comparing chips, and cheaper than a backend.
            if self.comparison.is_pure or self._is_sound(scenario):
                scenarios[index] = scenario
        found = await self.comparison.findings(list(scenarios.values()))
        showing = {
            index
            for (index, scenario), one in zip(scenarios.items(), found, strict=True)
            if self.finding(one) is not None
            and (not self.comparison.is_pure or self._is_sound(scenario))
        }
        return [index in showing for index in range(len(candidates))]

    def finding(self, found: Sequence[LogFinding] | None) -> LogFinding | None:
        """The one that is looked for, among those of a candidate."""
        return next((one for one in found or () if one == self.wanted), None)

    def _is_sound(self, scenario: Scenario) -> bool:
        return self.comparison.problems(scenario) <= self.allowed


def _compiled(data: Data, name: str, path: Path) -> Scenario:
    """:class:`ConfigError` where it is impossible."""
    file = YamlFile(path, {"version": 1, "scenarios": {name: data}}, {})
    (text,) = language.read(file)
    return scenario_compile.compile_text(text)


# --- The result as a file -----------------------------------------------------------------------

_DECIMAL: Final = {
    "count",
    "times",
    "cpus",
    "limit",
    "pins",
    "line",
    "cpu",
    "timeout_us",
    "delay_us",
}
"""Keys below which people write numbers in decimal."""


class _Hex(int):
    """A number that is written in hexadecimal."""


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: without anchors, numbers of registers in hexadecimal."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(
    _Hex, lambda dumper, number: dumper.represent_scalar("tag:yaml.org,2002:int", f"{number:#x}")
)
_Dumper.add_representer(
    yamlfile.WrittenFloat,
    lambda dumper, number: dumper.represent_scalar("tag:yaml.org,2002:float", number.written),
)


def _text(
    request: MinimiseRequest, source: Source, name: str, data: Data, finding: LogFinding
) -> str:
    """The file: how it was made, and the scenario."""
    command = ["irqmatrix", "minimise", request.name, "--backend", request.backend]
    command += ["--against", request.against]
    command += ["--finding", str(request.finding)] if request.finding != 1 else []
    about = f"minimised from {source.name}: {finding} ({request.backend} against {request.against})"
    made = f"Made by irqmatrix {__version__}: {shlex.join(command)}"
    return as_file(name, {**data, "about": about}, made)


def as_file(name: str, data: Data, comment: str) -> str:
    """A scenario as people would write its file; ``comment`` is the first line."""
    body = {"version": 1, "scenarios": {name: _written(data)}}
    return f"# {comment}\n" + yaml.dump(
        body, Dumper=_Dumper, sort_keys=False, width=100, default_flow_style=None
    )


def _written(node: Any, decimal: bool = False) -> Any:
    """``node`` with its numbers as people would write them."""
    if isinstance(node, dict):
        return {
            _written(key, decimal): _written(value, key in _DECIMAL) for key, value in node.items()
        }
    if isinstance(node, list):
        return [_written(value, decimal) for value in node]
    is_number = isinstance(node, int) and not isinstance(node, bool)
    return _Hex(node) if is_number and not decimal and node >= 10 else node
