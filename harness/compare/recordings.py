"""``irqmatrix diff``: two recorded cases, or the pairs of two runs, and what explains it all.

Counters, monitors' observations and verdicts are compared as a run compares its backends
(:mod:`harness.compare.diff`); what the two guests did and got is aligned
(:mod:`harness.compare.align`); what either ledger found is compared as well.  All of it is
explained through ``configs/known``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.analyse import audit
from harness.analyse.case_evidence import (
    RecordedCase,
    case_folders,
    events_around,
    read_case,
)
from harness.analyse.conformance import read_logs
from harness.base.errors import CollectError, StoreError
from harness.base.versions import Version, parse_version
from harness.compare.align import Alignment, Parting, align, check_id
from harness.compare.diff import (
    Compared,
    Comparison,
    Measurement,
    Sample,
    Status,
    Subject,
    diff,
)
from harness.compare.finding import Finding, findings
from harness.compare.guest_view import GuestView, View
from harness.compare.known import BackendFacts, KnownDifferences
from harness.compare.partition import Axes
from harness.compare.subjects import NO_KVM, short, whose_chips
from harness.guests.kinds.base import Part
from harness.ledger.ledger import Ledger
from harness.model.layout import CaseDir
from harness.model.manifest import CaseFile
from harness.model.verdict import Verdict
from harness.record.eventlog import EventLogReader, LogReport
from userspace_chip.events import Event

A: Final = "A"
B: Final = "B"
"""The two recordings, as backends of one subject."""
CONTEXT: Final = 10
"""Number of events shown on either side of the first parting, of each recording."""


@dataclass(frozen=True)
class ComparedCase:
    """One of the two cases: who it is, what its ledger says, and what is wrong with its log."""

    id: str
    directory: str
    verdict: Verdict
    detail: str
    ledger: Ledger
    damage: str | None


@dataclass(frozen=True)
class EventContext:
    """The events around a parting in one recording; ``at`` counts events from 0."""

    at: int
    events: tuple[Event, ...]
    first: int
    """The place of the first of ``events``."""


@dataclass(frozen=True)
class FirstParting:
    """The first parting that nothing explains; where all are explained, the first of them."""

    parting: Parting
    finding: Finding
    a: EventContext | None
    b: EventContext | None


@dataclass(frozen=True)
class CaseDiff:
    """Everything that two recorded cases differ in."""

    a: ComparedCase
    b: ComparedCase
    compared: Compared
    findings: tuple[Finding, ...]
    alignment: Alignment
    first: FirstParting | None
    warnings: tuple[str, ...]

    @property
    def comparison(self) -> Comparison:
        """What was compared."""
        return self.compared.comparison

    def of(self, status: Status) -> tuple[Finding, ...]:
        """The findings of that status."""
        return tuple(finding for finding in self.findings if finding.status is status)

    @property
    def exit_status(self) -> int:
        """0 where they are the same or each difference is explained, else 1."""
        return int(bool(self.of(Status.UNEXPLAINED)))


@dataclass(frozen=True)
class RunDiff:
    """The pairs of two runs, and the folders of the cases that have no partner or never ran.

    ``findings`` are those of all pairs, each once.
    """

    pairs: tuple[CaseDiff, ...]
    findings: tuple[Finding, ...]
    alone: tuple[str, ...]

    @property
    def exit_status(self) -> int:
        """The worst of the pairs'."""
        return max(pair.exit_status for pair in self.pairs)


def diff_recorded(a: Path, b: Path, known: KnownDifferences) -> RunDiff:
    """Compare two cases' folders, or two runs'.

    Runs: cases of the same id are a pair; one whose id the other run does not have is compared
    with those of the same subject.  :class:`StoreError` for a folder that is neither, for a run
    with a case, and where there is no pair.
    """
    folders_a, folders_b = case_folders(a), case_folders(b)
    alone_a, alone_b = folders_a == [a], folders_b == [b]
    if alone_a is not alone_b:
        run, case = (b, a) if alone_a else (a, b)
        raise StoreError(f"{case} is a case and {run} is a run", None, "name two cases or two runs")
    if alone_a:
        return _run_diff([(read_case(a), read_case(b))], known)
    cases_a, cases_b = _ran(folders_a), _ran(folders_b)
    pairs = pair_up(cases_a, cases_b)
    if not pairs:
        raise StoreError(
            f"{a} and {b} have nothing in common",
            "no case of one has the id or the subject of a case of the other",
            "name two cases to compare them anyway",
        )
    paired = {case.directory for pair in pairs for case in pair}
    alone = tuple(str(folder) for folder in (*folders_a, *folders_b) if folder not in paired)
    return _run_diff(pairs, known, alone)


