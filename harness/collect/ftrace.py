"""The kernel's trace as text: event streams (``trace``, ``trace_pipe``) and hist triggers.

The formats are those of Linux 6.1 and 6.12: ``kernel/trace/trace_output.c`` (trace_print_context),
``kernel/trace/trace.c`` (print_trace_line: lost events), ``kernel/trace/trace_events_hist.c``
(hist_trigger_show).  A line is ``COMM-PID [CPU] FLAGS SECONDS.MICROSECONDS: EVENT: TEXT``; the
flags are missing with the option irq-info off, and a thread group stands before the CPU with
record-tgid on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from harness.counters import Counter, keys_of
from harness.errors import CollectError
from harness.eventlog import CACHE_SIZE, LogReport, LogTally
from userspace_chip.errors import EventError
from userspace_chip.events import KVM_EVENTS, Arg, Event, Source

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

_Body: TypeAlias = tuple[str, tuple[Arg, ...]]


class FtraceReader:
    """Reads a trace; :attr:`report` is complete when :meth:`events` has ended.

    ``offset_ns`` is added to every time: from the trace's clock to the one that is wanted.
    """

    def __init__(self, *, offset_ns: int = 0) -> None:
        self._offset_ns = offset_ns
        self._tally = LogTally()
        self._vcpus: dict[str, int | None] = {}
        self._bodies: dict[str, _Body] = {}
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
        vcpus, bodies = self._vcpus, self._bodies
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

    def _parse(self, number: int, line: str) -> tuple[int, int | None, _Body] | None:
        """Time, vCPU, name and fields of an event's line; None for every other line."""
        if not line.endswith("\n"):
            self._tally.damage(number, line)
            return None
        if line.startswith("#") or line == "\n":
            return None
        if (lost := _LOST.fullmatch(line)) is not None:
            count = int(lost[2] or 1)  # the kernel does not always know how many: at least one
            self._losses.append((int(lost[1]), count))
            self._tally.lost += count
            return None
        match = _LINE.fullmatch(line)
        if match is None:
            self._tally.damage(number, line)
            return None
        body = self._body(number, line, match["body"])
        if body is None:
            return None
        stamp = int(match["stamp"].replace(".", "")) * 1000 + self._offset_ns
        return stamp, self._vcpu(line, match["who"]), body

    def _body(self, number: int, line: str, text: str) -> _Body | None:
        if (known := self._bodies.get(text)) is not None:
            return known
        name, _, rest = text[:-1].partition(": ")
        if name == MARK:
            return "mark", (rest,)
        kind = KVM_EVENTS.get(name)
        if kind is None:
            self._tally.unknown_event(name)
            return None
        try:
            body = name, kind.parse(rest)
        except EventError:
            self._tally.damage(number, line)
            return None
        if len(self._bodies) >= CACHE_SIZE:
            self._bodies.clear()
        self._bodies[text] = body
        return body

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


# --- hist triggers ------------------------------------------------------------------------------


@dataclass(frozen=True)
class HistEntry:
    """One line of a histogram: its keys (numbers where they are), and how often."""

    keys: Mapping[str, int | str]
    hits: int


@dataclass(frozen=True)
class Hist:
    """One histogram.  ``dropped`` hits found no room in the table."""

    trigger: str
    entries: tuple[HistEntry, ...]
    hits: int
    dropped: int


_HIST_START: Final = "# event histogram"
_HIST_TRIGGER: Final = re.compile(r"# trigger info: (.*)")
_HIST_ENTRY: Final = re.compile(r"\{ (.*?) *\} hitcount: +(\d+)(?: .*)?")
_HIST_KEY: Final = re.compile(r"([\w.]+): *(.*)")
_HIST_TOTAL: Final = re.compile(r" *(Hits|Entries|Dropped): (\d+)")


def parse_hists(text: str) -> tuple[Hist, ...]:
    """The histograms of an event's ``hist`` file, one for each of its triggers.

    :class:`CollectError` for a line that is none of theirs, and for a file that was cut off.
    """
    return tuple(_hist(part) for part in text.split(_HIST_START)[1:])


def _hist(text: str) -> Hist:
    trigger = ""
    entries: list[HistEntry] = []
    totals: dict[str, int] = {}
    for line in text.splitlines():
        if (match := _HIST_ENTRY.fullmatch(line)) is not None:
            entries.append(HistEntry(_hist_keys(match[1]), int(match[2])))
        elif (match := _HIST_TOTAL.fullmatch(line)) is not None:
            totals[match[1]] = int(match[2])
        elif (match := _HIST_TRIGGER.fullmatch(line)) is not None:
            trigger = match[1]
        elif line.strip() not in ("", "#", "Totals:"):
            raise CollectError("a histogram cannot be read", f"found {line[:100]!r}")
    if totals.get("Entries") != len(entries):
        raise CollectError(
            "a histogram is not complete",
            f"{len(entries)} entries of {totals.get('Entries', 'an unknown number')}",
        )
    return Hist(trigger, tuple(entries), totals.get("Hits", 0), totals.get("Dropped", 0))


