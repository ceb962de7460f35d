"""Which VM is meant: its QEMU's process, its QMP socket, its name in libvirt."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from harness.base import sockets
from harness.base.errors import CannotRun, ConfigError

PROC: Final = Path("/proc")
_PROGRAM: Final = re.compile(
    r"(?:.*/)?(?:kvm|qemu-kvm[-.\w]*|qemu-system-(?:x86_64|i386)[-.\w]*)(?: .*)?"
)
_LOADER: Final = re.compile(r"(?:.*/)?ld(?:-linux[-.\w]*)?\.so(?:\.\d+)?")
_LOADERS_WORDS: Final = 8
"""A QEMU that brings its own libraries is started by its own loader, after the loader's options."""
_SHOWN: Final = 100


@dataclass(frozen=True)
class VmTarget:
    """A VM, and what is known of how to reach it; None where it is not known."""

    pid: int | None = None
    qmp: Path | None = None
    domain: str | None = None


@dataclass(frozen=True)
class QemuProcess:
    """A QEMU that runs: its process, and the words of its command line."""

    pid: int
    words: tuple[str, ...]

    @property
    def name(self) -> str | None:
        """What ``-name`` says."""
        value = _after(self.words, "-name")
        if value is None:
            return None
        parts = [part.removeprefix("guest=") for part in value.split(",")]
        return next((p for p in parts if "=" not in p), None)

    @property
    def qmp(self) -> Path | None:
        """The UNIX socket of its QMP monitor, where the command line names one."""
        value = _after(self.words, "-qmp")
        if value is not None and value.startswith("unix:"):
            return self._path(value.removeprefix("unix:").split(",")[0])
        for chardev in _all_after(self.words, "-chardev"):
            pairs = dict(part.partition("=")[::2] for part in chardev.split(","))
            if "path" in pairs and self._is_control(pairs.get("id", "")):
                return self._path(pairs["path"])
        return None

    def _is_control(self, chardev: str) -> bool:
        monitors = [value.split(",") for value in _all_after(self.words, "-mon")]
        return any({f"chardev={chardev}", "mode=control"} <= set(each) for each in monitors)

    def _path(self, text: str) -> Path:
        """As this process sees it: QEMU's may be relative to where QEMU was started."""
        with contextlib.suppress(OSError):
            return (PROC / str(self.pid) / "cwd").readlink() / text
        return Path(text)


def qemus(proc: Path = PROC) -> list[QemuProcess]:
    """The QEMUs of this machine that this user may see, by their process ids."""
    found = []
    for folder in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (folder / "cmdline").read_text("utf-8", "replace")
            words = _of_the_program(tuple(text.split("\0")))
            if len(words) > 1 and _PROGRAM.fullmatch(words[0]) is not None:
                found.append(QemuProcess(int(folder.name), words))
    return sorted(found, key=lambda each: each.pid)


def _of_the_program(words: tuple[str, ...]) -> tuple[str, ...]:
    """``words`` without a dynamic loader (ld.so(8)) and its options before the program."""
    if _LOADER.fullmatch(words[0]) is None:
        return words
    places = range(1, min(len(words), _LOADERS_WORDS))
    at = next((i for i in places if _PROGRAM.fullmatch(words[i]) is not None), 0)
    return words[at:]


def target_of(pid: int | None, qmp: Path | None, domain: str | None) -> VmTarget:
    """The VM that is asked for, or the one that there is.

    Raises :class:`ConfigError` where it is not there or several could be meant,
    :class:`CannotRun` where none runs.
    """
    if qmp is not None:
        return VmTarget(pid or _listener(qmp), qmp, domain)
    running = qemus()
    if pid is not None:
        running = [each for each in running if each.pid == pid]
        if not running:
            raise ConfigError(f"--pid {pid}: no QEMU that this user may see")
    elif domain is not None:
        running = [each for each in running if each.name == domain]
        if not running:
            return VmTarget(domain=domain)
    if not running:
        raise CannotRun("no QEMU runs here", None, "start the VM, or name it: --pid, --qmp")
    if len(running) > 1:
        raise ConfigError("several QEMUs run here", _listed(running), "say which: --pid N")
    return VmTarget(running[0].pid, running[0].qmp, domain)


def _listed(running: Sequence[QemuProcess]) -> str:
    return "; ".join(f"{each.pid} {(each.name or each.words[0])[:_SHOWN]}" for each in running)


def _listener(path: Path) -> int | None:
    """The process that listens to a socket; None where it is in another namespace."""
    try:
        with contextlib.closing(sockets.connect(path)) as connection:
            size = struct.calcsize("3i")
            data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    except OSError as error:
        raise ConfigError(f"--qmp {path}: cannot connect", error.strerror or str(error)) from None
    return int(struct.unpack("3i", data)[0]) or None


def _all_after(words: Sequence[str], option: str) -> Iterator[str]:
    for word, value in pairwise(words):
        if word.replace("--", "-", 1) == option:
            yield value


def _after(words: Sequence[str], option: str) -> str | None:
    return next(_all_after(words, option), None)
