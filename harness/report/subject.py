"""One guest on all its backends: a row a verdict and a counter, a column a backend."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.analyse import audit
from harness.base.emphasis import Emphasis
from harness.compare.diff import Status
from harness.compare.finding import Finding, Member
from harness.guests.kinds.base import Part
from harness.guests.kinds.table import kind_named
from harness.ledger.ledger import Ledger
from harness.model.counters import Counter, CounterKey, CounterSet, CounterSource, Stage
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.report.page import Cell, Column, ColumnKind, Table, cells
from harness.report.views import EMPHASIS, WORDS

NOT_OBSERVABLE: Final = "n/o"
_LEDGER: Final = {"balances": Emphasis.GOOD, "incomplete": Emphasis.NOTICE}
_REMARKED: Final = (Status.UNEXPLAINED, Status.KNOWN_BUG, Status.BY_DESIGN)
"""What is remarked on beside a row; the worst first."""
_WORDS_OF_BACKEND: Final = re.compile(r"-(?=qemu|linux)")
_NOTHING: Final = Cell("-", Emphasis.FAINT)


@dataclass(frozen=True)
class Account:
    """What the files of a case say beyond its result; empty where they are not there."""

    counters: Mapping[str, CounterSet] = field(default_factory=dict)
    """By workload."""
    ledger: Ledger | None = None


@dataclass(frozen=True)
class _About:
    """What a row is about, in the words of a comparison; of a ``prefix`` all that begin so."""

    workload: str
    what: str
    prefix: bool = False

    def means(self, finding: Finding) -> bool:
        if finding.counter is None:
            return not self.workload and finding.part == self.what
        if finding.part != self.workload:
            return False
        return (
            finding.counter.startswith(self.what) if self.prefix else finding.counter == self.what
        )


@dataclass(frozen=True)
class Remark:
    """What a finding says of a row: in which columns, counted from 0, other things were seen."""

    status: Status
    axis: str
    rules: tuple[str, ...]
    columns: frozenset[int]


@dataclass(frozen=True)
class SubjectRow:
    """A value or a verdict of each case."""

    label: Cell
    cells: tuple[Cell, ...]
    """A cell for each case."""
    remarks: tuple[Remark, ...] = ()

    def difference(self, columns: range) -> Cell:
        """What is remarked on those columns; the worst only."""
        remarks = [each for each in self.remarks if not each.columns.isdisjoint(columns)]
        for status in _REMARKED:
            found = [each for each in remarks if each.status is status]
            if found:
                rules = dict.fromkeys(rule for each in found for rule in each.rules)
                is_explained = rules and status is not Status.UNEXPLAINED
                words = ", ".join(rules) if is_explained else found[0].axis
                return Cell(f"{WORDS[status]}: {words}", EMPHASIS[status])
        return Cell()


@dataclass(frozen=True)
class SubjectTable:
    """Verdicts, and what was counted, of a subject's cases; :class:`~.page.Divisible`."""

    backends: tuple[str, ...]
    """The name of each column; the versions, where it has some, on lines below it."""
    rows: tuple[SubjectRow, ...]

    @property
    def size(self) -> int:
        """The number of cases."""
        return len(self.backends)

    def part(self, columns: range) -> Table:
        """The table of those cases, and the remarks on them."""
        own = tuple(Column(self.backends[index], ColumnKind.RESULT) for index in columns)
        rows = tuple(
            (row.label, *(row.cells[index] for index in columns), row.difference(columns))
            for row in self.rows
        )
        return Table((Column(kind=ColumnKind.NAME), *own, Column("difference")), rows)


def subject_table(
    cases: Sequence[CaseResult], accounts: Mapping[str, Account], findings: Sequence[Finding]
) -> SubjectTable:
    """The table of ``cases``, which are of one subject.

    ``accounts`` by a case's id; ``findings`` may be of other subjects, too.
    """
    own = [each for each in findings if each.status in _REMARKED]
    concerned = [(each, _columns(each, cases)) for each in own]
    rows = (
        SubjectRow(
            draft.label,
            draft.cells,
            tuple(
                Remark(each.status, each.axis, each.rules, columns)
                for each, columns in concerned
                if columns and draft.about is not None and draft.about.means(each)
            ),
        )
        for draft in _rows(cases, [accounts.get(case.id, Account()) for case in cases])
    )
    return SubjectTable(tuple(map(_header, cases)), tuple(rows))


def _columns(finding: Finding, cases: Sequence[CaseResult]) -> frozenset[int]:
    """Those of ``cases`` that are not in the group in which most are."""
    most = max(finding.groups, key=lambda group: len(group.members))
    others = {member for group in finding.groups if group is not most for member in group.members}
    return frozenset(
        index for index, case in enumerate(cases) if Member(case.subject, case.backend) in others
    )


def _header(case: CaseResult) -> str:
    return _WORDS_OF_BACKEND.sub("\n", case.backend)


@dataclass(frozen=True)
class _Draft:
    """A row before the findings; ``about`` is None where there is nothing to compare."""

    label: Cell
    cells: tuple[Cell, ...]
    about: _About | None = None