def _run_diff(
    pairs: Iterable[tuple[RecordedCase, RecordedCase]],
    known: KnownDifferences,
    alone: tuple[str, ...] = (),
) -> RunDiff:
    found = tuple(diff_cases(one, other, known) for one, other in pairs)
    return RunDiff(found, findings(pair.compared for pair in found), alone)


def _ran(folders: Sequence[Path]) -> list[RecordedCase]:
    """The cases of a run that were recorded; one that failed before has no events."""
    return [read_case(folder) for folder in folders if CaseDir(folder).events.is_file()]


def pair_up(
    a: Iterable[RecordedCase], b: Iterable[RecordedCase]
) -> list[tuple[RecordedCase, RecordedCase]]:
    """By id; what has no partner so, by subject."""
    a, b = list(a), list(b)
    by_id = {case.id: case for case in b}
    pairs = [(case, by_id[case.id]) for case in a if case.id in by_id]
    ids = {case.id for case, _ in pairs}
    pairs += [
        (one, other)
        for one in a
        for other in b
        if one.subject == other.subject and one.id not in ids and other.id not in ids
    ]
    return pairs


def diff_cases(a: RecordedCase, b: RecordedCase, known: KnownDifferences) -> CaseDiff:
    """What ``a`` and ``b`` differ in; only complete recordings are aligned."""
    view_a, view_b = view_of(a), view_of(b)
    side_a, side_b = _side(a, view_a.ledger), _side(b, view_b.ledger)
    warnings = _warnings(a, b, side_a, side_b)
    alignment = Alignment((), ())
    checks: tuple[dict[str, str], dict[str, str]] = ({}, {})
    if side_a.damage is None and side_b.damage is None:
        alignment = align(view_a, view_b)
        checks = alignment.checks()
        for side, view in zip(checks, (view_a, view_b), strict=True):
            side.update(_ledger_checks(view.ledger))
    all_checks = _reported(a, b) | checks[0], _reported(b, a) | checks[1]
    if a.observed is None or b.observed is None:
        a, b = a.unmeasured(), b.unmeasured()
    measured = measurement(a, A, all_checks[0]), measurement(b, B, all_checks[1])
    compared = diff(_subject(a, b), measured, known)
    found = findings([compared])
    first = _first(a, b, alignment, found)
    return CaseDiff(side_a, side_b, compared, found, alignment, first, warnings)


def _subject(a: RecordedCase, b: RecordedCase) -> Subject:
    """Both cases as one subject: what its axes are is what they have in common."""
    axes_a, axes_b = axes_of(a.described), axes_of(b.described)
    shared = {axis: value for axis, value in axes_a.items() if axes_b.get(axis) == value}
    name = a.id if a.id == b.id else f"{a.id} and {b.backend}"
    family = " ".join((a.guest, *a.described.arguments))
    return Subject(name, family, a.guest, shared, a.part)


def axes_of(described: CaseFile) -> Axes:
    """The values of a case on the axes of a finding."""
    versions = {"QEMU": described.qemu, "Linux": described.linux}
    known = {axis: _version(text) for axis, text in versions.items() if text is not None}
    return {
        "irqchip": described.mode,
        "QEMU": described.qemu,
        "Linux": NO_KVM,
        **{axis: short(version) for axis, version in known.items() if version is not None},
        "host": str(described.axes.get("host", "-")),
        "machine": described.machine.value,
        "smp": str(described.smp),
        "CPU": str(described.axes.get("cpu", "-")),
    }


def measurement(case: RecordedCase, name: str, checks: Mapping[str, str | None]) -> Measurement:
    """What :func:`harness.compare.diff.diff` compares of ``case``, which reported ``checks``."""
    samples = {
        part: (Sample(case.counters[part], metrics),) for part, metrics in case.metrics.items()
    }
    return Measurement(
        name,
        facts_of(case.described),
        samples,
        {**checks, **(case.observed or {})},
        {**axes_of(case.described), "run": name},
        _sequence(case),
        case.verdict.value,
    )


