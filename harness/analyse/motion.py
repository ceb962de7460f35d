"""Whether a guest whose time was up still moved: from two looks at it, a second apart.

A CPU sleeps where QEMU shows it halted, and spins where it is at the same few instructions with
the same registers.  What KVM counts comes from ``query-stats`` (Linux ``arch/x86/kvm/x86.c``:
kvm_vcpu_stats_desc), what QEMU's chips did from its trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.analyse.ruling import Ruling
from harness.base.errors import CollectError
from harness.model.counters import EventTally
from harness.model.verdict import Blame, Verdict
from harness.record.collectors.monitor import vcpu_stats
from harness.record.recording import LastLook
from userspace_chip.errors import StateError
from userspace_chip.events import Event
from userspace_chip.info_lapic import InfoLapic, parse_lapic
from userspace_chip.lapic_registers import ICR, LVT_TIMER, MASKED
from userspace_chip.messages import DeliveryMode

LOOP_BYTES: Final = 64
"""Instructions so near to each other are a loop."""
MAX_CPUS: Final = 4
"""At most this many are listed one by one."""

_IF: Final = 0x200
_ARITHMETIC: Final = 0x8D5
"""The flags that a comparison sets, which a loop may do over and over."""
_RESET_VECTOR: Final = 0xFFFF_FFF0
_GUEST_EXITS: Final = ("io_exits", "mmio_exits", "halt_exits", "hypercalls")
"""Exits that only the guest itself causes; a host's tick is an exit of any CPU."""


@dataclass(frozen=True)
class CpuRegisters:
    """What ``info registers`` says of a CPU; ``registers`` are the general ones, by name."""

    registers: Mapping[str, int]
    ip: int
    flags: int
    halted: bool

    @property
    def interrupts_on(self) -> bool:
        """Whether it would take an interrupt (RFLAGS.IF)."""
        return bool(self.flags & _IF)

    @property
    def waits_for_start(self) -> bool:
        """Whether no other CPU has started it yet: it is halted where a reset leaves it."""
        return self.halted and self.ip == _RESET_VECTOR


_CPU: Final = re.compile(r"CPU#\d+\s")
_GENERAL: Final = re.compile(r"\b([ER](?:[ABCD]X|SI|DI|BP|SP)|R\d+) *=([0-9a-f]+)")
_IP: Final = re.compile(r"\b[ER]IP=([0-9a-f]+) [ER]FL=([0-9a-f]+)")
_CODE_BASE: Final = re.compile(r"^CS =[0-9a-f]+ ([0-9a-f]+)", re.MULTILINE)
_HALTED: Final = re.compile(r"\bHLT=([01])")


def cpus(text: str) -> tuple[CpuRegisters, ...]:
    """The CPUs in a text of ``info registers -a``, as far as it can be read.

    QEMU ``target/i386/cpu-dump.c:x86_cpu_dump_state``, the same in 7.2 and 10.0.
    """
    found = []
    for part in _CPU.split(text.replace("\r", ""))[1:]:
        place, base = _IP.search(part), _CODE_BASE.search(part)
        halted = _HALTED.search(part)
        if place is None or base is None or halted is None:
            return ()
        registers = {name: int(value, 16) for name, value in _GENERAL.findall(part)}
        ip = int(base[1], 16) + int(place[1], 16)
        found.append(CpuRegisters(registers, ip, int(place[2], 16), halted[1] == "1"))
    return tuple(found)


class Tail:
    """What a trace has between the looks."""

    def __init__(self, looks: Sequence[LastLook]) -> None:
        self._begin_ns = looks[0].time_ns if looks else None
        self._end_ns = looks[-1].time_ns if looks else 0
        self._tally = EventTally()
        self._nmis = 0

    def add(self, event: Event) -> None:
        """Take ``event`` into account, if it is of that time."""
        if self._begin_ns is None or not self._begin_ns <= event.time_ns <= self._end_ns:
            return
        self._tally.add(event)
        self._nmis += _is_nmi(event)

    def counts(self) -> dict[str, int]:
        """By what they are called: how many there were."""
        accepted = sum(
            counter.value
            for counter in self._tally.counters()
            if counter.key.stage == "accepted" and counter.key.controller == "lapic"
        )
        counts = {"NMIs": self._nmis, "interrupts": accepted}
        return {name: count for name, count in counts.items() if count}


def _is_nmi(event: Event) -> bool:
    """Whether it is a CPU's sending of an NMI through QEMU's LAPIC."""
    if event.name != "apic_mem_writel":
        return False
    address, value = event.args[:2]
    is_icr = int(address) & 0xFF0 == ICR
    return is_icr and int(value) >> 8 & 7 == DeliveryMode.NMI


