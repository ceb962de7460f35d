"""`irqmatrix run --executor`: real processes, real QEMUs, and workers that go away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from harness import __version__
from support import cluster
from support.live import flat, write_config

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

LONG = "hanging"


@pytest.fixture(autouse=True)
def short_wait(monkeypatch):
    monkeypatch.setenv("IRQMATRIX_LIMITS", "worker_s=3")


def run(
    tmp_path: Path, config: Path, executor: str, *arguments: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    argv = ("run", str(config), "--out", str(tmp_path / "out"), "--executor", executor)
    return cluster.process(*cluster.IRQMATRIX, *argv, *arguments, log=tmp_path / "run.log")


def result(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out/result.json").read_text())


def parent_of_qemu(image: str, among: dict[int, str], running: subprocess.Popen[bytes]) -> int:
    """Which of the processes ``among`` has a QEMU with ``image``, as soon as one has."""
    while running.poll() is None:
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent in among and image.encode() in command and b"qemu-system" in command:
                    return parent
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(0.1)
    raise AssertionError("the run has ended")


def test_run_on_two_workers_of_which_one_is_killed_gives_one_whole_report(tmp_path, flats):
    hangs = flat(flats["hanging"], timeout_s=8, expect={"*": "hang"})
    others = [flat(flats["passing"], name=f"passing-{number}") for number in range(4)]
    too_large = flat(flats["passing"], name="large", memory_mib=1 << 30)
    config = write_config(tmp_path, [hangs, *others, too_large])
    with (
        cluster.scheduler(tmp_path) as executor,
        cluster.worker(tmp_path, executor, "a") as a,
        cluster.worker(tmp_path, executor, "b") as b,
        run(tmp_path, config, executor) as running,
    ):
        names = {a.pid: "a", b.pid: "b"}
        killed = parent_of_qemu(LONG, names, running)
        os.kill(killed, signal.SIGKILL)
        status = running.wait(240)

    lost, (kept,) = names.pop(killed), names.values()
    found, shown = result(tmp_path), (tmp_path / "run.log").read_text()
    case = next(case["id"] for case in found["cases"] if LONG in case["id"])
    told = f"worker {lost} was lost under {case}: it runs again on {kept}"
    assert (status, found["environment"]["cluster"]["lost"]) == (0, [told])
    assert [case["verdict"] for case in found["cases"]] == ["hang", *["pass"] * 4, "skip"]
    assert f"{kept} lacks memory MiB" in found["cases"][-1]["detail"]
    assert f"  {told}" in shown.splitlines()
    assert "distributed" not in shown
    assert "Traceback" not in shown
    folders = [tmp_path / "out" / case["dir"] for case in found["cases"][:-1]]
    assert all((folder / "recording.json").exists() for folder in folders)
    recorded = json.loads((folders[1] / "recording.json").read_text())
    assert recorded["case"]["guest"]["path"] == str(flats["passing"])


def test_run_without_a_worker_is_error_and_one_that_is_interrupted_keeps_what_was_done(
    tmp_path, flats
):
    guests = [flat(flats["passing"]), flat(flats["hanging"], timeout_s=3000)]
    config = write_config(tmp_path, guests)
    with cluster.scheduler(tmp_path) as executor:
        with run(tmp_path, config, executor) as running:
            assert running.wait(240) == 1
        details = {case["detail"].partition(" for ")[0] for case in result(tmp_path)["cases"]}
        assert details == {f"the cluster had no worker of irqmatrix {__version__}"}
        _interrupt(tmp_path, config, executor)


def _interrupt(tmp_path, config, executor):
    with (
        cluster.worker(tmp_path, executor, "a") as a,
        run(tmp_path, config, executor) as running,
    ):
        cluster.said(tmp_path / "run.log", r"(\[1/2\] pass)", running)
        parent_of_qemu(LONG, {a.pid: "a"}, running)
        running.send_signal(signal.SIGINT)
        status = running.wait(240)
        verdicts = [case["verdict"] for case in result(tmp_path)["cases"]]
        assert (status, verdicts) == (130, ["pass", "incomplete"])


def test_run_without_a_scheduler_is_status_3_and_a_message(tmp_path, flats):
    config = write_config(tmp_path, [flat(flats["passing"])])
    with socket.create_server(("127.0.0.1", 0)) as held:
        executor = f"dask://127.0.0.1:{held.getsockname()[1]}"
    with run(tmp_path, config, executor) as running:
        status = running.wait(240)

    shown = (tmp_path / "run.log").read_text()
    assert status == 3
    assert f"cannot reach the scheduler {executor}" in shown
    assert len(shown.splitlines()) == 1
