"""A recorded run or case, read back from its folders alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from harness import casefile
from harness.case import Machine
from harness.casefile import CaseFile
from harness.counters import CounterSet
from harness.diff import Measurement, Sample
from harness.errors import CollectError, StoreError
from harness.eventlog import EventLogReader, LogReport
from harness.evidence import read_counters
from harness.guestview import GuestView, View
from harness.known import BackendFacts
from harness.result import Verdict
from harness.versions import Version, parse_version
from userspace_chip.events import Event

EVENTS: Final = "events.jsonl"


@dataclass(frozen=True)
class RecordedCase:
    """What a case's folder says.

    ``samples`` are by workload, ``checks`` by id, ``observed`` are the monitor's; the last are None
    where an older irqmatrix recorded the case, and then there are no samples either.
    """

    directory: Path
    described: CaseFile
    verdict: Verdict
    detail: str
    parts: Mapping[str, Verdict]
    counters: Mapping[str, CounterSet]
    samples: Mapping[str, Sample]
    checks: Mapping[str, str]
    observed: Mapping[str, str] | None

    @property
    def id(self) -> str:
        """The case's id."""
        return self.described.id

    @property
    def subject(self) -> str:
        """The id without its backend."""
        return self.id.rpartition("/")[0]

    @property
    def backend(self) -> str:
        """The backend's name, and which repetition it is."""
        return self.id.rpartition("/")[2]

    @property
    def guest(self) -> str:
        """The guest's name, for the globs of rules."""
        return self.id.partition("/")[0]

    @property
    def facts(self) -> BackendFacts:
        """What rules may ask of the backend."""
        described = self.described
        linux = None if described.linux is None else _version(described.linux)
        return BackendFacts(described.irqchip, described.machine, _version(described.qemu), linux)

    @property
    def ioapics(self) -> int:
        """How many IOAPICs the machine has."""
        return 2 if self.described.machine is Machine.MICROVM else 1

    @property
    def ran(self) -> dict[str, Verdict]:
        """The workloads or checks that were not skipped."""
        return {name: found for name, found in self.parts.items() if found is not Verdict.SKIP}

    def measurement(self, checks: Mapping[str, str]) -> Measurement:
        """What :func:`harness.diff.diff` compares, with more ``checks``."""
        samples = {name: (sample,) for name, sample in self.samples.items()}
        all_checks = {**self.checks, **(self.observed or {}), **checks}
        return Measurement(self.backend, self.facts, samples, all_checks)

    def unmeasured(self) -> RecordedCase:
        """The same without what a case of an older irqmatrix cannot be compared by."""
        return replace(self, samples={}, observed=None)


def _version(text: str) -> Version | None:
    try:
        return parse_version(text)
    except ValueError:
        return None


def read_case(directory: Path) -> RecordedCase:
    """The case in ``directory``; :class:`StoreError` or :class:`CollectError` if it is none."""
    described = casefile.read(directory)
    if not (directory / EVENTS).is_file():
        raise StoreError(f"{directory} has no {EVENTS}", "the case never ran", "run it again")
    verdict = _read_verdict(directory / "verdict.json")
    counters = read_counters(directory / "counters.json")
    parts = {part["id"]: part for part in verdict["parts"]}
    samples = {
        name: Sample(counters[name], part["metrics"])
        for name, part in parts.items()
        if name in counters and part.get("metrics")
    }
    outcomes = {name: Verdict(part["verdict"]) for name, part in parts.items()}
    checks = {"verdict": str(verdict["verdict"])}
    if not described.id.startswith("linux"):
        checks |= {name: outcome.value for name, outcome in outcomes.items()}
    return RecordedCase(
        directory,
        described,
        Verdict(verdict["verdict"]),
        verdict["detail"],
        outcomes,
        counters,
        samples,
        checks,
        verdict.get("observations"),
    )


def _read_verdict(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        Verdict(data["verdict"])
        assert all(Verdict(part["verdict"]) and part["id"] for part in data["parts"])
        return {"detail": "", **data}
    except OSError as error:
        why = error.strerror or str(error)
        raise StoreError(f"cannot read {path}", why, "run the case again") from None
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise StoreError(f"{path} is not a verdict", repr(error), "run the case again") from None


def view_of(case: RecordedCase) -> View:
    """What the guest of ``case`` saw; its ledger says where the log is not complete.

    :class:`CollectError` for a log of another kind or version.
    """
    books = GuestView(case.described.irqchip, smp=case.described.smp, ioapics=case.ioapics)
    reader = EventLogReader()
    path = case.directory / EVENTS
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for event in reader.events(file):
                books.add(event)
    except OSError as error:
        raise StoreError(f"cannot read {path}", error.strerror, "run the case again") from None
    except CollectError as error:
        raise CollectError(f"{path}: {error}") from None
    report = reader.report
    damage = None if report.complete else _damage(report)
    return books.view(damage=damage, handled=case.counters)


def _damage(report: LogReport) -> str:
    cut = ", cut off" if report.truncated else ""
    return f"{report.lost} events lost, {report.damaged} lines damaged{cut}"


def events_around(case: RecordedCase, place: int, width: int) -> tuple[Event, ...]:
    """The event at ``place``, from 0, and so many on either side of it."""
    with (case.directory / EVENTS).open(encoding="utf-8", errors="replace") as file:
        events = EventLogReader().events(file)
        return tuple(islice(events, max(0, place - width), place + width + 1))


def case_folders(path: Path) -> list[Path]:
    """``path`` itself where it is a case's folder, else those of the run in it.

    :class:`StoreError` where it is neither.
    """
    if (path / casefile.NAME).exists():
        return [path]
    if not path.is_dir():
        raise StoreError(f"there is no folder {path}", None, "name a run's or a case's folder")
    folders = sorted(found.parent for found in path.glob(f"*/{casefile.NAME}"))
    if not folders:
        raise StoreError(
            f"{path} is no run and no case",
            f"there is no {casefile.NAME} in it, nor in a folder of it",
            "name a run's or a case's folder; one that an older irqmatrix recorded has to be run "
            "again",
        )
    return folders
