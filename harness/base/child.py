"""A call in a process of its own, which can be ended at any moment, and takes nothing along."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Callable, Iterable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Final, ParamSpec, TypeVar

from harness.base import ownership
from harness.base.errors import HarnessError

_CONTEXT: Final = multiprocessing.get_context("forkserver")
"""Forked from a server without our threads, locks or descriptors."""
_PR_SET_PDEATHSIG: Final = 1

_P = ParamSpec("_P")
_T = TypeVar("_T")


class ChildDied(HarnessError):
    """The process ended without an answer."""


_LIFE: Final = contextlib.ExitStack()
"""What lasts as long as this process."""


def prepare(modules: Iterable[str]) -> None:
    """Start the server, if there is none: ``modules`` are imported in it, and not in each child."""
    _own_temporary_folder()
    _CONTEXT.set_forkserver_preload(["__main__", "harness.base.fork_server", *modules])
    # Ctrl-C reaches the whole process group, and the server has nothing to say about it.  The
    # tracker is started first, because that unblocks the signal.
    with contextlib.suppress(OSError):
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with contextlib.suppress(OSError):  # the first child will say it
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _own_temporary_folder() -> None:
    """Have the server's socket in a folder that a later run removes if this one is killed."""
    settings = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if settings.get("tempdir") is None:
        with contextlib.suppress(OSError):  # the server says it
            settings["tempdir"] = str(_LIFE.enter_context(ownership.owned_directory()))
            atexit.register(_LIFE.close)


async def in_child(function: Callable[_P, _T], *arguments: _P.args, **keywords: _P.kwargs) -> _T:
    """What ``function`` gives or raises; all that goes there and back has to be picklable.

    When the task is cancelled the process is killed, at once.  :class:`ChildDied` where it died.
    """
    receiving, sending = _CONTEXT.Pipe(duplex=False)
    with receiving:
        call = (sending, function, arguments, keywords)
        process = _CONTEXT.Process(target=_answer, args=call, daemon=True)
        with sending:
            starting = asyncio.ensure_future(asyncio.to_thread(process.start))
            try:
                await asyncio.shield(starting)
            except asyncio.CancelledError:
                await starting
                process.kill()
                raise
        try:
            await _readable(receiving)
            answer: tuple[bool, Any] = pickle.loads(receiving.recv_bytes())
        except EOFError:
            process.join()
            raise ChildDied(
                f"{function.__name__}() ended without an answer",
                _ended(process.exitcode),
                "see whether the machine is out of memory (dmesg)",
            ) from None
        finally:
            process.kill()
            process.join()
    is_good, value = answer
    if not is_good:
        raise value
    found: _T = value
    return found


async def _readable(connection: Connection) -> None:
    loop = asyncio.get_running_loop()
    is_readable = asyncio.Event()
    loop.add_reader(connection.fileno(), is_readable.set)
    try:
        await is_readable.wait()
    finally:
        loop.remove_reader(connection.fileno())


def _ended(code: int | None) -> str:
    if code is None or code >= 0:
        return f"status {code}"
    with contextlib.suppress(ValueError):
        return f"it was killed by {signal.Signals(-code).name}"
    return f"it was killed by signal {-code}"


def _answer(
    connection: Connection,
    function: Callable[..., object],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
) -> None:
    """In the child: call, and send what came of it."""
    # The server ends with our process, and this one with the server; Ctrl-C is not for it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        answer = (True, function(*arguments, **keywords))
    except Exception as error:
        error.add_note(f"in a child process:\n{traceback.format_exc()}")
        answer = (False, error)
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)
    except Exception as error:
        said = "".join(traceback.format_exception(error))
        data = pickle.dumps((False, RuntimeError(f"{answer[1]!r} cannot be sent: {said}")))
    with contextlib.suppress(OSError):  # the caller was killed: there is no one to answer
        connection.send_bytes(data)
