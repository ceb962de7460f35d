"""A run in the forms that other tools read: JUnit XML and TAP; what they say is in ``checks``."""

from __future__ import annotations

from pathlib import Path

from harness.export import junit as junit_module
from harness.export import tap as tap_module
from harness.export.checks import groups_of
from harness.result import RunResult, write_text


def write(run: RunResult, *, junit: Path | None, tap: Path | None) -> None:
    """Write ``run`` to the files asked for, each whole or not at all.

    Raises :class:`~harness.errors.StoreError` where one cannot be written.
    """
    groups = groups_of(run)
    texts = [
        (junit, junit_module.render(run, groups) if junit else ""),
        (tap, tap_module.render(groups) if tap else ""),
    ]
    for path, text in texts:
        if path is not None:
            write_text(path, text)
