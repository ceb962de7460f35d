"""Small multiboot images that report on a console, built with the system's gcc."""

from __future__ import annotations

import subprocess
from pathlib import Path

_FOLDER = Path(__file__).parent / "flat"
HANG = -1
RESET = -2
POWER_OFF = -3
SPIN = -4
COM1 = 0x3F8
DEBUGCON = 0xE9


def build(
    directory: Path, name: str, text: str, end: int = 0, *, bits: int = 32, port: int = COM1
) -> Path:
    """An image that prints ``text`` at ``port`` and writes ``end`` to the exit device.

    QEMU's exit status becomes ``(end << 1) | 1``.  Instead it may hang, spin, reset or power
    off (:data:`HANG` ...).  ``bits``: of its ELF file; its code is 32-bit.
    """
    words = directory / f"{name}.txt"
    words.write_text(text)
    defines = (f'-DTEXT="{words}"', f"-DEND={end}", f"-DPORT={port}")
    return assemble(directory, name, "start.S", *defines, bits=bits)


def assemble(directory: Path, name: str, source: str, *defines: str, bits: int = 32) -> Path:
    """The image that a file of tests/support/flat is."""
    image = directory / f"{name}.flat"
    subprocess.run(
        [
            *("gcc", f"-m{bits}", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"),
            *("-Wl,-Ttext-segment=0x400000", "-Wl,-z,norelro"),
            *defines,
            *(str(_FOLDER / source), "-o", str(image)),
        ],
        check=True,
        capture_output=True,
    )
    return image
