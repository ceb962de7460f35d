"""A reproducer run here: its recipe through the machinery of every run, then its signs measured.

What is measured comes from the files and results that every case leaves, so that a recorded run
can be assessed again.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, TypeAlias

from harness.analyse import conformance
from harness.analyse.case_evidence import read_counters
from harness.base.errors import StoreError
from harness.base.terminal import Printer
from harness.base.versions import parse_version
from harness.compare.known import BackendFacts
from harness.config.config import RunConfig
from harness.model import manifest
from harness.model.case import MODES, Irqchip
from harness.model.counters import CounterSet
from harness.model.layout import CaseDir, RunDir
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.repro.catalogue import Entry, Expected, Quantity, Sign, plain
from harness.run import pipeline
from harness.store.result import RunResult


class Answer(StrEnum):
    """The answer."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced here"
    CANNOT_RUN = "cannot run here"


@dataclass(frozen=True)
class Unknown:
    """An unknown value, and why."""

    why: str


Value: TypeAlias = float | str | Unknown


@dataclass(frozen=True)
class Measured:
    """A sign in one case."""

    sign: Sign
    case: CaseResult
    mode: Irqchip
    value: Value
    expected: Expected

    @property
    def holds(self) -> bool | None:
        """Whether it is what the entry says; None where it is unknown."""
        if isinstance(self.value, Unknown):
            return None
        return self.expected.met_by(self.value)


@dataclass(frozen=True)
class Assessment:
    """What a run says of an entry.

    ``expected`` is what the entry says for the versions that were run; None where it cannot be run.
    """

    outcome: Answer
    reason: str
    measured: tuple[Measured, ...]
    expected: Answer | None

    @property
    def as_expected(self) -> bool:
        """Whether the entry is right here."""
        return self.outcome is self.expected

    @property
    def exit_status(self) -> int:
        """0 as the entry says, 1 otherwise, 3 where it cannot be run (DESIGN, "Command line")."""
        if self.outcome is Answer.CANNOT_RUN:
            return 3
        return 0 if self.as_expected else 1

    @property
    def bisect_status(self) -> int:
        """For ``git bisect run``: 0 good, 1 bad, 125 untestable."""
        statuses = {Answer.REPRODUCED: 1, Answer.NOT_REPRODUCED: 0, Answer.CANNOT_RUN: 125}
        return statuses[self.outcome]


@dataclass(frozen=True)
class ReproRequest:
    """What is asked for on the command line."""

    entry: Entry
    kernel: str | None = None
    qemu: str | None = None
    out: Path | None = None
    jobs: int = 1
    decisive_only: bool = False
    """Run only the modes that are needed for the answer."""
    live: bool = False
    """With the live chips in place of QEMU, where they can be."""


@dataclass(frozen=True)
class Reproduction:
    """A reproducer that was run: everything that is reported of it, and bundled."""

    entry: Entry
    config: RunConfig
    result: RunResult
    directory: Path
    assessment: Assessment


async def reproduce(request: ReproRequest, console: Printer, *, quiet: bool) -> Reproduction:
    """Run the recipe and assess it; errors are those of :func:`harness.run.pipeline.run`."""
    entry = request.entry
    only = entry.modes if request.decisive_only else None
    out = request.out
    for attempt in range(len(entry.again) + 1):
        config = entry.config(
            kernel=request.kernel,
            qemu=request.qemu,
            only=only,
            attempt=attempt,
            live=request.live,
        )
        job = pipeline.RunRequest(config, out, None, request.jobs, expects=False)
        result, directory = await pipeline.run(job, console, quiet=quiet)
        found = Reproduction(entry, config, result, directory, assess(entry, result, directory))
        is_missing = found.assessment.outcome is Answer.NOT_REPRODUCED
        if not is_missing or found.assessment.as_expected or attempt == len(entry.again):
            break
        out = RunDir(directory if attempt == 0 else directory.parent).attempt(attempt + 1)
        if not quiet:
            console.print("it did not show: trying again, as the entry says", highlight=False)
    return found


