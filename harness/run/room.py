"""How many cases fit on this machine at the same time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness.base.capacity import Capacity, capacity
from harness.config.config import Lab
from harness.model.case import Case, Host

LAB_OVERHEAD_MIB: Final = 768
"""What a lab's QEMU needs beside the lab's memory: translated code, above all."""
GUEST_OVERHEAD_MIB: Final = 256


def need_mib(case: Case, lab: Lab) -> int:
    """The memory that ``case`` needs while it runs; in a lab the guest is in the lab's."""
    if case.backend.host is Host.LAB:
        return lab.memory_mib + LAB_OVERHEAD_MIB
    return case.memory_mib + GUEST_OVERHEAD_MIB


def fitting_jobs(
    cases: Iterable[Case] = (), lab: Lab | None = None, found: Capacity | None = None
) -> int:
    """The number of seats: a CPU for each, or for each of a lab's, and the memory of the largest.

    Without ``cases`` it is that of labs.
    """
    found = found or capacity()
    lab = lab or Lab()
    cases = tuple(cases)
    needs = [need_mib(case, lab) for case in cases] or [lab.memory_mib + LAB_OVERHEAD_MIB]
    in_lab = not cases or any(case.backend.host is Host.LAB for case in cases)
    return found.fitting(max(needs), lab.smp if in_lab else 1)
