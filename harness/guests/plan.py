"""What is booted: a case with its files, here and on the host where its QEMU runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.images.cache import ImageCache
from harness.model.case import Case


@dataclass(frozen=True)
class Site:
    """Where a guest's files come from, and what it is to expect there.

    ``out`` is the run's folder, for what is made for this run.
    """

    images: ImageCache
    out: Path
    is_local_kvm: bool
    emulates: bool
    """Whether the KVM emulates guests, and some instructions not at all."""


@dataclass(frozen=True)
class GuestPlan:
    """What to boot, as far as it does not depend on the host's paths."""

    case: Case
    kernel: Path
    initrd: Path | None
    trace_log: bool
    paused: bool
    incoming: bool = False
    """Whether it is a guest that was saved, for which QEMU waits."""


@dataclass(frozen=True)
class GuestFiles:
    """A case's files, by their paths on the host where QEMU runs."""

    qemu: tuple[str, ...]
    """QEMU, started by its own dynamic loader where it needs one."""
    data_dirs: tuple[str, ...]
    kernel: str
    """The Linux kernel, or the flat image."""
    initrd: str | None = None
    cpuinfo: str = ""
    """``/proc/cpuinfo`` there; a guest without a good clock gets its speed."""
