"""Hyper-V's synthetic interrupt controller (SynIC): vectors that it sends to its CPU by itself.

A guest chooses them by writing MSRs (Hyper-V TLFS, "Synthetic Interrupt Controller", "Synthetic
Timers"; Linux 6.12 ``arch/x86/kvm/hyperv.c``: synic_set_sint, synic_update_vector,
stimer_set_config, stimer_notify_direct).  No route, message, IPI or LVT entry has them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_SINT0: Final = 0x40000090
_SINTS: Final = 16
_MASKED: Final = 1 << 16
_AUTO_EOI: Final = 1 << 17
_STIMER0_CONFIG: Final = 0x400000B0
_STIMERS: Final = 4
_ENABLED: Final = 1
_DIRECT: Final = 1 << 12


class SynicSource(NamedTuple):
    """A vector that is sent; with ``auto_eoi`` it is ended as soon as it is delivered."""

    vector: int
    auto_eoi: bool


def is_source(msr: int) -> bool:
    """Whether ``msr`` can make a vector be sent: SINTx, or the configuration of a timer."""
    is_timer = _STIMER0_CONFIG <= msr < _STIMER0_CONFIG + 2 * _STIMERS and not msr & 1
    return is_timer or _SINT0 <= msr < _SINT0 + _SINTS


def source(msr: int, value: int) -> SynicSource | None:
    """What is sent once ``value`` is in ``msr``; None where it sends nothing of its own.

    A timer that is not in direct mode sends a message to a SINT.
    """
    if msr >= _STIMER0_CONFIG:
        is_on = value & _ENABLED and value & _DIRECT
        return SynicSource(value >> 4 & 0xFF, auto_eoi=False) if is_on else None
    if value & _MASKED:
        return None
    return SynicSource(value & 0xFF, auto_eoi=bool(value & _AUTO_EOI))
