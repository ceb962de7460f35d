"""``irqmatrix vmm --host lab``: the guest on the KVM of a virtual lab, with a Python there."""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.backends.lab import DEFAULT_KERNEL, LabPlan, LabSession, booted_lab
from harness.backends.live_argv import LIVE_MODULE
from harness.base.errors import HarnessError
from harness.base.ownership import owned_directory
from harness.base.terminal import printer
from harness.base.text import plain
from harness.commands import vmm_shadow
from harness.images import python
from harness.images.cache import ImageCache
from harness.replay.replay import Replayed, ReplayOutcome
from harness.report.text.render import show
from harness.report.text.replay_report import replay_report
from userspace_chip.kvm import command
from userspace_chip.kvm.options import Options, arguments

_ARCHIVE: Final = "python.tar"


@dataclass(frozen=True)
class LabChoice:
    """A lab by the names that the image cache knows."""

    kernel: str = DEFAULT_KERNEL
    memory_mib: int = 1024


async def run(options: Options, lab: LabChoice) -> int:
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
    if options.irqchip == "on":
        return await _run_shadowed(session, plan, options, scratch)
    errors = scratch / "stderr"
    status = await session.run_program(lab_code(plan, options), command.writer(1), errors)
    _say(errors)
    return status


async def _run_shadowed(session: LabSession, plan: LabPlan, options: Options, scratch: Path) -> int:
    """The same in ``on``, where KVM's chips are to be those of the model after each exit."""
    recording, errors = vmm_shadow.TracedRun(scratch), scratch / "stderr"
    traced = dataclasses.replace(options, trace=True, trace_log=vmm_shadow.VMM_LOG)
    async with recording.made(session):
        status = await session.run_program(lab_code(plan, traced), command.writer(1), errors)
    _say(errors)
    if options.trace:
        _say(recording.vmm)
    lab_qemu = ".".join(map(str, plan.host_qemu.version))
    case = vmm_shadow.described(options, linux=plan.kernel.version, lab_qemu=lab_qemu)
    found: Replayed | HarnessError
    try:
        found = await asyncio.to_thread(recording.compared, case)
    except HarnessError as error:
        found = error
    doubt = vmm_shadow.why_no_verdict(found, case)
    if isinstance(found, Replayed):
        show(printer(stderr=True), replay_report(found))
    if doubt is not None:
        sys.stderr.write(f"irqmatrix: no verdict on the chips: {doubt}\n")
    elif isinstance(found, Replayed) and found.outcome is ReplayOutcome.DIVERGED:
        return command.EXIT_FAULT if options.raw_status else command.EXIT_FAIL
    return status


def _say(file: Path) -> None:
    sys.stderr.write(plain(file.read_text(encoding="utf-8", errors="replace")))


def lab_code(plan: LabPlan, options: Options) -> str:
    """The shell code that runs the guest there."""
    image, *modules = (plan.path_inside(path) for path in (options.image, *options.modules))
    words = arguments(options, image, modules)
    unpack = python.unpacking(plan.path_inside(plan.payload[0]))
    return f"{unpack} && exec {shlex.join((*python.LAUNCHER, *LIVE_MODULE, *words))}"
