"""Where the files shipped with the package are: guest sources, matrices, known differences."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def _data(name: str) -> Path:
    """The folder ``name``: inside an installed package, or at the top of a checkout."""
    installed = _PACKAGE / "data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def images() -> Path:
    """The guests' sources (``images/`` of the project)."""
    return _data("images")


def configs() -> Path:
    """Matrices, scenarios and known differences (``configs/`` of the project)."""
    return _data("configs")
