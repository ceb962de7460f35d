"""`irqmatrix fuzz` on real backends: TCG of two QEMUs, and the lab's on and split.

``IRQMATRIX_RANDOM_PROGRAMS`` says how many in the lab, ``IRQMATRIX_RANDOM_SEED`` which.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import pytest

from harness.backends.local import LocalSession
from harness.base import child
from harness.base.terminal import printer
from harness.commands import fuzz as fuzz_module
from harness.fuzz import grammar
from harness.fuzz.campaign import FuzzRequest
from harness.fuzz.journal import NAME
from harness.fuzz.programs import Source
from harness.guests.plan import GuestPlan
from harness.guests.probe import is_done
from harness.images.cache import ImageCache
from support import golden, mutants
from support.probe_boot import probe_case, write_programs
from support.qemus import find_qemu

pytestmark = pytest.mark.live

SEED = os.environ.get("IRQMATRIX_RANDOM_SEED", "1000000")
IN_LAB = os.environ.get("IRQMATRIX_RANDOM_PROGRAMS", "150")
ON_TCG = 300
PROVED = 60
FEW = 40
SMALL = golden.TESTS / "support" / "small-grammar.yaml"
WRONG = "no service at EOI"
"""A mutant: its IOAPIC does not ask again for a line that is still high."""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "harness", *map(str, arguments)]


def run(*arguments: object, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_random_programs_log_on_tcg_of_two_qemus_what_the_chips_predict(tmp_path):
    find_qemu("10.0")
    sides = ("--backend", "tcg", "--backend", "tcg,qemu=10.0")
    where = ("--seed", SEED, "--programs", ON_TCG, "--out", tmp_path / "fuzz")
    done = run("fuzz", *sides, *where)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{ON_TCG} programs" in done.stdout


def test_campaign_of_a_configuration_runs_on_its_backends_and_counts_them(tmp_path):
    find_qemu("10.0")
    path = tmp_path / "small.yaml"
    path.write_text(f"version: 1\nseed: 4\nprograms: {FEW}\nbackends: [tcg, 'tcg,qemu=10.0']\n")
    done = run("fuzz", path, "--out", tmp_path / "fuzz", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["programs"] == FEW
    assert found["runs"] == sum(found["executed"].values()) > FEW
    # QEMU 7.2 has no x2APIC of its own, and skips what needs one.
    assert 0 < found["executed"]["local:tcg"] < found["executed"]["local:tcg,qemu=10.0"]


@pytest.mark.parametrize("name", ["mixed", "msi"])
def test_reset_of_what_a_program_touched_leaves_what_a_whole_reset_would(tmp_path, name):
    """The probe looks at all there is after each of its resets: its word ``prove``."""
    _, subject = find_qemu("system")
    source = Source(int(SEED), grammar.selected(name), [subject])
    written = [one.scenario.program for one in islice(source.programs(), PROVED)]
    case = probe_case(written)
    file = write_programs(case, tmp_path / "programs")
    cache = ImageCache(offline=True)
    plan = GuestPlan(case, cache.probe(), file, trace_log=False, paused=False)
    booted = LocalSession(cache.qemu("system")).command(plan).replace("\\\n", " ")

    said = subprocess.run(
        [*shlex.split(booted), "-append", "prove"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    ).stdout

    assert "dirty" not in said
    assert said.count("\n. ") == PROVED
    assert is_done(said)


async def in_this_process(function: Callable[..., object], *arguments: object) -> object:
    """Where the mutant is: programs are made by processes that have the true chips."""
    return function(*arguments)


@pytest.fixture(scope="module")
def of_a_mutant(tmp_path_factory) -> Path:
    """The folder of a campaign whose chips have one wrong rule."""
    folder = tmp_path_factory.mktemp("mutant") / "fuzz"
    request = FuzzRequest(sides=("tcg",), seed=11, programs=100, only="ioapic")
    asked = fuzz_module.FuzzOptions(request, folder, None, 2, True)
    (mutant,) = (one for one in mutants.MUTANTS if one.name == WRONG)
    with mutant.alive(), patch.object(child, "in_child", in_this_process):
        assert asyncio.run(fuzz_module.run(asked, printer(stderr=True))) == 1
    return folder


def findings_of(folder: Path) -> list[dict]:
    records = map(json.loads, (folder / NAME).read_text().splitlines())
    return [record for record in records if record["kind"] == "finding"]


def test_wrong_rule_of_the_chips_is_found_within_500_programs_in_at_most_6_steps(of_a_mutant):
    found = [one for one in findings_of(of_a_mutant) if one["oracle"] == "chips"]
    assert found
    assert all(one["steps"] <= 6 for one in found)
    assert all(one["shown"] == one["asked"] == 4 for one in found)


def test_report_of_a_finding_reproduces_with_the_command_in_it(of_a_mutant, tmp_path):
    folder = of_a_mutant / "findings" / findings_of(of_a_mutant)[0]["id"]
    assert "irqmatrix repro entry.yaml" in (folder / "report.md").read_text()
    done = run("repro", folder / "entry.yaml", "--out", tmp_path / "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reproduced" in done.stdout


def test_campaign_that_is_killed_goes_on_and_has_lost_nothing(tmp_path):
    common = ("fuzz", "--backend", "tcg", "--only", SMALL, "--seed", 3)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with subprocess.Popen(
        command(*common, "--minutes", 5, "--out", killed),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is None
        assert process.stdout is not None
        _until_a_round(killed / NAME, process)
        os.killpg(process.pid, signal.SIGKILL)
    programs = 400
    done = run("fuzz", "--resume", killed, "--programs", programs, "--json")
    assert done.returncode == 0, done.stderr
    assert run(*common, "--programs", programs, "--out", whole).returncode == 0
    assert json.loads(done.stdout)["programs"] == programs
    assert _last_number(killed) == _last_number(whole)


def _until_a_round(journal: Path, process: subprocess.Popen[str]) -> None:
    """Until the first round is in the journal."""
    while process.poll() is None:
        if journal.exists() and '"kind": "round"' in journal.read_text():
            return
        signal.sigtimedwait([], 0.05)
    raise AssertionError("the campaign ended by itself")


def _last_number(folder: Path) -> int:
    records = map(json.loads, (folder / NAME).read_text().splitlines())
    return max(record["next"] for record in records if record["kind"] == "round")


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_random_programs_log_in_the_lab_what_the_chips_predict(tmp_path):
    sides = ("--backend", "lab:on", "--backend", "lab:split")
    where = ("--seed", SEED, "--programs", IN_LAB, "--out", tmp_path / "fuzz")
    done = run("fuzz", *sides, *where, timeout_s=1800)
    assert done.returncode == 0, done.stdout + done.stderr
