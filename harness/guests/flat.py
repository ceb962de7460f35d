"""How a flat image ends, and where it talks: the conventions of kvm-unit-tests (``x86/run``).

The exit device's value ``v`` becomes QEMU's exit status ``(v << 1) | 1``, of which the system keeps
eight bits: values are known modulo 128.
"""

from __future__ import annotations

from typing import Final

STATUS_PASS: Final = 1
STATUS_FAIL: Final = 3
STATUS_SKIP: Final = 77
STATUS_ABORT: Final = 255
"""``lib/abort.c``: an assertion failed, or an exception came that nothing handles."""

DEBUGCON_PORT: Final = 0xE9


def exit_value(status: int) -> int | None:
    """What was written to the exit device; None for a status that it does not give."""
    return status >> 1 if status & 1 else None
