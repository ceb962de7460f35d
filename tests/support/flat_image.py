"""Small multiboot images in the manner of kvm-unit-tests, built with the system's gcc."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCE = Path(__file__).parent / "flat" / "start.S"
HANG = -1


def build(directory: Path, name: str, text: str, end: int = 0) -> Path:
    """An image that prints ``text`` and writes ``end`` to the exit device (:data:`HANG`: never).

    QEMU's exit status becomes ``(end << 1) | 1``.
    """
    words = directory / f"{name}.txt"
    words.write_text(text)
    image = directory / f"{name}.flat"
    subprocess.run(
        [
            *("gcc", "-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"),
            *("-Wl,-Ttext-segment=0x400000", "-Wl,-z,norelro"),
            f'-DTEXT="{words}"',
            f"-DEND={end}",
            *(str(_SOURCE), "-o", str(image)),
        ],
        check=True,
        capture_output=True,
    )
    return image
