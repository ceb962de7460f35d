"""The store as pages, for ``irqmatrix serve``: runs, findings and cases, each with its history.

Functions from what :mod:`harness.store.history` has to HTML; the pages look like those of a run's
report, and one of a run leads to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from harness.report.export.html import asset, policy, templates
from harness.store.history import (
    CaseHistory,
    CaseNight,
    FindingHistory,
    StoredRun,
    StoreOverview,
)
from harness.store.identity import FindingIdentity, Sighting

SHOWN_RUNS: Final = 200
"""Number of last runs of the overview."""

POLICY: Final = policy(asset("report.js"), asset("uPlot.iife.min.js"))
"""The Content-Security-Policy of these pages."""


def overview(found: StoreOverview, store: str) -> str:
    """The runs, and what needs attention."""
    return _page("store_overview.html", "Runs", store, found=found, trend=_trend(found))


def findings(found: Iterable[FindingIdentity], store: str) -> str:
    """All findings ever seen, the last seen first."""
    return _page("store_findings.html", "Findings", store, found=found)


def cases(found: Iterable[str], store: str) -> str:
    """All cases by their ids."""
    return _page("store_cases.html", "Cases", store, found=found)


def finding(found: FindingHistory, store: str) -> str:
    """A finding in all runs."""
    return _page("store_finding.html", str(found.identity), store, found=found)


def case(found: CaseHistory, store: str) -> str:
    """A case in all runs."""
    unexpected = [not night.as_expected for night in found.nights[-60:]]
    return _page("store_case.html", found.case, store, found=found, unexpected=unexpected)


def run(
    found: StoredRun,
    sightings: Iterable[Sighting],
    nights: Mapping[str, CaseNight],
    store: str,
    *,
    has_report: bool,
) -> str:
    """A run as the store knows it."""
    return _page(
        "store_run.html",
        f"Run {found.number} of {found.name}",
        store,
        run=found,
        sightings=sightings,
        nights=nights,
        has_report=has_report,
    )


def _page(template: str, title: str, store: str, **values: Any) -> str:
    has_chart = bool(values.get("trend"))
    style = asset("report.css") + asset("uPlot.min.css") if has_chart else asset("report.css")
    chart = asset("uPlot.iife.min.js") if has_chart else ""
    found = templates().get_template(template)
    own = {"title": title, "store": store, "style": style, "chart": chart}
    return found.render(script=asset("report.js"), **own, **values)


def _trend(found: StoreOverview) -> str | None:
    """The chart of the runs that ended; one point alone shows nothing."""
    ended = [each for each in found.runs if each.is_complete]
    if len(ended) < 2:
        return None
    numbers = [each.number for each in ended]
    series = [[each.not_as_expected for each in ended], [each.unexplained for each in ended]]
    names = ["not as expected", "unexplained"]
    return json.dumps({"data": [numbers, *series], "names": names, "unit": "run"})
