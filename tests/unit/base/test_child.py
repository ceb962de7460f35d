import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.base.child import ChildDied, _answer, in_child
from harness.base.errors import GuestHang
from support.processes import is_running


class Unpicklable(Exception):
    def __init__(self):
        super().__init__(threading.Lock())


def add(a, b=1):
    return a + b, os.getpid()


def fail(error):
    raise error


def fail_unpicklable():
    raise Unpicklable


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def write_and_stand_still(path):
    with Path(path).open("w", encoding="utf-8") as file:
        file.write(str(os.getpid()))
    signal.pause()


def test_child_gives_what_the_function_gives_and_is_another_process():
    found, pid = asyncio.run(in_child(add, 2, b=3))
    assert found == 5
    assert pid != os.getpid()
    assert not is_running(pid)


def test_child_raises_what_the_function_raises_with_its_traceback():
    with pytest.raises(GuestHang, match="nothing") as raised:
        asyncio.run(in_child(fail, GuestHang("nothing", "why", console_tail=("a", "b"))))
    assert raised.value.console_tail == ("a", "b")
    assert "raise error" in raised.value.__notes__[0]


def test_child_whose_error_cannot_be_sent_says_so():
    with pytest.raises(RuntimeError, match="Unpicklable"):
        asyncio.run(in_child(fail_unpicklable))


def test_child_that_dies_is_an_error_that_names_the_signal():
    with pytest.raises(ChildDied, match="SIGKILL"):
        asyncio.run(in_child(die))


def test_child_of_a_cancelled_task_is_gone_with_it(tmp_path):
    fifo = tmp_path / "pid"
    os.mkfifo(fifo)

    async def run():
        working = asyncio.create_task(in_child(write_and_stand_still, str(fifo)))
        pid = int(await asyncio.to_thread(fifo.read_text))
        assert is_running(pid)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        return pid

    assert not is_running(asyncio.run(run()))


def test_server_that_is_interrupted_while_it_starts_says_nothing():
    """Ctrl-C reaches all of the terminal's processes."""
    program = (
        "import os, signal, time\n"
        "from harness.base import child\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "child.prepare(['harness.run.pipeline'])\n"
        "os.killpg(0, signal.SIGINT)\n"
        "import asyncio\n"
        "print(asyncio.run(child.in_child(len, 'four')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("4\n", "")


def test_child_whose_caller_was_killed_says_nothing(capfd):
    receiving, sending = multiprocessing.Pipe(duplex=False)
    receiving.close()

    with sending:
        process = multiprocessing.get_context("fork").Process(
            target=_answer, args=(sending, len, ("four",), {})
        )
        process.start()
        process.join()

    assert (process.exitcode, capfd.readouterr().err) == (0, "")
