"""What Linux says of a process or thread in its ``stat`` file (proc(5))."""

from __future__ import annotations

import os
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
