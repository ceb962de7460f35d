"""The Python of the tests, for the virtual lab: with the differential tests, or with irqmatrix."""

import compileall
import importlib.util
import py_compile
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from harness.images import python

ROOT = Path(__file__).parent.parent.parent
PYTHON = " ".join(python.PYTHON)

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


IRQMATRIX = (
    f"PYTHONHOME={python.HOME} PYTHONPATH={python.PACKAGES}:{python.PACKAGES}/packages "
    f"PYTHONDONTWRITEBYTECODE=1 {PYTHON} -m harness"
)
"""How the command line is started where its archive was unpacked."""

_LOADED = """
import sys, harness.cli, {modules}
for module in list(sys.modules.values()):
    print(getattr(module, "__file__", None) or "")
"""


def write_irqmatrix(destination: Path, *modules: str) -> None:
    """A tar archive with irqmatrix, as far as its command line and ``modules`` import."""
    code = _LOADED.format(modules=", ".join(modules))
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = [Path(line) for line in said.stdout.splitlines() if line]
    installed = Path(sysconfig.get_path("purelib"))
    names = {path.relative_to(installed).parts[0] for path in loaded if installed in path.parents}
    trees = {f"project/packages/{name}": installed / name for name in sorted(names)}
    extensions = [path for path in loaded if path.suffix == ".so"]
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "harness")  # the lab would need a minute for it
        shutil.copytree(ROOT / "harness", compiled, ignore=shutil.ignore_patterns("__pycache__"))
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        assert compileall.compile_dir(compiled, quiet=1, invalidation_mode=mode)
        trees |= {"project/configs": ROOT / "configs", "project/harness": compiled}
        python.write_archive(destination, trees, extensions)
