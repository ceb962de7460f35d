"""The forms in which a run is written for others: each a function from a view to a text or bytes.

``irqmatrix report`` has an option for each.  A renderer gets plain data and gives text: it opens
no file, knows no terminal, and is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from harness.report.run_view import RunView


class Needs(StrEnum):
    """What a form needs of a view beside the run's result and its tables."""

    NOTHING = "nothing"
    TIMELINES = "timelines"
    DETAILS = "details"
    """All tables, and the files of every case."""


@dataclass(frozen=True)
class Format:
    """A form: what the help says of it, who writes it, and what has to be read for that."""

    title: str
    render: Callable[[RunView], str | bytes]
    needs: Needs = Needs.NOTHING


def _junit(view: RunView) -> str:
    from harness.report.export import junit

    return junit.render(view.run, view.checks, view.baseline)


def _tap(view: RunView) -> str:
    from harness.report.export import tap

    return tap.render(view.checks)


def _kcidb(view: RunView) -> str:
    from harness.report.export import kcidb

    return kcidb.render(view)


def _markdown(view: RunView) -> str:
    from harness.report.export import markdown

    return markdown.render(view)


def _html(view: RunView) -> str:
    from harness.report.export import html

    return html.render(view)


def _issue(view: RunView) -> str:
    from harness.report.export import issue

    return issue.render(view)


def _perfetto(view: RunView) -> bytes:
    from harness.report.export import perfetto

    return perfetto.render(view.timelines)


FORMATS: Final[dict[str, Format]] = {
    "html": Format("one HTML file", _html, Needs.DETAILS),
    "junit": Format("JUnit XML", _junit),
    "tap": Format("TAP 14", _tap),
    "kcidb": Format("KernelCI's report data (KCIDB)", _kcidb),
    "markdown": Format("Markdown for a CI job's page", _markdown),
    "issue": Format("the text of an issue for what is new", _issue),
    "perfetto": Format("the interrupts' timeline for Perfetto", _perfetto, Needs.TIMELINES),
}
"""By the name of the option."""
