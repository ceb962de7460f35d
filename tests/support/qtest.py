"""A client of QEMU's qtest protocol that owns its QEMU: registers and lines without a guest.

The machine is started stopped (``-S``) under TCG or KVM, because distributions leave the qtest
accelerator out; the qtest server itself is in every QEMU.  Nothing runs then, virtual time stands
still, and every effect of a command has happened when its answer comes.

QEMU's standard error is one ordered record of it: ``[R +t] command``, the trace events that the
command caused, ``[S +t] answer``.  That is how a command's events are told from its neighbours'.

Protocol: QEMU ``softmmu/qtest.c`` (7.2), ``system/qtest.c`` (10.0).  Lines are not
intercepted: QEMU 11.1 does not pass on what it intercepts, and the trace shows as much.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ANSWER_TIMEOUT_S = 60.0
"""How long one answer may take before the QEMU counts as hung."""

_CHUNK = 64
"""Commands in flight: few enough that neither side's socket buffer can fill up."""

_PR_SET_PDEATHSIG = 1
_LOG_LINE = re.compile(r"\[([IRS]) [+\d.]+\] ?(.*)")


class QtestError(Exception):
    """QEMU refused a command, spoke nonsense or died."""


@dataclass(frozen=True)
class Reply:
    """What one command did."""

    value: int | None
    """The value that a read returned, or the clock."""
    trace: tuple[str, ...]
    """The trace events, ``name text`` each, in order."""


