"""This Python for the lab: interpreter, loader, libraries and standard library, in one archive."""

from __future__ import annotations

import shlex
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import userspace_chip
from harness.base.errors import ImageError
from harness.images import elf

HOME: Final = "/py"
PACKAGES: Final = "/project"
"""Where ``userspace_chip`` is there."""
LAUNCHER: Final = (
    *("busybox", "env", f"PYTHONHOME={HOME}", f"PYTHONPATH={PACKAGES}"),
    *(f"{HOME}/ld.so", "--library-path", f"{HOME}/libs", f"{HOME}/bin/python"),
)
"""How it is started there.  It keeps what it compiles: all is in memory."""


def unpacking(archive: str) -> str:
    """Shell code for the lab: the archive of that path, unpacked."""
    return f"busybox tar xf {shlex.quote(archive)} -C /"


_NOT_NEEDED: Final = {
    *("ensurepip", "idlelib", "lib2to3", "site-packages", "dist-packages"),
    *("pydoc_data", "test", "tkinter", "turtledemo"),
}


def write_archive(
    destination: Path,
    trees: Mapping[str, Path] | None = None,
    extensions: Iterable[Path] = (),
    *,
    compiled: bool = False,
) -> None:
    """A tar archive for the lab's root: Python, ``userspace_chip``, and ``trees`` by their names.

    ``extensions`` are modules in C whose libraries go along, beside those of ``ctypes``;
    with ``compiled`` the bytecode of all modules, as far as it is there, for much code.
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
            tar.add(tree, name.lstrip("/"), filter=_wanted if compiled else _source)


def _wanted(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    last = Path(info.name).name
    return None if last in _NOT_NEEDED or last.startswith("config-") else info


def _source(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(info.name).name == "__pycache__" else _wanted(info)
