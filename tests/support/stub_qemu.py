"""QEMUs that misbehave: one program, built with the system's gcc, that acts by its name."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


def build(directory: Path, behaviours: Iterable[str]) -> dict[str, Path]:
    """A program for each of ``behaviours``."""
    program = directory / "stub"
    subprocess.run(
        ["gcc", "-O1", "-Wall", "-Werror", str(_SOURCE), "-o", str(program)],
        check=True,
        capture_output=True,
    )
    return {name: shutil.copy(program, directory / f"stub-{name}") for name in behaviours}


def running(directory: Path) -> list[str]:
    """The programs of ``directory`` that run now."""
    found = []
    for link in Path("/proc").glob("[0-9]*/exe"):
        try:
            program = link.readlink()
        except OSError:
            continue
        if program.parent == directory:
            found.append(program.name)
    return found
