"""What Linux says of a process or thread in its ``stat`` and ``schedstat`` files (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcStat:
    """``state`` is its letter; times are clock ticks, of a process in all of its threads."""

    name: str
    state: str
    parent: int
    user_ticks: int
    system_ticks: int

    @property
    def cpu_s(self) -> float:
        """CPU time that it has taken so far."""
        return (self.user_ticks + self.system_ticks) / os.sysconf("SC_CLK_TCK")


def read_stat(folder: Path) -> ProcStat | None:
    """That of ``/proc/PID`` or ``/proc/PID/task/TID``; None once it has ended."""
    try:
        text = (folder / "stat").read_text(errors="replace")
        # The name may have blanks and parentheses.
        head, _, rest = text.rpartition(")")
        words = rest.split()
        name = head.partition("(")[2]
        return ProcStat(name, words[0], int(words[1]), int(words[11]), int(words[12]))
    except (OSError, IndexError, ValueError):
        return None


@dataclass(frozen=True)
class CpuTime:
    """Of a thread: how long it ran, and how long it waited for a CPU that others had."""

    ran_s: float
    waited_s: float


def cpu_times(pid: int) -> dict[int, CpuTime]:
    """Those of the threads of a process, by thread id.

    Empty once it has ended, and where the kernel does not account for them (Linux
    Documentation/scheduler/sched-stats.rst).
    """
    found = {}
    try:
        threads = list(Path("/proc", str(pid), "task").iterdir())
    except OSError:
        return {}
    for thread in threads:
        try:
            ran_ns, waited_ns, _ = map(int, (thread / "schedstat").read_text().split())
        except (OSError, ValueError):
            continue
        found[int(thread.name)] = CpuTime(ran_ns / 1e9, waited_ns / 1e9)
    return found


def neediest(before: Mapping[int, CpuTime], after: Mapping[int, CpuTime]) -> CpuTime | None:
    """Of the threads of ``after`` the one that wanted a CPU for the longest time since ``before``.

    None where there is no thread.
    """
    none = CpuTime(0.0, 0.0)
    since = (
        CpuTime(time.ran_s - then.ran_s, time.waited_s - then.waited_s)
        for thread, time in after.items()
        for then in (before.get(thread, none),)
    )
    return max(since, key=lambda time: time.ran_s + time.waited_s, default=None)
