"""Internal errors: where their details are kept."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path


def root_of(error: BaseException) -> BaseException:
    """The first error of a group of errors, of those in it; any other error itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def kept(error: BaseException) -> Path | None:
    """A new file with the traceback of ``error``; None where no file can be written."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="irqmatrix-crash-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return None
    return Path(name)