def assess(entry: Entry, result: RunResult, directory: Path) -> Assessment:
    """Measure every sign of ``entry`` in a run of its recipe, and answer."""
    files = {case.id: _read(directory / case.dir) for case in result.cases}
    measured = tuple(
        Measured(sign, case, mode, _value(sign, case, files[case.id]), expected)
        for sign in entry.signs
        for case, mode, expected in _speaks_of(sign, result.cases)
    )
    expected = _expected(entry, result.cases, directory)
    unknown = next(_unknown(entry, result, measured), None)
    if unknown is not None:
        return Assessment(Answer.CANNOT_RUN, unknown, measured, None)
    wrong = [item for item in measured if item.holds is False]
    if wrong:
        return Assessment(Answer.NOT_REPRODUCED, _reason(wrong), measured, expected)
    right = [item for item in measured if item.holds]
    return Assessment(Answer.REPRODUCED, _reason(right), measured, expected)


def _speaks_of(
    sign: Sign, cases: Iterable[CaseResult]
) -> Iterator[tuple[CaseResult, Irqchip, Expected]]:
    for case in cases:
        mode = _mode_of(case)
        if mode in sign.expect and fnmatchcase(case.id, sign.cases):
            yield case, mode, sign.expect[mode]


def _mode_of(case: CaseResult) -> Irqchip:
    """The irqchip mode, whoever runs the machine."""
    return MODES[str(case.axes["irqchip"])][1]


def _unknown(entry: Entry, result: RunResult, measured: Iterable[Measured]) -> Iterator[str]:
    """Why a mode that has to be known is not."""
    here = result.environment.get("kvm")
    if entry.host_kvm is not None and here != entry.host_kvm:
        yield f"it is about {entry.host_kvm}, and this machine's KVM is {here or 'none'}"
    there = {_mode_of(case) for case in result.cases}
    for mode in entry.modes:
        if mode not in there:
            yield f"nothing was run in mode {mode}"
    for item in measured:
        if item.mode in entry.modes and isinstance(item.value, Unknown):
            yield f"{item.case.backend}: {item.value.why}"


_REASON_CHARACTERS: Final = 160


def _reason(items: Iterable[Measured]) -> str:
    """Sign by sign what was measured in each mode, and what was expected where it is not that."""
    parts = []
    for what, group in itertools.groupby(items, key=lambda item: item.sign.what):
        values = [
            f"{item.mode} {textwrap.shorten(value_text(item.value), _REASON_CHARACTERS)}"
            + ("" if item.holds else f" (expected {item.expected})")
            for item in group
        ]
        parts.append(f"{what}: {', '.join(values)}")
    return "; ".join(parts)


def value_text(value: Value) -> str:
    """A value as it is shown; an unknown one is ``n/o``."""
    if isinstance(value, Unknown):
        return "n/o"
    return plain(value)


# --- Values -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Files:
    """What a case left: its counters by part, and the logs of its scenarios."""

    counters: Mapping[str, CounterSet]
    logs: Mapping[str, str | None]


def _read(case_directory: Path) -> _Files:
    return _Files(
        read_counters(CaseDir(case_directory).counters), conformance.read_logs(case_directory)
    )


def _value(sign: Sign, case: CaseResult, files: _Files) -> Value:
    if case.verdict is Verdict.SKIP and not case.parts:
        return Unknown(f"skipped: {case.detail}")
    if sign.quantity is Quantity.OBSERVATION:
        found = case.observations.get(sign.name)
        return Unknown(f"{sign.name} was not observed") if found is None else found
    whole = PartResult("*", case.verdict, case.full_detail)
    parts = {"*": whole} | {part.id: part for part in case.parts}
    part = parts.get(sign.part)
    if part is None:
        return Unknown(f"it has no part {sign.part!r}: {case.verdict} {case.detail}")
    if sign.quantity is Quantity.VERDICT:
        return part.verdict.value
    if sign.quantity is Quantity.DETAIL:
        return part.detail
    if sign.quantity is Quantity.LOG:
        return _from_log(part, files.logs, lambda log: _matching(sign, log))
    if sign.quantity is Quantity.READ:
        return _from_log(part, files.logs, lambda log: _read_in(sign, log))
    if part.verdict in (Verdict.SKIP, Verdict.ERROR, Verdict.FAIL):
        return Unknown(f"{sign.part}: {part.verdict}: {part.detail}")
    if sign.quantity is Quantity.METRIC:
        return _number(part.metrics.get(sign.name, ""), f"{sign.part} reports no {sign.name}")
    return _counted(sign, part, files.counters)


