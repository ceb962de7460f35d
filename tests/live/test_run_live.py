"""`irqmatrix run` with real QEMUs on this machine, under TCG: verdicts, files, and clean ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pexpect
import pytest

from harness.backends import local
from harness.backends.base import BOOT_LINE
from harness.backends.local import LocalGuest, LocalSession
from harness.guests.plan import GuestPlan
from harness.record.trace_files import lines_of
from support import flat_image
from support.live import execute, flat, write_config

pytestmark = pytest.mark.live

IRQMATRIX = (sys.executable, "-m", "harness")


def irqmatrix(*arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*IRQMATRIX, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def run(tmp_path: Path, config: Path, *arguments: object) -> tuple[int, dict]:
    """Exit status and ``result.json``."""
    out = tmp_path / "out"
    done = irqmatrix("run", config, "--out", out, *arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads((out / "result.json").read_text())


def test_run_passing_image_has_every_check_as_a_part(tmp_path, flats):
    status, result = run(tmp_path, write_config(tmp_path, [flat(flats["passing"])]))

    (case,) = result["cases"]
    assert (status, case["verdict"]) == (0, "pass")
    assert [part["id"] for part in case["parts"]] == ["one", "twice", "twice~2", "took N cycles"]


def test_run_failing_check_fails_the_run(tmp_path, flats):
    status, result = run(tmp_path, write_config(tmp_path, [flat(flats["failing"])]))

    (case,) = result["cases"]
    assert (status, case["verdict"]) == (1, "fail")
    assert {part["id"]: part["verdict"] for part in case["parts"]} == {"one": "pass", "two": "fail"}


def test_run_hanging_image_is_hang_within_its_time_and_the_others_run(tmp_path, flats):
    guests = [flat(flats["hanging"], timeout_s=1), flat(flats["passing"])]
    status, result = run(tmp_path, write_config(tmp_path, guests))

    verdicts = {case["id"].split("/")[0]: case["verdict"] for case in result["cases"]}
    assert (status, verdicts) == (1, {"flat-hanging": "hang", "flat-passing": "pass"})


def test_run_hanging_image_has_its_chips_looked_at(tmp_path, flats):
    _, result = run(tmp_path, write_config(tmp_path, [flat(flats["hanging"], timeout_s=1)]))

    log = tmp_path / "out" / result["cases"][0]["dir"] / "qmp.jsonl"
    assert "info lapic" in log.read_text()


def test_run_only_skipped_cases_is_status_3(tmp_path, flats):
    status, result = run(tmp_path, write_config(tmp_path, [flat(flats["skipping"])]))

    assert (status, result["cases"][0]["verdict"]) == (3, "skip")


def test_run_image_that_passes_the_check_but_not_qemu_is_error_with_its_words(tmp_path, flats):
    guests = [flat(flats["passing"], cpu="no-such-cpu")]
    status, result = run(tmp_path, write_config(tmp_path, guests))

    (case,) = result["cases"]
    assert (status, case["verdict"]) == (1, "error")
    assert "no-such-cpu" in case["detail"]


def test_run_case_folder_has_its_files_and_a_command_that_reproduces_it(tmp_path, flats):
    _, result = run(tmp_path, write_config(tmp_path, [flat(flats["passing"])]))

    folder = tmp_path / "out" / result["cases"][0]["dir"]
    names = {path.name for path in folder.iterdir()}
    assert {"command.txt", "console.log", "stderr.log", "events.jsonl", "counters.json"} <= names
    again = subprocess.run(
        ["sh", folder / "command.txt"],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert again.returncode == 1
    assert again.stdout.replace("\r", "") == (folder / "console.log").read_text()


def test_run_traces_qemus_chips_under_tcg(tmp_path, flats):
    _, result = run(tmp_path, write_config(tmp_path, [flat(flats["passing"])]))

    events = (tmp_path / "out" / result["cases"][0]["dir"] / "events.jsonl").read_text()
    assert '"ioapic_' in events
    assert '"pic_' in events


def test_run_json_prints_only_json(tmp_path, flats):
    config = write_config(tmp_path, [flat(flats["passing"])])
    done = irqmatrix("run", config, "--out", tmp_path / "out", "--json")

    assert json.loads(done.stdout)["summary"]["exit_status"] == 0
    assert done.stderr == ""


def test_run_only_a_glob_runs_what_it_matches(tmp_path, flats):
    config = write_config(tmp_path, [flat(flats["passing"]), flat(flats["failing"])])
    status, result = run(tmp_path, config, "--only", "flat-passing/*")

    assert (status, len(result["cases"])) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "absent.yaml"), "absent.yaml: no such configuration file"),
        (("run", "configs/quick.yaml", "--only", "nothing*"), "no case matches --only"),
        (("report", "absent"), "cannot read absent/result.json"),
        (("run",), "Missing argument"),
        (("no-such-command",), "No such command"),
    ],
)
def test_command_line_mistake_is_status_2_and_a_message(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = irqmatrix(*arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_run_out_that_is_a_file_is_status_2_and_a_message(tmp_path, flats):
    (tmp_path / "file").write_text("")
    config = write_config(tmp_path, [flat(flats["passing"])])
    done = irqmatrix("run", config, "--out", tmp_path / "file")

    assert done.returncode == 2
    assert "cannot use" in done.stderr


def test_report_prints_a_recorded_run_again(tmp_path, flats):
    run(tmp_path, write_config(tmp_path, [flat(flats["failing"])]))
    done = irqmatrix("report", tmp_path / "out")

    assert done.returncode == 0
    assert "fail !" in done.stdout


@pytest.mark.parametrize(("ran_nowhere", "status"), [("say", 0), ("error", 1)])
def test_run_names_a_scenario_that_no_backend_could_run(tmp_path, ran_nowhere, status):
    probe = {
        "kind": "probe",
        "scenarios": ["configs/scenarios/*.yaml"],
        "only": ["tsc-deadline-past", "lapic-tpr-subclass-does-not-count"],
    }
    config = write_config(tmp_path, [probe], ran_nowhere=ran_nowhere)
    done = irqmatrix("run", config, "--out", tmp_path / "out")

    assert done.returncode == status
    assert "  ran nowhere: tsc-deadline-past" in done.stdout.splitlines()


class _KilledSession(LocalSession):
    """A host on which somebody kills the QEMU of every hanging image."""

    @contextlib.asynccontextmanager
    async def boot(self, plan: GuestPlan) -> AsyncIterator[LocalGuest]:
        async with super().boot(plan) as guest:
            if "hanging" in plan.case.id:
                os.kill(guest.host_pid, signal.SIGKILL)
            yield guest


def test_run_qemu_killed_from_outside_is_crash_and_the_others_run(tmp_path, flats, monkeypatch):
    monkeypatch.setattr(local, "LocalSession", _KilledSession)
    path = write_config(tmp_path, [flat(flats["hanging"]), flat(flats["passing"])])
    result, _ = execute(tmp_path, path, jobs=1)

    crash, other = result.cases
    assert (crash.verdict, other.verdict) == ("crash", "pass")
    assert "SIGKILL" in crash.detail


class _CrowdedSession(LocalSession):
    """A host on whose CPU three others run beside the QEMU."""

    @contextlib.asynccontextmanager
    async def boot(self, plan: GuestPlan) -> AsyncIterator[LocalGuest]:
        cpu = min(os.sched_getaffinity(0))
        alone = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(cpu)]
        spin = [*alone, sys.executable, "-c", "while True: pass"]
        async with super().boot(plan) as guest:
            for task in Path(f"/proc/{guest.host_pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {cpu})
            with contextlib.ExitStack() as stack:
                for _ in range(3):
                    other = subprocess.Popen(spin, start_new_session=True)
                    stack.enter_context(other)
                    stack.callback(other.kill)
                yield guest


def test_run_guest_that_gets_no_cpu_is_not_blamed_for_its_time(tmp_path, flats, monkeypatch):
    monkeypatch.setattr(local, "LocalSession", _CrowdedSession)
    path = write_config(tmp_path, [flat(flats["spinning"], timeout_s=4)])
    result, _ = execute(tmp_path, path, jobs=1)

    (case,) = result.cases
    assert case.blame == "harness"
    assert "this machine was busy: the guest waited for a CPU" in case.detail


class _KilledOnce(LocalSession):
    """A host on which somebody kills the first QEMU only."""

    killed: ClassVar[bool] = False

    @contextlib.asynccontextmanager
    async def boot(self, plan: GuestPlan) -> AsyncIterator[LocalGuest]:
        async with super().boot(plan) as guest:
            if not _KilledOnce.killed:
                _KilledOnce.killed = True
                os.kill(guest.host_pid, signal.SIGKILL)
            yield guest


@pytest.mark.parametrize("retries", [1, 2])
@pytest.mark.parametrize(("session", "verdict"), [(_KilledOnce, "pass"), (_KilledSession, "crash")])
def test_run_case_not_as_expected_is_run_again_and_the_first_time_is_kept(
    tmp_path, flats, monkeypatch, session, verdict, retries
):
    monkeypatch.setattr(local, "LocalSession", session)
    monkeypatch.setattr(_KilledOnce, "killed", False)
    image = flats["passing" if verdict == "pass" else "hanging"]
    path = write_config(tmp_path, [flat(image)], retries=retries)
    result, out = execute(tmp_path, path, jobs=1)

    (case,) = result.cases
    assert case.verdict == verdict
    assert case.flaky is (verdict == "pass")
    assert "SIGKILL" in case.first_time
    assert result.summary.exit_status == (0 if verdict == "pass" else 1)
    kept = json.loads((out / "first-time" / case.dir / "verdict.json").read_text())
    assert kept["verdict"] == "crash"


@pytest.mark.parametrize("stop", ["ctrl-c", "sigterm"])
def test_run_interrupted_is_status_130_and_keeps_what_had_ended(tmp_path, flats, stop):
    config = write_config(tmp_path, [flat(flats["passing"]), flat(flats["hanging"])])
    arguments = ["run", str(config), "--out", str(tmp_path / "out"), "--jobs", "1"]
    child = pexpect.spawn(
        IRQMATRIX[0],
        [*IRQMATRIX[1:], *arguments],
        timeout=60,
        encoding="utf-8",
        # A shell without job control has its background jobs, and so this one, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    child.setwinsize(50, 200)
    child.logfile_read = said = io.StringIO()
    try:
        child.expect("pass .*flat-passing")
        child.expect("flat-hanging.*running the image")
        if stop == "ctrl-c":
            child.sendintr()
        else:
            child.kill(signal.SIGTERM)
        child.expect("irqmatrix: interrupted")
        child.expect(pexpect.EOF)
    finally:
        child.close()
    assert child.exitstatus == 130, said.getvalue()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    found = {case["id"].split("/")[0]: case["verdict"] for case in result["cases"]}
    assert found == {"flat-passing": "pass", "flat-hanging": "incomplete"}


def test_run_harness_killed_by_sigkill_leaves_no_qemu(tmp_path, flats):
    config = write_config(tmp_path, [flat(flats["hanging"])])
    arguments = ["run", str(config), "--out", str(tmp_path / "out")]
    child = pexpect.spawn(IRQMATRIX[0], [*IRQMATRIX[1:], *arguments], timeout=60, encoding="utf-8")
    try:
        child.expect("flat-hanging.*running the image")
        (qemu,) = [
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if str(flats["hanging"]).encode() in _command(path)
        ]
        ended = os.pidfd_open(qemu)
        child.kill(signal.SIGKILL)
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    import select

    readable, _, _ = select.select([ended], [], [], 30)
    os.close(ended)
    assert readable


def _command(process: Path) -> bytes:
    try:
        command = (process / "cmdline").read_bytes()
    except OSError:
        return b""
    return command if b"qemu-system" in command else b""


@pytest.mark.kvm
@pytest.mark.parametrize("irqchip", ["on", "split"])
def test_run_flat_image_on_the_local_kvm_has_kernel_events(tmp_path, flats, irqchip):
    matrix = {"host": "local", "accel": "kvm", "irqchip": irqchip}
    config = write_config(tmp_path, [flat(flats["passing"])], matrix=matrix)
    status, result = run(tmp_path, config)

    (case,) = result["cases"]
    if case["verdict"] == "skip":
        pytest.skip(case["detail"])
    assert (status, case["verdict"]) == (0, "pass")
    folder = tmp_path / "out" / case["dir"]
    counters = json.loads((folder / "counters.json").read_text())
    if "kernel trace" in counters["missing"]:
        pytest.skip(counters["missing"]["kernel trace"])
    assert '"kvm_' in (folder / "events.jsonl").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_run_on_a_full_disk_ends_with_a_message_and_no_qemu(tmp_path, flats):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", disk], check=True)
    try:
        config = write_config(tmp_path, [flat(flats["passing"])])
        done = irqmatrix("run", config, "--out", disk / "out")
    finally:
        subprocess.run(["umount", disk], check=True)

    assert done.returncode in (1, 2)
    assert "No space left on device" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


RESET = """
version: 1
scenarios:
  before: {about: an IPI, steps: [{ipi: {vector: 0x51, shorthand: self}}]}
  reset:
    about: the keyboard controller's reset
    model: there is no reset
    steps: [{io.0x64: 0xfe}, {delay_us: 1000}]
  behind: {about: an IPI, steps: [{ipi: {vector: 0x52, shorthand: self}}]}
