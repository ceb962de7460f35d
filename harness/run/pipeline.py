"""A run from its configuration to its result: the stages in their one direction."""

from __future__ import annotations

import asyncio
import dataclasses
import fnmatch
import functools
import os
import platform
import time
from pathlib import Path

from rich.console import Console

from harness import __version__
from harness.analyse import judge
from harness.base import ownership
from harness.base.errors import ConfigError, StoreError
from harness.base.versions import parse_version
from harness.compare import subjects
from harness.compare.known import KnownDifferences
from harness.compare.subjects import Versions
from harness.config import feasibility
from harness.config.config import RunConfig
from harness.config.feasibility import LocalFacts
from harness.doctor.doctor import local_facts
from harness.images.cache import ImageCache
from harness.model.case import Accel, Host
from harness.model.verdict import CaseResult
from harness.run import progress, scheduler
from harness.run.scheduler import Prepared
from harness.store import result
from harness.store.result import RunResult


@dataclasses.dataclass(frozen=True)
class Job:
    """What is asked for on the command line."""

    config: RunConfig
    out: Path | None
    only: str | None
    jobs: int
    known: tuple[Path, ...] = ()
    """Folders of known differences to take instead of the shipped one."""


async def run(job: Job, console: Console, *, quiet: bool) -> tuple[RunResult, Path]:
    """Run the matrix; the result, which is in the run directory too, and that directory.

    Interrupted, it leaves the result of the cases that had ended, and raises again.
    """
    config = _selected(job.config, job.only)
    known = KnownDifferences.in_folders(job.known) if job.known else KnownDifferences.shipped()
    out = _run_directory(job.out, config.name)
    ownership.remove_leftovers()
    cache = ImageCache()
    local = await asyncio.to_thread(_local_facts, config)
    console_progress = progress.for_console(console, len(config.cases))
    if quiet:
        console_progress = progress.Silent()
    with console_progress as shown:
        shown.note(f"{len(config.cases)} cases, {job.jobs} at a time; results in {out}")
        prepared = await asyncio.to_thread(scheduler.prepare, config, cache, local, out)
        runner = scheduler.Scheduler(config, out, cache, local, shown, judge.judge)
        conclude = functools.partial(_result, config, prepared, cache, local, known, out)
        try:
            cases = await runner.run(prepared, job.jobs)
        except asyncio.CancelledError:
            ended = tuple(runner.results.values())
            result.write(conclude(ended), out / "result.json")
            raise
    final = conclude(cases)
    result.write(final, out / "result.json")
    return final, out


def _selected(config: RunConfig, only: str | None) -> RunConfig:
    if only is None:
        return config
    cases = tuple(case for case in config.cases if fnmatch.fnmatchcase(case.id, only))
    if not cases:
        ids = "\n  ".join(case.id for case in config.cases)
        raise ConfigError(
            f"no case matches --only {only!r}", f"the cases are:\n  {ids}", path=config.path
        )
    return dataclasses.replace(config, cases=cases)


def _run_directory(out: Path | None, name: str) -> Path:
    directory = out or Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise StoreError(
            f"cannot use {directory} for the results", error.strerror, "choose another --out"
        ) from None
    return directory.absolute()


def _local_facts(config: RunConfig) -> LocalFacts | None:
    """The local KVM, where a case or a lab might use it; measured only where that decides."""
    if all(case.backend.accel is Accel.TCG for case in config.cases):
        return None
    return local_facts(measure=any(map(feasibility.needs_local_speed, config.cases)))


def _result(
    config: RunConfig,
    prepared: list[Prepared],
    cache: ImageCache,
    local: LocalFacts | None,
    known: KnownDifferences,
    out: Path,
    cases: tuple[CaseResult, ...],
) -> RunResult:
    versions = _versions(prepared, cache)
    # What belongs to a reproducer is judged by that, and meant to differ.
    matrix = {item.case.id: item.case for item in prepared if not item.case.group}
    of_matrix = [case for case in cases if case.id in matrix]
    comparison = subjects.compare(matrix.values(), of_matrix, versions, known, out)
    return RunResult(
        schema=result.SCHEMA,
        name=config.name,
        environment=_environment(config, versions, local, _lab_qemu(config, cache)),
        cases=cases,
        diffs=comparison.diffs,
        rules=comparison.rules,
        summary=result.summarised(cases, comparison.diffs),
    )


def _versions(prepared: list[Prepared], cache: ImageCache) -> Versions:
    qemus = dict.fromkeys(item.case.backend.qemu for item in prepared)
    kernels = dict.fromkeys(
        kernel for item in prepared if (kernel := item.case.backend.kernel) is not None
    )
    return Versions(
        qemu={name: cache.qemu(name).version for name in qemus},
        kernel={name: parse_version(cache.kernel(name).version) for name in kernels},
        local_kernel=parse_version(platform.release().split("-")[0]),
    )


def _kvm(local: LocalFacts | None) -> str | None:
    if local is None:
        return "not asked: nothing here needs it"
    return local.kvm.module if local.kvm.usable else local.kvm.error


def _lab_qemu(config: RunConfig, cache: ImageCache) -> str | None:
    """The version of the QEMU that runs the labs; None where there is none."""
    if all(case.backend.host is Host.LOCAL for case in config.cases):
        return None
    return ".".join(map(str, cache.qemu(config.lab.qemu).version))


def _environment(
    config: RunConfig, versions: Versions, local: LocalFacts | None, lab_qemu: str | None
) -> dict[str, object]:
    return {
        "irqmatrix": __version__,
        "config": str(config.path),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "cpus": len(os.sched_getaffinity(0)),
        "kvm": _kvm(local),
        "qemu": {name: ".".join(map(str, version)) for name, version in versions.qemu.items()},
        "lab_kernel": {
            name: ".".join(map(str, version)) for name, version in versions.kernel.items()
        },
        "lab_qemu": lab_qemu,
    }
