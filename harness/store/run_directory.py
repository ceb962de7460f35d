"""The folder of a run: one run at a time, and nothing in it of an earlier one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.base.errors import StoreError
from harness.base.ownership import locked
from harness.model.layout import OF_A_CASE, OF_A_RUN, RunDir


@dataclass(frozen=True)
class RunDirectory:
    """A run's folder; ``earlier`` is where that went which was in its place, if anything was."""

    path: Path
    earlier: Path | None


@contextlib.contextmanager
def run_directory(out: Path | None, name: str, cases: Iterable[str]) -> Iterator[RunDirectory]:
    """A folder for the run ``name``, ours for as long as the block lasts.

    ``cases`` are the names of the folders that the run will make.  What an earlier run left, and
    whatever has one of these names, is moved aside; nothing else in the folder is touched.
    :class:`StoreError` where it cannot be used, or another run is in it.
    """
    directory = out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    with contextlib.ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK):
                raise PermissionError(13, os.strerror(13))
            directory = directory.absolute()
            stack.enter_context(locked(RunDir(directory).lock))
            earlier = _moved_aside(directory, set(cases))
        except BlockingIOError:
            raise StoreError(
                f"cannot use {directory} for the results",
                "another run is in it",
                "wait until it has ended, or choose another --out",
            ) from None
        except OSError as error:
            raise StoreError(
                f"cannot use {directory} for the results", error.strerror, "choose another --out"
            ) from None
        yield RunDirectory(directory, earlier)


def _moved_aside(directory: Path, names: set[str]) -> Path | None:
    found = {path for path in directory.iterdir() if path.name in names or _is_of_a_case(path)}
    found |= {path for pattern in OF_A_RUN for path in directory.glob(pattern)}
    if not found:
        return None
    kept = RunDir(directory).earlier
    kept.mkdir(exist_ok=True)
    numbers = [int(path.name) for path in kept.iterdir() if path.name.isdigit()]
    earlier = kept / str(max(numbers, default=0) + 1)
    earlier.mkdir()
    for path in sorted(found):
        path.rename(earlier / path.name)
    return earlier


def _is_of_a_case(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in OF_A_CASE)
