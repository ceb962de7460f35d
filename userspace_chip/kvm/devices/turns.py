"""A port by which a CPU of a test guest gives its turn to the CPU that it waits for.

A loop that waits takes the time of whoever it waits for, where the host has fewer CPUs than the
guest.  KVM's hypercall SCHED_YIELD (``arch/x86/kvm/x86.c:kvm_sched_yield``) helps only where the
kernel has the local APICs, and only a vCPU that was preempted inside its guest: not one whose exit
is being answered in user space, nor a thread of the kernel's.  This port helps those, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

PORT: Final = 0x2104
LATE_PORT: Final = 0x2105
"""Reads 1 while something that was due has not happened yet."""


class Turns:
    """Who stays out of its guest until it has a turn; ``wake`` gets each CPU that has one.

    Reading tells how often a CPU should look, and hint by hypercall, before it writes here the
    number of the CPU that it waits for: 1 where KVM has no local APICs.  Where there is no such
    port that reads all ones.
    """

    def __init__(
        self,
        cpus: int,
        looks: int,
        wake: Callable[[int], None],
        is_late: Callable[[], bool] = lambda: False,
    ) -> None:
        self._cpus = cpus
        self._looks = looks
        self._wake = wake
        self._is_late = is_late
        self._waiting: set[int] = set()
        self._spare: set[int] = set()
        """Those that got a turn while they did not wait: something may have changed since they
        looked."""

    def read(self, cpu: int, at: int, size: int) -> int:
        """After how many looks in vain to write; or whether timers are late."""
        return int(self._is_late()) if at == LATE_PORT else self._looks

    def write(self, cpu: int, at: int, size: int, value: int) -> None:
        """``cpu`` waits for CPU ``value``, which has a turn; for itself it does not wait."""
        if at != PORT or value == cpu or value >= self._cpus:
            return
        if cpu in self._spare:
            self._spare.discard(cpu)
        else:
            self._waiting.add(cpu)
        self.take(value)

    def take(self, cpu: int) -> None:
        """``cpu`` has a turn: it was waited for, or has an interrupt to look at."""
        if cpu in self._waiting:
            self._waiting.discard(cpu)
        else:
            self._spare.add(cpu)
        self._wake(cpu)

    def waits(self, cpu: int) -> bool:
        """Whether it stays out of its guest."""
        return cpu in self._waiting

    def end_wait(self, cpu: int) -> None:
        """It has waited for long enough."""
        self._waiting.discard(cpu)
