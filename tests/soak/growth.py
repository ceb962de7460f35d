"""What a process that runs many cases keeps: its memory as a slope, its descriptors one by one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from typing import Final

WARM_UP: Final = 0.25
"""Of the cases: so many go by before growth is looked at."""
KEPT: Final = 0.25
"""Of the cases: a descriptor that is open while so many end belongs to none of them."""


@dataclass(frozen=True)
class Sample:
    """What the process held when ``done`` cases had ended."""

    done: int
    resident_kib: float
    descriptors: frozenset[str]
    """Each as its number and what it is open on, which tells a pipe or socket from the next."""


def sample(pid: int, done: int) -> Sample:
    """Of the process ``pid`` now. Raises OSError where it has ended."""
    proc = Path("/proc") / str(pid)
    pages = int((proc / "statm").read_text().split()[1])
    return Sample(done, pages * os.sysconf("SC_PAGESIZE") / 1024, _descriptors(proc / "fd"))


def _descriptors(folder: Path) -> frozenset[str]:
    found = set()
    for link in folder.iterdir():
        try:
            found.add(f"{link.name} {link.readlink()}")
        except FileNotFoundError:  # closed meanwhile
            continue
    return frozenset(found)


def memory_slope(samples: Sequence[Sample], cases: int) -> float | None:
    """KiB that each case adds; None where the samples after the warm-up are too few to say."""
    steady = [each for each in samples if WARM_UP * cases < each.done < cases]
    if len({each.done for each in steady}) < 3:
        return None
    done = [float(each.done) for each in steady]
    return linear_regression(done, [each.resident_kib for each in steady]).slope


def kept_descriptors(samples: Sequence[Sample], cases: int) -> list[str]:
    """Descriptors that came after the warm-up and outlived ``KEPT`` of the cases, in their order.

    Their number at one moment says little: cases in flight have between six and twenty.
    """
    first: dict[str, int] = {}
    kept: dict[str, None] = {}
    before: frozenset[str] = frozenset()
    for each in samples:
        first |= dict.fromkeys(each.descriptors - before, each.done)
        for name in sorted(each.descriptors & before):
            if WARM_UP * cases < first[name] <= each.done - KEPT * cases:
                kept[name] = None
        before = each.descriptors
    return list(kept)
