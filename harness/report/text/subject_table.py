"""One guest on all its backends: a row a verdict and a counter, a column a backend."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analyse import audit
from harness.analyse.case_evidence import read_counters, read_ledger
from harness.compare.diff import Status
from harness.compare.finding import Finding, Member
from harness.ledger.ledger import Ledger
from harness.model.counters import Counter, CounterKey, CounterSet, CounterSource, Stage
from harness.model.layout import CaseDir
from harness.model.verdict import CaseResult, PartResult, Verdict
from harness.report.views import WORDS
from harness.run.progress import DEFAULT_STYLE, STYLES

NOT_OBSERVABLE: Final = "n/o"
_LEDGER_STYLES: Final = {"balances": "green", "incomplete": "yellow"}
_GAP: Final = 2
"""Columns between two cells, as rich's tables have them."""
_DIFFERENCE_COLUMNS: Final = 40
"""The words about a difference are wrapped at this width where space is short."""
_WORDS_OF_BACKEND: Final = re.compile(r"-(?=qemu|linux)")


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class _Row:
    """What a row says of each case; ``about`` is None where there is nothing to compare."""

    label: Text
    cells: tuple[Text, ...]
    about: _About | None = None


def subject_table(
    console: Console,
    subject: str,
    cases: Sequence[CaseResult],
    findings: Sequence[Finding],
    directory: Path,
    told: Collection[str] = (),
) -> None:
    """Verdicts, and what was counted; where the backends do not fit side by side, in blocks.

    ``told`` are the ids of cases whose detail stands elsewhere.
    """
    firsts = [case for case in cases if not case.axes.get("repeat")]
    rows = list(_rows(firsts, directory))
    own = [finding for finding in findings if finding.status in _STYLES]
    console.print(f"\n{subject}", style="bold", markup=False, highlight=False, soft_wrap=True)
    for number, block in enumerate(_blocks(firsts, rows, own, console.width)):
        if number:
            console.print()
        members = {Member(subject, firsts[index].backend) for index in block}
        concerned = [finding for finding in own if _concerns(finding, members)]
        console.print(_table(firsts, rows, concerned, block))
    for case in firsts:
        said = [] if case.id in told or not case.detail else [case.detail]
        if said or case.notes:
            text = f"  {case.backend}: {'; '.join((*said, *case.notes))}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def _concerns(finding: Finding, members: set[Member]) -> bool:
    """Whether one of ``members`` is not in the group in which most are."""
    most = max(finding.groups, key=lambda group: len(group.members))
    return any(members & set(group.members) for group in finding.groups if group is not most)


def _header(case: CaseResult) -> str:
    """The backend's name; the versions, where it has some, below it."""
    return _WORDS_OF_BACKEND.sub("\n", case.backend)


def _blocks(
    cases: Sequence[CaseResult], rows: Sequence[_Row], findings: Sequence[Finding], width: int
) -> Iterator[range]:
    """The cases that stand side by side in ``width`` columns, at least one at a time."""
    left = width - max(cell_len(row.label.plain) for row in rows) - _GAP
    left -= min(
        _DIFFERENCE_COLUMNS, max(cell_len(_difference(findings, row).plain) for row in rows)
    )
    first, used = 0, 0
    for index, case in enumerate(cases):
        words = [*_header(case).splitlines(), *(row.cells[index].plain for row in rows)]
        needed = max(map(cell_len, words)) + _GAP
        if used + needed > left and index > first:
            yield range(first, index)
            first, used = index, 0
        used += needed
    yield range(first, len(cases))


def _table(
    cases: Sequence[CaseResult], rows: Sequence[_Row], findings: Sequence[Finding], block: range
) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for index in block:
        table.add_column(Text(_header(cases[index])), justify="right", no_wrap=True)
    table.add_column("difference")
    for row in rows:
        cells = (row.cells[index] for index in block)
        table.add_row(row.label, *cells, _difference(findings, row))
    return table


def _rows(cases: Sequence[CaseResult], directory: Path) -> Iterator[_Row]:
    yield _Row(Text("verdict"), tuple(_verdict_text(case) for case in cases))
    yield _Row(Text("seconds"), tuple(Text(f"{case.duration_s:.1f}") for case in cases))
    accounts = [read_ledger(CaseDir(directory / case.dir).ledger) for case in cases]
    if any(account is not None and account.rows for account in accounts):
        yield _Row(Text("ledger"), tuple(map(_ledger_text, accounts)))
    yield from _part_rows(cases, directory)


def _ledger_text(account: Ledger | None) -> Text:
    if account is None:
        return Text("-", style="dim")
    word = audit.state(account)
    return Text(word, style=_LEDGER_STYLES.get(word, "bold red"))


