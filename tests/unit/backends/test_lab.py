"""The lab's shell and its command line, without a lab; with one: tests/live/test_lab_live.py."""

import asyncio
import base64
import dataclasses
import os
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from harness.backends import lab
from harness.backends.lab import (
    LabFiles,
    LabPlan,
    LabShell,
    booted_lab,
    by_hand,
    lab_argv,
    write_payload,
)
from harness.backends.lab_end import LabEnd, LabEndKind
from harness.base.errors import CollectError, HostError, LabLost
from harness.guests.plan import GuestPlan
from harness.images.model import KernelImage, QemuImage
from harness.model.case import Accel, FlatGuest
from support import cases

KERNEL = KernelImage("6.1", "6.1.192", Path("/cache/vmlinuz"), None, "here")
QEMU = QemuImage("system", (7, 2), Path("/usr/bin/qemu"), ("/usr/bin/qemu",), (), (), "here")


def plan(*payload: Path, accel: Accel = Accel.TCG) -> LabPlan:
    return LabPlan(KERNEL, QEMU, Path("/cache/initrd"), QEMU, payload, accel)


async def inquest() -> tuple[LabEnd, str]:
    """What is found of a lab of these tests."""
    return LabEnd(LabEndKind.L0_ABORTED, "SIGABRT"), "there"


def answering(script, use):
    """Run ``use(shell)`` against an L1 that answers a line by the lines of ``script(id, code)``."""

    async def run():
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        l1_reader, l1_writer = await asyncio.open_unix_connection(sock=theirs)

        async def l1() -> None:
            while line := await l1_reader.readline():
                number, code = line.decode().rstrip("\n").split(" ", 1)
                answer = script(number, code)
                if answer is None:
                    l1_writer.close()
                    return
                l1_writer.write(answer.encode())

        task = asyncio.create_task(l1())
        shell = LabShell(reader, writer, inquest)
        try:
            return await use(shell)
        finally:
            await shell.close()
            task.cancel()
            l1_writer.close()

    return asyncio.run(run())


def reply(number: str, status: int, output: str) -> str:
    return f"@{number} {status} {base64.b64encode(output.encode()).decode()}\n"


def test_shell_command_gives_status_and_output():
    found = answering(lambda n, code: reply(n, 3, f"ran {code}"), lambda s: s.run("true"))
    assert found == (3, "ran true")


def test_shell_answers_reach_who_asked_whatever_their_order():
    held = []

    def script(number, code):
        held.append(reply(number, 0, code))
        return "" if len(held) < 2 else "".join(reversed(held))

    async def both(shell):
        return await asyncio.gather(shell.run("first"), shell.run("second"))

    assert answering(script, both) == [(0, "first"), (0, "second")]


def test_shell_check_of_a_failing_command_is_an_error_with_its_output():
    with pytest.raises(CollectError, match="status 1: no such file"):
        answering(lambda n, code: reply(n, 1, "no such file"), lambda s: s.check("cat x"))


def test_shell_exit_of_a_process_is_told_to_who_waits_for_it():
    async def use(shell):
        exited = shell.exit_of("guest1")
        await shell.run("go")
        return await exited

    assert answering(lambda n, code: f"!exit guest1 77\n{reply(n, 0, '')}", use) == 77


def test_shell_lab_that_goes_away_is_lost_for_everybody():
    async def use(shell):
        exited = shell.exit_of("guest1")
        with pytest.raises(LabLost, match=r"crashed: SIGABRT \(there\)"):
            await shell.run("anything")
        with pytest.raises(LabLost):
            await exited
        with pytest.raises(LabLost):
            await shell.run("more")
        return shell.lost.done()

    assert answering(lambda n, code: None, use)


def test_shell_lab_that_does_not_answer_in_time_is_lost():
    with pytest.raises(LabLost, match=r"SIGABRT; no answer for 0\.1 s to 'sleep'"):
        answering(lambda n, code: "", lambda s: s.run("sleep", timeout_s=0.1))


def fetching(folder, pieces, *, gap_s):
    """What is fetched of a file that comes in ``pieces``, one each ``gap_s`` of the loop's time."""
    port, here = folder / "files", folder / "here"
    asked = asyncio.Event()
    ports = []
    late_s = 0.0

    def script(number, code):
        asked.set()
        return ""

    async def use(shell):
        nonlocal late_s
        loop = asyncio.get_running_loop()
        real_time = loop.time
        loop.time = lambda: real_time() + late_s

        async def lab_sends(_, writer):
            nonlocal late_s
            ports.append(writer)
            await asked.wait()
            sent = 0
            for piece in pieces:
                late_s += gap_s
                writer.write(piece)
                sent += len(piece)
                while not here.exists() or here.stat().st_size < sent - MARK_BYTES:
                    await asyncio.sleep(0)
            late_s += gap_s
            if pieces:
                writer.write(b"\nirqmatrix: end of file 1\n")
                shell._dispatch(reply("1", 0, "").split())

        try:
            async with await asyncio.start_unix_server(lab_sends, port):
                await LabFiles(shell, port).fetch("/trace", here)
        finally:
            for writer in ports:
                writer.close()
                await writer.wait_closed()
        return here.read_bytes()

    return answering(script, use)


