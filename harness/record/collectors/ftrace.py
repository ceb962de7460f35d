"""The kernel's trace as text: the event streams ``trace`` and ``trace_pipe``.

The formats are those of Linux 6.1 and 6.12: ``kernel/trace/trace_output.c`` (trace_print_context)
and ``kernel/trace/trace.c`` (print_trace_line: lost events).  A line is
``COMM-PID [CPU] FLAGS SECONDS.MICROSECONDS: EVENT: TEXT``; the flags are missing with the option
irq-info off, and a thread group stands before the CPU with record-tgid on.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Final

from harness.backends.base import Session
from harness.base.text import LONG_NUMBER
from harness.guests.kinds.table import kind_of
from harness.model.case import Accel, Case, Host
from harness.model.counters import CounterSource
from harness.model.layout import CaseDir
from harness.record.collectors.tracefs import Trace, clock_offset_ns, tracing
from harness.record.eventlog import CACHE_SIZE, Bodies, Body, LogReport, LogTally
from harness.record.recording import Recording
from userspace_chip.events import KVM_EVENTS, Event, Source

MARK: Final = "tracing_mark_write"
"""The name under which a text shows that was written to ``trace_marker``."""

_HEAD: Final = re.compile(
    r"\s*(?P<comm>.*)-(?P<pid>\d+)\s+(?:\([\s\d-]+\)\s+)?\[\d+\](?:\s+[^\s:]+)?"
)
_LINE: Final = re.compile(
    r"(?P<who>.*?-\d+\s+(?:\([\s\d-]+\)\s+)?\[\d+\](?:\s+[^\s:]+)?)"
    r"\s+(?P<stamp>\d+\.\d{6}): (?P<body>.*\n)"
)
_VCPU: Final = re.compile(r"CPU (\d+)/KVM")
"""The name that QEMU gives to a vCPU's thread with ``-name debug-threads=on``
(QEMU accel/kvm/kvm-accel-ops.c: kvm_start_vcpu_thread)."""
_LOST: Final = re.compile(r"CPU:(\d+) \[LOST (?:(\d+) )?EVENTS\]\n")


class FtraceReader:
    """Reads a trace; :attr:`report` is complete when :meth:`events` has ended.

    ``offset_ns`` is added to every time: from the trace's clock to the one that is wanted.
    """

    def __init__(self, *, offset_ns: int = 0) -> None:
        self._offset_ns = offset_ns
        self._tally = LogTally()
        self._vcpus: dict[str, int | None] = {}
        self._bodies = Bodies(KVM_EVENTS, self._tally)
        self._losses: list[tuple[int, int]] = []

    @property
    def report(self) -> LogReport:
        """What was read so far."""
        return self._tally.report()

    def events(self, lines: Iterable[str]) -> Iterator[Event]:
        """The events of ``lines``, which have their line ends as a text file gives them.

        Nothing is fatal: what cannot be read is counted in the report.  A vCPU is known by its
        thread's name.  ``lost`` events get the time of the event after the gap.
        """
        tally = self._tally
        offset_ns = self._offset_ns
        vcpus, bodies = self._vcpus, self._bodies.seen
        number = given = time_ns = 0
        source: Source
        try:
            for number, line in enumerate(lines, 1):
                # Nearly every line was seen before, but for its time.
                try:
                    head, body = line.split(": ", 1)
                    who, stamp = head.rsplit(" ", 1)
                    vcpu = vcpus[who]
                    name, args = bodies[body]
                    if stamp[-7:-6] != ".":
                        raise ValueError
                    time_ns = int(stamp.replace(".", "")) * 1000 + offset_ns
                    source = "kvm"
                except (KeyError, ValueError):
                    parsed = self._parse(number, line)
                    if parsed is None:
                        continue
                    time_ns, vcpu, (name, args) = parsed
                    source = "harness" if name == "mark" else "kvm"
                if self._losses:
                    for event in self._lost(time_ns):
                        given += 1
                        yield event
                given += 1
                yield Event(time_ns, source, name, vcpu, args)
            for event in self._lost(time_ns):
                given += 1
                yield event
        finally:
            tally.lines, tally.events = number, given

    def _lost(self, time_ns: int) -> Iterator[Event]:
        for cpu, count in self._losses:
            yield Event(time_ns, "harness", "lost", None, (count, cpu))
        self._losses.clear()

    def _parse(self, number: int, line: str) -> tuple[int, int | None, Body] | None:
        """Time, vCPU, name and fields of an event's line; None for every other line."""
        if not line.endswith("\n"):
            self._tally.damage(number, line)
            return None
        if line.startswith("#") or line == "\n":
            return None
        if (lost := _LOST.fullmatch(line)) is not None and not LONG_NUMBER.search(line):
            count = int(lost[2] or 1)  # the kernel does not always know how many: at least one
            self._losses.append((int(lost[1]), count))
            self._tally.lost += count
            return None
        match = None if LONG_NUMBER.search(line) else _LINE.fullmatch(line)
        if match is None:
            self._tally.damage(number, line)
            return None
        body = self._body(number, line, match["body"])
        if body is None:
            return None
        stamp = int(match["stamp"].replace(".", "")) * 1000 + self._offset_ns
        return stamp, self._vcpu(line, match["who"]), body

    def _body(self, number: int, line: str, text: str) -> Body | None:
        if (known := self._bodies.seen.get(text)) is not None:
            return known
        name, _, rest = text[:-1].partition(": ")
        if name == MARK:
            return "mark", (rest,)
        if name not in KVM_EVENTS:
            self._tally.unknown_event(name)
            return None
        return self._bodies.parse(text, name, rest, number=number, line=line)

    def _vcpu(self, line: str, who: str) -> int | None:
        """The vCPU of the thread ``who``, kept as :meth:`events` will look it up."""
        match = _HEAD.fullmatch(who)
        thread = None if match is None else _VCPU.fullmatch(match["comm"])
        vcpu = None if thread is None else int(thread[1])
        key = line.split(": ", 1)[0].rpartition(" ")[0]  # padded, where the time is short
        if key.rstrip() == who:
            if len(self._vcpus) >= CACHE_SIZE:
                self._vcpus.clear()
            self._vcpus[key] = vcpu
        return vcpu


