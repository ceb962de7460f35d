"""``collect --print-script``: a shell's archive is read and redacted as ours is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.collect import sources
from harness.collect.collect import SCRIPT, redacted_copy
from harness.record.collectors.foreign import archive

ROWS = "           CPU0\n  8: 5 IO-APIC   8-edge      rtc0\n"
SHELLS = [["sh"], ["busybox", "sh"], ["bash", "--posix"]]
HERE = [shell for shell in SHELLS if shutil.which(shell[0])]


def script(shell, tmp_path, *words):
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    return subprocess.run(
        [*shell, str(SCRIPT), *words],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_passes_shellcheck():
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_script_traces_the_events_that_the_command_does():
    text = SCRIPT.read_text()
    assert " ".join(sources.EVENTS) == " ".join(re.search(r"\nevents='([^']*)'", text)[1].split())
    assert f"\nevents_per_s={sources.EVENTS_PER_S} " in text


@pytest.fixture
def anna(tmp_path):
    """A process that looks like a QEMU, and stands still."""
    program = tmp_path / "qemu-system-x86_64"
    # Not what PATH has: a version manager's python3 is a script that runs what its own name says.
    program.symlink_to(Path(sys.executable).resolve())
    words = [program, "-c", "print(flush=True); input()", "-name", "anna's vm", "-M", "q35"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"\n"
        yield process
        process.kill()


@pytest.mark.parametrize("shell", HERE, ids=lambda shell: shell[0])
def test_archive_of_the_script_is_not_redacted_and_its_copy_is(shell, tmp_path, anna):
    (tmp_path / "rows").write_text(ROWS)

    done = script(shell, tmp_path, str(anna.pid), "0.1", "rows")

    assert (done.returncode, done.stderr) == (0, "")
    assert "not redacted" in done.stdout
    texts = dict(archive.members(tmp_path / "irqmatrix-collect.tar.gz"))
    assert "-name' 'anna'\\''s vm' '-M' 'q35'" in texts["cmdline.txt"]
    assert texts["guest-interrupts-1.txt"] == ROWS
    assert texts["host-interrupts.txt"].count("CPU0") == 2
    assert '"redaction": "not redacted"' in texts["contents.json"]
    copy = redacted_copy(tmp_path / "irqmatrix-collect.tar.gz")
    assert "anna" not in "".join(copy.texts.values())
    assert "-M q35" in copy.texts["cmdline.txt"]
    assert copy.missing["monitor"] == "a shell cannot ask it"
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1", "x"], "not a number of seconds: x"),
        (["999999999"], "no process 999999999"),
        (["self", "0", "/no/file"], "cannot read /no/file"),
    ],
)
def test_mistake_is_one_message_and_nothing_is_left(words, said, tmp_path):
    done = script(["sh"], tmp_path, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "irqmatrix-collect.tar.gz").exists()
    assert not list((tmp_path / "scratch").iterdir())
