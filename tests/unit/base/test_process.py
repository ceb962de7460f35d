import asyncio
import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from harness.base.errors import LaunchError
from harness.base.process import owned_process
from support.processes import is_running


def test_process_block_left_ends_the_process():
    async def run() -> int:
        async with owned_process(["sleep", "1000"]) as process:
            assert is_running(process.pid)
        return process.pid

    assert not is_running(asyncio.run(run()))


def test_process_that_ignores_sigterm_is_killed_after_the_grace_period():
    async def run() -> int:
        script = "trap '' TERM; echo ready; while :; do sleep 1; done"
        read, write = os.pipe()
        with os.fdopen(read, "rb") as ready, os.fdopen(write, "wb") as out:
            async with owned_process(["sh", "-c", script], stdout=out, grace_s=0.05) as process:
                await asyncio.to_thread(ready.readline)
        assert process.status is not None
        return process.status

    assert asyncio.run(run()) == -signal.SIGKILL


@pytest.mark.parametrize("after", ["exit 7", "exec sleep 1000"])
def test_process_takes_what_it_left_in_another_session_along(after):
    """Such a child holds what it inherited: the console of a QEMU would never end."""

    async def run() -> int:
        read, write = os.pipe()
        with os.fdopen(read, "rb") as said, os.fdopen(write, "wb") as out:
            script = f"setsid sleep 1000 & echo $!; {after}"
            async with owned_process(["sh", "-c", script], stdout=out) as process:
                out.close()
                child = int(await asyncio.to_thread(said.readline))
                if after == "exit 7":  # with it the child may have gone by now
                    assert await process.wait() == 7
                    assert await asyncio.to_thread(said.read) == b""
                    assert not is_running(child)
                else:
                    assert is_running(child)
        return child

    assert not is_running(asyncio.run(run()))


def test_process_exit_status_is_told():
    async def run() -> int:
        async with owned_process(["sh", "-c", "exit 7"]) as process:
            return await process.wait()

    assert asyncio.run(run()) == 7


def test_process_cancelled_task_ends_the_process():
    pids = []

    async def run() -> None:
        async with owned_process(["sleep", "1000"]) as process:
            pids.append(process.pid)
            asyncio.current_task().cancel()
            await process.wait()

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert not is_running(pids[0])


def test_process_missing_program_is_a_launch_error_that_names_it():
    async def run() -> None:
        async with owned_process(["no-such-qemu"]):
            pass

    with pytest.raises(LaunchError, match="no-such-qemu"):
        asyncio.run(run())


PARENT = textwrap.dedent("""
    import asyncio
    from harness.base.process import owned_process
    async def main():
        async with owned_process(["sleep", "1000"]) as process:
            print(process.pid, flush=True)
            await process.wait()
    asyncio.run(main())
""")


@contextlib.contextmanager
def child_of_a_killed_parent(**environment: str) -> Iterator[int]:
    """A descriptor of the child; it becomes readable when the child ends: no polling."""
    env = os.environ | environment
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as parent:
        descriptor = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
    try:
        yield descriptor
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def test_process_parent_killed_by_sigkill_takes_the_child_with_it():
    with child_of_a_killed_parent() as child:
        ended, _, _ = select.select([child], [], [], 30)
        assert ended


def test_process_parent_killed_before_the_child_could_ask_takes_it_along_too(tmp_path):
    """The child is held up until its parent is dead: then no signal will come any more."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    late = tmp_path / "setpriv"
    late.write_text(f'#!/bin/sh\nread _ < {gate}\nexec {shutil.which("setpriv")} "$@"\n')
    late.chmod(0o755)
    with child_of_a_killed_parent(PATH=f"{tmp_path}:{os.environ['PATH']}") as child:
        gate.write_text("go\n")
        ended, _, _ = select.select([child], [], [], 30)
        assert ended


def test_process_file_that_gets_too_long_is_cut_and_the_process_goes_on(tmp_path):
    script = f"dd if=/dev/zero bs=4096 count=4 of={tmp_path}/long 2>/dev/null; exit 7"

    async def run() -> int:
        async with owned_process(["sh", "-c", script], max_file_bytes=8192) as process:
            return await process.wait()

    assert asyncio.run(run()) == 7
    assert (tmp_path / "long").stat().st_size == 8192
