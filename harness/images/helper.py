"""The guest's helpers that a shell cannot be: built with the system's compiler."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.base.errors import ImageError


def compiler() -> Path | None:
    """The system's C compiler, or None: then an image is made without helpers."""
    found = shutil.which("cc")
    return Path(found) if found is not None else None


def build_helper(cc: Path, source: Path) -> bytes:
    """A static executable of one C file; :class:`ImageError` with the compiler's words if not."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / source.stem
        command: list[str | Path] = [
            cc,
            "-O2",
            "-Wall",
            "-static",
            "-s",
            "-Wl,--build-id=none",
            "-o",
            target,
            source,
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
            return target.read_bytes()
        except subprocess.CalledProcessError as error:
            raise ImageError(
                f"cannot compile {source}",
                error.stderr.strip().splitlines()[-1] if error.stderr.strip() else str(error),
                "install the packages gcc and libc6-dev, or remove cc from PATH",
            ) from error
        except (OSError, subprocess.SubprocessError) as error:
            raise ImageError(f"cannot compile {source}", str(error)) from error
