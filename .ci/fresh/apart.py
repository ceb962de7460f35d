"""Namespaces of one's own, for as long as a process is there that wants them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PROGRAMS: Final = ("debootstrap", "unshare", "mount", "chroot", "tar", "gzip", "git")
MEMORY_GIB: Final = 6.0
"""For the tmpfs with all that is installed, and for the guests that run at a time."""

_UNSHARE: Final = (
    *("unshare", "--mount", "--propagation", "private"),
    *("--pid", "--fork", "--mount-proc", "--ipc", "--uts"),
)


def obstacle(mount_point: Path) -> str | None:
    """Why this machine cannot do it, or None; ``mount_point`` is made if need be."""
    if os.geteuid() != 0:
        return "only root may mount and chroot"
    path = _environment()["PATH"]
    if missing := [program for program in PROGRAMS if shutil.which(program, path=path) is None]:
        return f"no such program: {', '.join(missing)}"
    if (free_gib := available_gib()) < MEMORY_GIB:
        return f"it takes {MEMORY_GIB:.0f} GiB of memory, and {free_gib:.1f} are available"
    mount_point.mkdir(parents=True, exist_ok=True)
    trial = (*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(mount_point))
    tried = subprocess.run(trial, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if tried.returncode != 0:
        said = tried.stderr.strip() or f"exit status {tried.returncode}"
        return f"nothing can be mounted in a namespace of its own: {said}"
    return None


def available_gib(meminfo: Path = Path("/proc/meminfo")) -> float:
    """The kernel's estimate of the memory that there is without swapping."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)
    return int(found[1]) / 2**20 if found else 0.0


def run_apart(module: str, arguments: Sequence[str], timeout_s: float) -> int:
    """Run a Python module as process 1 of new namespaces; its exit status.

    It calls :func:`end_with_parent`, which reads from a pipe of ours: when we end, even by
    SIGKILL, it ends too, and the kernel ends and unmounts the rest.
    :class:`subprocess.TimeoutExpired` after ``timeout_s``, with nothing left.
    """
    command = (*_UNSHARE, sys.executable, "-m", module, *arguments)
    # A session of its own: a terminal's Ctrl-C is for us alone, who then close the pipe.
    with subprocess.Popen(
        command, env=_environment(), stdin=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdin is not None
        try:
            return child.wait(timeout_s)
        finally:
            child.stdin.close()


def _environment() -> dict[str, str]:
    """Ours, with the folders that only an administrator's PATH has."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def end_with_parent() -> None:
    """End this process when the pipe at its standard input is closed."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