"""


def test_run_scenario_that_ends_the_probe_is_a_crash_and_the_others_are_judged(tmp_path):
    (tmp_path / "reset.scenario").write_text(RESET)
    guest = {"kind": "probe", "scenarios": [str(tmp_path / "reset.scenario")]}
    status, result = run(tmp_path, write_config(tmp_path, [guest]))

    (case,) = result["cases"]
    verdicts = {part["id"]: part["verdict"] for part in case["parts"]}
    assert verdicts == {"before": "pass", "reset": "crash", "behind": "pass"}
    assert status == 1


MOVING = {"kind": "linux", "workloads": ["serial", "block-intx", "block-msix"], "migrate": True}


def test_run_guest_that_moves_works_in_its_second_qemu_and_has_one_history(tmp_path):
    status, result = run(tmp_path, write_config(tmp_path, [MOVING]))

    (case,) = result["cases"]
    assert (status, case["verdict"]) == (0, "pass")
    assert any("replay: 0 divergences" in note for note in case["notes"])
    folder = tmp_path / "out" / case["dir"]
    assert '"migrate-incoming"' in (folder / "qmp.jsonl").read_text()
    assert (folder / "moving.jsonl").exists()
    assert not (folder / "guest.state").exists()
    with lines_of(folder / "qemu.trace.zst") as lines:
        assert sum(line == BOOT_LINE for line in lines) == 1


class _SpoilingSession(LocalSession):
    """A host on which a guest's state does not stay what it was."""

    @contextlib.asynccontextmanager
    async def boot(self, plan: GuestPlan) -> AsyncIterator[LocalGuest]:
        if plan.incoming:
            (state,) = self.out.glob("*/guest.state")
            state.write_bytes(b"not a state of any machine")
        async with super().boot(plan) as guest:
            yield guest