def _from_log(
    part: PartResult, logs: Mapping[str, str | None], measure: Callable[[str], float | str]
) -> Value:
    """Measure a scenario's log; one that was cut off by a hang has a log, too."""
    log = logs.get(part.id)
    if log is None:
        return Unknown(f"{part.id} has no log: {part.verdict}: {part.detail}")
    return measure(log)


def _matching(sign: Sign, log: str) -> float:
    return float(sum(re.search(sign.name, line) is not None for line in log.splitlines()))


def _read_in(sign: Sign, log: str) -> str:
    values = re.findall(rf"^step {sign.name}, CPU \d+: read (\S+)$", log, re.MULTILINE)
    return " ".join(values) or "nothing"


def _counted(sign: Sign, part: PartResult, counters: Mapping[str, CounterSet]) -> Value:
    if (found := counters.get(sign.part)) is None:
        return Unknown(f"nothing was counted in {sign.part}")
    if sign.source not in found.sources:
        return Unknown(f"{sign.source} was not asked")
    for spot in found.blind:
        if spot.source == sign.source and fnmatchcase(sign.name, spot.counter):
            return Unknown(spot.reason)
    total = float(found.total(sign.name, sign.source))
    if sign.per is None:
        return total
    divisor = _divisor(sign.per, part, found)
    if not isinstance(divisor, float):
        return divisor if isinstance(divisor, Unknown) else Unknown(f"{sign.per} is {divisor!r}")
    return round(total / divisor, 2) if divisor else Unknown(f"{sign.per} is 0")


_COUNTER: Final = re.compile(r"(\S+) \[(\w+)\]")


def _divisor(per: str, part: PartResult, counters: CounterSet) -> Value:
    """Seconds, another counter (``PATH [SOURCE]``), or a metric of the part."""
    if _COUNTER.fullmatch(per) is not None:
        return float(sum(c.value for c in counters if str(c.key.on_any_cpu) == per))
    if per != "second":
        return _number(part.metrics.get(per, ""), f"{part.id} reports no {per}")
    elapsed_ms = _number(part.metrics.get("elapsed_ms", ""), f"{part.id} reports no time")
    return elapsed_ms / 1000 if isinstance(elapsed_ms, float) else elapsed_ms


def _number(value: float | str, why_not: str) -> Value:
    """A metric: a number or a text; where there is none, unknown for the reason given."""
    if value == "":
        return Unknown(why_not)
    return value if isinstance(value, str) else float(value)


# --- Expectations -------------------------------------------------------------------------------


def _expected(entry: Entry, cases: Iterable[CaseResult], directory: Path) -> Answer:
    """What the entry says for these versions."""
    facts = [
        found
        for case in cases
        if _mode_of(case) in entry.modes and (found := facts_of(directory / case.dir)) is not None
    ]
    affected = any(map(entry.is_affected, facts))
    return Answer.REPRODUCED if affected else Answer.NOT_REPRODUCED


def facts_of(case_directory: Path) -> BackendFacts | None:
    """The versions that a case ran with; None where it did not run."""
    try:
        described = manifest.read(case_directory)
    except StoreError:
        return None
    linux = None if described.linux is None else parse_version(described.linux)
    return BackendFacts(described.irqchip, described.machine, parse_version(described.qemu), linux)