def _sequence(case: RecordedCase) -> tuple[str, ...]:
    """The checks that a guest reported, in its order."""
    if case.part is not Part.CHECK:
        return ()
    return tuple(name for name, verdict in case.parts.items() if verdict is not Verdict.ERROR)


def facts_of(described: CaseFile) -> BackendFacts:
    """What rules may ask of the backend of a case."""
    linux = None if described.linux is None else _version(described.linux)
    lab = None if described.lab_qemu is None else _version(described.lab_qemu)
    qemu = whose_chips(described.vmm, described.irqchip, _version(described.qemu))
    return BackendFacts(described.irqchip, described.machine, qemu, linux, lab)


def _version(text: str) -> Version | None:
    try:
        return parse_version(text)
    except ValueError:
        return None


def view_of(case: RecordedCase) -> View:
    """What the guest of ``case`` saw; its ledger says where the log is not complete.

    :class:`StoreError` where there is no log, :class:`CollectError` for one of another kind or
    version.
    """
    books = GuestView(case.described.irqchip, smp=case.described.smp, ioapics=case.ioapics)
    reader = EventLogReader()
    path = CaseDir(case.directory).events
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


def _side(case: RecordedCase, ledger: Ledger) -> ComparedCase:
    damage = audit.incomplete(ledger)
    return ComparedCase(case.id, str(case.directory), case.verdict, case.detail, ledger, damage)


def _reported(own: RecordedCase, other: RecordedCase) -> dict[str, str | None]:
    """What the guest reported: verdicts of workloads and logs of scenarios that both ran."""
    if own.part is Part.SCENARIO:
        logs = read_logs(own.directory, conclusive=True)
        both = {name: log for name, log in logs.items() if name in other.parts}
        return {"verdict": own.verdict.value, **both}
    if own.part is Part.WORKLOAD:
        both = {f"verdict/{name}": own.ran[name].value for name in own.ran if name in other.ran}
        return {**own.checks, **both}
    return dict(own.checks)


def _ledger_checks(ledger: Ledger) -> dict[str, str]:
    """What the ledger found, as checks: ``ledger/lost/ioapic pin 20``."""
    return {
        f"ledger/{finding.kind}/{finding.subject}": finding.detail for finding in ledger.findings
    }


def _warnings(a: RecordedCase, b: RecordedCase, *sides: ComparedCase) -> tuple[str, ...]:
    found = [
        f"{side.directory}: {side.damage}: the guests are not aligned, and the ledgers not compared"
        for side in sides
        if side.damage is not None
    ]
    if a.subject != b.subject:
        found.append(f"different subjects: {a.subject} and {b.subject}")
    elif a.ran.keys() != b.ran.keys() and a.part is Part.WORKLOAD:
        found.append(
            f"different workloads: {', '.join(a.ran) or 'none'}; {', '.join(b.ran) or 'none'}"
        )
    if a.part is b.part is Part.SCENARIO:
        for case, others in ((a, b.parts), (b, a.parts)):
            if alone := [name for name in case.parts if name not in others]:
                count = f"{len(alone)} scenario{'s were' if len(alone) > 1 else ' was'}"
                found.append(f"{count} run in {case.directory} only")
    for case in (a, b):
        if case.observed is None:
            found.append(
                f"{case.directory}: recorded by an older irqmatrix, without the workloads' own "
                "measurements: counters are not compared"
            )
    return tuple(found)


def _first(
    a: RecordedCase, b: RecordedCase, alignment: Alignment, found: Iterable[Finding]
) -> FirstParting | None:
    """The first parting that nothing explains, or the first of all, with its surroundings."""
    by_check = {finding.part: finding for finding in found if finding.counter is None}
    for wanted in (True, False):
        for parting in alignment.partings:
            finding = by_check.get(check_id(parting.subject))
            if finding is not None and (finding.status is Status.UNEXPLAINED) is wanted:
                places = _place(a, parting.a_place), _place(b, parting.b_place)
                return FirstParting(parting, finding, *places)
    return None


def _place(case: RecordedCase, at: int | None) -> EventContext | None:
    if at is None:
        return None
    events = events_around(case, at, CONTEXT)
    return EventContext(at, events, max(0, at - CONTEXT))
