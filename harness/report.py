"""What a person reads at the end: tables with rich, or JSON where it is asked for."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import audit, ledger
from harness.counters import Counter, CounterKey, CounterSet, CounterSource, Stage
from harness.diff import Difference, DiffResult
from harness.doctor import Finding
from harness.evidence import read_counters, read_ledger
from harness.images.model import ImageInfo
from harness.ledger import Ledger
from harness.progress import DEFAULT_STYLE, STYLES
from harness.replay import Divergence, Outcome, Replayed
from harness.result import CaseResult, PartResult, RunResult, Verdict
from harness.window import Line

NOT_OBSERVABLE: Final = "n/o"
_FINDING_STYLES: Final = {True: "green", False: "yellow", None: "dim"}
_LEDGER_STYLES: Final = {"balances": "green", "incomplete": "yellow"}


def run_report(console: Console, run: RunResult, directory: Path, *, ledgers: bool = False) -> None:
    """The table of a run, the differences, and where everything is; with ``ledgers`` those, too."""
    for subject, cases in groupby(
        sorted(run.cases, key=lambda case: case.subject), key=lambda case: case.subject
    ):
        diffs = [diff for diff in run.diffs if diff.subject == subject]
        found = list(cases)
        _subject_table(console, subject, found, diffs, directory)
        if ledgers:
            _ledger_tables(console, found, directory)
    console.print()
    _differences(console, run)
    _summary(console, run, directory)


def doctor_json(findings: Iterable[Finding]) -> str:
    """The findings as JSON."""
    return json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1)


def doctor_tables(console: Console, findings: Iterable[Finding]) -> None:
    """The findings by area; every "no" with its reason and what to do."""
    for area, group in groupby(findings, key=lambda finding: finding.area):
        console.print(f"\n{area}", style="bold", markup=False, highlight=False)
        table = Table.grid(padding=(0, 2))
        for finding in group:
            words = [finding.value]
            if finding.why:
                words.append(finding.why)
            if finding.fix:
                words.append(f"-> {finding.fix}")
            table.add_row(
                "", finding.name, Text("\n".join(words), style=_FINDING_STYLES[finding.can])
            )
        console.print(table)


def images_json(infos: Iterable[ImageInfo]) -> str:
    """The cache's entries as JSON."""
    rows = [dataclasses.asdict(info) | {"path": str(info.path)} for info in infos]
    return json.dumps(rows, indent=1)


def images_table(console: Console, infos: Sequence[ImageInfo]) -> None:
    """The cache's entries."""
    if not infos:
        console.print("the image cache is empty: irqmatrix images build", highlight=False)
        return
    table = Table("kind", "name", "version", "from", "MiB", "intact", box=None, pad_edge=False)
    for info in infos:
        intact = Text("yes" if info.intact else "NO", style="green" if info.intact else "red")
        size = f"{info.size_bytes / 2**20:.1f}"
        table.add_row(info.kind, info.name, info.version, info.source, size, intact)
    console.print(table)


_OUTCOME_STYLES: Final = {
    Outcome.AGREED: "green",
    Outcome.DIVERGED: "bold red",
    Outcome.INCOMPLETE: "yellow",
}


def replay_json(replayed: Replayed) -> str:
    """A replay as JSON."""
    rows = {field.name: getattr(replayed, field.name) for field in dataclasses.fields(replayed)} | {
        "compared": replayed.compared,
        "divergence": None,
    }
    if (found := replayed.divergence) is not None:
        rows["divergence"] = {
            field.name: getattr(found, field.name) for field in dataclasses.fields(found)
        } | {
            "recorded": None if found.recorded is None else _line_row(found.recorded),
            "before": [_line_row(line) for line in found.before],
            "after": [_line_row(line) for line in found.after],
            "states": {chip: json.loads(state) for chip, state in found.states.items()},
            "shown": {chip: json.loads(shown) for chip, shown in found.shown.items()},
            "seen": {chip: [_line_row(line) for line in seen] for chip, seen in found.seen.items()},
        }
    return json.dumps(rows, indent=1)


def replay_report(console: Console, replayed: Replayed) -> None:
    """What was compared, and the first divergence with what stands around it."""
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for warning in replayed.warnings:
        say(f"warning: {warning}", style="yellow")
    found = replayed.divergence
    if found is not None:
        _divergence(say, found)
    say(
        f"{replayed.compared} events compared: {replayed.predicted} predicted, "
        f"{replayed.stimuli} stimuli; {replayed.skipped} before the first CPU's, "
        f"{replayed.not_compared} of QEMU's not compared; "
        f"{replayed.looks} times a chip's registers were as the monitor showed them"
    )
    words = {
        Outcome.AGREED: "0 divergences",
        Outcome.DIVERGED: "diverged: the events after this one were not compared",
        Outcome.INCOMPLETE: "incomplete: the recording has a gap or ends too early, "
        "see the warnings",
    }
    say(words[replayed.outcome], style=_OUTCOME_STYLES[replayed.outcome])


