"""Boots of the probe with programs made by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from harness.backends.base import Session
from harness.backends.lab import LabPlan, booted_lab
from harness.guests.plan import GuestPlan
from harness.guests.probe import parse_logs
from harness.images.cache import ImageCache
from harness.model.case import Accel, Backend, Case, Host, Irqchip, Machine, ProbeGuest
from harness.record.case_runner import conduct
from harness.record.recording import Recording
from harness.scenario.log import Log
from harness.scenario.program import Program, Scenario, encode


def probe_case(
    programs: Sequence[Program],
    *,
    host: Host = Host.LOCAL,
    irqchip: Irqchip = Irqchip.TCG,
    qemu: str = "system",
    cpu: str = "qemu64",
    smp: int | None = None,
    machine: Machine = Machine.Q35,
    far_return: bool = False,
) -> Case:
    """A case of such programs; as many CPUs as the largest of them needs."""
    accel = Accel.TCG if irqchip is Irqchip.TCG else Accel.KVM
    scenarios = tuple(Scenario(program, "", Path("by-hand.yaml")) for program in programs)
    return Case(
        guest=ProbeGuest(scenarios, far_return=far_return),
        backend=Backend(host, accel, irqchip, qemu),
        machine=machine,
        cpu=cpu,
        smp=smp or max(program.cpus for program in programs),
        memory_mib=128,
        timeout_s=120,
    )


async def record(session: Session, case: Case, folder: Path, probe: Path, file: Path) -> Recording:
    """The case as the harness records it; ``file`` holds its programs."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = GuestPlan(case, probe, file, trace_log=False, paused=False)
    return await conduct(session, plan, folder, lambda _: None)


def run_here(session: Session, case: Case, folder: Path) -> Recording:
    """Boot it on a session that needs no start."""
    file = write_programs(case, folder / "programs")
    return asyncio.run(record(session, case, folder, ImageCache(offline=True).probe(), file))


def write_programs(case: Case, path: Path) -> Path:
    """The multiboot module."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode([scenario.program for scenario in case.guest.scenarios]))
    return path


def logs_of(recording: Recording) -> Mapping[str, Log]:
    """By the programs' names; a boot that failed is an error here."""
    if recording.failure is not None:
        raise recording.failure
    logs = parse_logs(recording.console)
    scenarios = recording.case.guest.scenarios
    return {scenario.name: logs[index] for index, scenario in enumerate(scenarios)}


@contextlib.asynccontextmanager
async def lab_for(
    files: Sequence[Path], log: Path, *, qemu: str = "system", kernel: str = "default"
) -> AsyncIterator[tuple[Session, Path]]:
    """A lab that has the probe and ``files``; and the probe's path."""
    cache = ImageCache(offline=True)
    image, linux, probe = cache.qemu(qemu), cache.kernel(kernel), cache.probe()
    initrd = cache.lab_initrd(linux, image)
    plan = LabPlan(linux, image, initrd, cache.qemu("system"), (probe, *files))
    async with booted_lab(plan, log) as session:
        yield session, probe