MARK_BYTES = len("\nirqmatrix: end of file 1\n")


@pytest.mark.timeout(30)
def test_file_that_takes_longer_than_an_answer_may_is_fetched_while_more_of_it_comes(tmp_path):
    pieces = [bytes([n]) * (1 << 17) for n in range(5)]
    assert fetching(tmp_path, pieces, gap_s=40) == b"".join(pieces)


@pytest.mark.timeout(30)
def test_lab_that_sends_nothing_of_a_file_is_lost(tmp_path):
    with pytest.raises(LabLost, match="SIGABRT; nothing more of /trace for 60 s"):
        fetching(tmp_path, [], gap_s=61)


def test_lab_argv_emulates_svm_under_tcg_and_uses_a_kvm_that_nests():
    tcg = lab_argv(plan(), serial="stdio", ports={}, disk=Path("/disk"))
    kvm = lab_argv(plan(accel=Accel.KVM), serial="stdio", ports={}, disk=Path("/disk"))
    assert "EPYC,+svm,+npt,check=off" in tcg
    assert ("q35,accel=kvm" in kvm, "host" in kvm) == (True, True)


def test_lab_ports_are_numbered_as_the_init_of_the_lab_knows_them():
    argv = lab_argv(
        plan(), serial="stdio", ports={"control": "null", "files": "null"}, disk=Path("/disk")
    )
    assert "virtserialport,chardev=control,nr=1,name=irqmatrix.control" in argv
    assert "virtserialport,chardev=files,nr=4,name=irqmatrix.files" in argv


def test_payload_is_an_archive_of_the_plans_files(tmp_path):
    image = tmp_path / "a.flat"
    image.write_bytes(b"image bytes")
    write_payload(plan(image), tmp_path / "disk")
    archive = (tmp_path / "disk").read_bytes()
    assert b"payload/0-a.flat\0" in archive
    assert b"image bytes" in archive
    assert len(archive) % 512 == 0


def test_command_by_hand_names_only_the_cases_own_files():
    mine, other = Path("/images/mine.flat"), Path("/images/other.flat")
    guest = GuestPlan(cases.case(backend=cases.SPLIT), mine, None, True, False)
    text = by_hand(plan(other, mine), guest)
    assert "/images/mine.flat" in text
    assert "other.flat" not in text
    assert "kernel-irqchip=split" in text


def test_lab_argv_of_a_folder_with_a_comma_names_one_file():
    argv = lab_argv(plan(), serial="stdio", ports={}, disk=Path("/tmp/a,b/disk"))
    assert "file=/tmp/a,,b/disk,format=raw,if=virtio,readonly=on" in argv


def test_faults_are_of_labs_that_tcg_runs():
    assert "svm-cr8-window" in {fault.id for fault in plan().faults}
    assert plan(accel=Accel.KVM).faults == ()


@pytest.mark.parametrize(
    ("version", "smp", "accel", "needed"),
    [
        ((7, 2, 22), 1, Accel.TCG, True),
        ((10, 0, 13), 1, Accel.TCG, True),
        ((10, 0, 13), 2, Accel.TCG, False),
        ((11, 1, 3), 1, Accel.TCG, False),
        ((10, 0, 13), 1, Accel.KVM, False),
    ],
)
def test_lab_stays_on_one_cpu_where_its_qemu_forgets_interrupts(version, smp, accel, needed):
    qemu = dataclasses.replace(QEMU, version=version)
    lab = dataclasses.replace(plan(accel=accel), host_qemu=qemu, smp=smp)
    assert lab.needs_one_cpu is needed


@pytest.mark.timeout(30)
def test_lab_that_stays_on_one_cpu_has_one_in_each_of_its_threads(tmp_path):
    with pytest.raises(HostError, match="did not boot"):
        boot(tmp_path, "nproc >&2; exit 1")
    assert (tmp_path / "lab-1.stderr").read_text() == "1\n"


def boot(folder: Path, program: str) -> None:
    """A lab whose QEMU is a shell script."""
    script = folder / "qemu"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    image = dataclasses.replace(QEMU, launcher=(str(script),))
    lab = dataclasses.replace(plan(), host_qemu=image)

    async def run() -> None:
        async with booted_lab(lab, folder / "lab-1.log"):
            pass

    asyncio.run(run())


