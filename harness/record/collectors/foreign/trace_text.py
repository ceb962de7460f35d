"""A trace as text, whoever printed it: tracefs, ``trace-cmd report`` or ``perf script``.

Each line becomes one of tracefs' own (:mod:`~harness.record.collectors.ftrace`), and one pass both
counts and keeps the books.  Formats: Linux ``kernel/trace/trace_output.c``,
trace-cmd ``tracecmd/trace-read.c`` with libtraceevent, ``tools/perf/builtin-script.c``.

A trace may have hundreds of millions of events: nothing is kept but sums.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from harness.base.errors import CollectError
from harness.base.text import LONG_NUMBER
from harness.ledger.bookkeeper import Bookkeeper
from harness.ledger.ledger import Ledger
from harness.model.case import Irqchip
from harness.record.collectors.foreign import exits
from harness.record.collectors.foreign.model import Evidence, FileKind, TraceTally
from harness.record.collectors.ftrace import FtraceReader
from userspace_chip.events import KVM_EVENTS

_LINE: Final = re.compile(
    r"\s*(?P<comm>\S.*?)(?P<dash>-|\s+)(?P<pid>\d{1,10})(?:/\d+)?\s+(?:\([\s\d-]+\)\s+)?"
    r"\[(?P<cpu>\d{1,6})\]\s+(?:[^\s:]+\s+)?(?P<seconds>\d{1,12})\.(?P<fraction>\d{6,9}):\s+"
    r"(?:(?:\d+\s+)?kvm:)?(?P<event>[a-z]\w*):\s*(?P<text>.*)"
)
"""Any of the three; perf puts blanks before a pid and ``kvm:`` before the event."""
_VCPU: Final = re.compile(r"vcpu (\d{1,6})\b")
_REASON: Final = re.compile(r"\breason (?:EXIT_REASON_|SVM_EXIT_)?([A-Za-z]\w*|0x[0-9a-f]+)")
_LOST: Final = re.compile(r"CPU:\d+ \[LOST (?:(\d{1,15}) )?EVENTS\]|(\d{1,15}) events lost")
_THREAD: Final = re.compile(r"CPU (\d{1,6})/KVM")

EVENTS: Final = "# irqmatrix: traced"
"""Before the names of all events that were traced: what of them is not there did not happen."""
_KEPT: Final = re.compile(
    r"# entries-in-buffer/entries-written: (\d{1,15})/(\d{1,15})\s+#P:(\d{1,6})"
)
"""tracefs, about a buffer that kept its end: of several CPUs each begins at another time."""
_MOST_SEEN: Final = 1 << 16
"""Texts that are remembered; then they are counted away."""
_MOST_THREADS: Final = 4096
_STAMP: Final = 22
"""Characters of a time."""
_LONGEST: Final = 4000
"""Characters of the list of what was traced."""
_SHOWN: Final = 4
"""Examples of what was not understood."""


def is_trace_line(line: str) -> bool:
    """Whether ``line`` is an event of a trace."""
    return LONG_NUMBER.search(line) is None and _LINE.fullmatch(line.rstrip("\r\n")) is not None


@dataclass
class _Sums:
    """The sums of a trace in the making."""

    events: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    windows: Counter[str] = field(default_factory=Counter)
    lines: Counter[tuple[int, int]] = field(default_factory=Counter)
    pins: Counter[int] = field(default_factory=Counter)
    pin_vectors: dict[int, int] = field(default_factory=dict)
    messages: Counter[int] = field(default_factory=Counter)
    vectors: Counter[int] = field(default_factory=Counter)

    def add(self, body: str, count: int) -> None:
        """``count`` events with the text ``body``: its name, a colon, its fields."""
        name, _, text = body.partition(":")
        name = name.strip()
        self.events[name] += count
        if name in ("kvm_exit", "kvm_userspace_exit"):
            reason = _REASON.search(text)
            if reason is not None:
                if name == "kvm_exit":
                    self.exits[exits.canonical(reason[1])] += count
                else:
                    self.windows[reason[1].removeprefix("KVM_EXIT_").lower()] += count
        elif name in _NUMBERS and (numbers := _NUMBERS[name].search(text)) is not None:
            self._number(name, numbers, count)

    def _number(self, name: str, numbers: re.Match[str], count: int) -> None:
        if name == "kvm_set_irq":
            self.lines[int(numbers[1]), min(int(numbers[2]), 1)] += count
        elif name == "kvm_ioapic_set_irq":
            self.pins[int(numbers[1])] += count
            self.pin_vectors[int(numbers[1])] = int(numbers[2])
        elif name == "kvm_msi_set_irq":
            self.messages[int(numbers[1])] += count
        else:
            self.vectors[int(numbers[1], 16)] += count


_NUMBERS: Final = {
    "kvm_set_irq": re.compile(r"gsi (\d{1,5}) level (\d)"),
    "kvm_ioapic_set_irq": re.compile(r"pin (\d{1,3}) .*?vec (\d{1,3})\b"),
    "kvm_msi_set_irq": re.compile(r"vec (\d{1,3})\b"),
    "kvm_inj_virq": re.compile(r"0x([0-9a-f]{1,2})\b"),
}


class _Threads:
    """Which vCPU each thread runs: by its name, or by what KVM says as it enters and leaves."""

    def __init__(self) -> None:
        self.vcpu_of: dict[str, int] = {}
        self.pids: dict[int, set[str]] = {}

    def learn(self, pid: str, comm: str, text: str, name: str) -> int | None:
        """The vCPU of thread ``pid``, from one of its events."""
        known = self.vcpu_of.get(pid)
        if known is not None:
            return known
        match = _THREAD.fullmatch(comm.strip())
        if match is None and name in ("kvm_exit", "kvm_entry"):
            match = _VCPU.search(text)
        if match is None or len(self.vcpu_of) >= _MOST_THREADS:
            return None
        vcpu = self.vcpu_of[pid] = int(match[1])
        self.pids.setdefault(vcpu, set()).add(pid)
        return vcpu

    @property
    def guests(self) -> int:
        """How many VMs there are at least."""
        return max((len(pids) for pids in self.pids.values()), default=0)


class TraceReader:
    """Reads the lines of one trace, once.

    With ``irqchip`` the books are kept, of the first ``most`` of its events where that is given.
    """

    def __init__(
        self, name: str, *, irqchip: Irqchip | None = None, smp: int = 1, most: int | None = None
    ) -> None:
        self._name = name
        self._irqchip = irqchip
        self._smp = smp
        self._most = most
        self._sums = _Sums()
        self._threads = _Threads()
        self._seen: dict[str, int] = {}
        self._bodies: dict[str, str | None] = {}
        self._whos: dict[str, tuple[str, int | None]] = {}
        self._cpus: Counter[int | None] = Counter()
        self._times: tuple[float, float] | None = None
        self._lost = 0
        self._traced: frozenset[str] = frozenset()
        self._lines = 0
        self._odd: list[str] = []
        self._odd_count = 0

    def read(self, lines: Iterable[str]) -> Evidence:
        """The whole trace; :class:`CollectError` where there is no event in it."""
        if self._irqchip is None:
            for _ in self._normal(lines, with_events=False):
                pass
            return self._evidence(None, "the irqchip mode is not known, and the laws depend on it")
        books = Bookkeeper(self._irqchip, smp=self._smp, ioapics=1)
        reader = FtraceReader()
        normal = self._normal(lines, with_events=True)
        part = normal if self._most is None else itertools.islice(normal, self._most)
        for event in reader.events(part):
            books.add(event)
        rest = sum(1 for _ in normal)
        report = reader.report
        for example in report.examples:
            self._complain(example.text.partition(": ")[2])
        if self._threads.guests > 1:
            return self._evidence(None, "there is more than one VM in the trace")
        damage = None
        if self._lost or report.damaged:
            damage = f"{self._lost} events were lost, {report.damaged} not understood"
        why = f"of its first {self._most} events; {rest} more were only counted" if rest else ""
        return self._evidence(books.close(damage=damage, handled={}), why)

    def _normal(self, lines: Iterable[str], *, with_events: bool) -> Iterator[str]:
        """Count each event; with ``with_events`` give those of the books as tracefs prints them."""
        seen, bodies, whos, cpus = self._seen, self._bodies, self._whos, self._cpus
        first = stamp = ""
        number = 0
        for line in lines:
            number += 1
            # Most lines are like others but for their time: what is around it is looked up.
            head, _, tail = line.partition(": ")
            who, _, stamp_here = head.rpartition(" ")
            try:
                if len(stamp_here) > _STAMP or not stamp_here.replace(".", "", 1).isdecimal():
                    raise KeyError(stamp_here)
                thread, vcpu = whos[who]
                body = bodies[tail]
                seen[tail] += 1
            except KeyError:
                parsed = self._parsed(line, who, tail)
                if parsed is None:
                    continue
                (thread, vcpu), body, stamp_here = parsed
            cpus[vcpu] += 1
            stamp = stamp_here
            first = first or stamp
            if with_events and body is not None:
                yield f"{thread} {stamp[: stamp.find('.') + 7]}: {body}\n"
        self._lines = number
        self._forget()
        if first:
            self._times = float(first), float(stamp)

    def _parsed(
        self, line: str, who: str, tail: str
    ) -> tuple[tuple[str, int | None], str | None, str] | None:
        """Thread, text and time of a line that is not like another; None where it is no event.

        The text is None for an event that the books do not need.
        """
        text = line.rstrip("\r\n")
        match = None if LONG_NUMBER.search(text) else _LINE.fullmatch(text)
        if match is None:
            self._no_event(text)
            return None
        name = match["event"]
        body = f"{name}: {match['text']}"
        vcpu = self._threads.learn(match["pid"], match["comm"], match["text"], name)
        thread = match["comm"].strip() if vcpu is None else f"CPU {vcpu}/KVM"
        found = f"{thread}-{match['pid']} [{match['cpu']}]", vcpu
        known = body if name in KVM_EVENTS else None
        if len(self._seen) >= _MOST_SEEN or len(self._whos) >= _MOST_SEEN:
            self._forget()
        if vcpu is not None or name not in ("kvm_exit", "kvm_entry"):
            self._whos[who] = found
        self._bodies[tail] = known
        self._seen[tail] = self._seen.get(tail, 0) + 1
        return found, known, f"{match['seconds']}.{match['fraction']}"

    def _forget(self) -> None:
        """Add up what was seen, and make room."""
        for tail, count in self._seen.items():
            self._sums.add(tail.strip().removeprefix("kvm:"), count)
        self._seen.clear()
        self._bodies.clear()
        self._whos.clear()

    def _no_event(self, line: str) -> None:
        lost = _LOST.search(line[:200])
        if lost is not None:
            self._lost += int(lost[1] or lost[2] or 1)
        elif line.startswith(EVENTS):
            self._traced = frozenset(line[:_LONGEST].removeprefix(EVENTS).split())
        elif (kept := _KEPT.fullmatch(line.rstrip())) is not None and int(kept[3]) > 1:
            self._lost += max(int(kept[2]) - int(kept[1]), 0)
        elif line.strip() and not line.startswith(("#", "cpus=", "version = ")):
            self._complain(line)

    def _complain(self, line: str) -> None:
        self._odd_count += 1
        if len(self._odd) < _SHOWN:
            self._odd.append(f"not understood: {line.strip()[:120]!r}")

    def _evidence(self, ledger: Ledger | None, why: str) -> Evidence:
        is_empty = self._times is None or not self._sums.events
        if is_empty and not self._traced:
            raise CollectError(
                f"{self._name}: no event of a trace in it", self._odd[0] if self._odd else None
            )
        notes = [*(["nothing that was traced happened"] if is_empty else []), *self._odd]
        first_s, last_s = self._times or (0.0, 0.0)
        if self._odd_count > len(self._odd):
            notes.append(f"and {self._odd_count - len(self._odd)} lines more")
        if self._lost:
            notes.append(f"{self._lost} events were lost: counts are lower bounds")
        sums = self._sums
        tally = TraceTally(
            duration_s=max(last_s - first_s, 0.0),
            events=dict(sums.events),
            exits=dict(sums.exits),
            windows=dict(sums.windows),
            lines=dict(sums.lines),
            pins=dict(sums.pins),
            pin_vectors=sums.pin_vectors,
            messages=dict(sums.messages),
            vectors=dict(sums.vectors),
            cpus={cpu: count for cpu, count in self._cpus.items() if cpu is not None},
            guests=self._threads.guests,
            lost=self._lost,
            traced=self._traced,
            lines_read=self._lines,
            ledger=ledger,
            ledger_why=why,
        )
        return Evidence(self._name, FileKind.TRACE, tally, tuple(notes))
