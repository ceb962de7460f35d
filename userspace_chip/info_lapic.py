"""The text of the monitor's ``info lapic``, both ways: a recorded state loads and prints the same.

QEMU ``target/i386/cpu-dump.c:x86_cpu_dump_local_apic_state``, the same in 7.2 and 10.0.  In ``on``
and ``split`` the registers come from KVM_GET_LAPIC; the current count is computed by QEMU's own
formula in every mode.

The text does not tell everything: of DFR the model, of LDR 8 bits, of TMR the bits of pending
vectors, and neither the APIC base nor the id.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from userspace_chip.bits import bits, mask
from userspace_chip.errors import StateError
from userspace_chip.lapic_registers import LVT_NAMES, MASKED
from userspace_chip.lapic_state import LapicState
from userspace_chip.lapic_timer import divide_count
from userspace_chip.messages import DeliveryMode

_LVTS: Final = {
    name: LVT_NAMES.index(name) for name in ("LVT0", "LVT1", "LVTPC", "LVTERR", "LVTTHMR", "LVTT")
}
"""Places, in the order of the text."""
_MODES: Final = ("Fixed", "...", "SMI", "...", "NMI", "INIT", "...", "ExtINT")
_SHORTHANDS: Final = ("no-shorthand", "self", "all-self", "all")


@dataclass
class InfoLapic:
    """What the text tells.  ``x2apic`` is the CPUID bit, not the mode; ``apr`` register 0x90."""

    cpu: int = 0
    state: LapicState = field(default_factory=LapicState)
    x2apic: bool = False
    current_count: int = 0
    apr: int = 0


def format_lapic(info: InfoLapic) -> str:
    """The whole text, as the monitor prints it."""
    state = info.state
    lines = [f"dumping local APIC state for CPU {info.cpu:<2}\n"]
    lines += [_format_lvt(name, state.lvt[lvt]) for name, lvt in _LVTS.items()]
    lines.append(
        f"Timer\t DCR={state.tdcr & 0xB:#x} (divide by {divide_count(state.tdcr)}) "
        f"initial_count = {state.tmict} current_count = {info.current_count}"
    )
    spiv = state.spiv
    lines.append(
        f"SPIV\t 0x{spiv:08x} APIC {'enabled' if spiv & 0x100 else 'disabled'}, "
        f"focus={'on' if spiv & 0x200 else 'off'}, spurious vec {spiv & 0xFF}"
    )
    lines += [_format_icr(state.icr), _format_icr2(info)]
    # With a DFR that is neither model QEMU forgets the line's end.
    lines[-1:] = [lines[-1] + ("\n" if _has_line_end(state) else "") + f"ESR\t 0x{state.esr:08x}"]
    lines += [_format_vectors("ISR", state.isr, state.tmr)]
    lines += [_format_vectors("IRR", state.irr, state.tmr)]
    return "\n".join([*lines, "", _format_priorities(info)]) + "\n"


def _format_lvt(name: str, value: int) -> str:
    mode = value >> 8 & 7
    timer = "periodic" if value & 0x20000 else "tsc-deadline" if value & 0x40000 else "one-shot"
    text = (
        f"{name}\t 0x{value:08x} active-{'lo' if value & 0x2000 else 'hi'} "
        f"{'level' if value & 0x8000 else 'edge':<5} {'masked' if value & MASKED else '':<6} "
        f"{'pending' if value & 0x1000 else '':<7} {timer if name == 'LVTT' else '':<12} "
        f"{_MODES[mode]:<6}"
    )
    return text if mode == DeliveryMode.NMI else f"{text} (vec {value & 0xFF})"


def _format_icr(icr: int) -> str:
    return (
        f"ICR\t 0x{icr:08x} {'logical' if icr & 0x800 else 'physical'} "
        f"{'level' if icr & 0x8000 else 'edge'} {'assert' if icr & 0x4000 else 'de-assert'} "
        f"{_SHORTHANDS[icr >> 18 & 3]}"
    )


def _has_line_end(state: LapicState) -> bool:
    plain = state.icr >> 18 & 3 or not state.icr & 0x800
    return bool(plain) or state.dfr >> 28 in (0, 0xF)


def _format_icr2(info: InfoLapic) -> str:
    state = info.state
    text = f"ICR2\t 0x{state.icr2:08x}"
    if state.icr >> 18 & 3:
        return text
    name = "X2APIC ID" if info.x2apic else "APIC ID"
    dest = state.icr2 if info.x2apic else state.icr2 >> 24
    if not state.icr & 0x800:
        # 4 bits of an xAPIC id
        return f"{text} cpu {dest if info.x2apic else dest & 0xF} ({name})"
    if state.dfr >> 28 == 0xF:
        return f"{text} mask {state.icr2 >> 24:08b} (APIC ID)"
    if state.dfr >> 28:
        return text
    if info.x2apic:
        return f"{text} cluster {dest >> 16} mask {dest & 0xFFFF:016b} ({name})"
    return f"{text} cluster {dest >> 4} mask {dest & 0xF:04b} ({name})"


def _format_vectors(name: str, bitmap: int, tmr: int) -> str:
    vectors = "".join(f"{v}{'(level)' if tmr >> v & 1 else ''} " for v in bits(bitmap))
    return f"{name}\t {vectors or '(none)'}"


def _format_priorities(info: InfoLapic) -> str:
    state = info.state
    ldr = state.ldr >> 24
    cluster = "" if state.dfr >> 28 else f"(cluster {ldr >> 4}: id {ldr & 0xF})"
    return (
        f"APR 0x{info.apr:02x} TPR 0x{state.tpr:02x} DFR 0x{state.dfr >> 28:02x} "
        f"LDR 0x{ldr:02x}{cluster} PPR 0x{state.ppr:02x}"
    )


_HEX: Final = r"0x([0-9a-f]+)"
_CPU: Final = re.compile(r"dumping local APIC state for CPU (\d+)")
_TIMER: Final = re.compile(
    rf"Timer\t DCR={_HEX} \(divide by \d+\) initial_count = (\d+) current_count = (\d+)"
)
_REGISTER: Final = re.compile(rf"(LVT0|LVT1|LVTPC|LVTERR|LVTTHMR|LVTT|SPIV|ICR|ICR2|ESR)\t {_HEX}")
_VECTORS: Final = re.compile(r"(ISR|IRR)\t (.*)")
_PRIORITIES: Final = re.compile(
    rf"APR {_HEX} TPR {_HEX} DFR {_HEX} LDR {_HEX}(?:\(cluster \d+: id \d+\))? PPR {_HEX}"
)


def parse_lapic(text: str) -> InfoLapic:
    """The state in a text of ``info lapic``; :class:`StateError` where it is none."""
    registers = {name: int(value, 16) for name, value in _REGISTER.findall(text)}
    vectors = dict(_VECTORS.findall(text))
    cpu, timer = _CPU.search(text), _TIMER.search(text)
    priorities = _PRIORITIES.search(text)
    missing = {*_LVTS, "SPIV", "ICR", "ICR2", "ESR"} - registers.keys()
    if cpu is None or timer is None or priorities is None or missing or len(vectors) != 2:
        raise StateError("info lapic", "lines are missing", "record all of the monitor's output")
    apr, tpr, model, ldr, ppr = (int(value, 16) for value in priorities.groups())
    state = LapicState(
        tpr=tpr,
        ppr=ppr,
        ldr=ldr << 24,
        dfr=model << 28 | 0x0FFFFFFF,
        spiv=registers["SPIV"],
        esr=registers["ESR"],
        icr=registers["ICR"],
        icr2=registers["ICR2"],
        isr=_parse_vectors(vectors["ISR"]),
        irr=_parse_vectors(vectors["IRR"]),
        tmr=_parse_vectors(vectors["ISR"], "level") | _parse_vectors(vectors["IRR"], "level"),
        tmict=int(timer[2]),
        tdcr=int(timer[1], 16),
    )
    for name, lvt in _LVTS.items():
        state.lvt[lvt] = registers[name]
    return InfoLapic(int(cpu[1]), state, "X2APIC" in text, int(timer[3]), apr)


def _parse_vectors(text: str, only: str = "") -> int:
    return mask(*(int(v) for v, level in re.findall(r"(\d+)(\(level\))?", text) if only in level))