def _rows(cases: Sequence[CaseResult], accounts: Sequence[Account]) -> Iterator[_Draft]:
    yield _Draft(Cell("verdict"), tuple(map(_verdict, cases)))
    yield _Draft(Cell("seconds"), cells(*(f"{case.duration_s:.1f}" for case in cases)))
    if any(account.ledger is not None and account.ledger.rows for account in accounts):
        yield _Draft(Cell("ledger"), tuple(_ledger(account.ledger) for account in accounts))
    yield from _part_rows(cases, accounts)


def _ledger(account: Ledger | None) -> Cell:
    if account is None:
        return _NOTHING
    word = audit.state(account)
    return Cell(word, _LEDGER.get(word, Emphasis.ALARM))


def _part_rows(cases: Sequence[CaseResult], accounts: Sequence[Account]) -> Iterator[_Draft]:
    """One row a workload or check, with its counters; checks that pass everywhere are one row."""
    parts = {case.id: {part.id: part for part in case.parts} for case in cases}
    names = list(dict.fromkeys(part.id for case in cases for part in case.parts))
    by_part = {name: [parts[case.id].get(name) for case in cases] for name in names}
    is_counted = any(kind_named(case.guest).part is Part.WORKLOAD for case in cases)
    shown = [name for name in names if is_counted or _is_worth_a_row(by_part[name])]
    for name in shown:
        label = Cell(name, Emphasis.TITLE)
        yield _Draft(label, tuple(map(_part, by_part[name])), _About("", name))
        if is_counted:
            yield from _counter_rows(name, [account.counters.get(name) for account in accounts])
        else:
            yield from _metric_rows(by_part[name])
    if len(shown) < len(names):
        label = Cell(f"{len(names) - len(shown)} other checks")
        yield _Draft(label, cells(*("pass" for _ in cases)))


def _is_worth_a_row(found: Sequence[PartResult | None]) -> bool:
    """Whether a check did not pass everywhere, or measured something."""
    return any(part is None or part.verdict is not Verdict.PASS or part.metrics for part in found)


def _metric_rows(found: Sequence[PartResult | None]) -> Iterator[_Draft]:
    """What a check measured; values depend on how fast a backend is, and are not compared."""
    for name in dict.fromkeys(name for part in found if part is not None for name in part.metrics):
        values = (None if part is None else part.metrics.get(name) for part in found)
        texts = ("-" if value is None else str(value) for value in values)
        yield _Draft(Cell(f"  {name}"), cells(*texts))


@dataclass(frozen=True)
class _Total:
    """A row that sums a stage over its pins or vectors."""

    label: str
    source: CounterSource
    stage: Stage
    controller: str


_TOTALS: Final = (
    _Total("lines raised", "qmp", "raised", "ioapic"),
    _Total("KVM_IRQ_LINE, high", "kvm", "raised", "gsi"),
    _Total("accepted by LAPICs", "kvm", "accepted", "lapic"),
    _Total("accepted by LAPICs", "qemu", "accepted", "lapic"),
    _Total("injected", "kvm", "injected", "vcpu"),
    _Total("injected again", "kvm", "reinjected", "vcpu"),
    _Total("EOI", "kvm", "eoi", "lapic"),
)


def _counter_rows(workload: str, sets: Sequence[CounterSet | None]) -> Iterator[_Draft]:
    totals = [None if found is None else found.without_cpus() for found in sets]
    keys = {key for found in totals if found is not None for key in found.values}
    handled = sorted(
        (key for key in keys if key.stage == "handled" and key.controller != "all"),
        key=lambda key: key.order,
    )
    for key in handled:
        label = f"  {key.controller} {key.what} [{key.source}]"
        about = _About(workload, key.path)
        yield from _if_any(label, [_value(found, key) for found in totals], about)
    for row in _TOTALS:
        label = f"  {row.label} [{row.source}]"
        about = _About(workload, f"{row.stage}/{row.controller}/", prefix=True)
        yield from _if_any(label, [_total(found, row) for found in totals], about)


def _if_any(label: str, values: Sequence[int | str], about: _About) -> Iterator[_Draft]:
    """The row, unless nothing was counted anywhere."""
    if any(isinstance(value, int) and value for value in values):
        yield _Draft(Cell(label), cells(*map(str, values)), about)


def _value(found: CounterSet | None, key: CounterKey) -> int | str:
    if found is None:
        return "-"
    counter = found.lookup(key)
    return counter.value if isinstance(counter, Counter) else NOT_OBSERVABLE


def _total(found: CounterSet | None, row: _Total) -> int | str:
    """The sum; not observable where the source cannot see the stage or was not asked."""
    if found is None:
        return "-"
    anything = found.lookup(CounterKey(row.stage, row.controller, row.source))
    if not isinstance(anything, Counter):
        return NOT_OBSERVABLE
    return found.total(f"{row.stage}/{row.controller}/*", row.source)


def _part(part: PartResult | None) -> Cell:
    return _NOTHING if part is None else _verdict(part)


def _verdict(judged: CaseResult | PartResult) -> Cell:
    blame = f" ({judged.blame})" if judged.blame is not None else ""
    if not judged.as_expected:
        return Cell(f"{judged.verdict.value} !{blame}", Emphasis.ALARM)
    return Cell(f"{judged.verdict.value}{blame}", judged.verdict.emphasis)
