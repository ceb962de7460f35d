"""A machine of the model beside QEMU's, both doing a timed guest's accesses; see ``timed_guest``.

Compared for each access: the value read, and every drive of a GSI and every message up to the mark
behind it.  The first access is there for what QEMU traces before the guest runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import timed_guest
from support.differential import reduce_steps
from support.qemus import find_qemu
from support.timed_guest import Access, Result
from userspace_chip.events import EVENT_TYPES
from userspace_chip.irqchip import Machine
from userspace_chip.profile import Profile

EVENTS = ("x86_gsi_interrupt", "apic_deliver_irq")
BASE_S = 1767225600
"""2026-01-01."""
OPTIONS = ("-rtc", "base=2026-01-01,clock=vm")
FIRST = Access(1, "in", 0x80)

Seen = tuple[int, tuple[str, ...]]
"""The value of an access, and the texts of its events."""


@dataclass(frozen=True)
class Pair:
    """A QEMU and the model's profile of it."""

    command: Sequence[str | Path]
    profile: Profile
    shift: int = 0
    tuned: Callable[[Profile], Profile] = lambda profile: profile
    options: Sequence[str] = ()

    def seen(self, steps: Sequence[Access]) -> list[tuple[Result, Seen]]:
        """What QEMU does."""
        results = timed_guest.run(
            self.command,
            "q35",
            [FIRST, *steps],
            EVENTS,
            shift=self.shift,
            options=[*OPTIONS, *self.options],
        )
        return [(result, (result.value, _events(result))) for result in results[1:]]

    def predicted(self, steps: Sequence[Access], results: Sequence[Result]) -> list[Seen]:
        """What the model does at the same times."""
        machine = Machine(self.tuned(self.profile), board="q35", time_of_day_s=BASE_S)
        predictions: list[Seen] = []
        for step, result in zip(steps, results, strict=True):
            self._run_until(machine, result.time_ns)
            if not predictions:
                machine.log.take()
            value = _access(machine, step)
            self._run_until(machine, result.mark_ns)
            texts = tuple(
                f"{event.name} {EVENT_TYPES[event.name].format(event.args)}"
                for event in machine.log.take()
                if event.name in EVENTS
            )
            predictions.append((value, texts))
        return predictions

    def _run_until(self, machine: Machine, now_ns: int) -> None:
        """Timers expire at the first instruction that is not before them; one due now is later."""
        unit = 1 << self.shift
        while machine.deadlines:
            name = min(machine.deadlines, key=machine.deadlines.__getitem__)
            at_ns = max(-(-machine.deadlines[name] // unit) * unit, machine.now_ns)
            if at_ns >= now_ns:
                break
            machine.log.vcpu = None
            machine.now_ns = at_ns
            machine.expire(name)
        machine.now_ns = now_ns

    def first_difference(self, steps: Sequence[Access]) -> int | None:
        """The first access that differs."""
        seen = self.seen(steps)
        predicted = self.predicted(steps, [result for result, _ in seen])
        pairs = enumerate(zip(seen, predicted, strict=True))
        return next((i for i, ((_, theirs), ours) in pairs if theirs != ours), None)

    def agree(self, steps: Sequence[Access]) -> None:
        """:class:`AssertionError` with the shortest accesses that differ."""
        if self.first_difference(steps) is None:
            return
        shortest = reduce_steps(
            list(steps), lambda some: bool(some) and self.first_difference(some) is not None
        )
        seen = self.seen(shortest)
        predicted = self.predicted(shortest, [result for result, _ in seen])
        last = self.first_difference(shortest)
        assert last is not None
        lines = [
            f"    {step!r},  # at {result.time_ns} ns"
            for step, (result, _) in zip(shortest, seen, strict=True)
        ]
        raise AssertionError(
            f"QEMU {self.profile.qemu} and the model differ at the last of these accesses:\n"
            + "\n".join(lines[: last + 1])
            + f"\nQEMU:  {seen[last][1]}\nmodel: {predicted[last]}"
        )


def pair(
    qemu: str,
    shift: int = 0,
    tuned: Callable[[Profile], Profile] = lambda profile: profile,
    options: Sequence[str] = (),
) -> Pair:
    """For a QEMU by name; or skip."""
    command, profile = find_qemu(qemu)
    return Pair([str(word) for word in command], profile, shift, tuned, options)


def _events(result: Result) -> tuple[str, ...]:
    return tuple(line for line in result.trace if line.startswith(EVENTS))


def _access(machine: Machine, step: Access) -> int:
    if step.op == "in":
        return machine.pio_read(0, step.address, step.size)
    if step.op == "out":
        machine.pio_write(0, step.address, step.value, step.size)
        return step.value
    if step.op == "load":
        return machine.mmio_read(0, step.address, step.size)
    machine.mmio_write(0, step.address, step.size, step.value)
    return step.value
