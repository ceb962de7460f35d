"""Signals that ask to end: what happens in order, and what where something stands still."""

import signal
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent("""
    import asyncio, os, sys, threading, time
    from harness.base import stopping

    def give_up():
        print("gave up", flush=True)
        os._exit(42)

    async def sleeps():
        try:
            await asyncio.sleep(1000)
        finally:
            print("in order", flush=True)

    async def waits_for_a_thread():
        await asyncio.to_thread(threading.Event().wait)

    async def keeps_the_loop_busy():
        time.sleep(1000)

    async def main(within_s, name):
        task = asyncio.current_task()
        with stopping.on_signals(task, within_s, give_up):
            print("ready", flush=True)
            await globals()[name]()

    try:
        asyncio.run(main(float(sys.argv[1]), sys.argv[2]))
    except asyncio.CancelledError:
        sys.exit(7)
""")


def stopped(within_s, name, number):
    command = [sys.executable, "-c", SCRIPT, str(within_s), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        said = process.stdout.read()
    return process.returncode, said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_takes_a_task_down_in_order(number):
    assert stopped(1000, "sleeps", number) == (7, "in order\n")


@pytest.mark.parametrize("name", ["waits_for_a_thread", "keeps_the_loop_busy"])
def test_signal_ends_what_does_not_end_in_order(name):
    assert stopped(0.05, name, signal.SIGTERM) == (42, "gave up\n")