def die_with_parent(parent: int) -> None:
    """In a new child of ``parent``: be killed when it is gone (``preexec_fn``), or be gone too."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def system_qemu() -> Path | None:
    """The ``qemu-system-x86_64`` on the search path."""
    found = shutil.which("qemu-system-x86_64")
    return Path(found) if found else None


@dataclass
class Qtest:
    """A stopped machine and its qtest and QMP connections; a context manager.

    ``qemu`` is the command that starts QEMU (more than one word where a loader is needed),
    ``machine`` the ``-M`` argument, ``args`` further arguments, ``trace`` the patterns of the
    trace events to record, ``accel`` the ``-accel`` argument.
    """

    qemu: Sequence[str | Path]
    machine: str
    args: Sequence[str] = ()
    trace: Sequence[str] = ()
    accel: str = "tcg"
    _process: subprocess.Popen[bytes] = field(init=False, repr=False)

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        our_mon, their_mon = socket.socketpair()
        # Two descriptions of one file: QEMU's end appends, ours has a reading position.
        folder = tempfile.TemporaryDirectory(prefix="qtest-")
        log = Path(folder.name) / "stderr.log"
        log_writer = log.open("ab", buffering=0)
        self._log = log.open(errors="replace")
        self._partial_line = ""
        folder.cleanup()
        argv = [str(word) for word in self.qemu]
        argv += ["-M", self.machine, "-accel", self.accel, "-S", "-nodefaults", "-display", "none"]
        argv += ["-chardev", f"socket,id=qtest,fd={theirs.fileno()}", "-qtest", "chardev:qtest"]
        argv += ["-chardev", f"socket,id=mon,fd={their_mon.fileno()}"]
        argv += ["-mon", "chardev=mon,mode=control"]
        for pattern in self.trace:
            argv += ["-trace", pattern]
        argv += self.args
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log_writer,
                stderr=log_writer,
                pass_fds=(theirs.fileno(), their_mon.fileno()),
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        except BaseException:
            for resource in (ours, our_mon, self._log):
                resource.close()
            raise
        finally:
            for resource in (theirs, their_mon, log_writer):
                resource.close()
        self._socket, self._monitor = ours, our_mon
        self._answers = self._lines(ours)
        self._messages = self._lines(our_mon)
        try:
            self._message()  # the greeting
            self.qmp("qmp_capabilities")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End QEMU and everything that belongs to it."""
        self._process.kill()
        self._process.wait()
        for resource in (self._socket, self._monitor, self._log):
            resource.close()

    def run(self, commands: Iterable[str]) -> list[Reply]:
        """Run the commands in order; one :class:`Reply` each.

        Raises :class:`QtestError` where QEMU refuses a command or dies.
        """
        commands = list(commands)
        answers: list[int | None] = []
        for start in range(0, len(commands), _CHUNK):
            chunk = commands[start : start + _CHUNK]
            self._send(self._socket, "".join(f"{command}\n" for command in chunk))
            answers += [self._answer(command) for command in chunk]
        traces = self._traces()
        if len(traces) != len(commands):
            raise QtestError(f"{len(commands)} commands, {len(traces)} in the log")
        return [Reply(value, trace) for value, trace in zip(answers, traces, strict=True)]

    def run_until_traced(self, event: str) -> tuple[str, ...]:
        """Let the machine run until it has traced ``event``; the trace since the last command."""
        self.qmp("cont")
        trace: list[str] = []
        while not any(line.startswith(f"{event} ") for line in trace):
            self.qmp("query-status")  # a round trip a look
            trace += self._log_lines()
        self.qmp("stop")
        trace += self._log_lines()
        return tuple(trace)

    def qmp(self, command: str, **arguments: Any) -> Any:
        """The return value of one QMP command; events that come in between are dropped."""
        self._send(self._monitor, json.dumps({"execute": command, "arguments": arguments}))
        while True:
            message = self._message()
            if "error" in message:
                raise QtestError(f"{command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]

    def hmp(self, line: str) -> str:
        """The text that a command of the human monitor prints."""
        text: str = self.qmp("human-monitor-command", **{"command-line": line})
        return text.replace("\r", "")

    def devices(self, qom_type: str) -> list[str]:
        """The paths of the devices of that type that the board made, in the board's order."""
        folder = "/machine/unattached"
        names = [
            str(entry["name"])
            for entry in self.qmp("qom-list", path=folder)
            if entry["type"] == f"child<{qom_type}>"
        ]
        names.sort(key=lambda name: int(name[len("device[") : -1]))
        return [f"{folder}/{name}" for name in names]

    def _send(self, connection: socket.socket, text: str) -> None:
        try:
            connection.sendall(text.encode())
        except OSError as error:
            raise self._died() from error

    def _lines(self, connection: socket.socket) -> Iterator[str]:
        connection.settimeout(ANSWER_TIMEOUT_S)
        pending = b""
        while True:
            try:
                received = connection.recv(65536)
            except TimeoutError as error:
                raise QtestError(f"no answer in {ANSWER_TIMEOUT_S:g} s: {self.tail()}") from error
            if not received:
                raise self._died()
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                yield line.decode()

    def _message(self) -> Mapping[str, Any]:
        message: Mapping[str, Any] = json.loads(next(self._messages))
        return message

    def _answer(self, command: str) -> int | None:
        word, *rest = next(self._answers).split()
        if word != "OK":
            raise QtestError(f"{command!r}: {word} {' '.join(rest)}")
        return int(rest[0], 0) if rest else None

    def _traces(self) -> list[tuple[str, ...]]:
        """The trace lines of each command since the last call."""
        traces: list[list[str]] = []
        for line in self._log_lines():
            match = _LOG_LINE.match(line)
            if match is None:
                if traces:
                    traces[-1].append(line)
            elif match[1] == "R":
                traces.append([])
        return [tuple(trace) for trace in traces]

    def _log_lines(self) -> list[str]:
        """The complete lines since the last call: an answer is logged after it was sent."""
        *lines, self._partial_line = (self._partial_line + self._log.read()).split("\n")
        return lines

    def tail(self) -> str:
        """The last lines of QEMU's standard error."""
        self._log.seek(0)
        return " / ".join(self._log.read().splitlines()[-5:])

    def _died(self) -> QtestError:
        self._process.wait(ANSWER_TIMEOUT_S)
        return QtestError(f"QEMU ended ({self._process.returncode}): {self.tail()}")
