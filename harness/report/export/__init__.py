"""A run in the forms that other tools read; what they say is in ``checks``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.base.files import write_text
from harness.report.formats import FORMATS
from harness.report.run_view import RunView
from harness.store.result import RunResult


def write(run: RunResult, files: Mapping[str, Path]) -> None:
    """Write ``run`` to the files asked for, by the form of each; each whole or not at all.

    Raises :class:`~harness.base.errors.StoreError` where one cannot be written.
    """
    view = RunView.of(run)
    texts = {path: FORMATS[name].render(view) for name, path in files.items()}
    for path, text in texts.items():
        write_text(path, text)
