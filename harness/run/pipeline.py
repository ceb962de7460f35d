"""A run from its configuration to its result: the stages in their one direction."""

from __future__ import annotations

import asyncio
import dataclasses
import fnmatch
import os
import platform
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from harness import __version__
from harness.analyse import blame
from harness.base import child, limits, ownership
from harness.base.errors import ConfigError, JudgingTimeout
from harness.base.machine import cpu_model, timestamp
from harness.base.terminal import Printer
from harness.base.versions import Version, parse_version
from harness.compare.known import KnownDifferences
from harness.compare.subjects import Versions
from harness.config.config import RunConfig
from harness.images.cache import ImageCache
from harness.images.kernel import kernel_build
from harness.images.model import QemuImage
from harness.images.qemu import qemu_build
from harness.model.case import Host
from harness.model.layout import RunDir
from harness.model.verdict import CaseResult
from harness.record.recording import Recording
from harness.run import floor, judging, progress
from harness.run.checkpoint import checkpoint
from harness.run.conclusion import compare_matrix, run_result
from harness.run.executor import Hosts, Job, OpenExecutor, local
from harness.run.judged_run import Judge, JudgedRun, incomplete
from harness.run.nowhere import ran_nowhere
from harness.run.progress import Progress
from harness.run.waiting import Prepared
from harness.store import baseline, result
from harness.store.entry import RunEntry, StoreRequest, check_baseline
from harness.store.result import Nowhere, RunResult
from harness.store.run_directory import run_directory


@dataclasses.dataclass(frozen=True)
class RunRequest:
    """What is asked for on the command line."""

    config: RunConfig
    out: Path | None
    only: str | None
    jobs: int
    known: tuple[Path, ...] = ()
    """Folders of known differences to take instead of the shipped one."""
    store: StoreRequest | None = None
    """Where the run is entered; None: nowhere."""
    executor: OpenExecutor = local
    expects: bool = True
    """Whether its cases should pass; a reproduction looks for a fault, and expects nothing."""


Finish: TypeAlias = Callable[[RunResult, Path], Awaitable[RunResult]]
"""From what was found, and where it is, to its final result."""


async def _as_found(found: RunResult, _: Path) -> RunResult:
    return found


async def run(
    request: RunRequest, console: Printer, *, quiet: bool, finish: Finish = _as_found
) -> tuple[RunResult, Path]:
    """Run the matrix; the result, which is in the run directory too, and that directory.

    That is there from the first moment on, with the verdict ``incomplete`` for what has not ended:
    a run that is interrupted or killed leaves what was known then.  :class:`ConfigError` where no
    case matches ``request.only``, :class:`StoreError` where the directory cannot be used; what
    keeps a single case from running is in its result.
    """
    config = _selected(request.config, request.only)
    known = (
        KnownDifferences.in_folders(request.known) if request.known else KnownDifferences.shipped()
    )
    if request.store is not None:
        check_baseline(request.store)
    names = [case.directory_name for case in config.cases]
    with (
        run_directory(request.out, config.name, names) as place,
        _progress(request, console, len(names), quiet=quiet) as shown,
    ):
        if place.earlier is not None:
            shown.note(f"what an earlier run left there is in {place.earlier}")
        environment = _environment(config)
        entry = None
        if request.store is not None:
            entry = RunEntry(request.store, shown.note)
            entry.begin(config.name, place.path, environment)
        found = await _run_in(place.path, config, known, request, shown, environment)
        final = await finish(found, place.path)
        result.write(final, RunDir(place.path).result)
        compared = None if entry is None else entry.complete(final, place.path)
        if compared is not None:
            baseline.write(compared, RunDir(place.path).baseline)
    return final, place.path


def _progress(request: RunRequest, console: Printer, total: int, *, quiet: bool) -> Progress:
    if quiet:
        return progress.Silent()
    return progress.for_console(console, total, expects=request.expects)


