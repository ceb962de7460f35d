"""A recorded run or case, read back from its folders alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from harness.analyse.analyse import read_counters
from harness.base.errors import StoreError
from harness.base.files import first_problem, read_json
from harness.model import manifest
from harness.model.case import GuestKind, Machine
from harness.model.counters import CounterSet
from harness.model.manifest import CaseFile
from harness.model.verdict import Verdict
from harness.record.eventlog import EventLogReader
from userspace_chip.events import Event

EVENTS: Final = "events.jsonl"


@dataclass(frozen=True)
class RecordedCase:
    """What a case's folder says.

    ``metrics`` are the measurements of workloads that were counted, ``checks`` are by id,
    ``observed`` are the monitor's: None where an older irqmatrix recorded the case, which then has
    no metrics either.
    """

    directory: Path
    described: CaseFile
    verdict: Verdict
    detail: str
    parts: Mapping[str, Verdict]
    counters: Mapping[str, CounterSet]
    metrics: Mapping[str, Mapping[str, float | str]]
    checks: Mapping[str, str]
    observed: Mapping[str, str] | None

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
    def ioapics(self) -> int:
        """How many IOAPICs the machine has."""
        return 2 if self.described.machine is Machine.MICROVM else 1

    @property
    def ran(self) -> dict[str, Verdict]:
        """The workloads or checks that were not skipped."""
        return {name: found for name, found in self.parts.items() if found is not Verdict.SKIP}

    def unmeasured(self) -> RecordedCase:
        """The same without what a case of an older irqmatrix cannot be compared by."""
        return replace(self, metrics={}, observed=None)


def read_case(directory: Path) -> RecordedCase:
    """The case in ``directory``; :class:`StoreError` or :class:`CollectError` if it is none."""
    described = manifest.read(directory)
    if not (directory / EVENTS).is_file():
        raise StoreError(f"{directory} has no {EVENTS}", "the case never ran", "run it again")
    verdict = _read_verdict(directory / "verdict.json")
    counters = read_counters(directory / "counters.json")
    metrics = {
        part.id: part.metrics for part in verdict.parts if part.id in counters and part.metrics
    }
    outcomes = {part.id: part.verdict for part in verdict.parts}
    checks = {"verdict": str(verdict.verdict)}
    if described.kind is not GuestKind.LINUX:
        checks |= {name: outcome.value for name, outcome in outcomes.items()}
    return RecordedCase(
        directory,
        described,
        verdict.verdict,
        verdict.detail,
        outcomes,
        counters,
        metrics,
        checks,
        verdict.observations,
    )


@dataclass(frozen=True)
class _StoredPart:
    """A part as ``verdict.json`` has it."""

    id: str
    verdict: Verdict
    metrics: Mapping[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class _StoredVerdict:
    """What is used of a ``verdict.json``."""

    verdict: Verdict
    parts: tuple[_StoredPart, ...]
    detail: str = ""
    observations: Mapping[str, str] | None = None


_ADAPTER: Final = TypeAdapter(_StoredVerdict)


def _read_verdict(path: Path) -> _StoredVerdict:
    try:
        return _ADAPTER.validate_python(read_json(path))
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreError(f"cannot read {path}", why, "run the case again") from None
    except ValueError as error:
        why = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise StoreError(f"{path} is not a verdict", why, "run the case again") from None


def events_around(case: RecordedCase, place: int, width: int) -> tuple[Event, ...]:
    """The event at ``place``, from 0, and so many on either side of it."""
    with (case.directory / EVENTS).open(encoding="utf-8", errors="replace") as file:
        events = EventLogReader().events(file)
        return tuple(islice(events, max(0, place - width), place + width + 1))


def case_folders(path: Path) -> list[Path]:
    """``path`` itself where it is a case's folder, else those of the run in it.

    :class:`StoreError` where it is neither.
    """
    if (path / manifest.NAME).exists():
        return [path]
    if not path.is_dir():
        raise StoreError(f"there is no folder {path}", None, "name a run's or a case's folder")
    folders = sorted(found.parent for found in path.glob(f"*/{manifest.NAME}"))
    if not folders:
        raise StoreError(
            f"{path} is no run and no case",
            f"there is no {manifest.NAME} in it, nor in a folder of it",
            "name a run's or a case's folder; one that an older irqmatrix recorded has to be run "
            "again",
        )
    return folders
