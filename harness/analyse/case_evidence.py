"""What the sources of a case said, and the files of a case's folder that hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from harness.analyse.ruling import Ruling
from harness.base import limits
from harness.base.errors import CollectError, StoreError
from harness.base.files import first_problem, read_json, read_text, read_typed
from harness.guests.kinds.base import Part
from harness.guests.kinds.table import kind_named
from harness.ledger import ledger
from harness.ledger.ledger import Ledger
from harness.model import manifest
from harness.model.case import Machine
from harness.model.counters import CounterSet, CounterSource
from harness.model.layout import CaseDir
from harness.model.manifest import CaseFile
from harness.model.verdict import Verdict
from harness.record.eventlog import EventLogReader, LogReport
from harness.replay import snapshots
from harness.replay.snapshots import Look
from userspace_chip.events import Event

SOURCES_SCHEMA: Final = 1

WHOLE: Final = "*"
"""The name of the counters of the whole case, from power-on to power-off."""


@dataclass(frozen=True)
class Sources:
    """How well a case is known; ``evidence.json``."""

    sources: frozenset[CounterSource] = frozenset()
    """Whose events there are."""
    reports: Mapping[str, LogReport] = field(default_factory=dict)
    """By trace, how complete its events are."""
    onsets_s: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """By workload and pin: when a storm began, in seconds."""
    observations: Mapping[str, str] = field(default_factory=dict)
    """What the monitor reported of the chips themselves, by id."""
    rulings: Mapping[str, Ruling] = field(default_factory=dict)
    """What each scenario of a probe that ran is, compared with its prediction."""
    tail: Mapping[str, int] = field(default_factory=dict)
    """What the traces have of the time between the last looks at a guest, by what it is called."""


@dataclass(frozen=True)
class ScenarioLog:
    """What a probe logged in a scenario, one event a line; None where the backend lacks a means.

    ``predicted`` is there where the Python chips say something else, ``inconclusive`` (why) where
    the log says nothing of the irqchip.
    """

    log: str | None
    predicted: str | None = None
    inconclusive: str | None = None


@dataclass(frozen=True)
class CaseEvidence:
    """What a case's sources said; its events are in the file ``events.jsonl`` of its folder.

    ``counters`` by workload, and under :data:`WHOLE` those of the whole case; ``missing`` says why
    a source said nothing.  The same whether it was just made of a recording, or is read back; of a
    case that an older irqmatrix recorded, ``sources`` and ``ledger`` may be None.
    """

    described: CaseFile
    counters: Mapping[str, CounterSet]
    missing: Mapping[str, str]
    ledger: Ledger | None
    """The account of every interrupt that the events show."""
    looks: tuple[Look, ...] = ()
    """What the monitor showed of the chips."""
    moving: tuple[Event, ...] = ()
    """What is in ``moving.jsonl``."""
    scenarios: Mapping[str, ScenarioLog] = field(default_factory=dict)
    """The logs of a probe, by scenario."""
    sources: Sources | None = None
    tail: Mapping[str, int] = field(default_factory=dict)
    """What the traces have of the time between the last looks at a guest, by its name; that
    is in no file."""

    @property
    def damage(self) -> str | None:
        """What is missing from the events themselves, or None where they are complete."""
        reports = {} if self.sources is None else self.sources.reports
        return damage_of(reports)

    @property
    def is_traced(self) -> bool:
        """Whether there is a trace of the case, as far as is known."""
        return self.sources is not None and bool(self.sources.reports)

    @property
    def ioapics(self) -> int:
        """How many IOAPICs the machine has."""
        return ioapics_of(self.described)


def ioapics_of(described: CaseFile) -> int:
    """How many IOAPICs the machine of a case has."""
    return 2 if described.machine is Machine.MICROVM else 1


def damage_of(reports: Mapping[str, LogReport]) -> str | None:
    """What is missing from the events, by trace; None where they are complete."""
    parts = [
        f"{source}: {report.lost} lost, {report.damaged} damaged"
        + (", cut off" if report.truncated else "")
        for source, report in reports.items()
        if not report.complete
    ]
    return "; ".join(parts) or None


def load(directory: Path) -> CaseEvidence:
    """The evidence in a case's folder; :class:`StoreError`, :class:`CollectError` if it is none."""
    described = manifest.read(directory)
    folder = CaseDir(directory)
    if not folder.events.is_file():
        raise StoreError(
            f"{directory} has no {CaseDir.events}", "the case never ran", "run it again"
        )
    counters, missing = _read_counters(folder.counters)
    return CaseEvidence(
        described,
        counters,
        missing,
        read_ledger(folder.ledger),
        snapshots.read(directory),
        read_moving(directory),
        read_scenarios(directory),
        read_sources(directory),
    )