def test_run_guest_that_cannot_be_loaded_is_a_crash_with_qemus_words(tmp_path, monkeypatch):
    monkeypatch.setattr(_SpoilingSession, "out", tmp_path / "out", raising=False)
    monkeypatch.setattr(local, "LocalSession", _SpoilingSession)
    path = write_config(tmp_path, [MOVING])
    result, _ = execute(tmp_path, path, jobs=1)

    (case,) = result.cases
    assert case.verdict == "crash"
    assert "Not a migration stream" in case.detail


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """What becomes of images that never end, by what they do instead."""
    folder = tmp_path_factory.mktemp("endless")
    names = ("NMIS", "SLEEPS_OFF", "SLEEPS_BEHIND_PPR", "COUNTS", "TALKS")
    images = [flat_image.assemble(folder, name, "endless.S", f"-DWHAT={name}") for name in names]
    guests = [flat(image, timeout_s=1) for image in images]
    result, _ = execute(folder, write_config(folder, guests))
    return {case.id.partition("/")[0].removeprefix("flat-"): case for case in result.cases}


@pytest.mark.parametrize(
    ("name", "verdict", "why"),
    [
        ("NMIS", "timeout", r"still running: \d+ NMIs a second; more time with timeout_s"),
        ("SLEEPS_OFF", "hang", "CPU 0 sleeps with interrupts off"),
        ("SLEEPS_BEHIND_PPR", "hang", "IRR 0x51, PPR 0x60: nothing can wake it"),
        ("COUNTS", "timeout", "still running: CPU 0 runs at 0x4"),
        ("TALKS", "timeout", r"still running: \d+ console characters a second"),
    ],
)
def test_run_tells_a_guest_that_hangs_from_one_that_is_not_done(endless, name, verdict, why):
    assert endless[name].verdict == verdict
    assert re.search(why, endless[name].detail)
