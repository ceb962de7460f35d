"""What is done to a run: at its start, to its limits and files, or to its processes in the middle.

Only processes that carry the run's own token in their environment are ever touched.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TOKEN: Final = "IRQMATRIX_SOAK"
TRACEFS: Final = Path("/sys/kernel/tracing")
INSTANCES: Final = TRACEFS / "instances"
GUEST: Final = " -name irqmatrix"
"""Of a command line: a case's or a lab's QEMU, and none that is asked for its version."""
STOPPED_S: Final = 2.0
SMALL_DISK: Final = "600k"
FEW_DESCRIPTORS: Final = 24


def processes_of(token: str) -> dict[int, str]:
    """The processes of a run, with the command line of each."""
    found = {}
    wanted = f"{TOKEN}={token}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = command.decode(errors="replace")
    return found


@dataclass
class Run:
    """A run that is going on, and its surroundings."""

    process: subprocess.Popen[bytes]
    token: str
    random: random.Random

    def qemu(self, limit_s: float) -> int | None:
        """One of its QEMUs; None where none came within ``limit_s`` or the run is over."""
        end_s = time.monotonic() + limit_s
        while time.monotonic() < end_s and self.process.poll() is None:
            found = [pid for pid, said in processes_of(self.token).items() if GUEST in said]
            if found:
                return self.random.choice(found)
            pause()
        return None


def pause() -> None:
    """Give the run time to go on; nothing is measured by it."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["sleep", "0.05"], check=False)


@dataclass(frozen=True)
class Fault:
    """``limits`` is called in the child before it starts, ``strike`` while it runs.

    ``aims_at``: what of the run may end otherwise for it: ``case``, ``run`` (all that had not
    ended), ``start`` (it may not begin at all), or nothing.
    """

    name: str
    aims_at: str = ""
    strike: Callable[[Run], bool] | None = None
    """False where there was nothing to strike."""
    limits: Callable[[], None] | None = None
    only: str | None = None
    """The one matrix that it can strike, by name; None for all."""
    own_mounts: bool = False
    """It needs a mount namespace of its own."""
    small_disk: bool = False
    clock: bool = False


def _signal_qemu(run: Run, number: int) -> int | None:
    pid = run.qemu(20)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pid


def _kill_qemu(run: Run) -> bool:
    return _signal_qemu(run, signal.SIGKILL) is not None


def _stop_qemu(run: Run) -> bool:
    pid = _signal_qemu(run, signal.SIGSTOP)
    if pid is None:
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.process.wait(STOPPED_S)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return True


def _signal_harness(number: int) -> Callable[[Run], bool]:
    def strike(run: Run) -> bool:
        run.qemu(20)
        run.process.send_signal(number)
        return True

    return strike


def _few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_DESCRIPTORS, FEW_DESCRIPTORS))


def _unmount_tracefs(run: Run) -> bool:
    """Once a trace is made in it; what is open of it goes on."""
    while run.process.poll() is None:
        if INSTANCES.is_dir() and any(INSTANCES.glob("irqmatrix-*")):
            run.qemu(20)
            subprocess.run(["umount", "--lazy", str(TRACEFS)], check=True)
            return True
        pause()
    return False


def mount_tracefs() -> None:
    """Where it is not mounted, or not any more; needs a mount namespace of one's own."""
    if not INSTANCES.is_dir():
        subprocess.run(["mount", "-t", "tracefs", "nodev", str(TRACEFS)], check=False)


FAULTS: Final = (
    Fault("none"),
    Fault("a QEMU is killed", "case", _kill_qemu),
    Fault("a QEMU is stopped for a while", "case", _stop_qemu),
    Fault("SIGTERM", "run", _signal_harness(signal.SIGTERM)),
    Fault("SIGINT", "run", _signal_harness(signal.SIGINT)),
    Fault("SIGKILL", "run", _signal_harness(signal.SIGKILL)),
    Fault("few descriptors", "start", limits=_few_descriptors),
    Fault("the disk fills", "start", own_mounts=True, small_disk=True),
    Fault("the clock jumps", clock=True),
    Fault("tracefs goes away", "case", _unmount_tracefs, only="traced", own_mounts=True),
)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of :data:`SMALL_DISK` at ``folder``; needs a mount namespace of one's own."""
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def clock_shim(folder: Path) -> Path:
    """The library of clock.c, to be preloaded."""
    library = folder / "clock.so"
    if not library.exists():
        source = Path(__file__).with_name("clock.c")
        gcc = shutil.which("gcc")
        assert gcc is not None, "there is no gcc"
        subprocess.run([gcc, "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
    return library
