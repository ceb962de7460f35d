"""``on`` with the live chips: KVM's chips, as the VMM showed them after each exit, and the model's.

A snapshot is taken after a vCPU has left its guest and before it does anything else, while other
vCPUs and timers go on.  It stands in the events at the time at which it was begun, so each chip has
to be as it was shown there, or at some moment before that vCPU goes on.  A CPU's TPR may have
changed unseen, by CR8.
"""

from __future__ import annotations

from typing import Final

from harness.base.errors import CollectError
from harness.replay.lookahead import NumberedEvent
from harness.replay.snapshots import LookedWrongError, difference
from userspace_chip.errors import EventError
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import shown
from userspace_chip.kvm.shown import Registers

SHOWN: Final = "kvm_chips"
"""The event."""


class Shadow:
    """Compares what was shown with ``machine``; ``agreed`` counts the snapshots that did."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._shown: dict[str, Registers] = {}
        """By chip, what was shown so far."""
        self._waiting: dict[int, tuple[NumberedEvent, dict[str, Registers]]] = {}
        """By the vCPU that has left its guest: the snapshot, and what is not the model's yet."""
        self.agreed = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a chip is not yet as it was shown."""
        return bool(self._waiting)

    def show(self, line: NumberedEvent) -> None:
        """A snapshot; :class:`CollectError` for a text that is none."""
        cpu, text = line.event.args
        assert isinstance(cpu, int)
        self.goes_on(cpu)
        try:
            changed = shown.parse(str(text))
        except EventError as error:
            raise CollectError(f"line {line.number} cannot be read", str(error)) from None
        for chip, registers in changed.items():
            self._shown[chip] = self._shown.get(chip, {}) | registers
        chips = (f"lapic{cpu}", *shown.CHIPS.values())
        self._waiting[cpu] = line, {chip: self._shown.get(chip, {}) for chip in chips}
        self.compare()

    def compare(self) -> None:
        """See whether the chips that are waited for are now as they were shown."""
        for cpu, (_, waiting) in list(self._waiting.items()):
            for chip, registers in list(waiting.items()):
                if not self._differs(chip, registers):
                    del waiting[chip]
            if not waiting:
                del self._waiting[cpu]
                self.agreed += 1

    def goes_on(self, cpu: int | None) -> None:
        """A vCPU does something; :class:`LookedWrongError` where its exit was shown in vain."""
        if (found := self._waiting.pop(cpu, None) if cpu is not None else None) is None:
            return
        at, waiting = found
        if cpu is not None and self._has_written_cr8(cpu, waiting):
            self.agreed += 1
            return
        mine = {chip: shown.of_chip(self._machine, chip) for chip in waiting}
        raise LookedWrongError(*difference(mine, waiting), at)

    def end(self) -> None:
        """The log ends; errors as of :meth:`goes_on`."""
        for cpu in list(self._waiting):
            self.goes_on(cpu)

    def _has_written_cr8(self, cpu: int, waiting: dict[str, Registers]) -> bool:
        """Whether only TPR is other than the model's, as after a MOV to CR8; then it has it now.

        KVM takes TPR over from the V_TPR of the VMCB at the next exit, and nothing traces the MOV
        where it is not intercepted (Linux 6.1 ``svm.c:sync_cr8_to_lapic``).
        """
        name = f"lapic{cpu}"
        if waiting.keys() != {name} or (tpr := waiting[name].get("TPR", 0)) & 0xF:
            return False
        was = self._machine.lapics[cpu].cr8()
        self._machine.set_cr8(cpu, tpr >> 4)
        if self._differs(name, waiting[name]):
            self._machine.set_cr8(cpu, was)
            return False
        return True

    def _differs(self, chip: str, registers: Registers) -> bool:
        """What was never shown was 0."""
        mine = shown.of_chip(self._machine, chip)
        return any(value != registers.get(name, 0) for name, value in mine.items())