class KernelTrace:
    """The kernel's tracepoints of KVM."""

    key = "kernel_trace"
    title = "kernel trace"
    source: CounterSource = "kvm"
    event_types = KVM_EVENTS
    has_marks = True
    is_ordered = True

    def file(self, folder: CaseDir) -> Path:
        """A text, as tracefs gives it."""
        return folder.kernel_trace

    def why_not(self, session: Session, case: Case) -> str | None:
        """There has to be a KVM, whose tracefs can be used, and more than the guest says itself."""
        if (why := kind_of(case.guest).why_untraced) is not None:
            return why
        if case.backend.accel is not Accel.KVM:
            return "there is no KVM under TCG"
        if session.tracefs is None:
            return (
                "tracefs is not mounted at /sys/kernel/tracing, or may not be written "
                "(as root: mount -t tracefs nodev /sys/kernel/tracing)"
            )
        return None

    @contextlib.asynccontextmanager
    async def collecting(self, session: Session, case: Case) -> AsyncIterator[Trace]:
        """All that KVM traces; on this machine, of the guest's own tasks."""
        assert session.tracefs is not None
        is_shared = case.backend.host is Host.LOCAL
        async with tracing(session.files, session.tracefs, only_followed=is_shared) as trace:
            if is_shared:  # a lab's clock has no offset
                trace.clock_offset_ns = clock_offset_ns()
            yield trace

    def reader(self, recording: Recording) -> FtraceReader:
        """On the clock of QEMU's trace."""
        return FtraceReader(offset_ns=-recording.trace_clock_offset_ns)
