"""Which CPU takes which interrupt from a local APIC of QEMU's, as far as a trace tells.

TCG logs the vector (``-d int``) and something that tells CPUs apart; in ``off`` KVM traces the
injection, some time after QEMU took the vector from the APIC.  Neither says whose timer expired.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from harness.replay.kvm_stimuli import DisagreementError, Upcoming, What
from userspace_chip.events import Event
from userspace_chip.irqchip import Machine
from userspace_chip.lapic_registers import EOI, ICR, LVT_TIMER
from userspace_chip.vcpu import MpState

_NO_VECTOR: Final = 0xFFFFFFFF
"""``-d int`` prints -1 where the interrupt went away before the CPU could take it."""
_EXPIRIES: Final = 16
"""Number of remembered ones: a periodic timer's merge while no CPU takes its interrupt."""
_PATIENCE: Final = 200


@dataclass(slots=True)
class _Expiry:
    """A timer's, of which it is not clear whose it is.

    The time of the trace does not tell: a thread may be held up between being traced and looking
    at the clock.  What tells is which CPU takes the interrupt.
    """

    cpus: set[int]
    """Those whose timers were armed."""
    restarted: set[int] = field(default_factory=set)
    """Those that have started theirs again since."""


class Taking:
    """What the CPUs of ``machine`` take; guesses are counted in ``count``."""

    def __init__(self, machine: Machine, count: Counter[str]) -> None:
        self.machine = machine
        self.count = count
        self._acknowledged: dict[int, int] = {}
        """By CPU: the PIC's vector that it has taken, and that was not seen in it yet."""
        self._from_pic: set[int] = set()
        """The CPUs whose last interrupt was the PIC's: their handler may end it in the APIC."""
        self._expired: deque[_Expiry] = deque(maxlen=_EXPIRIES)
        self._tasks: dict[str, int] = {}
        """Which CPU has which task segment, as far as interrupts have shown."""
        self._past = _Past(machine) if machine.profile.mode == "off" else None

    def passed(self, cpu: int) -> None:
        """The CPU was in its guest: what it has pending from now on, it may take next."""
        if self._past is not None:
            self._past.passed(cpu)

    def note(self, thread: int | None, events: Iterable[Event]) -> None:
        """``events`` of the machine's happened in ``thread``."""
        if self._past is not None:
            self._past.note(thread, events)

    def expired(self, cpus: set[int]) -> None:
        """The timer of one of several ``cpus`` expired."""
        self._expired.append(_Expiry(cpus))

    def restarted(self, cpu: int) -> None:
        """The CPU writes its timer's initial count."""
        for expiry in self._expired:
            expiry.restarted.add(cpu)

    def intack(self, cpu: int) -> None:
        """The CPU acknowledges the PIC; the vector is seen in it afterwards."""
        vector = self._take(cpu)
        if vector is not None:
            self._acknowledged[cpu] = vector
            self._from_pic.add(cpu)

    def _take(self, cpu: int) -> int | None:
        self._from_pic.discard(cpu)
        self.machine.vcpus[cpu].state.mp_state = MpState.RUNNABLE
        return self.machine.step(cpu).vector

    def _offered(self, cpu: int) -> int | None:
        """What the CPU would take now, but for the PIC's."""
        lapic = self.machine.lapics[cpu]
        vector = lapic.pending()
        if vector is None and lapic.blocked() and self.machine.vcpus[cpu].state.hard:
            return lapic.state.spiv & 0xFF
        return vector

    def take(self, vector: int, task: str, ahead: Upcoming) -> None:
        """A CPU of TCG's with that ``task`` segment takes ``vector``: one that has it pending."""
        for cpu, acknowledged in self._acknowledged.items():
            if acknowledged == vector:
                del self._acknowledged[cpu]
                return
        known = self._tasks.get(task)
        cpus = list(range(len(self.machine.vcpus))) if known is None else [known]
        # One of which another task segment is known takes it only where no other can.
        others = set(self._tasks.values()) if known is None and task != "?" else set()
        free = [cpu for cpu in cpus if cpu not in others]
        ready = self._ready(free, vector) or self._ready(cpus, vector)
        if ready:
            cpu = ready[0] if len(ready) == 1 else self._taker(ready, vector, ahead)
            if task.strip("0?"):
                self._tasks[task] = cpu
            self._take_timer(cpu, vector)
        elif vector != _NO_VECTOR:
            offers = [offer for cpu in cpus if (offer := self._offered(cpu)) is not None]
            raise DisagreementError(
                "the vector is not pending on " + ("any CPU" if known is None else f"CPU {known}"),
                tuple(("hardware_int", (offer, task)) for offer in offers),
            )

    def _ready(self, cpus: list[int], vector: int) -> list[int]:
        """Those that have ``vector`` pending, or else those whose timers may have it."""
        offering = [cpu for cpu in cpus if self._offered(cpu) == vector]
        return offering or [cpu for cpu in cpus if self._has_expired(cpu, vector)]

    def _has_expired(self, cpu: int, vector: int) -> bool:
        """Whether it may be the interrupt of a timer of which it is not clear whose it is."""
        pending = self.machine.lapics[cpu].state.irr >> vector & 1
        return not pending and self._timer_vector(cpu) == vector

    def _timer_vector(self, cpu: int) -> int | None:
        """That of the CPU's timer, if it may have expired without being noticed."""
        if not any(cpu in expiry.cpus for expiry in self._expired):
            return None
        return self.machine.lapics[cpu].state.lvt[LVT_TIMER] & 0xFF

    def _take_timer(self, cpu: int, vector: int) -> None:
        """The CPU takes ``vector``, which its timer may have to bring about first."""
        if self._offered(cpu) != vector:
            found = next(expiry for expiry in self._expired if cpu in expiry.cpus)
            self._expired.remove(found)
            if cpu in found.restarted:
                self.machine.lapics[cpu].local_deliver(LVT_TIMER)
            else:
                self.machine.expire(f"lapic{cpu}")
            self.machine.log.take()
        self._take(cpu)

    def _taker(self, ready: list[int], vector: int, ahead: Upcoming) -> int:
        """Which of several CPUs takes it, where its registers do not tell.

        Hardly one that is still in service; else the first to write EOI, unless all take it.
        """
        lapics = self.machine.lapics
        ready = [cpu for cpu in ready if not lapics[cpu].state.isr] or ready
        rest = len(ready) - 1
        self.count["guesses"] += rest > 0
        for event in islice(ahead.all(), _PATIENCE):
            if not rest:
                break
            if event.name == "hardware_int" and event.args[0] == vector:
                rest -= 1
            elif event.vcpu in ready and _is_eoi(event):
                return event.vcpu
        return ready[0]

    def inject(self, cpu: int, vector: int) -> None:
        """KVM injects what QEMU took from its APIC since the CPU was last seen in its guest."""
        past = self._past
        assert past is not None
        lapic = self.machine.lapics[cpu]
        offered = self._offered(cpu)
        if self._acknowledged.get(cpu) == vector:
            del self._acknowledged[cpu]
        elif offered == vector:
            self._take(cpu)
        elif past.offered[cpu] >> vector & 1 and lapic.state.irr >> vector & 1:
            lapic.ack(vector)  # before what came in meanwhile
        elif self._has_expired(cpu, vector):
            self._take_timer(cpu, vector)
        elif past.perhaps[cpu] >> vector & 1:
            lapic.set_irq(vector, lapic.state.tmr >> vector & 1)
            self._take(cpu)
        elif past.injected.get(cpu) != vector:  # else the injection before did not get through
            raise DisagreementError(
                "another vector is pending in its APIC",
                () if offered is None else (("kvm_inj_virq", ("IRQ", offered, True)),),
            )
        past.took(cpu, vector)
        past.passed(cpu)
        past.injected[cpu] = vector

    def check_eoi(self, cpu: int) -> None:
        """An EOI for nothing does no harm, but hardly while the CPU could take an interrupt.

        Where LINT0 is fixed (Linux's Virtual Wire timer), the PIC's interrupt is ended like that:
        it never was in service, and is pending in the APIC once more.
        """
        if cpu in self._from_pic:
            self._from_pic.discard(cpu)
            return
        vector = self._offered(cpu)
        if vector is not None and not self.machine.lapics[cpu].state.isr:
            taken: What = ("hardware_int", (vector, "?"))
            if self._past is not None:
                taken = ("kvm_inj_virq", ("IRQ", vector, True))
            raise DisagreementError("it ends an interrupt that was not seen taken", (taken,))

    def unsure(self, cpu: int) -> int:
        """The vectors, as a bit map, of which it is not known whether they are pending."""
        state = self.machine.lapics[cpu].state
        perhaps = 0 if self._past is None else self._past.perhaps[cpu]
        if (vector := self._timer_vector(cpu)) is not None:
            perhaps |= 1 << vector
        return perhaps & ~state.irr


