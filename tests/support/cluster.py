"""A cluster of real processes on this machine."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

IRQMATRIX = (sys.executable, "-m", "harness")
DASK_SCHEDULER = (sys.executable, "-m", "distributed.cli.dask_scheduler")


@contextlib.contextmanager
def process(*argv: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program, ended with the block."""
    with log.open("wb") as out:
        started = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            yield started
        finally:
            started.terminate()
            started.wait(30)


def said(log: Path, pattern: str, program: subprocess.Popen[bytes]) -> str:
    """The first match of ``pattern`` in what a program said, as soon as it is there."""
    while program.poll() is None:
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(0.1)
    raise AssertionError(f"{log.name}: {log.read_text(errors='replace')}")


@contextlib.contextmanager
def scheduler(folder: Path) -> Iterator[str]:
    """Dask's scheduler, at a port that is free; its address as an executor."""
    log = folder / "scheduler.log"
    with process(
        *DASK_SCHEDULER, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", log=log
    ) as program:
        yield "dask://" + said(log, r"Scheduler at: +tcp://([\d.:]+)", program)


@contextlib.contextmanager
def worker(folder: Path, executor: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker with one seat, which has joined."""
    log = folder / f"{name}.log"
    with process(*IRQMATRIX, "worker", executor, "--jobs", "1", "--name", name, log=log) as program:
        said(log, rf"(worker {name} of)", program)
        yield program