def _hist_keys(text: str) -> dict[str, int | str]:
    keys: dict[str, int | str] = {}
    for part in text.split(", "):
        match = _HIST_KEY.fullmatch(part.strip())
        if match is None:
            raise CollectError("a histogram's key cannot be read", f"found {text!r}")
        value = match[2].strip()
        keys[match[1]] = int(value) if value.isdecimal() else value
    return keys


_Raw: TypeAlias = Mapping[str, int | str]

_DELIVERY_MODES: Final = ("Fixed", "LowPrio", "SMI", "Res3", "NMI", "INIT", "SIPI", "ExtINT")
_IRQCHIPS: Final = ("PIC master", "PIC slave", "IOAPIC")


def _number(raw: _Raw, key: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int):
        raise KeyError(key)
    return value


def _same(raw: _Raw) -> dict[str, Arg]:
    return dict(raw)


def _ioapic_fields(raw: _Raw) -> dict[str, Arg]:
    entry = _number(raw, "e")
    return {
        "pin": _number(raw, "pin") if "pin" in raw else -1,
        "vector": entry & 0xFF,
        "masked": bool(entry >> 16 & 1),
        "coalesced": bool(raw.get("coalesced", 0)),
    }


def _eoi_fields(raw: _Raw) -> dict[str, Arg]:
    vector = _number(raw, "vector")
    return {"apicid": _number(raw, "apicid"), "vector": vector if vector < 256 else -1}


@dataclass(frozen=True)
class HistRecipe:
    """How an event is counted in the kernel: keys of its raw record, and how they become ours."""

    keys: tuple[str, ...]
    fields: Callable[[_Raw], dict[str, Arg]]

    @property
    def trigger(self) -> str:
        """What to write to the event's ``trigger`` file."""
        return f"hist:keys={','.join(self.keys)}:size=4096"


HIST_RECIPES: Final[Mapping[str, HistRecipe]] = {
    "kvm_set_irq": HistRecipe(("gsi", "level"), _same),
    "kvm_pic_set_irq": HistRecipe(
        ("chip", "pin", "coalesced"), lambda raw: {**raw, "coalesced": bool(raw["coalesced"])}
    ),
    "kvm_ioapic_set_irq": HistRecipe(("pin", "e", "coalesced"), _ioapic_fields),
    "kvm_ioapic_delayed_eoi_inj": HistRecipe(("e",), _ioapic_fields),
    "kvm_msi_set_irq": HistRecipe(("data",), lambda raw: {"vector": _number(raw, "data") & 0xFF}),
    "kvm_apic_accept_irq": HistRecipe(
        ("apicid", "vec"), lambda raw: {"apicid": raw["apicid"], "vector": raw["vec"]}
    ),
    "kvm_apicv_accept_irq": HistRecipe(
        ("apicid", "vec"), lambda raw: {"apicid": raw["apicid"], "vector": raw["vec"]}
    ),
    "kvm_apic_ipi": HistRecipe(
        ("icr_low",),
        lambda raw: {
            "vector": _number(raw, "icr_low") & 0xFF,
            "delivery_mode": _DELIVERY_MODES[_number(raw, "icr_low") >> 8 & 7],
        },
    ),
    "kvm_inj_virq": HistRecipe(
        ("vector", "soft", "reinjected"),
        lambda raw: {
            "vector": raw["vector"],
            "kind": "Soft/INTn" if raw["soft"] else "IRQ",
            "reinjected": bool(raw["reinjected"]),
        },
    ),
    "kvm_ack_irq": HistRecipe(
        ("irqchip", "pin"),
        lambda raw: {"irqchip": _IRQCHIPS[_number(raw, "irqchip")], "pin": raw["pin"]},
    ),
    "kvm_eoi": HistRecipe(("apicid", "vector"), _eoi_fields),
    "kvm_pv_eoi": HistRecipe(("apicid", "vector"), _eoi_fields),
}
"""Three keys a histogram at most (Linux kernel/trace/tracing_map.h: TRACING_MAP_KEYS_MAX)."""


def count_hist(event: str, hist: Hist) -> list[Counter]:
    """The counters of a histogram that the recipe of ``event`` made."""
    recipe = HIST_RECIPES[event]
    try:
        return [
            Counter(key, entry.hits)
            for entry in hist.entries
            for key in keys_of(event, recipe.fields(entry.keys), "kvm")
        ]
    except (KeyError, IndexError) as error:
        raise CollectError(
            f"not a histogram of {event} with keys {', '.join(recipe.keys)}", repr(error)
        ) from None