class _Past:
    """What a CPU's APIC had pending since its thread was last seen.

    QEMU takes a vector before it enters KVM, and other threads may run before KVM injects it.
    """

    def __init__(self, machine: Machine) -> None:
        self._lapics = machine.lapics
        cpus = range(len(machine.lapics))
        self.offered = [0 for _ in cpus]
        """Bit maps of vectors."""
        self.perhaps = [0 for _ in cpus]
        """Vectors that came again before they were injected: one interrupt more, or none."""
        self._again = [0 for _ in cpus]
        self.injected: dict[int, int] = {}
        """The last injection, as long as nothing shows that it got through."""

    def note(self, thread: int | None, events: Iterable[Event]) -> None:
        """Something happened in ``thread``."""
        delivered = 0
        for event in events:
            if event.name == "apic_deliver_irq":
                delivered |= 1 << int(event.args[3])
            elif event.name == "apic_mem_writel" and event.args[0] == ICR:
                delivered |= 1 << (int(event.args[1]) & 0xFF)
            elif event.name == "apic_local_deliver":
                for lapic in self._lapics:
                    delivered |= 1 << (lapic.state.lvt[LVT_TIMER] & 0xFF)
        for cpu, lapic in enumerate(self._lapics):
            if cpu == thread:
                self.passed(cpu)
                continue
            if delivered:
                self._again[cpu] |= delivered & (self.offered[cpu] | self.perhaps[cpu])
            if (vector := lapic.pending()) is not None:
                self.offered[cpu] |= 1 << vector

    def passed(self, cpu: int) -> None:
        """The CPU's own thread was seen."""
        vector = self._lapics[cpu].pending()
        self.offered[cpu] = 0 if vector is None else 1 << vector
        self._again[cpu] = 0
        self.injected.pop(cpu, None)

    def took(self, cpu: int, vector: int) -> None:
        """An injection; what came again meanwhile may be pending again."""
        bit = 1 << vector
        self.perhaps[cpu] = self.perhaps[cpu] & ~bit | self._again[cpu] & bit


def _is_eoi(event: Event) -> bool:
    if event.name == "apic_mem_writel":
        return event.args[0] == EOI
    return event.name == "apic_register_write" and event.args[0] == EOI >> 4
