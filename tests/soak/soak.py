"""Rounds of runs under faults, what has to hold after each, and the growth over many cases."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from soak import growth, scene
from soak.faults import (
    FAULTS,
    INSTANCES,
    TOKEN,
    Fault,
    Run,
    clock_shim,
    mount_tracefs,
    processes_of,
    small_disk,
)
from soak.scene import Matrix

IRQMATRIX: Final = (sys.executable, "-m", "harness")
STATUSES: Final = {0, 1, 2, 3, 130, -9}
MAX_GROWTH_KIB: Final = 32.0
"""Of memory, for each case. Measured: 7 over 2,000 cases, up to 30 over the first 100; the results,
some 3 KiB each, are kept until the report."""
MAX_KEPT_DESCRIPTORS: Final = 0.01
"""For each case."""
INSTANCE_WAIT_S: Final = 120.0
CLONE_NEWNS: Final = 0x20000


@dataclass
class Tally:
    """What a soak counted."""

    rounds: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    kept: dict[str, float] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """For a person to read."""
        yield f"{self.rounds.total()} runs, {self.verdicts.total()} cases"
        for name, count in self.rounds.items():
            yield f"  {count:5}  {name}"
        yield "verdicts: " + ", ".join(f"{n} {name}" for name, n in self.verdicts.most_common())
        for name, amount in self.kept.items():
            yield f"{name} kept: {amount:+.4f} a case"
        yield from self.broken or ["everything held"]


def apart() -> bool:
    """Take this process into a mount namespace of its own; False where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], check=False).returncode == 0


