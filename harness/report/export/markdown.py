"""Markdown for the page of a CI job, as GitHub and GitLab show it: what matters first.

What guests, QEMU and files say stands in code spans and code blocks, where Markdown and HTML mean
nothing; its own fence is longer than any in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from harness.base.text import plain
from harness.model.verdict import CaseResult
from harness.report import views
from harness.report.run_view import RunView, by_subject
from harness.store.baseline import BaselineComparison, State, exit_status

LONGEST: Final = 900_000
"""Bytes; GitHub refuses a job's summary of more than 1 MiB."""
SHOWN: Final = 100
"""Number of lines of one kind; beyond it they are counted."""


def render(view: RunView) -> str:
    """The document, cut at :data:`LONGEST`."""
    lines: list[str] = []
    size = 0
    for line in _lines(view):
        size += len(line.encode()) + 1
        if size > LONGEST:
            lines.append("\n*The rest does not fit: see the report of the run.*")
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def _lines(view: RunView) -> Iterator[str]:
    run = view.run
    mark = {0: "\N{WHITE HEAVY CHECK MARK}", 3: "\N{WHITE RIGHT-POINTING TRIANGLE}"}
    status = exit_status(run, view.baseline)
    yield f"## {mark.get(status, chr(0x274C))} {_words(run.name)}"
    yield ""
    yield f"**{_words(view.conclusion)}**"
    if run.did_not_end:
        yield "\n**The run did not end: its cases were not compared.**"
    if view.baseline is not None:
        yield from _since_baseline(view.baseline)
    yield from _findings(view)
    yield from _items("Not as expected", map(str, view.causes))
    yield from _items("Ran nowhere", run.nowhere.parts)
    flaky = (f"{case.id}: the first time {case.first_time}" for case in run.cases if case.flaky)
    yield from _items("Flaky", flaky)
    xpassed = (f"{rule.rule} on {rule.backend}" for rule in run.rules if rule.xpass)
    yield from _items("XPASS: known bugs that no longer show", xpassed)
    stale = (f"{rule.rule} on {rule.backend}" for rule in run.rules if rule.stale)
    yield from _items("Differences by design that should have shown", stale)
    yield from _rules(view)
    yield from _items("Skipped", map(str, view.skips))
    yield from _verdicts(view)


def _since_baseline(compared: BaselineComparison) -> Iterator[str]:
    """What became of each problem since the baseline, and the counters that left their band."""
    yield f"\n{_words(views.baseline_headline(compared))}"
    for state in State:
        title = f"{state.value[0].upper()}{state.value[1:]}"
        yield from _items(title, map(str, views.change_views(compared, state)))
    yield from _items("Counters that left their band", map(str, compared.counters))


def _findings(view: RunView) -> Iterator[str]:
    if not view.findings:
        return
    yield "\n### Unexplained findings\n"
    for finding in view.findings[:SHOWN]:
        yield f"- {_code(finding.headline)}"
        fence = _fence("\n".join(finding.groups))
        yield f"\n  {fence}text"
        for text in finding.groups:
            yield from (f"  {line}" for line in plain(text).splitlines())
        yield f"  {fence}"
    yield from _more(len(view.findings))


def _items(title: str, texts: Iterable[str]) -> Iterator[str]:
    found = list(texts)
    if not found:
        return
    yield f"\n### {title}\n"
    yield from (f"- {_code(text)}" for text in found[:SHOWN])
    yield from _more(len(found))


def _more(count: int) -> Iterator[str]:
    if count > SHOWN:
        yield f"- and {count - SHOWN} more"


def _rules(view: RunView) -> Iterator[str]:
    if not view.rules:
        return
    yield "\n### Explained differences\n"
    yield "| what it is | rule | findings | where |"
    yield "| --- | --- | ---: | --- |"
    for rule in view.rules:
        name = _code(rule.rule)
        if re.fullmatch(r"https?://[^\s()<>|]+", rule.link):
            name = f"[{name}]({rule.link})"
        where = "; ".join(rule.axes[:3])
        yield _row([views.WORDS[rule.status], name, str(rule.findings), _code(where)])


def _verdicts(view: RunView) -> Iterator[str]:
    """Subjects by backends, folded where there are many."""
    subjects = by_subject(view.run)
    if not subjects:
        return
    backends = list(dict.fromkeys(case.backend for case in view.run.cases))
    yield f"\n<details{' open' if view.is_whole else ''}><summary>Verdicts</summary>\n"
    yield _row(["", *map(_code, backends)])
    yield _row(["---"] * (len(backends) + 1))
    for subject, cases in subjects.items():
        cells = [_cell([case for case in cases if case.backend == name]) for name in backends]
        yield _row([_code(subject), *cells])
    yield "\n</details>"


def _cell(cases: Sequence[CaseResult]) -> str:
    """The verdicts of a case and its repeats; what is not as expected stands out."""
    words = dict.fromkeys(
        case.verdict.value if case.as_expected else f"**{case.verdict.value} !**" for case in cases
    )
    return ", ".join(words)


def _row(cells: Iterable[str]) -> str:
    """A row of a table, where a bar is escaped even in a code span (GFM, Tables)."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _code(text: str) -> str:
    """``text`` on one line as a code span."""
    flat = " ".join(plain(text).split())
    if not flat:
        return ""
    fence = _fence(flat, "`")
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{pad}{flat}{pad}{fence}"


def _fence(text: str, least: str = "```") -> str:
    """Backticks, more of them than anywhere in ``text``."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(longest + 1, len(least))


def _words(text: str) -> str:
    """``text`` in which no character means anything to Markdown or HTML."""
    flat = " ".join(plain(text).split())
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", flat)
