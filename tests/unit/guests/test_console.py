"""The serial console: its limit, its last lines, and readers that give up."""

import asyncio
import gc
import socket

import pytest

from harness.base.errors import GuestCrash, GuestFlood
from harness.guests.console import console

END = "\x04irqmatrix: end of console\n"


def said(tmp_path, text, read):
    """What ``read`` makes of a console on which ``text`` was said."""

    async def reading():
        ours, theirs = socket.socketpair()
        with theirs, console(ours, tmp_path / "console.log", end=END) as con:
            writing = asyncio.to_thread(theirs.sendall, text.encode())
            done, _ = await asyncio.gather(read(con), writing)
            return done, con.tail()

    return asyncio.run(reading())


@pytest.mark.parametrize("ask", ["read_all", "expect"])
def test_console_that_says_too_much_ends_and_is_kept_up_to_its_limit(tmp_path, monkeypatch, ask):
    monkeypatch.setenv("IRQMATRIX_LIMITS", "console_mib=1")

    async def reading():
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        flood = asyncio.ensure_future(forever(theirs))
        try:
            with console(ours, tmp_path / "console.log", end=END) as con:
                with pytest.raises(GuestFlood, match=r"more than 1 MiB .*console_mib=N") as error:
                    await (con.read_all() if ask == "read_all" else con.expect("never"))
                assert await con.read_all() == ""
                return error.value
        finally:
            flood.cancel()
            theirs.close()

    error = asyncio.run(reading())
    assert (tmp_path / "console.log").stat().st_size == 1 << 20
    assert len("".join(error.console_tail)) < 400


async def forever(theirs):
    loop = asyncio.get_running_loop()
    while True:
        await loop.sock_sendall(theirs, b"x" * 65536)


def test_console_tail_shortens_a_line_without_end(tmp_path):
    _, tail = said(tmp_path, "x" * 100_000 + END, lambda con: con.read_all())
    assert len(tail) == 1
    assert "99700 characters" in tail[0]


@pytest.mark.parametrize("turns", range(6))
def test_console_reader_that_gives_up_at_once_takes_nothing_from_the_next(tmp_path, turns):
    """``turns`` of the event loop later; the next reader has it all."""

    async def gives_up(con):
        reading = asyncio.ensure_future(con.expect("never"))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await con.read_all()

    said(tmp_path, "late" + END, gives_up)
    gc.collect()
    assert (tmp_path / "console.log").read_text() == "late"


@pytest.mark.parametrize("turns", range(12))
def test_console_reader_that_gives_up_while_the_end_is_read_leaves_it_to_the_next(tmp_path, turns):
    """The end was sent before: it is read in one of these turns, whatever the machine's load."""

    async def reading():
        ours, theirs = socket.socketpair()
        with theirs, console(ours, tmp_path / "console.log", end=END) as con:
            theirs.sendall(("late" + END).encode())
            task = asyncio.ensure_future(con.expect("never"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises((asyncio.CancelledError, GuestCrash)):
                await task
            async with asyncio.timeout(20):
                await con.read_all()

    asyncio.run(reading())
    gc.collect()
    assert (tmp_path / "console.log").read_text() == "late"