def soak(
    folder: Path,
    seconds: float,
    *,
    cases: int,
    with_labs: bool,
    seed: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Tally:
    """Rounds for ``seconds``, every fault at least once, then ``cases`` cases in one run."""
    tally, rng = Tally(), random.Random(seed)
    can_mount = apart()
    matrices = {each.name: each for each in scene.matrices(folder, with_labs=with_labs)}
    faults = [
        fault
        for fault in FAULTS
        if (can_mount or not fault.own_mounts) and fault.only in {None, *matrices}
    ]
    end_s = time.monotonic() + seconds
    for number, (matrix, fault) in enumerate(_rounds(matrices, faults)):
        if time.monotonic() > end_s and number >= len(faults):
            break
        if can_mount:
            mount_tracefs()
        name = f"{matrix.name}, {fault.name}"
        tell(name)
        tally.rounds[name] += 1
        for complaint in _round(folder / f"round-{number}", matrix, fault, rng, tally):
            tally.broken.append(f"round {number}, {name}: {complaint}")
            tell(tally.broken[-1])
    if cases:
        tell(f"{cases} cases in one run")
        tally.broken += _growth(folder / "many", cases, tally)
    return tally


def _rounds(matrices: dict[str, Matrix], faults: list[Fault]) -> Iterator[tuple[Matrix, Fault]]:
    """Every fault once, on the quickest matrix that it can strike; then all pairs in turn."""
    quickest = next(iter(matrices.values()))
    for fault in faults:
        yield quickest if fault.only is None else matrices[fault.only], fault
    for matrix in itertools.cycle((*list(matrices.values())[1:], quickest)):
        for fault in faults:
            if fault.only in (None, matrix.name):
                yield matrix, fault


def _round(
    folder: Path, matrix: Matrix, fault: Fault, rng: random.Random, tally: Tally
) -> Iterator[str]:
    """One run, what is wrong with it and with what it left, and a quiet run after it."""
    temporary, out = folder / "tmp", folder / "results" / "out"
    temporary.mkdir(parents=True)
    out.parent.mkdir()
    foreign = _instances()
    with ExitStack() as stack:
        if fault.small_disk:
            stack.enter_context(small_disk(out.parent))
        run = _start(folder, matrix, out, fault, rng)
        yield from _watched(run, matrix, fault)
        words = (folder / "stderr").read_text(errors="replace")
        if "Traceback" in words or "a bug of irqmatrix" in words:
            yield f"said: {words[-600:]}"
        yield from _results(out, matrix, fault, run.process.returncode, words, tally)
        yield from _report(folder, out)
    if fault.own_mounts:
        mount_tracefs()
    yield from _left(run, temporary, foreign, killed=fault.name == "SIGKILL")
    if fault.name == "SIGKILL":
        again = _start(folder, matrix, out, FAULTS[0], rng)
        yield from _watched(again, matrix, FAULTS[0])
        yield from _results(out, matrix, FAULTS[0], again.process.returncode, "", tally)
        yield from _left(again, temporary, foreign, killed=False)
    shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, matrix: Matrix, out: Path, fault: Fault, rng: random.Random) -> Run:
    token = uuid.uuid4().hex
    environment = os.environ | {TOKEN: token, "TMPDIR": str(folder / "tmp")}
    if fault.clock:
        environment["LD_PRELOAD"] = str(clock_shim(folder.parent))
    with (folder / "stdout").open("wb") as said, (folder / "stderr").open("wb") as complained:
        process = subprocess.Popen(
            [*IRQMATRIX, "run", str(matrix.path), "--out", str(out)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=complained,
            env=environment,
            preexec_fn=fault.limits,  # one thread
            start_new_session=True,
        )
    return Run(process, token, rng)


def _watched(run: Run, matrix: Matrix, fault: Fault) -> Iterator[str]:
    """Strike, and wait for the end."""
    try:
        if fault.strike is not None:
            fault.strike(run)
        status = run.process.wait(matrix.limit_s)
    except subprocess.TimeoutExpired:
        run.process.kill()
        run.process.wait()
        yield f"still ran after {matrix.limit_s:g} s"
        return
    if status not in STATUSES:
        yield f"ended with status {status}"


def _results(
    out: Path, matrix: Matrix, fault: Fault, status: int, words: str, tally: Tally
) -> Iterator[str]:
    """One verdict a case, and no other than the fault explains."""
    path = out / "result.json"
    if not path.exists():
        if fault.aims_at not in ("run", "start"):
            yield f"no result.json (status {status}): {words[-300:]}"
        elif status == 0 or (status > 0 and not words.strip()):
            yield f"no result.json and no word about it (status {status})"
        return
    try:
        found = [(case["id"], case["verdict"]) for case in json.loads(path.read_text())["cases"]]
    except (ValueError, KeyError, TypeError) as error:
        yield f"result.json cannot be read: {error!r}"
        return
    tally.verdicts.update(verdict for _, verdict in found)
    ids = [case for case, _ in found]
    if sorted(ids) != sorted(matrix.verdicts):
        missing = matrix.verdicts.keys() - set(ids)
        yield f"{len(ids)} results for {len(matrix.verdicts)} cases; missing: {sorted(missing)}"
    other = [f"{case}: {verdict}" for case, verdict in found if matrix.verdicts[case] != verdict]
    if other and not fault.aims_at:
        yield f"not as without a fault: {other}"
    if fault.aims_at == "case" and matrix.name != "lab" and len(other) > 1:
        yield f"more than one case was struck: {other}"


def _report(folder: Path, out: Path) -> Iterator[str]:
    done = subprocess.run(
        [*IRQMATRIX, "report", str(out)], capture_output=True, text=True, check=False, cwd=folder
    )
    if "Traceback" in done.stderr or done.returncode not in (0, 1, 2):
        yield f"report: status {done.returncode}: {done.stderr[-400:]}"


def _left(run: Run, temporary: Path, foreign: set[str], *, killed: bool) -> Iterator[str]:
    """Processes and folders; those of a run that was killed go with the next one."""
    end_s = time.monotonic() + 10
    while (left := processes_of(run.token)) and time.monotonic() < end_s:
        subprocess.run(["sleep", "0.1"], check=False)
    if left:
        yield f"processes left: {left}"
    folders = sorted(path.name for path in temporary.iterdir())
    if folders and not killed:
        yield f"left in the temporary folder: {folders}"
    # Another run's go when it ends; what was left stays.
    end_s = time.monotonic() + INSTANCE_WAIT_S
    while (traces := _instances() - foreign) and not killed and time.monotonic() < end_s:
        subprocess.run(["sleep", "0.1"], check=False)
    if traces and not killed:
        yield f"tracefs instances left: {sorted(traces)}"


def _instances() -> set[str]:
    return {path.name for path in INSTANCES.glob("irqmatrix-*")}


def _growth(folder: Path, cases: int, tally: Tally) -> list[str]:
    """Memory and descriptors that the harness keeps over many cases."""
    (folder / "tmp").mkdir(parents=True)
    matrix = scene.flat_matrix(folder, "many", cases // 2)
    out = folder / "out"
    run = _start(folder, matrix, out, FAULTS[0], random.Random(0))
    samples: list[growth.Sample] = []
    while run.process.poll() is None:
        try:
            done = sum(1 for _ in out.glob("*/verdict.json"))
            samples.append(growth.sample(run.process.pid, done))
        except (OSError, IndexError):
            break
        subprocess.run(["sleep", "0.5"], check=False)
    run.process.wait()
    complaints = list(_results(out, matrix, FAULTS[0], run.process.returncode, "", tally))
    memory = growth.memory_slope(samples, cases)
    if memory is None:
        return [*complaints, "too few samples of the harness's growth"]
    kept = growth.kept_descriptors(samples, cases)
    tally.kept |= {"memory (KiB)": memory, "descriptors": len(kept) / cases}
    if memory > MAX_GROWTH_KIB:
        complaints.append(f"memory grows by {memory:.1f} KiB a case")
    if len(kept) > MAX_KEPT_DESCRIPTORS * cases:
        complaints.append(f"{len(kept)} descriptors stay open: {kept[:8]}")
    return complaints
