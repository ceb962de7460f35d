"""How much of the machine is ours: CPUs and memory, or our control group's share of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Capacity:
    """``cpus`` is at least 1; ``memory_mib`` what can be used now, None where that is unknown."""

    cpus: int
    memory_mib: int | None

    def fitting(self, need_mib: int, cpus_each: int = 1) -> int:
        """How many of that size can be there at the same time; at least 1, which is tried."""
        by_cpus = self.cpus // cpus_each
        by_memory = by_cpus if self.memory_mib is None else self.memory_mib // need_mib
        return max(1, min(by_cpus, by_memory))


def capacity(proc: Path = PROC, cgroups: Path = CGROUPS) -> Capacity:
    """Of this process.  Affinity and control groups (version 2, or 1) are limits, as a container's.

    The kernel's ``Documentation/admin-guide/cgroup-v2.rst`` (``cpu.max``, ``memory.max``) and
    ``cgroup-v1/memory.rst``, ``scheduler/sched-bwc.rst``.
    """
    groups = list(_groups(proc, cgroups))
    cpus = [float(len(os.sched_getaffinity(0)))]
    cpus += [quota for group in groups if (quota := _quota(group)) is not None]
    memory = [_available_mib(proc / "meminfo")]
    memory += [_room_mib(group) for group in groups]
    return Capacity(max(1, int(min(cpus))), min((each for each in memory if each), default=None))


def _groups(proc: Path, root: Path) -> Iterator[Path]:
    """The folders of our control groups and of all above them."""
    for line in _text(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for mounted in (root, *(root / name for name in (controllers,) if name)):
            group = mounted / path.lstrip("/")
            yield from (each for each in (group, *group.parents) if each.is_relative_to(mounted))


def _quota(group: Path) -> float | None:
    """The CPUs that a group may use, None where it has no limit."""
    words = _text(group / "cpu.max").split() or [
        _text(group / "cpu.cfs_quota_us").strip(),
        _text(group / "cpu.cfs_period_us").strip(),
    ]
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return None  # "max", or -1
    quota_us, period_us = map(int, words)
    return quota_us / period_us if period_us else None


_FILES: Final = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Limit and usage, and what of that can be taken back, by the version of control groups."""


def _room_mib(group: Path) -> int | None:
    """What a group may still use, None where it has no limit."""
    for limit_name, usage_name, cached_name in _FILES:
        limit, usage = _number(group / limit_name), _number(group / usage_name)
        if limit is None or usage is None:
            continue
        cached = _field(group / "memory.stat", cached_name)
        return max(1, limit - max(0, usage - cached)) // MIB or 1
    return None


def _available_mib(meminfo: Path) -> int | None:
    return _field(meminfo, "MemAvailable:") // 1024 or None


def _field(path: Path, name: str) -> int:
    """The number after ``name``, 0 where there is none."""
    found = (line.split() for line in _text(path).splitlines())
    return next((int(words[1]) for words in found if words[:1] == [name]), 0)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
