"""``irqmatrix vmm``: a guest whose interrupt controllers are the Python chips, on a /dev/kvm."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.backends.lab import DEFAULT_KERNEL, LabPlan, LabSession, booted_lab
from harness.backends.live_argv import LIVE_MODULE
from harness.base.errors import CannotRun
from harness.base.ownership import owned_directory
from harness.base.text import plain
from harness.images import python
from harness.images.cache import ImageCache
from userspace_chip.kvm import command
from userspace_chip.kvm.errors import KvmError
from userspace_chip.kvm.options import Options, arguments

_FIX: Final = "irqmatrix doctor says what this machine can run; --host lab needs no KVM here"
_ARCHIVE: Final = "python.tar"


@dataclass(frozen=True)
class LabChoice:
    """A lab by the names that the image cache knows."""

    kernel: str = DEFAULT_KERNEL
    memory_mib: int = 1024


def run(options: Options) -> int:
    """Boot the guest on this machine: its exit status.

    :class:`CannotRun` where this KVM lacks something, or there is none.
    """
    try:
        return command.run(options)
    except KvmError as error:
        what = f"no guest can be run with --irqchip {options.irqchip}"
        raise CannotRun(what, str(error), _FIX) from None


async def run_in_lab(options: Options, lab: LabChoice) -> int:
    """Boot the guest on the KVM of a virtual lab: its exit status.

    Errors as of :func:`harness.backends.lab.booted_lab` and the image cache.
    """
    images = ImageCache()
    kernel, qemu = images.kernel(lab.kernel), images.qemu()
    initrd = images.lab_initrd(kernel, qemu)
    with owned_directory() as scratch:
        archive = scratch / _ARCHIVE
        python.write_archive(archive)
        plan = LabPlan(
            kernel=kernel,
            qemu=qemu,
            initrd=initrd,
            host_qemu=images.lab_qemu(),
            payload=(archive, *dict.fromkeys((options.image, *options.modules))),
            memory_mib=lab.memory_mib,
            vmlinux=images.lab_kernel(kernel),
        )
        async with booted_lab(plan, scratch / "lab.log") as session:
            return await _run_there(session, plan, options, scratch)


async def _run_there(session: LabSession, plan: LabPlan, options: Options, scratch: Path) -> int:
    errors = scratch / "stderr"
    status = await session.run_program(lab_code(plan, options), command.writer(1), errors)
    sys.stderr.write(plain(errors.read_text(encoding="utf-8", errors="replace")))
    return status


def lab_code(plan: LabPlan, options: Options) -> str:
    """The shell code that runs the guest there."""
    image, *modules = (plan.path_inside(path) for path in (options.image, *options.modules))
    words = arguments(options, image, modules)
    unpack = python.unpacking(plan.path_inside(plan.payload[0]))
    return f"{unpack} && exec {shlex.join((*python.LAUNCHER, *LIVE_MODULE, *words))}"
