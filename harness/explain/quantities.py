"""Evidence as quantities with names: how often what happened, whoever counted it.

====================  ===========================================================================
``irq/ioapic/8``      the guest's interrupts of a pin; ``irq/pic/0``, ``irq/msi/virtio0-req.0``,
                      ``irq/LOC`` and the other kinds
``gsi/0/low``         calls that lower (``high``: raise) a GSI
``exit/halt``         exits by reason (:mod:`harness.record.collectors.foreign.exits`), and
                      ``exit/total``
``share/exit/halt``   the same in percent, where nothing says how long it took
``userspace/io``      exits to QEMU by reason
``event/kvm_set_irq`` tracepoints by name
``vector/236``        what vCPUs took, by vector
``log/nobody-cared``  messages of the kernel, a count
``state/...``         what a snapshot of registers shows, a count: ``remote-irr``, ``lint0-masked``
``balance/...``       two quantities of one trace against each other, in percent
====================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeAlias

from harness.record.collectors.foreign import exits
from harness.record.collectors.foreign.model import (
    EventCounts,
    Evidence,
    ExitTable,
    InterruptSnapshot,
    IrqTexts,
    KernelLog,
    LapicTexts,
    Registers,
    Snapshots,
    TraceTally,
)
from harness.record.collectors.procfs import InterruptLine

Unit: TypeAlias = Literal["a second", "percent", "times"]

MOST_COUNTS: Final = 100_000


@dataclass(frozen=True)
class Amount:
    """One measured thing: its name, how much, and in which file that is."""

    name: str
    value: float
    unit: Unit
    file: str
    detail: str = ""
    """What the file calls it, or where it was seen first."""


def quantities(evidence: Iterable[Evidence], *, seconds: float | None = None) -> list[Amount]:
    """All that ``evidence`` measures.

    Snapshots of ``/proc/interrupts`` in several files are one series, in the order of the files;
    ``seconds`` is between two snapshots that have no times.
    """
    found: list[Amount] = []
    series: list[tuple[str, InterruptSnapshot]] = []
    for one in evidence:
        if isinstance(one.content, Snapshots):
            if not one.content.is_host:
                series += [(one.file, each) for each in one.content.snapshots]
        else:
            found += _of(one)
    return found + list(_of_snapshots(series, seconds))


def _of(one: Evidence) -> Iterator[Amount]:
    content, file = one.content, one.file
    if isinstance(content, TraceTally):
        yield from _of_trace(content, file)
    elif isinstance(content, ExitTable):
        yield from _of_exits(content, file)
    elif isinstance(content, EventCounts):
        yield from _of_counts(content, file)
    elif isinstance(content, KernelLog):
        for sign in content.signs:
            yield Amount(f"log/{sign.sign}", sign.count, "times", file, sign.text)
    elif isinstance(content, Registers):
        for ioapic in content.pending.ioapics:
            if ioapic.remote_irr:
                pins = ", ".join(map(str, ioapic.remote_irr))
                count = len(ioapic.remote_irr)
                yield Amount("state/remote-irr", count, "times", file, f"pins {pins}")
    elif isinstance(content, LapicTexts):
        if content.lint0_masked:
            cpus = ", ".join(map(str, content.lint0_masked))
            count = len(content.lint0_masked)
            yield Amount("state/lint0-masked", count, "times", file, f"of CPU {cpus}")
    elif isinstance(content, IrqTexts):
        for each in content.statistics:
            for pin, number in each.counts.items():
                name = f"total/{each.controller}/{pin}"
                yield Amount(name, number, "times", file, "since the guest began")


def _of_trace(tally: TraceTally, file: str) -> Iterator[Amount]:
    if tally.duration_s <= 0:
        return
    rates: dict[str, float] = {}
    for (gsi, level), count in tally.lines.items():
        rates[f"gsi/{gsi}/{'high' if level else 'low'}"] = count
    for reason, count in tally.exits.items():
        rates[f"exit/{reason}"] = count
    if tally.exits:
        rates["exit/total"] = sum(tally.exits.values())
    for reason, count in tally.windows.items():
        rates[f"userspace/{reason}"] = count
    for vector, count in tally.vectors.items():
        rates[f"vector/{vector}"] = count
    for event, count in tally.events.items():
        rates[f"event/{event}"] = count
    if "event/kvm_set_irq" in rates:
        for gsi in (0, 8):  # the lines of clocks: that there is none is an answer
            for way in ("low", "high"):
                rates.setdefault(f"gsi/{gsi}/{way}", 0)
    for path, total in rates.items():
        yield Amount(path, total / tally.duration_s, "a second", file)


def _of_exits(table: ExitTable, file: str) -> Iterator[Amount]:
    total = sum(table.counts.values())
    if table.unit != "exit":
        for what, count in table.counts.items():
            yield Amount(f"share/{table.unit}/{what}", 100 * count / total, "percent", file)
        return
    for reason, count in table.counts.items():
        yield Amount(f"share/exit/{reason}", 100 * count / total, "percent", file)
        if table.duration_s:
            yield Amount(f"exit/{reason}", count / table.duration_s, "a second", file)
    if table.duration_s:
        yield Amount("exit/total", total / table.duration_s, "a second", file)


def _of_counts(found: EventCounts, file: str) -> Iterator[Amount]:
    """Events by name; ``kvm_exit(HLT`` of kvm_stat is an exit by its reason."""
    if not found.duration_s:
        return
    for name, count in list(found.counts.items())[:MOST_COUNTS]:
        event, parenthesis, reason = name.partition("(")
        if parenthesis and event == "kvm_exit":
            path = f"exit/{exits.canonical(reason.rstrip(')'))}"
        elif parenthesis and event == "kvm_userspace_exit":
            path = f"userspace/{reason.rstrip(')').lower()}"
        elif event == "kvm_exit" or name == "exits":
            path = "exit/total"
        elif event.startswith("kvm_"):
            path = f"event/{event}"
        elif name in _STATISTICS:
            path = _STATISTICS[name]
        else:
            continue
        yield Amount(path, count / found.duration_s, "a second", file, name)


_STATISTICS: Final = {
    "halt_exits": "exit/halt",
    "io_exits": "exit/io",
    "irq_exits": "exit/host-interrupt",
    "irq_window_exits": "exit/interrupt-window",
    "mmio_exits": "exit/mmio",
    "signal_exits": "userspace/restart",
    "irq_injections": "event/kvm_inj_virq",
}
"""KVM's statistics, of ``kvm_stat -d``, that are quantities of another source, too."""


# --- /proc/interrupts -----------------------------------------------------------------------------


def _of_snapshots(
    series: list[tuple[str, InterruptSnapshot]], seconds: float | None
) -> Iterator[Amount]:
    if len(series) < 2:
        return
    (_, first), (file, last) = series[0], series[-1]
    span = seconds * (len(series) - 1) if seconds is not None else _span(series)
    if not span:
        return
    before = {_name(line): line.total for line in first.lines}
    for line in last.lines:
        name = _name(line)
        grown = line.total - before.get(name, 0)
        if grown >= 0:
            yield Amount(name, grown / span, "a second", file, _detail(line))


def _span(series: list[tuple[str, InterruptSnapshot]]) -> float | None:
    times = [snapshot.time_s for _, snapshot in series]
    if any(time is None for time in times):
        return None
    known = [time for time in times if time is not None]
    rising = all(a < b for a, b in pairwise(known))
    return known[-1] - known[0] if rising else None


def _name(line: InterruptLine) -> str:
    key = line.key(None)
    if line.number is None:
        return f"irq/{line.irq}"
    return f"irq/{key.controller}/{key.name if key.controller == 'msi' else key.number}"


def _detail(line: InterruptLine) -> str:
    return f"IRQ {line.irq}: {', '.join(line.actions)}" if line.number is not None else ""