def read_counters(path: Path) -> dict[str, CounterSet]:
    """The counters of a case by workload; :class:`CollectError` for a file of another kind."""
    return _read_counters(path)[0]


def _read_counters(path: Path) -> tuple[dict[str, CounterSet], dict[str, str]]:
    try:
        document = read_json(path)
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError) as error:
        raise CollectError(f"cannot read {path}", str(error)) from None
    if not isinstance(document, dict):
        raise CollectError(
            f"{path} has no counters", "it is not a JSON object", "run the case again"
        )
    missing = document.pop("missing", {})
    try:
        sets = {name: CounterSet.from_json(data) for name, data in document.items()}
        return sets, _MISSING.validate_python(missing)
    except CollectError as error:
        raise CollectError(f"{path}: {error}", None, "run the case again") from None
    except ValidationError as error:
        raise CollectError(f"{path}: missing", first_problem(error), "run the case again") from None


def read_ledger(path: Path) -> Ledger | None:
    """The ledger of a case; None where there is none, :class:`CollectError` for another kind."""
    try:
        return ledger.load(read_text(path, limits.current().json_mib * limits.MIB, "json_mib"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CollectError(f"cannot read {path}", str(error)) from None
    except CollectError as error:
        raise CollectError(f"{path}: {error}") from None


_SOURCES: Final = TypeAdapter(Sources)
_SCENARIOS: Final = TypeAdapter(dict[str, ScenarioLog])
_MISSING: Final = TypeAdapter(dict[str, str])


def sources_document(sources: Sources) -> dict[str, Any]:
    """``sources`` as they stand in their file."""
    document: dict[str, Any] = _SOURCES.dump_python(sources, mode="json")
    return {"schema": SOURCES_SCHEMA} | document | {"sources": sorted(document["sources"])}


def read_sources(directory: Path) -> Sources | None:
    """How well the case is known; None where it was recorded by an older irqmatrix."""
    path = CaseDir(directory).evidence
    if not path.exists():
        return None
    return read_typed(path, _SOURCES, SOURCES_SCHEMA, "is not a file of evidence")


def read_moving(directory: Path) -> tuple[Event, ...]:
    """What happened while the guest moved to another QEMU; errors as of :func:`read_events`."""
    path = CaseDir(directory).moving
    return tuple(_events(path)) if path.exists() else ()


def read_scenarios(directory: Path) -> dict[str, ScenarioLog]:
    """The logs of a probe; :class:`CollectError` for another kind of file."""
    path = CaseDir(directory).scenarios
    try:
        return _SCENARIOS.validate_python(read_json(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise CollectError(f"cannot read {path}", why) from None


def read_events(directory: Path, *, whole: bool = False) -> Iterator[Event]:
    """The events of a case; :class:`StoreError`, :class:`CollectError` for what is no log.

    With ``whole`` also for a log with a line that cannot be read, or that was cut off.
    """
    return _events(CaseDir(directory).events, whole=whole)


def _events(path: Path, *, whole: bool = False) -> Iterator[Event]:
    reader = EventLogReader()
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from reader.events(file)
        report = reader.report
        if whole and (report.damaged or report.truncated):
            cut = ", and cut off" if report.truncated else ""
            raise CollectError("a damaged log of events", f"{report.damaged} lines damaged{cut}")
    except OSError as error:
        raise StoreError(f"cannot read {path}", error.strerror, "run the case again") from None
    except CollectError as error:
        raise CollectError(f"{path}: {error}") from None


# --- With its verdict ---------------------------------------------------------------------------


@dataclass(frozen=True)
class RecordedCase:
    """A case's folder: its evidence, and the verdict that the run gave.

    ``observed`` are the monitor's observations: None where an older irqmatrix recorded the case,
    which then has no metrics either.
    """

    directory: Path
    evidence: CaseEvidence
    verdict: Verdict
    detail: str
    parts: Mapping[str, Verdict]
    own_metrics: Mapping[str, Mapping[str, int | float | str]]
    """The measurements of each part."""
    observed: Mapping[str, str] | None

    @property
    def described(self) -> CaseFile:
        """What the case is."""
        return self.evidence.described

    @property
    def counters(self) -> Mapping[str, CounterSet]:
        """Its counters by workload."""
        return self.evidence.counters

    @property
    def id(self) -> str:
        """The case's id."""
        return self.described.id

    @property
    def subject(self) -> str:
        """What has to be equal for two cases to be compared."""
        return self.described.subject

    @property
    def backend(self) -> str:
        """The backend's name, and which repetition it is."""
        repeat = self.described.axes.get("repeat")
        return self.described.backend + (f"#{int(repeat) + 1}" if repeat else "")

    @property
    def guest(self) -> str:
        """The guest's name, for the globs of rules."""
        return self.described.guest

    @property
    def part(self) -> Part:
        """What its guest's parts are; :class:`StoreError` for a guest of no known kind."""
        return kind_named(self.described.kind).part

    @property
    def ioapics(self) -> int:
        """How many IOAPICs the machine has."""
        return self.evidence.ioapics

    @property
    def metrics(self) -> Mapping[str, Mapping[str, int | float | str]]:
        """The measurements of the workloads that were counted."""
        if self.observed is None:
            return {}
        return {
            name: metrics
            for name, metrics in self.own_metrics.items()
            if name in self.counters and metrics
        }

    @property
    def checks(self) -> Mapping[str, str]:
        """The verdict, and those of the parts, by id, where they are no workloads."""
        whole = {"verdict": self.verdict.value}
        if self.part is Part.WORKLOAD:
            return whole
        return whole | {name: outcome.value for name, outcome in self.parts.items()}

    @property
    def ran(self) -> dict[str, Verdict]:
        """The workloads or checks that were not skipped."""
        return {name: found for name, found in self.parts.items() if found is not Verdict.SKIP}

    def unmeasured(self) -> RecordedCase:
        """The same without what a case of an older irqmatrix cannot be compared by."""
        return replace(self, observed=None)


def read_case(directory: Path) -> RecordedCase:
    """The case in ``directory``; :class:`StoreError` or :class:`CollectError` if it is none."""
    evidence = load(directory)
    verdict = read_verdict(CaseDir(directory).verdict)
    return RecordedCase(
        directory,
        evidence,
        verdict.verdict,
        verdict.detail,
        {part.id: part.verdict for part in verdict.parts},
        {part.id: part.metrics for part in verdict.parts},
        verdict.observations,
    )


@dataclass(frozen=True)
class StoredPart:
    """A part as ``verdict.json`` has it."""

    id: str
    verdict: Verdict
    detail: str = ""
    metrics: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredVerdict:
    """What is used of a ``verdict.json``."""

    verdict: Verdict
    parts: tuple[StoredPart, ...]
    id: str = ""
    detail: str = ""
    observations: Mapping[str, str] | None = None


_VERDICT: Final = TypeAdapter(StoredVerdict)


def read_verdict(path: Path) -> StoredVerdict:
    """A ``verdict.json``; :class:`StoreError` for what is none."""
    try:
        return _VERDICT.validate_python(read_json(path))
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreError(f"cannot read {path}", why, "run the case again") from None
    except ValueError as error:
        why = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise StoreError(f"{path} is not a verdict", why, "run the case again") from None


def events_around(case: RecordedCase, place: int, width: int) -> tuple[Event, ...]:
    """The event at ``place``, from 0, and its neighbours on either side."""
    events = read_events(case.directory)
    return tuple(islice(events, max(0, place - width), place + width + 1))


def case_folders(path: Path) -> list[Path]:
    """``path`` itself where it is a case's folder, else those of the run in it.

    :class:`StoreError` where it is neither.
    """
    if CaseDir(path).manifest.exists():
        return [path]
    if not path.is_dir():
        raise StoreError(
            f"there is no directory {path}", None, "name a run's or a case's directory"
        )
    folders = sorted(found.parent for found in path.glob(f"*/{CaseDir.manifest}"))
    if not folders:
        raise StoreError(
            f"{path} is neither a run nor a case",
            f"there is no {CaseDir.manifest} in it or in one of its directories",
            "name a run's or a case's directory; one that an older irqmatrix recorded has to be "
            "run again",
        )
    return folders
