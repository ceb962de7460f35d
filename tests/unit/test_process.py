import asyncio
import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harness.errors import LaunchError
from harness.process import owned_process


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


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


def test_process_parent_killed_by_sigkill_takes_the_child_with_it():
    script = textwrap.dedent("""
        import asyncio
        from harness.process import owned_process
        async def main():
            async with owned_process(["sleep", "1000"]) as process:
                print(process.pid, flush=True)
                await process.wait()
        asyncio.run(main())
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        descriptor = os.pidfd_open(child)
        parent.kill()
        parent.wait()
    try:
        # The descriptor becomes readable when the process ends: no polling.
        ended, _, _ = select.select([descriptor], [], [], 30)
        assert ended
    finally:
        os.close(descriptor)