def assess(looks: Sequence[LastLook], traced: Mapping[str, int], timeout_s: float) -> Ruling:
    """``timeout`` for a guest that moved from look to look, and how fast; else ``hang``, and why.

    ``traced`` are counts of the time between, by what is counted.
    """
    first, last = looks[0], looks[-1]
    if last.status != "running":
        why = f"QEMU has stopped the guest: it is in state {last.status!r}"
        return Ruling(Verdict.HANG, why)
    seconds = max((last.time_ns - first.time_ns) / 1e9, 1e-3)
    rates = _rates(first, last, traced, seconds)
    states = _states(first, last)
    moving = [number for number, state in enumerate(states) if state.moves]
    if not rates and not moving:
        said = "; ".join(f"CPU {number} {state.text}" for number, state in _told(states))
        more = f"; and {len(states) - MAX_CPUS} more CPUs" if len(states) > MAX_CPUS else ""
        is_chips = any(state.blame is Blame.IRQCHIP for state in states)
        return Ruling(
            Verdict.HANG,
            f"nothing moves: {said}{more}" if said else "nothing moves",
            Blame.IRQCHIP if is_chips else None,
        )
    parts = [_joined(rates) + " a second"] if rates else []
    parts += [f"CPU {number} {states[number].text}" for number in moving[: 0 if rates else 1]]
    stuck = [f"CPU {n} {state.text}" for n, state in _told(states) if state.stuck]
    return Ruling(
        Verdict.TIMEOUT,
        f"still running: {', '.join(parts)}; more time with timeout_s (it has {timeout_s:g})"
        + "".join(f"; {text}" for text in stuck),
    )


@dataclass(frozen=True)
class _State:
    """What a CPU does, as the end of a sentence that it begins."""

    text: str
    moves: bool = False
    stuck: bool = False
    """Whether no interrupt can change that."""
    blame: Blame | None = None


def _told(states: Sequence[_State]) -> Iterable[tuple[int, _State]]:
    return enumerate(states[:MAX_CPUS])


def _states(first: LastLook, last: LastLook) -> list[_State]:
    before, after = cpus(first.registers), cpus(last.registers)
    lapics = [_lapic(text) for text in last.lapics]
    lapics += [None] * (len(after) - len(lapics))
    return [_state(a, b, lapic) for a, b, lapic in zip(before, after, lapics, strict=False)]


def _lapic(text: str) -> InfoLapic | None:
    try:
        return parse_lapic(text.replace("\r", ""))
    except StateError:
        return None


def _state(before: CpuRegisters, after: CpuRegisters, lapic: InfoLapic | None) -> _State:
    if after.waits_for_start:
        return _State("waits to be started")
    if before.halted and after.halted and before.ip == after.ip:
        return _asleep(after, lapic)
    on = "on" if after.interrupts_on else "off"
    if not _same_work(before, after):
        where = f"{before.ip:#x}" + (f" and then at {after.ip:#x}" if after.ip != before.ip else "")
        return _State(f"runs at {where}", moves=True)
    pending = f", {_pending(lapic)}" if after.interrupts_on and lapic is not None else ""
    text = f"spins at {after.ip:#x} with interrupts {on}{pending}"
    return _State(text, stuck=not after.interrupts_on)


def _same_work(before: CpuRegisters, after: CpuRegisters) -> bool:
    return (
        before.registers == after.registers
        and abs(before.ip - after.ip) < LOOP_BYTES
        and not (before.flags ^ after.flags) & ~_ARITHMETIC
        and before.halted == after.halted
    )


def _asleep(cpu: CpuRegisters, lapic: InfoLapic | None) -> _State:
    if not cpu.interrupts_on:
        return _State("sleeps with interrupts off: only an NMI could wake it", stuck=True)
    asleep = "sleeps with interrupts on"
    if lapic is None:
        return _State(asleep)
    state = lapic.state
    highest = state.irr.bit_length() - 1
    if highest >= 0 and highest >> 4 > state.ppr >> 4 and state.spiv & 0x100:
        return _State(f"{asleep}, and {_pending(lapic)} should wake it", blame=Blame.IRQCHIP)
    if state.tmict and lapic.current_count and not state.lvt[LVT_TIMER] & MASKED:
        return _State(f"{asleep} until its timer ends", moves=True)
    return _State(f"{asleep}, {_pending(lapic)}: nothing can wake it")


def _pending(lapic: InfoLapic) -> str:
    state = lapic.state
    highest = state.irr.bit_length() - 1
    irr = "empty" if highest < 0 else f"{highest:#04x}"
    return f"IRR {irr}, PPR {state.ppr:#04x}"


# --- rates --------------------------------------------------------------------------------------


def _rates(
    first: LastLook, last: LastLook, traced: Mapping[str, int], seconds: float
) -> dict[str, int]:
    """What happened in a second, by what it is called; what did not is not there."""
    counted = _counted(first, last) or dict(traced)
    printed = last.console_bytes - first.console_bytes
    counted["console characters"] = printed
    rates = {name: round(count / seconds) for name, count in counted.items()}
    return {name: max(rate, 1) for name, rate in rates.items() if counted[name] > 0}


def _counted(first: LastLook, last: LastLook) -> dict[str, int]:
    """What KVM counted between the looks, of all CPUs; nothing where it does not count."""
    try:
        before, after = vcpu_stats(first.stats), vcpu_stats(last.stats)
    except CollectError:
        return {}

    def grown(*names: str) -> int:
        return sum(
            stats.get(name, 0) - old.get(name, 0)
            for old, stats in zip(before, after, strict=False)
            for name in names
        )

    if not after:
        return {}
    return {
        "NMIs": grown("nmi_injections"),
        "interrupts": grown("irq_injections"),
        "exits": grown(*_GUEST_EXITS),
    }


def _joined(rates: Mapping[str, int]) -> str:
    words = [f"{rate} {name}" for name, rate in rates.items()]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