async def _run_in(
    out: Path,
    config: RunConfig,
    known: KnownDifferences,
    request: RunRequest,
    shown: Progress,
    environment: dict[str, object],
) -> RunResult:
    """Run ``config`` in the folder ``out``, and compare what was found."""
    results: dict[str, CaseResult] = {}

    def so_far() -> RunResult:
        cases = tuple(results.get(case.id) or incomplete(case) for case in config.cases)
        found = run_result(config.name, environment, cases)
        # It is no success, whatever its cases are: nothing was compared.
        summary = dataclasses.replace(found.summary, exit_status=1)
        return dataclasses.replace(found, summary=summary)

    with checkpoint(RunDir(out).result, so_far, shown.note) as kept:

        def settled(ended: CaseResult) -> None:
            results[ended.id] = ended
            kept.update()

        ownership.remove_leftovers()
        child.prepare(("harness.run.pipeline",))
        cache = ImageCache()
        async with request.executor(Job(config, out, cache, shown, request.jobs)) as executor:
            preparation = await executor.prepare()
            if not preparation.prepared:
                preparation.all()
            environment |= _named(preparation.prepared, config, cache, executor.hosts())
            if config.lab.coverage:
                runnable = (item.case for item in preparation.prepared if item.skip is None)
                await floor.write(runnable, config.lab, cache, out, shown)
            run = JudgedRun(config, out, executor, shown, _judge(config), settled)
            await run.run(preparation)
            hosts = executor.hosts()
        environment |= _named(preparation.prepared, config, cache, hosts)
        versions = _versions(preparation.prepared, config, cache, hosts)
        ended = tuple(results[case.id] for case in config.cases)
        cases = blame.over_run(ended, emulated_lab=hosts.emulates_labs)
        matrix = [item.case for item in preparation.prepared]
        compared = await child.in_child(compare_matrix, matrix, cases, versions, known, out)
    environment["finished"] = timestamp()
    own = [case for case in config.cases if not case.group]
    nowhere = Nowhere(
        ran_nowhere(own, [results[case.id] for case in own]), config.ran_nowhere_is_error
    )
    return run_result(config.name, environment, cases, compared, nowhere)


def _selected(config: RunConfig, only: str | None) -> RunConfig:
    if only is None:
        return config
    cases = tuple(case for case in config.cases if fnmatch.fnmatchcase(case.id, only))
    if not cases:
        ids = "\n  ".join(case.id for case in config.cases)
        raise ConfigError(
            f"no case matches --only {only!r}", f"the cases are:\n  {ids}", path=config.path
        )
    # A part of a matrix may leave out what the rest of it runs.
    return dataclasses.replace(config, cases=cases, ran_nowhere_is_error=False)


def _judge(config: RunConfig) -> Judge:
    """In a process of its own: it may take minutes, and the run may have to end at once.

    :class:`JudgingTimeout` where it takes longer than the limit.
    """

    async def judge(recording: Recording) -> CaseResult:
        limit_s = limits.current().judging_s
        try:
            async with asyncio.timeout(limit_s):
                return await child.in_child(
                    judging.judge_folder, recording.directory, keep_raw=config.keep_raw
                )
        except TimeoutError:
            raise JudgingTimeout(
                f"judging took more than {limit_s} s",
                "what was recorded is kept: irqmatrix judge has no limit",
                limits.hint("judging_s"),
            ) from None

    return judge


def _versions(
    prepared: tuple[Prepared, ...], config: RunConfig, cache: ImageCache, hosts: Hosts
) -> Versions:
    has_lab = any(item.case.backend.host is Host.LAB for item in prepared)
    qemus = dict.fromkeys(item.case.backend.qemu for item in prepared)
    kernels = dict.fromkeys(
        kernel for item in prepared if (kernel := item.case.backend.kernel) is not None
    )
    return Versions(
        qemu={name: cache.qemu(name).version for name in qemus},
        kernel={name: parse_version(cache.kernel(name).version) for name in kernels},
        local_kernel=parse_version(hosts.kernel.split("-")[0]),
        lab_qemu=cache.lab_qemu(config.lab.qemu).version
        if has_lab and hosts.emulates_labs
        else None,
    )


def _environment(config: RunConfig) -> dict[str, object]:
    """What is known of it before anything was looked for."""
    return {
        "irqmatrix": __version__,
        "token": uuid.uuid4().hex,
        "config": str(config.path),
        "started": timestamp(),
        "finished": None,
        "machine": platform.machine(),
        "kernel": platform.release(),
        "cpu": cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
    }


def _named(
    prepared: tuple[Prepared, ...], config: RunConfig, cache: ImageCache, hosts: Hosts
) -> dict[str, object]:
    """The rest: what the hosts are, and what the names of images stand for."""
    versions = _versions(prepared, config, cache, hosts)
    has_lab = any(item.case.backend.host is Host.LAB for item in prepared)
    return {
        "kvm": hosts.kvm,
        "qemu": {name: _dotted(version) for name, version in versions.qemu.items()},
        "lab_kernel": {name: _dotted(version) for name, version in versions.kernel.items()},
        "lab_qemu": _dotted(cache.lab_qemu(config.lab.qemu).version) if has_lab else None,
        "builds": _builds(versions, cache, cache.lab_qemu(config.lab.qemu) if has_lab else None),
        **hosts.more,
    }


def _builds(
    versions: Versions, cache: ImageCache, lab_qemu: QemuImage | None
) -> dict[str, dict[str, Any] | None]:
    """The package and the build ID of each QEMU and kernel under test, and of the lab's QEMU."""
    return {
        "qemu": {name: dataclasses.asdict(qemu_build(cache.qemu(name))) for name in versions.qemu},
        "lab_kernel": {
            name: dataclasses.asdict(kernel_build(cache.kernel(name))) for name in versions.kernel
        },
        "lab_qemu": dataclasses.asdict(qemu_build(lab_qemu)) if lab_qemu is not None else None,
    }


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
