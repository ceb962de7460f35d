"""A run in the forms that other tools read: JUnit XML and TAP; what they say is in ``checks``."""

from __future__ import annotations

from pathlib import Path

from harness.base.files import write_text
from harness.report.export import junit as junit_module
from harness.report.export import tap as tap_module
from harness.report.export.checks import groups_of
from harness.store.result import RunResult


def write(run: RunResult, *, junit: Path | None, tap: Path | None) -> None:
    """Write ``run`` to the files asked for, each whole or not at all.

    Raises :class:`~harness.base.errors.StoreError` where one cannot be written.
    """
    groups = groups_of(run)
    texts = [
        (junit, junit_module.render(run, groups) if junit else ""),
        (tap, tap_module.render(groups) if tap else ""),
    ]
    for path, text in texts:
        if path is not None:
            write_text(path, text)
