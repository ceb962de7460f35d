"""What is ours, proven by a lock that is held or by what a process inherited; never by a name.

Our temporary folders hold a file that is locked (``flock(2)``) for as long as its owner
lives: the kernel lets go of it however the owner ends, and whatever namespace it ran in.  A folder
with such a file that can be locked is left over; one without it belongs to another program.  What
our programs start inherits a variable of the environment, in whatever session it goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import select
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from harness.base.procstat import read_stat

OWNER: Final = "IRQMATRIX_OWNER"
"""The variable; its value is unlike that of any other program that was started."""
_LOCK: Final = ".irqmatrix-owner"
_CLAIMS: Final = "claims"
"""In our folder: what else belongs to it, a path on each line."""
_PREFIX: Final = "irqmatrix-"
_KILL_WAIT_MS: Final = 1000

_live: Final[set[Path]] = set()
"""The temporary folders that this process owns now."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of the file ``path``, which is made if need be.

    Raises :class:`BlockingIOError` where another process holds it, and other :class:`OSError`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def owned_directory() -> Iterator[Path]:
    """A temporary folder that is ours and is seen to be; gone after the block.

    Its path is short enough for UNIX sockets (108 bytes) where the temporary folder's is.
    """
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    unfinished = directory / f"{_LOCK}.new"
    _live.add(directory)
    try:
        with locked(unfinished):
            # Under its name it is locked from the first moment on.
            unfinished.rename(directory / _LOCK)
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        # That takes descriptors, and there may be none: the end of this process tries again.
        if not directory.exists():
            _live.discard(directory)


@atexit.register
def _remove_what_stayed() -> None:
    for directory in _live:
        shutil.rmtree(directory, ignore_errors=True)


def claim(directory: Path, path: str) -> None:
    """``path`` goes with our folder ``directory``, should we not come to remove it."""
    with (directory / _CLAIMS).open("a", encoding="utf-8") as file:
        file.write(f"{path}\n")


def remove_leftovers() -> None:
    """Remove what harnesses left that were killed before they could.

    That is their temporary folders, what they claimed (folders that are empty, such as tracefs
    instances), and what still runs of the programs that they started.
    """
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), _abandoned(directory):
            _remove(directory)


@contextlib.contextmanager
def _abandoned(directory: Path) -> Iterator[None]:
    """Hold the lock that its owner lost; :class:`OSError` where it is not proven to be one."""
    if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
        raise PermissionError
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    end_processes(str(directory))
    with contextlib.suppress(OSError):
        for path in (directory / _CLAIMS).read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(OSError):
                Path(path).rmdir()
    shutil.rmtree(directory, ignore_errors=True)


def end_processes(owner: str) -> None:
    """End whatever runs with ``owner`` in its environment, in whatever session it is."""
    while found := [pid for pid in _processes() if _owner_of(pid) == owner]:
        if not _kill(found):
            return


def end_everything() -> None:
    """At once, before this process ends: all that it started, and the folders that it owns."""
    while found := _descendants():
        if not _kill(found):
            break
    for directory in tuple(_live):
        _remove(directory)


def _kill(pids: Iterable[int]) -> bool:
    """Kill them, and wait until they are gone; False where one does not go."""
    gone = True
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended, _, _ = select.select([descriptor], [], [], _KILL_WAIT_MS / 1000)
            gone = gone and bool(ended)
        except ProcessLookupError:
            pass
        except PermissionError:
            gone = False
        finally:
            os.close(descriptor)
    return gone


def _processes() -> list[int]:
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if pid != os.getpid()]


def _owner_of(pid: int) -> str | None:
    """What ``pid`` has in its environment; None for one that is not ours to read, or a zombie."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    name = f"{OWNER}=".encode()
    return next((os.fsdecode(word[len(name) :]) for word in words if word.startswith(name)), None)


def _descendants() -> list[int]:
    """The processes that descend from this one and have not ended."""
    children: dict[int, list[int]] = {}
    for pid in _processes():
        stat = read_stat(Path("/proc", str(pid)))
        if stat is not None and stat.state not in "ZX":
            children.setdefault(stat.parent, []).append(pid)
    found, waiting = [], [os.getpid()]
    while waiting:
        waiting = [pid for parent in waiting for pid in children.get(parent, ())]
        found += waiting
    return found