def _part_rows(cases: Sequence[CaseResult], directory: Path) -> Iterator[_Row]:
    """One row a workload or check, with its counters; checks that pass everywhere are one row."""
    parts = {case.id: {part.id: part for part in case.parts} for case in cases}
    names = list(dict.fromkeys(part.id for case in cases for part in case.parts))
    by_part = {name: [parts[case.id].get(name) for case in cases] for name in names}
    is_linux = any(case.guest == "linux" for case in cases)
    shown = [name for name in names if is_linux or _is_worth_a_row(by_part[name])]
    counters = [read_counters(CaseDir(directory / case.dir).counters) for case in cases]
    for name in shown:
        cells = tuple(map(_part_text, by_part[name]))
        yield _Row(Text(name, style="bold"), cells, _About("", name))
        if is_linux:
            yield from _counter_rows(name, [found.get(name) for found in counters])
        else:
            yield from _metric_rows(by_part[name])
    if len(shown) < len(names):
        label = f"{len(names) - len(shown)} other checks"
        yield _Row(Text(label), tuple(Text("pass") for _ in cases))


def _is_worth_a_row(found: Sequence[PartResult | None]) -> bool:
    """Whether a check did not pass everywhere, or measured something."""
    return any(part is None or part.verdict is not Verdict.PASS or part.metrics for part in found)


def _metric_rows(found: Sequence[PartResult | None]) -> Iterator[_Row]:
    """What a check measured; values depend on how fast a backend is, and are not compared."""
    for name in dict.fromkeys(name for part in found if part is not None for name in part.metrics):
        values = (None if part is None else part.metrics.get(name) for part in found)
        cells = tuple(Text("-" if value is None else str(value)) for value in values)
        yield _Row(Text(f"  {name}"), cells)


@dataclasses.dataclass(frozen=True)
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


def _counter_rows(workload: str, sets: Sequence[CounterSet | None]) -> Iterator[_Row]:
    totals = [None if found is None else found.without_cpus() for found in sets]
    keys = {key for found in totals if found is not None for key in found.values}
    handled = sorted(
        (key for key in keys if key.stage == "handled" and key.controller != "all"),
        key=lambda key: key.order,
    )
    for key in handled:
        cells = [_cell(found, key) for found in totals]
        if any(cell not in ("0", NOT_OBSERVABLE, "-") for cell in cells):
            label = Text(f"  {key.controller} {key.what} [{key.source}]")
            yield _Row(label, tuple(map(Text, cells)), _About(workload, key.path))
    for row in _TOTALS:
        cells = [_total_cell(found, row) for found in totals]
        if any(cell not in ("0", NOT_OBSERVABLE, "-") for cell in cells):
            label = Text(f"  {row.label} [{row.source}]")
            about = _About(workload, f"{row.stage}/{row.controller}/", prefix=True)
            yield _Row(label, tuple(map(Text, cells)), about)


def _cell(found: CounterSet | None, key: CounterKey) -> str:
    if found is None:
        return "-"
    counter = found.lookup(key)
    return str(counter.value) if isinstance(counter, Counter) else NOT_OBSERVABLE


def _total_cell(found: CounterSet | None, row: _Total) -> str:
    """The sum; not observable where the source cannot see the stage or was not asked."""
    if found is None:
        return "-"
    anything = found.lookup(CounterKey(row.stage, row.controller, row.source))
    if not isinstance(anything, Counter):
        return NOT_OBSERVABLE
    return str(found.total(f"{row.stage}/{row.controller}/*", row.source))


_STYLES: Final = {
    Status.UNEXPLAINED: "bold red",
    Status.KNOWN_BUG: "yellow",
    Status.BY_DESIGN: "cyan",
}


def _difference(findings: Sequence[Finding], row: _Row) -> Text:
    """What the findings say of a row; the worst first."""
    if row.about is None:
        return Text()
    for status, style in _STYLES.items():
        found = [f for f in findings if f.status is status and row.about.means(f)]
        if found:
            rules = dict.fromkeys(rule for finding in found for rule in finding.rules)
            is_explained = rules and status is not Status.UNEXPLAINED
            words = ", ".join(rules) if is_explained else found[0].axis
            return Text(f"{WORDS[status]}: {words}", style=style)
    return Text()


def _part_text(part: PartResult | None) -> Text:
    if part is None:
        return Text("-", style="dim")
    return _verdict_text(part)


def _verdict_text(judged: CaseResult | PartResult) -> Text:
    blame = f" ({judged.blame})" if judged.blame is not None else ""
    if not judged.as_expected:
        return Text(f"{judged.verdict.value} !{blame}", style="bold red")
    return Text(f"{judged.verdict.value}{blame}", style=STYLES.get(judged.verdict, DEFAULT_STYLE))
