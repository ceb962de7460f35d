"""What ``make fresh`` makes of the end of a run, and of a machine that cannot do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fresh.apart import available_gib
from fresh.machine import FreshError, check_results, user_cache

CI = Path(__file__).parents[2] / ".ci"


def write_result(clone: Path, *verdicts: str) -> None:
    folder = clone / "runs" / "20260101-000000-quick"
    folder.mkdir(parents=True)
    cases = [{"verdict": verdict} for verdict in verdicts]
    (folder / "result.json").write_text(json.dumps({"cases": cases}))


def test_run_with_cases_that_pass_or_are_skipped_is_accepted(tmp_path: Path) -> None:
    write_result(tmp_path, "pass", "skip", "pass")
    check_results(tmp_path)


@pytest.mark.parametrize("verdicts", [("skip",), ("pass", "error"), ()])
def test_run_that_checked_nothing_or_failed_is_refused(
    tmp_path: Path, verdicts: tuple[str, ...]
) -> None:
    write_result(tmp_path, *verdicts)
    with pytest.raises(FreshError, match="make run ends well, and its cases with"):
        check_results(tmp_path)


def test_run_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FreshError, match="no verdict"):
        check_results(tmp_path)


def test_memory_is_what_is_available_and_not_what_is_free(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemAvailable:    3145728 kB\n")
    assert available_gib(tmp_path / "meminfo") == 3.0


def test_cache_is_where_the_users_caches_are(tmp_path: Path) -> None:
    cache = user_cache("trixie", {"XDG_CACHE_HOME": str(tmp_path)})
    assert cache.folder == tmp_path / "irqmatrix-fresh"
    assert cache.tarball.name.startswith("trixie-")


@pytest.mark.parametrize(("options", "status"), [((), 3), (("--or-skip",), 0)])
def test_machine_that_cannot_do_it_is_skipped_with_the_reason(
    tmp_path: Path, options: tuple[str, ...], status: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fresh", *options],
        env={**os.environ, "PYTHONPATH": str(CI), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert done.stdout.startswith("fresh: skipped, ")
