"""A run as one HTML file: it opens from disk, and asks for nothing on a network.

The overview and the findings are plain HTML.  The pages of cases, subjects and findings are
compressed inside the file, and are put in place when they are looked at; otherwise 500 of them
would not fit into a few MB.  Texts of guests and files are escaped by the templates, and a policy
in the file (Content-Security-Policy) lets only its own script run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import jinja2
from markupsafe import Markup

from harness.base.emphasis import Emphasis
from harness.base.text import plain
from harness.compare.diff import Status
from harness.compare.finding import Finding, Group, Member
from harness.model.verdict import CaseResult, Verdict
from harness.report import views
from harness.report.pages import FUNNEL, AlignedPair, CaseFiles, funnel_of, rates_of
from harness.report.run_view import RunView, SubjectView
from harness.store.baseline import Change, exit_status
from harness.store.sightings import kind_of

NEVER: Final = "-"
SHOWN_MEMBERS: Final = 60
"""Number of members of a group that are named on a finding's page."""


# --- Templates ------------------------------------------------------------------------------------


@cache
def templates() -> jinja2.Environment:
    """The templates of all pages; every text in them is escaped, and harmless on a screen."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report.export"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    found.globals.update(FUNNEL=FUNNEL, WORDS=views.WORDS, since_text=views.since_text)
    return found


@cache
def asset(name: str) -> Markup:
    """A style or script of the package, as it stands in a page."""
    folder = "vendor" if name.startswith("uPlot") else "templates"
    loader = jinja2.PackageLoader("harness.report.export", folder)
    return Markup(loader.get_source(templates(), name)[0])  # our own file


def policy(*scripts: str) -> str:
    """What a page may do: run these scripts of its own, and nothing from anywhere else."""
    hashes = (hashlib.sha256(script.encode()).digest() for script in scripts)
    words = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in hashes)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {words}"


# --- What the templates get -----------------------------------------------------------------------


@dataclass(frozen=True)
class HeatCell:
    """All cases of a subject on a backend: the worst verdict of them, and where it leads.

    ``state`` is ``bad`` (not as expected, or outside the largest group of an unexplained finding),
    ``known`` (a failure that is expected, a known bug), ``good``, ``skip`` or ``none``.
    """

    text: str
    state: str
    label: str
    href: str


@dataclass(frozen=True)
class HeatRow:
    """A subject, where its page is, and a cell for each backend."""

    subject: str
    href: str
    cells: tuple[HeatCell | None, ...]


@dataclass(frozen=True)
class MemberLink:
    """A member of a group; without a page where the run has no case of that name."""

    name: str
    href: str | None


@dataclass(frozen=True)
class GroupView:
    """A group of a finding: who saw what."""

    label: str
    saw: str
    members: tuple[MemberLink, ...]
    more: int


@dataclass(frozen=True)
class FindingPage:
    """A finding as its page and the overview show it."""

    number: int
    href: str
    word: str
    emphasis: Emphasis
    headline: str
    axis: str
    groups: tuple[GroupView, ...]
    reason: str
    link: str | None
    rules: tuple[str, ...]
    left: tuple[str, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Page:
    """A page that is compressed in the file, by the fragment that leads to it."""

    id: str
    title: str
    data: str


_GRAVITY: Final = {verdict: rank for rank, verdict in enumerate(Verdict)}


class _Places:
    """Where everything is in the file."""

    def __init__(self, view: RunView) -> None:
        self.cases = {case.id: f"#case-{n}" for n, case in enumerate(view.run.cases)}
        self.members: dict[Member, str] = {}
        for case in view.run.cases:
            self.members.setdefault(Member(case.subject, case.backend), self.cases[case.id])
        self.subjects = {each.subject: f"#subject-{n}" for n, each in enumerate(view.subjects)}


def render(view: RunView) -> str:
    """The file."""
    places = _Places(view)
    findings = tuple(_finding_views(view, places))
    pages = tuple(_pages(view, places, findings))
    script, has_chart = asset("report.js"), any(map(_has_rates, view.details.divergences.values()))
    chart = asset("uPlot.iife.min.js") if has_chart else Markup()
    document = (
        templates()
        .get_template("run.html")
        .render(
            view=view,
            is_good=exit_status(view.run, view.baseline) == 0,
            since=None if view.baseline is None else views.baseline_headline(view.baseline),
            changes=() if view.baseline is None else views.change_views(view.baseline),
            environment=_environment(view),
            backends=_backends(view),
            heat=_heat(view, places, findings),
            findings=findings,
            cases=places.cases,
            pages=pages,
            style=asset("report.css") + (asset("uPlot.min.css") if has_chart else Markup()),
            script=script,
            chart=chart,
            policy=policy(script, chart) if has_chart else policy(script),
        )
    )
    return document + "\n"


def _has_rates(divergence: AlignedPair) -> bool:
    return rates_of(divergence) is not None


def _environment(view: RunView) -> tuple[tuple[str, str], ...]:
    """What the run ran on, in words."""
    return tuple((name, _words(value)) for name, value in view.run.environment.items())


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_words(each)}" for name, each in value.items())
    return NEVER if value is None else str(value)


# --- The heat map ---------------------------------------------------------------------------------


def _backends(view: RunView) -> tuple[str, ...]:
    return tuple(dict.fromkeys(case.backend for case in view.run.cases))


def _heat(view: RunView, places: _Places, findings: tuple[FindingPage, ...]) -> tuple[HeatRow, ...]:
    found = _members_apart(view, findings)
    backends = _backends(view)
    rows = []
    for each in view.subjects:
        by_backend: dict[str, list[CaseResult]] = {}
        for case in each.cases:
            by_backend.setdefault(case.backend, []).append(case)
        cells = (
            _heat_cell(own, places, found) if (own := by_backend.get(name)) else None
            for name in backends
        )
        rows.append(HeatRow(each.subject, places.subjects[each.subject], tuple(cells)))
    return tuple(rows)


def _members_apart(
    view: RunView, findings: tuple[FindingPage, ...]
) -> dict[Member, tuple[Status, FindingPage]]:
    """Those outside the largest group of a finding, each with the worst."""
    found: dict[Member, tuple[Status, FindingPage]] = {}
    for finding, shown in zip(view.run.findings, findings, strict=True):
        if finding.status in (Status.UNEXPLAINED, Status.KNOWN_BUG):
            largest = max(finding.groups, key=lambda group: len(group.members))
            for group in finding.groups:
                for member in group.members if group is not largest else ():
                    found.setdefault(member, (finding.status, shown))
    return found


def _heat_cell(
    cases: list[CaseResult], places: _Places, found: Mapping[Member, tuple[Status, FindingPage]]
) -> HeatCell:
    worst = min(cases, key=lambda case: (case.as_expected, -_GRAVITY[case.verdict]))
    status, finding = found.get(Member(worst.subject, worst.backend), (None, None))
    word, href = worst.verdict.value, places.cases[worst.id]
    label = f"{worst.subject} on {worst.backend}: {word}"
    if not worst.as_expected:
        word, state, label = f"{word} !", "bad", f"{label}, not as expected"
    elif status is Status.UNEXPLAINED:
        word, state = f"{word} *", "bad"
    elif status is Status.KNOWN_BUG or worst.verdict not in (Verdict.PASS, Verdict.SKIP):
        state = "known"
    else:
        state = "skip" if worst.verdict is Verdict.SKIP else "good"
    if finding is not None and status is Status.UNEXPLAINED:
        href, label = finding.href, f"{label}; in an unexplained finding"
    return HeatCell(word, state, label, href)


# --- Findings -------------------------------------------------------------------------------------


def _finding_views(view: RunView, places: _Places) -> Iterator[FindingPage]:
    for number, finding in enumerate(view.run.findings):
        yield FindingPage(
            number,
            f"#finding-{number}",
            views.WORDS[finding.status],
            views.EMPHASIS[finding.status],
            views.finding_view(finding).headline,
            finding.axis,
            tuple(_group(group, places) for group in finding.groups),
            finding.reason,
            _safe(finding.link),
            finding.rules,
            finding.left,
            _changes(view, finding),
        )


def _safe(link: str | None) -> str | None:
    """``link``, if it is one to a page."""
    return link if link is not None and link.startswith(("https://", "http://")) else None


def _group(group: Group, places: _Places) -> GroupView:
    members = tuple(
        MemberLink(f"{member.subject} on {member.backend}", places.members.get(member))
        for member in group.members
    )
    label = group.label or ", ".join(dict.fromkeys(each.backend for each in group.members))
    more = max(0, len(members) - SHOWN_MEMBERS)
    return GroupView(label, group.saw, members[:SHOWN_MEMBERS], more)


def _changes(view: RunView, finding: Finding) -> tuple[Change, ...]:
    """What the store says of it: since when, and how often."""
    if view.baseline is None:
        return ()
    subjects = {member.subject for group in finding.groups for member in group.members}
    return tuple(
        change
        for change in view.baseline.differences_of(finding.family, finding.part)
        if change.identity.subject in subjects and change.identity.kind == kind_of(finding)
    )


# --- Pages ----------------------------------------------------------------------------------------


def _pages(view: RunView, places: _Places, findings: tuple[FindingPage, ...]) -> Iterator[Page]:
    subjects = {each.subject: each for each in view.subjects}
    apart: dict[str, list[FindingPage]] = {}
    for shown in findings:
        for href in {link.href for group in shown.groups for link in group.members if link.href}:
            apart.setdefault(href, []).append(shown)
    for shown in findings:
        divergence = view.details.divergences.get(shown.number)
        yield _page(
            shown.href,
            shown.headline,
            "finding.html",
            finding=shown,
            nights=[view.details.nights.get(change.key, ()) for change in shown.changes],
            divergence=divergence,
            rates=_rates(divergence),
            scenario=view.details.scenarios.get(shown.number),
            cases=places.cases,
        )
    for case in view.run.cases:
        href, subject = places.cases[case.id], subjects[case.subject]
        yield _page(
            href,
            case.id,
            "case.html",
            case=case,
            files=(files := view.details.cases.get(case.id, CaseFiles())),
            funnel=funnel_of(files.account),
            findings=apart.get(places.members[Member(case.subject, case.backend)], []),
            subject=places.subjects[case.subject],
            table=_columns_beside(subject, case),
            others=[(each, places.cases[each.id]) for each in subject.cases if each is not case],
        )
    for subject in view.subjects:
        table = subject.table
        yield _page(
            places.subjects[subject.subject],
            subject.subject,
            "subject.html",
            subject=subject,
            table=None if table is None else table.part(range(table.size)),
            cases=[(case, places.cases[case.id]) for case in subject.cases],
        )


MOST_COLUMNS: Final = 4
"""Number of backends in the table of a case; the page of its subject has all."""


def _columns_beside(subject: SubjectView, case: CaseResult) -> Any:
    """The counters of a case beside those of the first other backends."""
    table = subject.table
    if table is None:
        return None
    firsts = [each for each in subject.cases if not each.axes.get("repeat")]
    own = next((n for n, each in enumerate(firsts) if each.backend == case.backend), 0)
    start = max(0, min(own, table.size - MOST_COLUMNS))
    return table.part(range(start, min(table.size, start + MOST_COLUMNS)))


def _rates(divergence: AlignedPair | None) -> str | None:
    """The chart's data as JSON."""
    rates = None if divergence is None else rates_of(divergence)
    if rates is None or divergence is None:
        return None
    return json.dumps(
        {
            "data": [rates.times_s, rates.a, rates.b],
            "names": [divergence.a.backend, divergence.b.backend],
            "marks": [divergence.a.at_ns / 1e9, divergence.b.at_ns / 1e9],
        }
    )


def _page(href: str, title: str, template: str, **values: Any) -> Page:
    text = templates().get_template(template).render(**values)
    data = base64.b64encode(zlib.compress(text.encode(errors="replace"), 9)).decode()
    return Page(href.removeprefix("#"), title, data)
