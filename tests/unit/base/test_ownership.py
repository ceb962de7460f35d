"""What is removed as left over, and what is somebody else's."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from harness.base import ownership
from support.processes import is_running


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


OWNER = textwrap.dedent("""
    import asyncio, os, sys
    from harness.base import ownership
    from harness.base.process import owned_process
    claimed = sys.argv[1]
    async def main():
        with ownership.owned_directory() as folder:
            (folder / "stderr").write_text("left")
            os.mkdir(claimed)
            ownership.claim(folder, claimed)
            child = ["sh", "-c", "setsid sleep 1000 & echo $!; exec sleep 1000"]
            read, write = os.pipe()
            async with owned_process(child, stdout=write, owner=folder) as process:
                print(folder, os.read(read, 100).decode().strip(), flush=True)
                await process.wait()
    asyncio.run(main())
""")


@contextlib.contextmanager
def owner_at_work(claimed):
    """A harness that owns a folder and a claim, and whose program left a child in a session."""
    command = [sys.executable, "-c", OWNER, str(claimed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        folder, child = owner.stdout.readline().split()
        try:
            yield owner, Path(folder), int(child)
        finally:
            owner.kill()
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize(
    "name", ["irqmatrix-20261129-results", "irqmatrix-0-x", "irqmatrix-notes", "irqmatrix-1x7_ab"]
)
def test_leftovers_of_somebody_else_stay_whatever_they_are_called(temporary_folder, name):
    theirs = temporary_folder / name
    theirs.mkdir()
    (theirs / "notes").write_text("of three weeks")
    ownership.remove_leftovers()
    assert (theirs / "notes").read_text() == "of three weeks"


def test_leftovers_of_a_killed_harness_go_with_what_it_claimed_and_started(tmp_path):
    with owner_at_work(tmp_path / "instance") as (owner, folder, child):
        owner.kill()
        owner.wait()
        assert folder.exists()
        ownership.remove_leftovers()
        assert not folder.exists()
        assert not (tmp_path / "instance").exists()
        assert not is_running(child)


def test_leftovers_of_a_harness_that_lives_are_none(tmp_path):
    with owner_at_work(tmp_path / "instance") as (_, folder, child):
        ownership.remove_leftovers()
        assert (folder / "stderr").exists()
        assert (tmp_path / "instance").exists()
        assert is_running(child)


def test_leftovers_behind_a_symbolic_link_stay(tmp_path, temporary_folder):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".irqmatrix-owner").touch()
    (temporary_folder / "irqmatrix-link").symlink_to(elsewhere)
    ownership.remove_leftovers()
    assert elsewhere.exists()


def test_owned_directory_is_gone_after_its_block():
    with ownership.owned_directory() as folder:
        ownership.remove_leftovers()
        assert folder.exists()
    assert not folder.exists()


NO_DESCRIPTORS = """
import os, resource
from harness.base.ownership import owned_directory

resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
held = []
try:
    with owned_directory() as directory:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    print(directory.exists())
for descriptor in held:
    os.close(descriptor)
"""


def test_owned_directory_that_could_not_be_removed_is_gone_when_its_process_ends(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", NO_DESCRIPTORS],
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "True\n"
    assert list(folder.iterdir()) == []


def test_lock_that_is_held_cannot_be_held_by_another(tmp_path):
    with (
        ownership.locked(tmp_path / "lock"),
        pytest.raises(BlockingIOError),
        ownership.locked(tmp_path / "lock"),
    ):
        pass


def test_end_of_everything_takes_what_was_started_and_the_folders(tmp_path):
    script = textwrap.dedent("""
        import os, subprocess, sys
        from harness.base import ownership
        folder = ownership.owned_directory()
        name = folder.__enter__()
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        ownership.end_everything()
        print(name, child.pid, flush=True)
        os._exit(0)
    """)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    folder, child = ran.stdout.split()
    assert not Path(folder).exists()
    assert not is_running(int(child))
