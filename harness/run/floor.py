"""The floor of coverage: what of KVM runs whatever the guest is asked to do.

It is a lab that boots, the firmware, and a probe with one empty scenario, in each irqchip mode of
the run.  What a scenario reaches is what is above it.  A floor is recorded once for each build of
KVM, QEMU and mode, and kept in the image cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.base import resources
from harness.base.errors import HarnessError
from harness.config.config import Lab, RunConfig
from harness.images.cache import ImageCache
from harness.images.kernel import kernel_build
from harness.model.case import Accel, Backend, Case, Host, Machine, ProbeGuest, folder_name
from harness.model.coverage import Executed, by_build
from harness.model.layout import CaseDir, RunDir
from harness.record import executed_file
from harness.record.recording import Recording
from harness.run import scheduler
from harness.run.progress import Progress, Silent
from harness.run.scheduler import Failed, Scheduler
from harness.scenario import choice

CPU: Final = "qemu64"
MEMORY_MIB: Final = 64
TIMEOUT_S: Final = 240.0


async def write(
    cases: Iterable[Case], lab: Lab, cache: ImageCache, out: Path, shown: Progress
) -> None:
    """Write the floor of ``cases`` into the run's folder ``out``.

    A floor that cannot be recorded is a message, and the coverage has none then.
    """
    backends = dict.fromkeys(
        case.backend
        for case in cases
        if case.backend.host is Host.LAB and case.backend.accel is Accel.KVM
    )
    found: list[Executed] = []
    for backend in backends:
        try:
            found += await of(backend, lab, cache, shown.note)
        except HarnessError as error:
            shown.note(f"no floor of {backend.name}: {error}")
    executed_file.write(RunDir(out).floor, by_build(found).values())


async def of(
    backend: Backend, lab: Lab, cache: ImageCache, tell: Callable[[str], None]
) -> tuple[Executed, ...]:
    """The floor of a backend in a lab; :class:`HarnessError` where it cannot be recorded."""
    return executed_file.read(await _kept(backend, lab, cache, tell))


async def _kept(backend: Backend, lab: Lab, cache: ImageCache, tell: Callable[[str], None]) -> Path:
    kernel = cache.kernel(backend.kernel or "default")
    qemu = ".".join(map(str, cache.qemu(backend.qemu).version))
    name = folder_name(f"{kernel_build(kernel).build_id}-{qemu}-{backend.mode}")
    if (kept := cache.floor(name)) is not None:
        return kept
    tell(f"recording the floor of {backend.name}, once")
    with tempfile.TemporaryDirectory(prefix="irqmatrix-floor-") as scratch:
        recorded = await _recorded(backend, lab, cache, Path(scratch))
        return cache.keep_floor(name, kernel.version, recorded)


async def _recorded(backend: Backend, lab: Lab, cache: ImageCache, folder: Path) -> Path:
    """In a lab of its own; :class:`HarnessError` where that fails."""
    scenarios = tuple(choice.load([resources.configs() / "coverage" / "floor.yaml"]))
    case = Case(ProbeGuest(scenarios, "floor"), backend, Machine.Q35, CPU, 1, MEMORY_MIB, TIMEOUT_S)
    config = RunConfig("floor", folder, (case,), replace(lab, coverage=True))
    prepared = scheduler.prepare(config, cache, None, folder).all()
    ended: list[Recording | Failed] = []

    async def take(recorded: Recording | Failed) -> None:
        ended.append(recorded)

    await Scheduler(config, folder, cache, None, Silent(), 1).record(prepared, take)
    (recorded,) = ended
    error = recorded.error if isinstance(recorded, Failed) else recorded.failure
    if error is not None:
        raise error
    return CaseDir(folder / case.directory_name).executed