@pytest.mark.timeout(30)
def test_lab_whose_qemu_refuses_at_once_is_not_waited_for(tmp_path):
    with pytest.raises(HostError, match=r"did not boot: .*gave up: status 1: no such drive"):
        boot(tmp_path, "echo no such drive >&2; exit 1")
    assert (tmp_path / "lab-1.stderr").read_text() == "no such drive\n"


@pytest.mark.timeout(30)
def test_lab_whose_qemu_aborts_while_it_boots_names_the_assertion(tmp_path):
    words = "ERROR:x.c:1:f: assertion failed: (x)"
    with pytest.raises(HostError, match=r"SIGABRT: ERROR:x\.c:1:f: assertion failed"):
        boot(tmp_path, f"echo '{words}' >&2; kill -ABRT $$")


@pytest.mark.timeout(30)
def test_lab_whose_kernel_panics_while_it_boots_says_so(tmp_path):
    with pytest.raises(HostError, match="the lab's kernel panicked: Kernel panic - not syncing"):
        boot(tmp_path, "echo 'Kernel panic - not syncing: no init'; exit 0")
    assert "Kernel panic" in (tmp_path / "lab-1.log").read_text()


HOSTILE = (
    "x\nEND_OF_GUEST\nEND_OF_GUEST_\ntouch PWNED\n$(touch PWNED)`touch PWNED`'\"; IRQMATRIX_DIR"
)


def test_command_by_hand_of_a_hostile_value_is_its_text_and_runs_nothing(tmp_path):
    """The script with a QEMU and a busybox that do nothing: what it makes is what it was given."""
    tools, out = tmp_path / "tools", tmp_path / "IRQMATRIX_DIR out"
    tools.mkdir()
    out.mkdir()
    kernel = out / "ke rnel"
    kernel.write_text("kernel")
    qemu = tools / "qemu"
    for tool, script in ((qemu, f'cat "$DIR/guest" >"{tmp_path}/guest"'), (tools / "busybox", "")):
        tool.write_text(f'#!/bin/sh\nDIR="$(echo "$DIR"/*)"\n{script}\n')
        tool.chmod(0o755)
    lab = dataclasses.replace(
        plan(kernel), host_qemu=dataclasses.replace(QEMU, launcher=(str(qemu),))
    )
    guest = GuestPlan(
        cases.case(FlatGuest(kernel, HOSTILE, {}), cases.ON),
        kernel, None, trace_log=False, paused=False,
    )  # fmt: skip
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(temporary), "DIR": str(temporary)
    }  # fmt: skip

    done = subprocess.run(
        ["sh", "-c", by_hand(lab, guest)], cwd=tmp_path, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stderr == ""
    words = shlex.split((tmp_path / "guest").read_text().partition("echo ")[0].replace("\\\n", ""))
    assert words[words.index("-append") + 1] == HOSTILE
    assert not list(tmp_path.rglob("PWNED"))


class SlowProcess:
    """A lab's QEMU, which is asked for its CPU time again and again until the lab is up."""

    status, is_stopped = None, False

    def __init__(self, used_s, ready=None):
        self.used_s = iter(used_s)
        self.ready = ready

    @property
    def cpu_s(self):
        used_s = next(self.used_s, None)
        if used_s is None and self.ready is not None:
            self.ready.set_result("kvm=yes")
        return 0.0 if used_s is None else used_s

    async def wait(self):
        await asyncio.Event().wait()


def coming_up(folder, monkeypatch, used_s, *, comes=False):
    """What is said of a lab that has used so much CPU time at each look."""
    monkeypatch.setattr(lab, "BOOT_STILL_S", 0.001)
    monkeypatch.setattr(lab, "LAST_WORDS_S", 0.001)
    files = [folder / "console", folder / "stderr"]
    for file in files:
        file.write_text("")

    async def run():
        ready = asyncio.get_running_loop().create_future()
        shell = type("Shell", (), {"ready": ready})
        process = SlowProcess(used_s, ready if comes else None)
        return await lab._ready(shell, lab._Remains(process, *files, ()))

    return asyncio.run(run())


def test_lab_that_gets_little_of_a_busy_machine_is_waited_for(tmp_path, monkeypatch):
    assert coming_up(tmp_path, monkeypatch, [4.0, 8.0, 12.0], comes=True) == "kvm=yes"


@pytest.mark.parametrize("used_s", [[4.0, 4.5], [30.0, 61.0]], ids=["still", "runs on"])
def test_lab_that_stands_still_or_never_comes_up_is_an_error(tmp_path, monkeypatch, used_s):
    with pytest.raises(HostError, match=f"it is not up after {used_s[-1]:.0f} s of CPU time"):
        coming_up(tmp_path, monkeypatch, used_s)
