"""This Python, the project and the differential tests in one archive for the virtual lab."""

import importlib.util
import sys
import sysconfig
import tarfile
from pathlib import Path

from harness.images import elf

ROOT = Path(__file__).parent.parent.parent
PYTHON = "/py/ld.so --library-path /py/libs /py/bin/python"
"""How it is started in the lab, with ``PYTHONHOME=/py``."""

_NOT_NEEDED = {
    *("__pycache__", "ensurepip", "idlelib", "lib2to3", "site-packages", "dist-packages"),
    *("pydoc_data", "test", "tkinter", "turtledemo"),
}
_PACKAGES = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")
"""The tests import pytest; its own dependencies, as far as it has them, come with it."""


def write_archive(destination: Path) -> None:
    """A tar archive to be unpacked at the root of the lab: ``/py`` and ``/project``."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    executable = Path(sys.executable).resolve()
    loader = elf.interpreter(executable)
    assert loader is not None
    stdlib = Path(sysconfig.get_path("stdlib"))
    extensions = [executable, *(stdlib / "lib-dynload").glob("_ctypes.*.so")]
    libraries = {k: v for path in extensions for k, v in elf.libraries([loader], path).items()}
    with tarfile.open(destination, "w", dereference=True) as tar:
        tar.add(loader, "py/ld.so")
        tar.add(executable, "py/bin/python")
        for soname, path in libraries.items():
            tar.add(path, f"py/libs/{soname}")
        _add_tree(tar, stdlib, f"py/lib/{version}")
        for name in _PACKAGES:
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None:
                _add_module(tar, Path(spec.origin))
        _add_tree(tar, ROOT / "userspace_chip", "project/userspace_chip")
        _add_tree(tar, ROOT / "tests" / "support", "project/tests/support")
        for path in (ROOT / "tests" / "differential").glob("test_kvm_*.py"):
            tar.add(path, f"project/tests/differential/{path.name}")


def _add_module(tar: tarfile.TarFile, origin: Path) -> None:
    source = origin.parent if origin.name == "__init__.py" else origin
    _add_tree(tar, source, f"project/packages/{source.name}")


def _add_tree(tar: tarfile.TarFile, source: Path, name: str) -> None:
    def keep(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        last = Path(info.name).name
        return None if last in _NOT_NEEDED or last.startswith("config-") else info

    tar.add(source, name, filter=keep)
