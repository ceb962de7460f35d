"""Which QEMU runs a lab where the configuration names none: the soundest one that is there.

Its known faults count first (``configs/known/lab.yaml``), but for those that labs get round, then
how many nested boots hung in labs that it ran.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.images.model import QemuImage
from harness.model import lab_faults
from harness.model.lab_faults import LabFault, MeasuredFault


@dataclass(frozen=True)
class Rating:
    """What is known of labs that a QEMU runs."""

    qemu: QemuImage
    faults: tuple[LabFault, ...]
    measured: MeasuredFault | None

    @property
    def key(self) -> tuple[int, float, int]:
        """Smaller is sounder; what was not measured comes after what was, but for its faults."""
        if self.measured is None:
            return len(self.faults), 1.0, 0
        return len(self.faults), self.measured.hung / self.measured.boots, -self.measured.boots

    def __str__(self) -> str:
        """In a few words: 4 known faults, 0 of 96 boots with two CPUs hung."""
        seen = "boots with two CPUs not measured"
        if self.measured is not None:
            seen = f"{self.measured.hung} of {self.measured.boots} boots with two CPUs hung"
        return f"{len(self.faults)} known faults, {seen}"


def rating(qemu: QemuImage) -> Rating:
    """Of a QEMU, by its version."""
    version = qemu.version
    faults = tuple(
        fault for fault in lab_faults.shipped() if fault.is_of(version) and not fault.one_cpu
    )
    seen = next((each for each in lab_faults.measured() if version in each.qemu), None)
    return Rating(qemu, faults, seen)


def soundest(qemus: Iterable[QemuImage]) -> Rating:
    """The best of several; the first of equal ones.  ValueError where there is none."""
    return min(map(rating, qemus), key=lambda each: each.key)
