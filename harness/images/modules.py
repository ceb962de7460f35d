"""Kernel modules: found, decompressed and put in the order in which they can be inserted.

Dependencies are read from the modules themselves (``depends=`` in ``.modinfo``), because a package
that was only unpacked has no ``modules.dep`` yet.
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.base.errors import ImageError
from harness.images.elf import modinfo

BUILTIN_LIST: Final = "modules.builtin"


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module, decompressed; ``name`` is as ``lsmod`` prints it."""

    name: str
    content: bytes


def load_order(
    modules_dir: Path, wanted: Sequence[str], optional: Sequence[str] = ()
) -> tuple[Module, ...]:
    """``wanted`` and ``optional`` modules with all they depend on, dependencies first.

    Modules that are built into the kernel are left out. Raises :class:`ImageError` for a wanted one
    that is neither a file nor built in; an optional one is then left out.
    """
    files = {_module_name(path): path for path in sorted(modules_dir.rglob("*.ko*"))}
    builtin = _builtin_names(modules_dir)
    order: dict[str, Module] = {}

    def add(name: str) -> None:
        if name in order or name in builtin:
            return
        if name not in files:
            raise ImageError(
                f"kernel module {name} is missing",
                f"it is neither built in nor below {modules_dir}"
                + ("" if builtin else f", which has no {BUILTIN_LIST}"),
                "use a kernel that has it, such as the distribution's cloud kernel",
            )
        module = Module(name, read_module(files[name]))
        for dependency in modinfo(module.content).get("depends", "").split(","):
            if dependency:
                add(_module_name(Path(dependency)))
        order[name] = module

    for name in wanted:
        add(name)
    for name in optional:
        if name in files:
            add(name)
    return tuple(order.values())


def read_module(path: Path) -> bytes:
    """The bytes of a module, decompressed by what its magic number says.

    :class:`ImageError` where it cannot be read or decompressed.
    """
    try:
        raw = path.read_bytes()
        if raw.startswith(b"\xfd7zXZ\0"):
            return lzma.decompress(raw)
        if raw.startswith(b"\x1f\x8b"):
            return gzip.decompress(raw)
        if raw.startswith(b"\x28\xb5\x2f\xfd"):
            return _unzstd(path)
    except (OSError, lzma.LZMAError, EOFError) as error:
        raise ImageError(f"cannot read kernel module {path}", str(error)) from error
    return raw


def _unzstd(path: Path) -> bytes:
    try:
        return subprocess.run(
            ["zstd", "-dcq", str(path)], check=True, capture_output=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(
            f"cannot decompress kernel module {path}", str(error), "install the package zstd"
        ) from error


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _builtin_names(modules_dir: Path) -> frozenset[str]:
    """From ``modules.builtin``, or from ``modules.builtin.modinfo``.

    Of each module that is built in the one has its path, the other NUL-terminated lines
    ``NAME.KEY=VALUE`` (Linux ``scripts/Makefile.modinst``, ``include/linux/moduleparam.h``).
    """
    try:
        lines = (modules_dir / BUILTIN_LIST).read_text().splitlines()
        return frozenset(_module_name(Path(line)) for line in lines)
    except OSError:
        pass
    try:
        fields = (modules_dir / f"{BUILTIN_LIST}.modinfo").read_text(errors="replace").split("\0")
    except OSError:
        return frozenset()
    return frozenset(field.partition(".")[0].replace("-", "_") for field in fields if field)
