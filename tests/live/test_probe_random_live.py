"""Random programs on the probe: each logs what the chips predict, under TCG and in labs.

``IRQMATRIX_RANDOM_PROGRAMS`` says how many in each mode, and ``IRQMATRIX_RANDOM_SEED`` which; with
the former, as every night, they run in all labs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from harness.backends.base import Session
from harness.backends.local import LocalSession
from harness.base.errors import ImageError
from harness.base.versions import parse_version
from harness.images.cache import ImageCache
from harness.model.case import Case, Host, Irqchip
from harness.scenario.compare import first_divergence
from harness.scenario.log import Log
from harness.scenario.program import Program
from support.probe_boot import lab_for, logs_of, probe_case, record, run_here, write_programs
from support.qemus import QEMUS, find_qemu
from support.random_programs import CPUS, random_programs
from userspace_chip.profile import Profile, profile

pytestmark = pytest.mark.live

EVERYWHERE = "IRQMATRIX_RANDOM_PROGRAMS" in os.environ
ON_TCG = int(os.environ.get("IRQMATRIX_RANDOM_PROGRAMS", "400"))
IN_LAB = int(os.environ.get("IRQMATRIX_RANDOM_PROGRAMS", "120"))
SEED = int(os.environ.get("IRQMATRIX_RANDOM_SEED", "1000000"))
LABS = [("6.1", "system"), ("6.12", "10.0")] if EVERYWHERE else [("default", "system")]
"""Kernel and QEMU."""
OF_ONE_BOOT = 120

Predicted = Sequence[tuple[Program, Log]]


def divergences(predicted: Predicted, logs: Mapping[str, Log]) -> dict[str, str]:
    found = {}
    for program, log in predicted:
        divergence = first_divergence(log, logs[program.name])
        if divergence is not None:
            found[program.name] = divergence.describe(names=("model", "probe"))
        elif not logs[program.name].complete:
            found[program.name] = "its log breaks off"
    return found


@pytest.mark.parametrize("qemu", QEMUS)
def test_random_programs_log_on_tcg_what_the_chips_predict(qemu: str, tmp_path: Path):
    _, subject = find_qemu(qemu)
    predicted = random_programs(SEED, ON_TCG, subject)
    programs = [program for program, _ in predicted]
    case = probe_case(programs, qemu=qemu, cpu="max", smp=CPUS)
    logs = logs_of(run_here(LocalSession(ImageCache(offline=True).qemu(qemu)), case, tmp_path))

    assert divergences(predicted, logs) == {}


@dataclass(frozen=True)
class Part:
    """Programs of one boot: one that ends it does not take all others with it."""

    predicted: Predicted
    case: Case
    file: Path


def parts_of(irqchip: Irqchip, subject: Profile, folder: Path) -> list[Part]:
    predicted = random_programs(SEED, IN_LAB, subject)
    parts = []
    for at in range(0, len(predicted), OF_ONE_BOOT):
        some = predicted[at : at + OF_ONE_BOOT]
        programs = [program for program, _ in some]
        case = probe_case(programs, host=Host.LAB, irqchip=irqchip, smp=CPUS)
        file = write_programs(case, folder / f"{irqchip.value}-{at}")
        parts.append(Part(some, replace(case, timeout_s=600), file))
    return parts


async def differing(lab: Session, probe: Path, part: Part, folder: Path) -> dict[str, str]:
    """What differs each time: where CPUs race, the order that the chips show is but one."""
    found: dict[str, str] = {}
    for attempt in ("first", "again"):
        recording = await record(lab, part.case, folder / attempt, probe, part.file)
        differ = divergences(part.predicted, logs_of(recording))
        found = differ if attempt == "first" else {n: found[n] for n in found if n in differ}
        if not found:
            break
    return found


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(7200 if EVERYWHERE else 600)
@pytest.mark.parametrize(("kernel", "qemu"), LABS)
def test_random_programs_log_in_a_lab_what_the_chips_predict(
    kernel: str, qemu: str, tmp_path: Path
):
    subjects = {mode: profile(mode, **versions_of(kernel, qemu)) for mode in ("on", "split")}
    parts = [
        part
        for mode, subject in subjects.items()
        for part in parts_of(Irqchip(mode), subject, tmp_path)
    ]

    async def run() -> dict[str, dict[str, str]]:
        files, log = [part.file for part in parts], tmp_path / "lab.log"
        async with lab_for(files, log, qemu=qemu, kernel=kernel) as (lab, probe):
            return {
                part.file.name: await differing(lab, probe, part, tmp_path / f"of-{part.file.name}")
                for part in parts
            }

    assert asyncio.run(run()) == {part.file.name: {} for part in parts}


def versions_of(kernel: str, qemu: str) -> dict[str, Any]:
    """As a profile has them; or skip."""
    cache = ImageCache(offline=True)
    try:
        texts = {
            "qemu": cache.qemu(qemu).version,
            "linux": parse_version(cache.kernel(kernel).version),
        }
    except ImageError as error:
        pytest.skip(str(error))
    return {name: ".".join(map(str, version[:2])) for name, version in texts.items()}
