"""This Python for the lab: interpreter, loader, libraries and standard library, in one archive."""

from __future__ import annotations

import py_compile
import shlex
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import userspace_chip
from harness.base.errors import ImageError
from harness.images import elf

HOME: Final = "/py"
PACKAGES: Final = "/project"
"""Where ``userspace_chip`` is there."""
PYTHON: Final = (f"{HOME}/ld.so", "--library-path", f"{HOME}/libs", f"{HOME}/bin/python")
"""How it is started there, with ``PYTHONHOME`` set to :data:`HOME`."""
LAUNCHER: Final = ("busybox", "env", f"PYTHONHOME={HOME}", f"PYTHONPATH={PACKAGES}", *PYTHON)
"""How it is started where nothing is set."""


def unpacking(archive: str) -> str:
    """Shell code for the lab: the archive of that path, unpacked."""
    return f"busybox tar xf {shlex.quote(archive)} -C /"


_NOT_NEEDED: Final = {
    *("ensurepip", "idlelib", "lib2to3", "site-packages", "dist-packages"),
    *("pydoc_data", "test", "tkinter", "turtledemo"),
}
_COMPILED: Final = f".{sys.implementation.cache_tag}.pyc"


def write_archive(
    destination: Path,
    trees: Mapping[str, Path] | None = None,
    extensions: Iterable[Path] = (),
) -> None:
    """A tar archive for the lab's root: Python, ``userspace_chip``, and ``trees`` by their names.

    ``extensions`` are modules in C whose libraries go along, beside those of ``ctypes``.
    :class:`ImageError` where this Python has no loader or library that could be taken along.
    """
    executable = Path(sys.executable).resolve()
    loader = elf.interpreter(executable)
    if loader is None:
        raise ImageError(f"{executable} cannot go to the lab", "it names no dynamic loader")
    stdlib = Path(sysconfig.get_path("stdlib"))
    programs = [executable, *(stdlib / "lib-dynload").glob("_ctypes.*.so"), *extensions]
    libraries = {k: v for path in programs for k, v in elf.libraries([loader], path).items()}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    chips = Path(userspace_chip.__file__).parent
    with tarfile.open(destination, "w", dereference=True) as tar:
        tar.add(loader, f"{HOME[1:]}/ld.so")
        tar.add(executable, f"{HOME[1:]}/bin/python")
        for soname, path in libraries.items():
            tar.add(path, f"{HOME[1:]}/libs/{soname}")
        named = {f"{HOME}/lib/{version}": stdlib, f"{PACKAGES}/{chips.name}": chips}
        for name, tree in {**named, **(trees or {})}.items():
            tar.add(tree, name.lstrip("/"), filter=_wanted)
        _add_compiled(tar, chips, f"{PACKAGES[1:]}/{chips.name}")


def _add_compiled(tar: tarfile.TarFile, package: Path, name: str) -> None:
    """The modules of ``package`` compiled, beside their sources: under TCG that takes a minute."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "compiled")
        for source in package.rglob("*.py"):
            place = Path(name, source.relative_to(package))
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(
                str(source), str(compiled), f"/{place}", True, invalidation_mode=mode
            )
            tar.add(compiled, place.parent / "__pycache__" / f"{source.stem}{_COMPILED}")


def _wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """What runs there; of all but the chips, what this Python has compiled, too."""
    last = Path(info.name).name
    is_ours = info.name.startswith(f"{PACKAGES[1:]}/userspace_chip/") and last == "__pycache__"
    is_other_code = is_ours or (last.endswith(".pyc") and not last.endswith(_COMPILED))
    return None if last in _NOT_NEEDED or last.startswith("config-") or is_other_code else info