def _divergence(say: Callable[..., None], found: Divergence) -> None:
    for line in found.before:
        say(f"  {_line_text(line)}")
    if found.recorded is not None:
        say(f"> {_line_text(found.recorded)}", style="bold red")
    for line in found.after:
        say(f"  {_line_text(line)}")
    say(f"\n{found.why}", style="bold")
    say(f"recorded:  {_line_text(found.recorded) if found.recorded is not None else 'nothing'}")
    for text in found.predicted or ("nothing",):
        say(f"predicted: {text}")
    for rule in found.rules:
        say(f"rule: {rule}")
    for chip, state in found.states.items():
        say(f"model's {chip}: {state}")
        if chip in found.shown:
            say(f"shown of {chip}: {found.shown[chip]}")
        for line in found.seen.get(chip, ()):
            say(f"recorded of {chip}: {_line_text(line)}")
    say("")


def _line_text(line: Line) -> str:
    event = line.event
    thread = "-" if event.vcpu is None else str(event.vcpu)
    return f"{line.number:>7} {event.source:4} {thread:>2} {event.name}: {event.text}"


def _line_row(line: Line) -> dict[str, object]:
    event = line.event
    return {
        "line": line.number,
        "ns": event.time_ns,
        "source": event.source,
        "vcpu": event.vcpu,
        "name": event.name,
        "text": event.text,
    }


