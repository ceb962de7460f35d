"""What a worker can do and what a case needs, in the same words: resources of dask.

What there is or is not has the amount of the worker's seats, and a case takes one of it; memory is
in MiB.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from typing import Final

from harness import __version__
from harness.cluster.images import dotted
from harness.cluster.order import Pins
from harness.config import feasibility
from harness.config.config import Lab
from harness.config.feasibility import LocalFacts
from harness.doctor.doctor import WORTHWHILE_BOOT_S
from harness.guests.linux import BOOT_INSTRUCTIONS
from harness.images.cache import ImageCache
from harness.model.case import Accel, Case, Host, Irqchip
from harness.run.room import need_mib
from userspace_chip.kvm import probe

VERSION: Final = f"irqmatrix {__version__}"
"""Workers of another version may record something else, or read an order as something else."""
MEMORY: Final = "memory MiB"
HOST: Final = "host Linux "
"""With the release of the kernel whose KVM guests run on."""


def announced(
    images: ImageCache, local: LocalFacts, seats: int, memory_mib: int | None
) -> dict[str, float]:
    """The resources of this machine."""
    names = [VERSION, *_of_images(images), *_of_kvm(local)]
    found = dict.fromkeys(names, float(seats))
    return found if memory_mib is None else found | {MEMORY: float(memory_mib)}


def _of_images(images: ImageCache) -> Iterator[str]:
    for qemu in images.qemus():
        yield f"QEMU {dotted(qemu.version)}"
    for version in images.kernel_versions():
        yield f"Linux {version}"


def _of_kvm(local: LocalFacts) -> Iterator[str]:
    kvm = local.kvm
    if not kvm.usable:
        return
    yield f"{HOST}{platform.release()}"
    yield _mode(Irqchip.OFF)
    if kvm.why_not("on") is None:
        yield _mode(Irqchip.ON)
    if kvm.why_not("split") is None:
        yield _mode(Irqchip.SPLIT)
    if kvm.cpu_flag is not None:
        yield kvm.cpu_flag
    if kvm.nested:
        yield "nested"
    yield from probe.assists(kvm)
    speed = local.instructions_per_s
    if speed is not None and BOOT_INSTRUCTIONS / speed <= WORTHWHILE_BOOT_S:
        yield _FAST


_FAST: Final = "fast KVM"


def _mode(irqchip: Irqchip) -> str:
    return f"KVM irqchip {irqchip.value}"


def needed(case: Case, lab: Lab, pins: Pins, host: str | None) -> Mapping[str, float]:
    """What a worker has to have for ``case``, whose images are ``pins``.

    ``host`` is the kernel of the machines whose KVM is used.
    """
    names = [VERSION]
    names += [f"QEMU {version}" for version in pins.qemus.values()]
    names += [f"Linux {version}" for version in pins.kernels.values()]
    if uses_kvm(case):
        names.append(_mode(case.backend.irqchip))
        names += [f"{HOST}{host}"] if host is not None else []
        names += [flag for flag in ("svm", "vmx") if f"+{flag}" in case.cpu.split(",")]
        names += [_FAST] if feasibility.needs_local_speed(case) else []
    return dict.fromkeys(names, 1.0) | {MEMORY: float(need_mib(case, lab))}


def uses_kvm(case: Case) -> bool:
    """Whether it needs the KVM of the machine that it runs on."""
    return case.backend.host is Host.LOCAL and case.backend.accel is Accel.KVM


def lacking(resources: Mapping[str, float], needs: Mapping[str, float]) -> tuple[str, ...]:
    """What of ``needs`` a worker with ``resources`` does not have; one may not know its memory."""
    had = {MEMORY: float("inf"), **resources}
    return tuple(name for name, amount in needs.items() if had.get(name, 0.0) < amount)
