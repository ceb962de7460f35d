"""The differential tests, with the Python and the chips that they need, for the virtual lab."""

import importlib.util
from pathlib import Path

from harness.images import python

ROOT = Path(__file__).parent.parent.parent
PYTHON = python.PYTHON

_PACKAGES = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")
"""The tests import pytest; its own dependencies, as far as it has them, come with it."""


def write_archive(destination: Path) -> None:
    """A tar archive to be unpacked at the root of the lab: ``/py`` and ``/project``."""
    trees = {"project/tests/support": ROOT / "tests" / "support"}
    for path in (ROOT / "tests" / "differential").glob("test_kvm_*.py"):
        trees[f"project/tests/differential/{path.name}"] = path
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            origin = Path(spec.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            trees[f"project/packages/{source.name}"] = source
    python.write_archive(destination, trees)
