"""``irqmatrix vmm --irqchip on`` in the lab: KVM's chips beside ours, after each exit of the guest.

The kernel's trace and the VMM's log are one recording, which :mod:`harness.replay` replays.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from harness.backends.lab import TRACEFS, LabSession
from harness.base.errors import HarnessError
from harness.model import manifest
from harness.model.case import Irqchip, Machine, Vmm
from harness.model.layout import CaseDir
from harness.model.manifest import CaseFile
from harness.record.collectors.ftrace import FtraceReader
from harness.record.collectors.merge import in_order, merge
from harness.record.collectors.qemu_log import QemuLogReader
from harness.record.collectors.tracefs import tracing
from harness.record.eventlog import dump_events
from harness.replay.profiles import preempts
from harness.replay.replay import Replayed, ReplayOutcome, replay_log
from userspace_chip.kvm.options import Options

VMM_LOG: Final = "/tmp/vmm.log"
"""In the lab, what the VMM traces."""


class TracedRun:
    """What was traced of one guest, in a folder here."""

    def __init__(self, folder: Path) -> None:
        files = CaseDir(folder)
        self.kernel, self.vmm, self._events = files.kernel_trace, files.qemu_trace, files.events

    @contextlib.asynccontextmanager
    async def made(self, session: LabSession) -> AsyncIterator[None]:
        """Trace the lab's KVM for as long as the block lasts, and get both traces then."""
        async with tracing(session.files, TRACEFS, only_followed=False) as trace:
            yield
            await trace.stop()
            await trace.save(self.kernel)
        await session.files.fetch(VMM_LOG, self.vmm)

    def compared(self, case: CaseFile) -> Replayed:
        """Replay it; errors as of :func:`harness.replay.replay.replay_log`."""
        with (
            self.kernel.open(errors="replace") as kernel,
            self.vmm.open(errors="replace") as vmm,
            self._events.open("w") as events,
        ):
            both = merge(FtraceReader().events(kernel), in_order(QemuLogReader().events(vmm)))
            events.writelines(dump_events(both))
        return replay_log(self._events, case, ())


def described(options: Options, *, linux: str, lab_qemu: str) -> CaseFile:
    """The guest as a case: as much as a replay asks for."""
    return CaseFile(
        schema=manifest.SCHEMA,
        id="vmm",
        kind="flat",
        guest=options.image.name,
        subject="vmm",
        backend="lab-kvm-pychip-on",
        group="",
        irqchip=Irqchip.ON,
        machine=Machine(options.board),
        smp=options.smp,
        qemu=options.qemu,
        linux=linux,
        axes={},
        lab_qemu=lab_qemu,
        vmm=Vmm.PYCHIP,
    )


def why_no_verdict(found: Replayed | HarnessError, case: CaseFile) -> str | None:
    """Why nothing can be said against the chips; None where a divergence is one."""
    if isinstance(found, HarnessError):
        return str(found)
    if found.outcome is ReplayOutcome.INCOMPLETE or found.warnings:
        return "; ".join(found.warnings) or "the recording ends too early"
    if case.smp > 1:
        return "more than one CPU took part, whose threads trace concurrently"
    if case.linux is not None and preempts(case.linux):
        return f"Linux {case.linux} may stop a thread between an event and its trace"
    return None
