"""The exception tree of the harness; its root is in :mod:`userspace_chip.errors`.

::

    IrqmatrixError
    └── HarnessError
        ├── ConfigError         a configuration that does not say what to run: file and line
        ├── ImageError          a kernel, QEMU, initramfs or guest image that cannot be had or used
        ├── HostError           a host that cannot run cases at all
        │   └── LabLost         the lab died under its cases
        ├── ClusterError        a cluster that lost what it was to do, or has no worker for it
        ├── LaunchError         a QEMU that did not start
        ├── GuestError          a guest that stopped being one, with its last console lines
        │   ├── GuestHang       it said nothing more within its time
        │   ├── GuestCrash      its QEMU went away
        │   │   └── LabDied     the lab that it ran in died under it
        │   └── GuestFlood      it said more than its console may
        ├── PredictionError     a scenario that the Python chips cannot execute
        ├── CollectError        a collector that could not read its source
        │   └── MonitorError    QEMU's monitor, which cannot be used or says what it may not
        ├── JudgingTimeout      a recorded case whose judging took longer than its limit
        ├── ReplayRefused       a recorded case that a replay can say nothing about
        ├── CannotRun           what was asked for cannot be run or answered here
        ├── StoreError          a run directory that cannot be written or read
        └── Interrupted         Ctrl-C or SIGTERM
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from userspace_chip.errors import IrqmatrixError


class HarnessError(IrqmatrixError):
    """Root of the errors of the harness: what happened, why, and what to do about it."""


class ConfigError(HarnessError):
    """A configuration that cannot be used; knows the file and, where there is one, the line."""

    def __init__(
        self,
        what: str,
        why: str | None = None,
        fix: str | None = None,
        *,
        path: Path | None = None,
        line: int | None = None,
    ) -> None:
        self.path = path
        self.line = line
        if path is not None:
            what = f"{path}:{line}: {what}" if line is not None else f"{path}: {what}"
        super().__init__(what, why, fix)


class ImageError(HarnessError):
    """A kernel, QEMU, initramfs or guest image that cannot be had or used."""


class HostError(HarnessError):
    """A host that cannot run cases at all."""


class LabLost(HostError):
    """The lab died under its cases; a new one can be booted for the rest."""


class ClusterError(HarnessError):
    """A cluster that has no worker for a case, or lost the case with one."""


class LaunchError(HarnessError):
    """A QEMU that did not start; carries its exit status and what it said."""


class GuestError(HarnessError):
    """A guest that stopped behaving like one; carries its last console lines."""

    def __init__(
        self,
        what: str,
        why: str | None = None,
        fix: str | None = None,
        *,
        console_tail: tuple[str, ...] = (),
    ) -> None:
        self.console_tail = console_tail
        super().__init__(what, why, fix)


class GuestHang(GuestError):
    """The guest said nothing more within its time."""


class GuestCrash(GuestError):
    """The guest's QEMU went away, or the guest's kernel panicked."""


class LabDied(GuestCrash):
    """The lab died under the guest; ``why`` says how."""


class GuestFlood(GuestError):
    """The guest said more than its console may."""


class PredictionError(HarnessError):
    """A scenario that the Python chips cannot execute: it reaches where no chip is."""


class CollectError(HarnessError):
    """A collector that could not read its source, or read what it cannot understand."""


class MonitorError(CollectError):
    """QEMU's monitor cannot be used: it is silent, gone, refuses, or says what it may not."""


class JudgingTimeout(HarnessError):
    """A recorded case whose judging took longer than its limit."""


class ReplayRefused(HarnessError):
    """A recorded case that a replay can say nothing about; nothing is wrong with it."""


class CannotRun(HarnessError):
    """What was asked for cannot be run or answered here; nothing is wrong with it."""


class StoreError(HarnessError):
    """A run directory that cannot be written or read."""


class Interrupted(HarnessError):
    """Ctrl-C or SIGTERM: what runs is being taken down."""


_ADVICE: Final[Mapping[int, str]] = {
    errno.ENOSPC: "free some space, or choose another --out",
    errno.EDQUOT: "free some space, or choose another --out",
    errno.EROFS: "choose another --out",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "allow more open files (sysctl fs.file-max)",
    errno.ENOMEM: "run fewer cases at a time (--jobs)",
    errno.EAGAIN: "allow more processes (ulimit -u)",
}


def advice(error: OSError) -> str | None:
    """What to do about an error of the machine, where there is something to do."""
    return None if error.errno is None else _ADVICE.get(error.errno)
