"""QEMU's trace events from its log (``-trace 'ioapic_*' -D FILE -msg timestamp=on``).

A line is ``THREAD@SECONDS.MICROSECONDS:EVENT TEXT`` on the wall clock, or ``EVENT TEXT`` without
``-msg timestamp=on`` (QEMU ``scripts/tracetool/backend/log.py``, the same in 7.2 and 10.0).  In
11.1 it is ``YYYY-MM-DDTHH:MM:SS.MICROSECONDSZ EVENT TEXT``: its threads have files of their own
(``-d tid``), which stand one after the other here, each after a line that says whose it is.  Other
things that QEMU logs to the same file are passed over.

With ``-d int`` TCG says there which interrupt a CPU takes, before 11.1 without thread or time: it
gets the time of the event after it, which is right in the order of the file (that of the event
before where its QEMU has traced none after), and the base of the CPU's task segment from the
registers that are printed next, which tells CPUs apart.  The registers of another CPU's exception
may come in between, and an event may follow the first piece of a dump.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from harness.backends.base import BOOT_LINE, THREAD_LINE, Session
from harness.model.case import Case
from harness.model.counters import CounterSource
from harness.model.layout import CaseDir
from harness.record.eventlog import Bodies, Body, LogReport, LogTally
from harness.record.recording import Recording
from userspace_chip.events import QEMU_EVENTS, VMM_EVENTS, Arg, Event

_STAMPED: Final = re.compile(r"(\d{1,10})@(\d{1,12})\.(\d{6}):(\w+ .*)\n", re.DOTALL)
_DATE: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{6})Z ")
"""Before each piece of a line that is logged by itself."""
_NAMED: Final = re.compile(r"[a-z]\w*_\w+ .*\n", re.DOTALL)
_ANOTHER: Final = re.compile(f"{re.escape(THREAD_LINE)}(\\d{{1,10}})\n|{re.escape(BOOT_LINE)}")
"""Before what another thread or QEMU has traced."""
_PLAIN: Final = re.compile(r"([a-z]\w+ .*)\n", re.DOTALL)
_ANYTHING_STAMPED: Final = re.compile(r"\d+@\d")
_TAKEN: Final = re.compile(r"Servicing hardware INT=0x([0-9a-f]{1,8})\n")
_TASK: Final = re.compile(r"TR =[0-9a-f]{4} ([0-9a-f]+) ")
_DUMP: Final = re.compile(
    r" *\d+: v=([0-9a-f]{2}) e=[0-9a-f]{4} i=\d cpl=\d IP=[0-9a-f]{4}:[0-9a-f]{16}"
    r" pc=[0-9a-f]{16} SP=[0-9a-f]{4}:[0-9a-f]{16}"
    r"(?: CR2=[0-9a-f]{16}| env->regs\[R_EAX\]=[0-9a-f]{16})?"
)
"""The pieces of a line before the registers of an exception (``do_interrupt_all``)."""


_LOGGED: Final = {**QEMU_EVENTS, **VMM_EVENTS}


class QemuLogReader:
    """Reads a log; :attr:`report` is complete when :meth:`events` has ended.

    ``offset_ns`` is added to every time: from the wall clock to the one that is wanted.
    ``vcpu_of_thread`` says which vCPU runs in which thread (QMP ``query-cpus-fast``).

    Without ``-msg timestamp=on`` there are no times: all are ``offset_ns``, and only the order of
    the lines is left.  Threads write past each other: see
    :func:`harness.record.collectors.merge.in_order`.
    """

    def __init__(
        self,
        *,
        offset_ns: int = 0,
        vcpu_of_thread: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self._offset_ns = offset_ns
        self._vcpus = {str(thread): vcpu for thread, vcpu in vcpu_of_thread.items()}
        self._tally = LogTally()
        self._bodies = Bodies(_LOGGED, self._tally)

    @property
    def report(self) -> LogReport:
        """What was read so far."""
        return self._tally.report()

    def events(self, lines: Iterable[str]) -> Iterator[Event]:
        """The events of ``lines``, which have their line ends as a text file gives them.

        Nothing is fatal: what cannot be read is counted in the report.
        """
        tally, taken = self._tally, _TakenInterrupts()
        bodies = self._bodies.seen
        latest_ns = self._offset_ns
        own_thread = ""
        for number, line in enumerate(lines, 1):
            tally.lines = number
            match = _STAMPED.fullmatch(line) or self._behind_dump(line)
            if match is not None:
                thread, seconds, microseconds, text = match.groups()
                time_ns = int(seconds + microseconds) * 1000 + self._offset_ns
                vcpu = self._vcpus.get(thread)
                traced = True
            elif (date := _DATE.match(line)) is not None:
                time_ns = _time_ns(date) + self._offset_ns
                line, vcpu = _DATE.sub("", line), self._vcpus.get(own_thread)
                if taken.is_about(line):
                    taken.read(line, time_ns)
                    continue
                if _NAMED.fullmatch(line) is None:
                    if not line.endswith("\n"):
                        tally.damage(number, line)
                    continue
                text, traced = line[:-1], True
            elif (whose := _ANOTHER.fullmatch(line)) is not None:
                own_thread = whose[1] or ""
                yield from self._taken(taken, latest_ns)
                continue
            elif taken.is_about(line):
                taken.read(line)
                continue
            else:
                text, time_ns, vcpu = line[:-1], self._offset_ns, None
                traced = _ANYTHING_STAMPED.match(line) is not None or _is_strange(line)
                if traced or _PLAIN.fullmatch(line) is None:
                    if traced or not line.endswith("\n"):
                        tally.damage(number, line)
                    continue
            body = bodies.get(text) or self._body(number, line, text, traced=traced)
            if body is not None:
                latest_ns = time_ns
                yield from self._taken(taken, time_ns)
                tally.events += 1
                yield Event(time_ns, "qemu", body[0], vcpu, body[1])
        yield from self._taken(taken, latest_ns)

    def _taken(self, taken: _TakenInterrupts, next_ns: int) -> Iterator[Event]:
        for time_ns, args in taken.all():
            self._tally.events += 1
            yield Event(next_ns if time_ns is None else time_ns, "qemu", "hardware_int", None, args)

    @staticmethod
    def _behind_dump(line: str) -> re.Match[str] | None:
        dump = _DUMP.match(line)
        return None if dump is None else _STAMPED.fullmatch(line, dump.end())

    def _body(self, number: int, line: str, text: str, *, traced: bool) -> Body | None:
        name, _, rest = text.partition(" ")
        if name not in _LOGGED:
            # Without a time in front, an unknown first word may be any message of QEMU's.
            if traced:
                self._tally.unknown_event(name)
            return None
        return self._bodies.parse(text, name, rest, number=number, line=line)


def _is_strange(line: str) -> bool:
    """Whether an event may follow something that this reader does not know."""
    return any(word in QEMU_EVENTS for word in line.split(" ", 3)[1:3])


def _time_ns(date: re.Match[str]) -> int:
    second, microseconds = date.groups()
    return _seconds(second) * 10**9 + int(microseconds) * 1000


@lru_cache(maxsize=16)
def _seconds(date: str) -> int:
    """Since the epoch; the date is UTC."""
    return int(datetime.fromisoformat(f"{date}+00:00").timestamp())


class _TakenInterrupts:
    """Interrupts that CPUs take, collected until the next event tells the time."""

    def __init__(self) -> None:
        self._known: list[tuple[int | None, tuple[Arg, ...]]] = []
        self._vector: int | None = None
        """The CPU's registers are waited for."""
        self._time_ns: int | None = None
        self._is_dumped = False
        """The next registers are this CPU's."""

    def is_about(self, line: str) -> bool:
        """Whether ``line`` tells of an interrupt that is taken."""
        return _TAKEN.search(line) is not None or (
            self._vector is not None and (line.startswith("TR =") or _DUMP.match(line) is not None)
        )

    def read(self, line: str, time_ns: int | None = None) -> None:
        """Take in a line that it :meth:`is_about`, and its time, if it has one."""
        if (match := _TAKEN.search(line)) is not None:
            self._end()
            self._vector, self._time_ns = int(match[1], 16), time_ns
        elif (dump := _DUMP.match(line)) is not None:
            self._is_dumped = self._vector == int(dump[1], 16)
            if not self._is_dumped:
                self._end()
        else:
            task = _TASK.match(line)
            self._end(task[1] if task is not None and self._is_dumped else "?")

    def _end(self, task: str = "?") -> None:
        if self._vector is not None:
            self._known.append((self._time_ns, (self._vector, task)))
        self._vector, self._is_dumped = None, False

    def all(self) -> list[tuple[int | None, tuple[Arg, ...]]]:
        """The time, where it is known, and fields of a hardware_int each; they are forgotten."""
        self._end()
        known, self._known = self._known, []
        return known


class QemuTrace:
    """QEMU's own trace, which it writes from its start to its end: its command line says so."""

    key = "qemu_trace"
    title = "QEMU trace"
    source: CounterSource = "qemu"
    event_types = QEMU_EVENTS
    has_marks = False
    is_ordered = False

    def file(self, folder: CaseDir) -> Path:
        """All boots of a case, one after the other."""
        return folder.qemu_trace

    def why_not(self, session: Session, case: Case) -> str | None:
        """There always is a log, if an empty one."""
        return None

    @contextlib.asynccontextmanager
    async def collecting(self, session: Session, case: Case) -> AsyncIterator[None]:
        """It comes with the guest, of whatever host: :meth:`RunningGuest.collect`."""
        yield None

    def reader(self, recording: Recording) -> QemuLogReader:
        """Knows the vCPUs by their threads."""
        return QemuLogReader(vcpu_of_thread=recording.vcpu_of_thread)
