"""Matrix files for tests that boot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import yaml
from rich.console import Console

from harness.config import config
from harness.run import pipeline
from harness.store.result import RunResult

LOCAL_TCG = {"host": "local", "accel": "tcg"}


def write_config(folder: Path, guests: list[dict], **more: object) -> Path:
    """A matrix of one cell, this machine under TCG, unless ``more`` says otherwise."""
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "matrix": LOCAL_TCG, "guests": guests} | more))
    return path


def flat(path: Path, **more: object) -> dict:
    """A flat guest of such a file."""
    return {"kind": "flat", "path": str(path)} | more


def execute(
    folder: Path, path: Path, jobs: int = 2, only: str | None = None
) -> tuple[RunResult, Path]:
    """Run the matrix ``path`` in this process; the result, and the run directory in ``folder``."""
    job = pipeline.RunRequest(config.load(path), folder / "out", only, jobs)
    return asyncio.run(pipeline.run(job, Console(quiet=True), quiet=True))
