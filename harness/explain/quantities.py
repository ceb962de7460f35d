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
``thread/main``       what QEMU's main loop used of a CPU, in percent; ``thread/vcpu`` the vCPU that
                      used most
====================  ===========================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, TypeAlias, TypeVar

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
    Statistics,
    Threads,
    TraceTally,
)
from harness.record.collectors.procfs import InterruptLine

Unit: TypeAlias = Literal["a second", "percent", "times"]
K = TypeVar("K")

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
    evidence = list(evidence)
    for one in evidence:
        if isinstance(one.content, Snapshots):
            if not one.content.is_host:
                series += [(one.file, each) for each in one.content.snapshots]
        else:
            found += _of(one)
    found += _of_pairs(evidence)
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
    elif isinstance(content, Threads):
        yield from _of_threads(content, file)


def _of_threads(found: Threads, file: str) -> Iterator[Amount]:
    """The first thread of a process is its main one; vCPUs have a name where QEMU names threads."""
    main, *others = found.threads
    yield Amount("thread/main", main.percent, "percent", file, main.name)
    vcpus = [each for each in others if each.name.endswith("/KVM")]
    if vcpus:
        most = max(vcpus, key=lambda each: each.percent)
        yield Amount("thread/vcpu", most.percent, "percent", file, most.name)


# --- Totals at two times --------------------------------------------------------------------------


def _of_pairs(evidence: list[Evidence]) -> Iterator[Amount]:
    """Rates from totals that a collection has twice: of ``query-stats`` and of ``info irq``."""
    stats = [(e.file, e.content) for e in evidence if isinstance(e.content, Statistics)]
    for (_, one), (file, two) in pairwise(stats):
        if (span := _between(one.time_s, two.time_s)) is not None:
            for name, count in _grown(_summed(one), _summed(two)).items():
                if name in _STATISTICS:
                    yield Amount(_STATISTICS[name], count / span, "a second", file, name)
    texts = [(e.file, e.content) for e in evidence if isinstance(e.content, IrqTexts)]
    for (_, before), (file, after) in pairwise(texts):
        if (span := _between(before.time_s, after.time_s)) is not None:
            for gsi, count in _grown(_raised(before), _raised(after)).items():
                yield Amount(f"gsi/{gsi}/high", count / span, "a second", file, "info irq")


def _between(before_s: float | None, after_s: float | None) -> float | None:
    return after_s - before_s if before_s is not None and after_s and after_s > before_s else None


def _grown(before: Mapping[K, int], after: Mapping[K, int]) -> dict[K, int]:
    """By how much each has grown; nothing where one is less: another guest, or a reset."""
    grown = {key: count - before.get(key, 0) for key, count in after.items()}
    return grown if all(count >= 0 for count in grown.values()) else {}


def _summed(found: Statistics) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for vcpu in found.vcpus:
        total.update(vcpu)
    return total


def _raised(found: IrqTexts) -> Mapping[int, int]:
    """How often each line was raised, at the IOAPIC.

    KVM's own PIT raises GSI 0 past QEMU, which does not count it.
    """
    return {
        gsi: count
        for each in found.statistics
        if each.controller == "ioapic"
        for gsi, count in each.counts.items()
        if gsi or not each.provider.startswith("kvm-")
    }


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
    if "event/kvm_set_irq" in rates or "kvm_set_irq" in tally.traced:
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
    "exits": "exit/total",
}
"""KVM's statistics, of ``kvm_stat -d`` and ``query-stats``, that another source measures, too."""


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
