"""Options of QEMU that a configuration may not give: those that would take a guest from its owner.

See qemu-system-x86_64(1) for what each does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REFUSED: Final[Mapping[str, str]] = {
    "-daemonize": "QEMU would continue in another process, out of its owner's reach",
    "-pidfile": "QEMU would write a file outside the run directory",
    "-runas": "QEMU would run as a user whose processes cannot be ended from here",
    "-chroot": "QEMU would not find the files of its guest",
    "-S": "the guest would wait for a monitor command that never comes",
    "-preconfig": "QEMU would wait for a monitor command that never comes",
    "-incoming": "QEMU would wait for another guest's state; for a migration use migrate: true",
    "-D": "QEMU's log is the trace that the case is judged by",
}
"""By option: what it would do."""


def not_refused(option: str) -> str:
    """``option`` itself; :class:`ValueError` where it is one of :data:`REFUSED`."""
    name = option.split()[0]
    if name in REFUSED:
        raise ValueError(f"the option {name} cannot be given here: {REFUSED[name]}")
    return option