def _subject_table(
    console: Console,
    subject: str,
    cases: Sequence[CaseResult],
    diffs: Sequence[DiffResult],
    directory: Path,
) -> None:
    """One guest on all its backends: verdicts, and what was counted."""
    firsts = [case for case in cases if not case.axes.get("repeat")]
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for case in firsts:
        table.add_column(case.backend, justify="right", no_wrap=True)
    table.add_column("difference")
    table.add_row("verdict", *(_verdict_text(case.verdict, case.as_expected) for case in firsts))
    table.add_row("seconds", *(f"{case.duration_s:.1f}" for case in firsts))
    accounts = [read_ledger(directory / case.dir / "ledger.json") for case in firsts]
    if any(account is not None and account.rows for account in accounts):
        table.add_row("ledger", *map(_ledger_text, accounts))
    _part_rows(table, firsts, diffs, directory)
    console.print(f"\n{subject}", style="bold", markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    for case in firsts:
        if case.detail:
            console.print(f"  {case.backend}: {case.detail}", markup=False, highlight=False)


def _ledger_text(account: Ledger | None) -> Text:
    if account is None:
        return Text("-", style="dim")
    word = audit.state(account)
    return Text(word, style=_LEDGER_STYLES.get(word, "bold red"))


def _ledger_tables(console: Console, cases: Sequence[CaseResult], directory: Path) -> None:
    """The account of every case, as docs/ledger.md explains it."""
    for case in cases:
        account = read_ledger(directory / case.dir / "ledger.json")
        if account is not None and account.rows:
            text = f"\nledger of {case.id}: {audit.state(account)}\n{ledger.table(account)}"
            console.print(text, markup=False, highlight=False, soft_wrap=True, end="")


def _part_rows(
    table: Table, cases: Sequence[CaseResult], diffs: Sequence[DiffResult], directory: Path
) -> None:
    """One row a workload or check, with its counters; checks that pass everywhere are one row."""
    parts = {case.id: {part.id: part for part in case.parts} for case in cases}
    names = list(dict.fromkeys(part.id for case in cases for part in case.parts))
    by_part = {name: [parts[case.id].get(name) for case in cases] for name in names}
    is_linux = any(case.guest == "linux" for case in cases)
    shown = [name for name in names if is_linux or not _all_pass(by_part[name])]
    counters = [read_counters(directory / case.dir / "counters.json") for case in cases]
    for name in shown:
        difference = _difference_text(diffs, "", name)
        table.add_row(Text(name, style="bold"), *map(_part_text, by_part[name]), difference)
        if is_linux:
            _counter_rows(table, name, [found.get(name) for found in counters], diffs)
    if len(shown) < len(names):
        table.add_row(f"{len(names) - len(shown)} other checks", *("pass" for _ in cases))


def _all_pass(found: Sequence[PartResult | None]) -> bool:
    return all(part is not None and part.verdict is Verdict.PASS for part in found)


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


def _counter_rows(
    table: Table,
    workload: str,
    sets: Sequence[CounterSet | None],
    diffs: Sequence[DiffResult],
) -> None:
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
            table.add_row(label, *cells, _difference_text(diffs, workload, key.path))
    for row in _TOTALS:
        cells = [_total_cell(found, row) for found in totals]
        if any(cell not in ("0", NOT_OBSERVABLE, "-") for cell in cells):
            glob = f"{row.stage}/{row.controller}/"
            difference = _difference_text(diffs, workload, glob, prefix=True)
            table.add_row(Text(f"  {row.label} [{row.source}]"), *cells, difference)


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


def _difference_text(
    diffs: Sequence[DiffResult], workload: str, what: str, *, prefix: bool = False
) -> Text:
    """What the comparisons say of a row; the gravest first."""
    for name, label, style in (
        ("unexplained", "UNEXPLAINED", "bold red"),
        ("known_bugs", "known bug", "yellow"),
        ("by_design", "by design", "cyan"),
    ):
        found = [
            difference
            for diff in diffs
            for difference in getattr(diff, name)
            if difference.workload == workload
            and (difference.what.startswith(what) if prefix else difference.what == what)
        ]
        if found:
            rules = dict.fromkeys(difference.rule for difference in found if difference.rule)
            words = ", ".join(rules) if rules else found[0].reason
            return Text(f"{label}: {words}", style=style)
    return Text()


def _part_text(part: PartResult | None) -> Text:
    if part is None:
        return Text("-", style="dim")
    return _verdict_text(part.verdict, part.as_expected)


def _verdict_text(verdict: Verdict, as_expected: bool) -> Text:
    if not as_expected:
        return Text(f"{verdict.value} !", style="bold red")
    return Text(verdict.value, style=STYLES.get(verdict, DEFAULT_STYLE))


def _differences(console: Console, run: RunResult) -> None:
    """Every difference that has to be explained, and its explanation; each rule once."""
    explained: dict[str, tuple[str, Difference, list[str]]] = {}
    for diff in run.diffs:
        pair = f"{diff.a} / {diff.b}"
        for difference in diff.unexplained:
            text = (
                f"UNEXPLAINED  {diff.subject}  {pair}  {difference.workload} {difference.what}: "
                f"{_values(difference.a)} against {_values(difference.b)} ({difference.reason})"
            )
            text += "; here they part" if difference.first else ""
            console.print(text, markup=False, highlight=False, style="bold red", soft_wrap=True)
        for kind, found in (("by design", diff.by_design), ("known bug", diff.known_bugs)):
            for difference in found:
                rule = difference.rule or ""
                explained.setdefault(rule, (kind, difference, []))[2].append(pair)
    for rule, (kind, difference, pairs) in explained.items():
        shown = ", ".join(dict.fromkeys(pairs))
        text = f"{kind}: {rule}  ({shown})\n    {difference.reason}\n    {difference.link}"
        console.print(text, markup=False, highlight=False, style="dim", soft_wrap=True)
    _not_met(console, run)


def _not_met(console: Console, run: RunResult) -> None:
    """The known differences that should have shown and did not; a bug's absence is the louder."""
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    for rule in run.rules:
        count = f"{rule.due} comparison{'s' if rule.due > 1 else ''}"
        if rule.stale:
            say(
                f"stale: the known difference {rule.rule!r} should have shown on {rule.backend} "
                f"in {count} and did not",
                style="yellow",
            )
        elif rule.xpass:
            say(
                f"XPASS  the known bug {rule.rule!r} no longer shows on {rule.backend} "
                f"({count}): fixed there? narrow the rule's versions\n    {rule.link}",
                style="bold magenta",
            )


def _values(values: Sequence[int | str]) -> str:
    return ", ".join(map(str, values))


def _unexpected(case: CaseResult) -> str:
    """What was expected of the case and its parts, where the configuration says so."""
    told = [
        f"{'XPASS: ' if found is Verdict.PASS else ''}{name} should be {expected}, is {found}"
        for name, expected, found in (
            ("the case", case.expected, case.verdict),
            *((part.id, part.expected, part.verdict) for part in case.parts),
        )
        if expected is not None and found is not expected
    ]
    return f" ({'; '.join(told)})" if told else ""


def _summary(console: Console, run: RunResult, directory: Path) -> None:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in run.summary.by_verdict.items())
    unexplained = run.summary.unexplained_differences
    good = run.summary.exit_status == 0
    console.print(
        f"\n{run.summary.cases} cases: {counts}; {unexplained} unexplained differences",
        style="green" if good else "bold red",
        markup=False,
        highlight=False,
    )
    if xpassed := sum(rule.xpass for rule in run.rules):
        text = f"  XPASS: {xpassed} known bug{'s' if xpassed > 1 else ''} not seen any more"
        console.print(text, style="bold magenta")
    for diff in run.diffs:
        if diff.unexplained:
            things = ", ".join(dict.fromkeys(each.what for each in diff.unexplained))
            text = f"  unexplained: {diff.subject}: {diff.a} / {diff.b} ({things})"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    for case in run.cases:
        if not case.as_expected:
            text = f"  not as expected: {case.id}{_unexpected(case)}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{NOT_OBSERVABLE}: not observable there; why is in each counters.json", style="dim"
    )
    console.print(f"results: {directory}", markup=False, highlight=False, soft_wrap=True)
