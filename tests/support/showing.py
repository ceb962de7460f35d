"""Reports as they are shown."""

from __future__ import annotations

import io

from rich.console import Console

from harness.report.files import view_of
from harness.report.text.render import show
from harness.report.text.run_report import run_report


def shown(page, width=200) -> str:
    """What is printed of ``page`` where there is no terminal."""
    text = io.StringIO()
    show(Console(file=text, width=width), page)
    return text.getvalue()


def shown_run(run, directory, *, width=200, verbose=False, ledgers=False) -> str:
    """What is printed of a run whose cases are in folders of ``directory``."""
    view = view_of(run, directory, verbose=verbose, repeats=ledgers)
    return shown(run_report(view, directory, ledgers=ledgers), width)
