"""Matrix files for tests that boot."""

from __future__ import annotations

from pathlib import Path

import yaml

LOCAL_TCG = {"host": "local", "accel": "tcg"}


def write_config(folder: Path, guests: list[dict], **more: object) -> Path:
    """A matrix of one cell, this machine under TCG, unless ``more`` says otherwise."""
    path = folder / "matrix.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "matrix": LOCAL_TCG, "guests": guests} | more))
    return path


def flat(path: Path, **more: object) -> dict:
    """A flat guest of such a file."""
    return {"kind": "flat", "path": str(path)} | more
