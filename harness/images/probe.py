"""The probe guest: built from ``images/probe`` with the system's gcc, freestanding and 32-bit.

Imports nothing but the standard library and the errors: the wheel's build hook
(``images/probe/hatch_build.py``) uses it as well.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from harness.base.errors import ImageError

PREBUILT: Final = "probe.elf"
"""Beside the sources in an installed package, so that it needs no compiler."""

_FLAGS: Final = (
    *("-m32", "-march=i686", "-std=gnu11", "-Os"),
    *("-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pic"),
    # An interrupt saves the general registers and nothing else.
    "-mgeneral-regs-only",
    *("-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none"),
    *("-Wall", "-Wextra", "-Werror", "-Wstrict-prototypes"),
    # Code and data lie in one segment: there is no paging that could tell them apart.
    *("-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-Wl,--fatal-warnings"),
)


def sources(folder: Path) -> tuple[Path, ...]:
    """What the probe is made of, headers and linker script included."""
    suffixes = {".c", ".S", ".h", ".lds"}
    return tuple(sorted(path for path in folder.iterdir() if path.suffix in suffixes))


def build_probe(cc: Path | str, folder: Path, target: Path) -> None:
    """Compile the sources in ``folder`` into the multiboot ELF file ``target``.

    :class:`ImageError` with the compiler's first complaint where that fails.
    """
    code = [path for path in sources(folder) if path.suffix in {".c", ".S"}]
    script = folder / "probe.lds"
    command: list[str | Path] = [cc, *_FLAGS, f"-Wl,-T,{script}", "-o", target, *code]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if "error" in line] or [str(error)]
        raise ImageError("cannot build the probe", said[0], "install the package gcc") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError("cannot build the probe", str(error), "install the package gcc") from error
