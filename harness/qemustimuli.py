"""QEMU's trace of its own chips as stimuli of a :class:`Machine`, and the events that it predicts.

The chips are QEMU's in ``tcg`` and ``off``, and but for the local APICs in ``split``.  QEMU touches
them under one lock (the BQL), so what a stimulus brings about is traced in one piece, in the thread
that brought it about: the machine predicts exactly the next events.

Stimuli are lines, messages, register accesses, expiries, and the moment at which a CPU takes an
interrupt.  TCG logs that one (``-d int``), without saying which CPU it is; in ``off`` KVM traces
the injection (``kvm_inj_virq``), some time after QEMU took the vector from its APIC.  *What* a CPU
takes, whom a message or an EOI reaches and what an IOAPIC makes of it is predicted.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from harness.stimuli import DisagreementError, Lookahead, What, start_cpus
from userspace_chip.errors import ChipError
from userspace_chip.events import QEMU_EVENTS, Event
from userspace_chip.irqchip import IOAPIC_BASES, MSR_APIC_BASE, Machine
from userspace_chip.lapic_registers import EOI, ICR, TMCCT, TMICT
from userspace_chip.lapic_timer import LVT_TIMER
from userspace_chip.messages import DELIVERY_MODES, DEST_MODES, TRIGGERS, LapicMessage
from userspace_chip.vcpu import MpState

_PINS: Final = 24
_ELCR_PORTS: Final = frozenset({0x4D0, 0x4D1})
_NEVER_TRACED: Final = frozenset({"cpu_get_apic_base", "x86_gsi_interrupt", "x86_pic_interrupt"})
"""Events of QEMU's that the machine has and no case records."""
_CONTEXT: Final = frozenset(
    {"kvm_irqchip_add_msi_route", "kvm_irqchip_release_virq", "kvm_resample_fd_notify"}
)
COMPARED: Final = frozenset(QEMU_EVENTS) - _NEVER_TRACED - _CONTEXT - {"kvm_run_exit"}
"""What a machine predicts, or is told."""
_ANY_DEVICES: Final = frozenset({"kvm_irqchip_update_msi_route", "kvm_irqchip_commit_routes"})
"""What devices do with their own MSI routes, too."""
_NO_VECTOR: Final = 0xFFFFFFFF
"""``-d int`` prints -1 where the interrupt went away before the CPU could take it."""


class QemuStimuli:
    """Feeds QEMU's events to a machine; ``count`` says what was a stimulus and what predicted."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.count: Counter[str] = Counter()
        mode = machine.profile.mode
        self._kvm_events = _KVM_EVENTS[mode]
        self._compared = COMPARED if mode == "tcg" else COMPARED - {"cpu_set_apic_base"}
        self._expected: deque[What] = deque()
        self._thread: int | None = None
        """Whose stimulus the expected events follow."""
        self._stimuli: dict[str, Callable[[Event, Lookahead], None]] = {
            name: getattr(self, f"_{name}", self._refuse) for name in QEMU_EVENTS
        }
        self._taken: dict[int, int] = {}
        """By CPU: the PIC's vector that it has taken, and that was not seen in it yet."""
        self._expired: deque[_Expiry] = deque(maxlen=_EXPIRIES)
        self._tasks: dict[str, int] = {}
        """Which CPU has which task segment, as far as interrupts have told."""
        self._past = _Past(machine) if mode == "off" else None
        machine.log.take()

    @property
    def names(self) -> frozenset[str]:
        """The events that may concern it."""
        return self._compared | self._kvm_events

    def concerns(self, event: Event) -> bool:
        """Whether an event is compared, or a stimulus."""
        return event.source == "qemu" or event.name in self._kvm_events

    @property
    def outstanding(self) -> dict[int | None, tuple[What, ...]]:
        """By thread, what was predicted and has not come yet."""
        return {self._thread: tuple(self._expected)} if self._expected else {}

    def feed(self, event: Event, ahead: Lookahead) -> bool:
        """Take an event that :meth:`concerns` it; True where it was predicted.

        :class:`DisagreementError` where it cannot be, or where something else has to come first.
        """
        if event.source == "kvm":
            return self._feed_kvm(event)
        what = event.name, event.args
        expected = self._expected
        if expected:
            if what != expected[0]:
                raise DisagreementError("something else has to come first", tuple(expected))
            if event.vcpu != self._thread:
                raise DisagreementError("it comes in another thread", tuple(expected))
            expected.popleft()
            self.count["predicted"] += 1
            return True
        machine = self.machine
        machine.now_ns = max(event.time_ns, machine.now_ns)
        machine.log.vcpu = self._thread = event.vcpu
        try:
            self._stimuli[event.name](event, ahead)
        except (ChipError, ValueError) as error:
            raise DisagreementError(f"the chips cannot take it: {error}") from error
        self._collect()
        start_cpus(machine)
        self.count["stimuli"] += 1
        if event.name == "hardware_int":
            self.count["hardware_int"] += 1
            return False
        if not expected or what != expected[0]:
            if event.name in _ANY_DEVICES and not expected:
                return False
            raise DisagreementError("the model expects something else", tuple(expected))
        expected.popleft()
        return False

    def _collect(self) -> None:
        events = self.machine.log.take()
        self._expected += [(e.name, e.args) for e in events if e.name in self._compared]
        if self._past is not None:
            self._past.note(self._thread, events)

    def _refuse(self, event: Event, ahead: Lookahead) -> None:
        raise DisagreementError("the model did not predict it")

    def unsure(self, cpu: int) -> int:
        """The vectors, as a bit map, of which it is not known whether they are pending."""
        state = self.machine.lapics[cpu].state
        perhaps = 0 if self._past is None else self._past.perhaps[cpu]
        if (vector := self._timer_vector(cpu)) is not None:
            perhaps |= 1 << vector
        return perhaps & ~state.irr

    # --- lines and messages

    def _pic_set_irq(self, event: Event, ahead: Lookahead) -> None:
        """The ISA lines go to the PIC first, then to the IOAPIC (``gsi_handler``)."""
        master, irq, level = event.args
        self.machine.set_gsi(int(irq) + (0 if master else 8), int(level), cpu=event.vcpu)

    def _ioapic_set_irq(self, event: Event, ahead: Lookahead) -> None:
        pin, level = event.args
        if int(pin) < 16:
            raise DisagreementError("the PIC has not seen this line")
        self.machine.set_gsi(int(pin), int(level), cpu=event.vcpu)

    def _apic_deliver_irq(self, event: Event, ahead: Lookahead) -> None:
        """A device's message."""
        dest, dest_mode, mode, vector, trigger = map(int, event.args)
        message = LapicMessage(
            vector, DELIVERY_MODES[mode], DEST_MODES[dest_mode], dest, TRIGGERS[trigger]
        )
        self.machine.bus.deliver(message)

    def _apic_local_deliver(self, event: Event, ahead: Lookahead) -> None:
        """A timer's expiry.  Whose it is, is seen later where several are armed."""
        if event.args[0] != LVT_TIMER:
            raise DisagreementError("the model did not predict it")
        armed = [name for name in self.machine.deadlines if name[:5] == "lapic"]
        if not armed:
            raise DisagreementError("no timer was armed")
        if len(armed) == 1:
            self.machine.expire(armed[0])
            return
        self._expired.append(_Expiry({int(name[5:]) for name in armed}))
        self._expected.append((event.name, event.args))

    def _ioapic_set_remote_irr(self, event: Event, ahead: Lookahead) -> None:
        """Unpredicted it is that of an interrupt which was held back after many in a row."""
        if "ioapic0" not in self.machine.deadlines:
            raise DisagreementError("the model did not predict it")
        self.machine.expire("ioapic0")

    def _ioapic_eoi_broadcast(self, event: Event, ahead: Lookahead) -> None:
        """In split KVM says which EOI concerns an IOAPIC."""
        if not self.machine.split:
            raise DisagreementError("the model did not predict it")
        self.machine.eoi_broadcast(int(event.args[0]))

    def _kvm_irqchip_update_msi_route(self, event: Event, ahead: Lookahead) -> None:
        if int(event.args[0]) < _PINS:
            raise DisagreementError("the model did not predict it")

    def _kvm_irqchip_commit_routes(self, event: Event, ahead: Lookahead) -> None:
        """A device's."""

    # --- registers

    def _cpu(self, event: Event) -> int:
        if event.vcpu is None:
            raise DisagreementError("only a CPU can do that")
        return event.vcpu

    def _ioapic_mem_write(self, event: Event, ahead: Lookahead) -> None:
        address, _, size, value = map(int, event.args)
        self.machine.mmio_write(self._cpu(event), IOAPIC_BASES[0] + address, size, value)

    def _ioapic_mem_read(self, event: Event, ahead: Lookahead) -> None:
        address, _, size, _ = map(int, event.args)
        self.machine.mmio_read(self._cpu(event), IOAPIC_BASES[0] + address, size)

    def _pic_ioport_write(self, event: Event, ahead: Lookahead) -> None:
        master, address, value = map(int, event.args)
        self.machine.pio_write(self._cpu(event), (0x20 if master else 0xA0) + address, value)

    def _pic_ioport_read(self, event: Event, ahead: Lookahead) -> None:
        master, address, _ = map(int, event.args)
        self.machine.pio_read(self._cpu(event), (0x20 if master else 0xA0) + address)

    def _apic_mem_writel(self, event: Event, ahead: Lookahead) -> None:
        register, value = map(int, event.args)
        self._write_apic(self._cpu(event), register, value)

    def _apic_mem_readl(self, event: Event, ahead: Lookahead) -> None:
        self._read_apic(event, int(event.args[0]))

    def _apic_register_write(self, event: Event, ahead: Lookahead) -> None:
        index, value = map(int, event.args)
        self._write_apic(self._cpu(event), index << 4, value)

    def _apic_register_read(self, event: Event, ahead: Lookahead) -> None:
        self._read_apic(event, int(event.args[0]) << 4)

    def _write_apic(self, cpu: int, register: int, value: int) -> None:
        lapic = self.machine.lapics[cpu]
        if register == EOI and not lapic.state.isr:
            self._check_nothing_taken(cpu)
        elif register == TMICT:
            for expiry in self._expired:
                expiry.restarted.add(cpu)
        if lapic.x2apic_mode:
            lapic.write_msr(register, value, self.machine.now_ns)
        else:
            lapic.write_mmio(register, 4, value, self.machine.now_ns)

    def _check_nothing_taken(self, cpu: int) -> None:
        """An EOI for nothing does no harm, but hardly while the CPU could take an interrupt."""
        vector = self._offered(cpu)
        if vector is not None:
            taken: What = ("hardware_int", (vector, "?"))
            if self._past is not None:
                taken = ("kvm_inj_virq", ("IRQ", vector, True))
            raise DisagreementError("it ends an interrupt that was not seen taken", (taken,))

    def _read_apic(self, event: Event, register: int) -> None:
        lapic = self.machine.lapics[self._cpu(event)]
        if register == TMCCT:  # the time of the trace is not that of the read
            self._expected.append((event.name, event.args))
        elif lapic.x2apic_mode:
            lapic.read_msr(register, self.machine.now_ns)
        else:
            lapic.read_mmio(register, 4, self.machine.now_ns)

    def _cpu_set_apic_base(self, event: Event, ahead: Lookahead) -> None:
        self.machine.msr_write(self._cpu(event), MSR_APIC_BASE, int(event.args[0]))

    # --- what CPUs take

    def _pic_interrupt(self, event: Event, ahead: Lookahead) -> None:
        """INTA; in tcg and off the CPU's own, which is seen in it afterwards."""
        cpu = self._cpu(event)
        if self.machine.split:
            self.machine.pic.intack()
            return
        vector = self._take(cpu)
        if vector is not None:
            self._taken[cpu] = vector

    def _take(self, cpu: int) -> int | None:
        self.machine.vcpus[cpu].state.mp_state = MpState.RUNNABLE
        return self.machine.step(cpu).vector

    def _offered(self, cpu: int) -> int | None:
        """What the CPU would take now, but for the PIC's."""
        lapic = self.machine.lapics[cpu]
        vector = lapic.pending()
        if vector is None and lapic.blocked() and self.machine.vcpus[cpu].state.hard:
            return lapic.state.spiv & 0xFF
        return vector

    def _hardware_int(self, event: Event, ahead: Lookahead) -> None:
        """A CPU of TCG's takes an interrupt: one that has it on offer."""
        vector, task = int(event.args[0]), str(event.args[1])
        for cpu, taken in self._taken.items():
            if taken == vector:
                del self._taken[cpu]
                return
        known = self._tasks.get(task)
        cpus = list(range(len(self.machine.vcpus))) if known is None else [known]
        ready = [cpu for cpu in cpus if self._offered(cpu) == vector]
        if not ready:
            ready = [cpu for cpu in cpus if self._has_expired(cpu, vector)]
        if ready:
            cpu = ready[0] if len(ready) == 1 else self._taker(ready, vector, task, ahead)
            if task.strip("0?"):
                self._tasks[task] = cpu
            self._take_timer(cpu, vector)
        elif vector != _NO_VECTOR:
            offers = [offer for cpu in cpus if (offer := self._offered(cpu)) is not None]
            who = "no CPU" if known is None else f"not CPU {known}, which takes it,"
            raise DisagreementError(
                f"{who} has this interrupt on offer",
                tuple(("hardware_int", (offer, task)) for offer in offers),
            )

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

    def _taker(self, ready: list[int], vector: int, task: str, ahead: Lookahead) -> int:
        """Which of several CPUs takes it, where its registers do not tell.

        None that has another task segment, and hardly one that is still in service; else the first
        to write EOI, unless all take it.
        """
        lapics, others = self.machine.lapics, set(self._tasks.values()) if task != "?" else set()
        ready = [cpu for cpu in ready if cpu not in others] or ready
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

    # --- what KVM says in off

    def _feed_kvm(self, event: Event) -> bool:
        cpu, machine = event.vcpu, self.machine
        if cpu is None:
            return False
        past = self._past
        machine.log.vcpu = cpu
        if event.name == "kvm_inj_virq" and past is not None:
            self.count["kvm_inj_virq"] += 1
            if event.args[0] == "IRQ":
                self._inject(cpu, int(event.args[1]), past)
        elif event.name == "kvm_pio" and event.args[1] in _ELCR_PORTS:
            access, port, size, _, value, _ = event.args
            if access == "write":
                machine.pio_write(cpu, int(port), int(value), int(size))
        elif event.name == "kvm_msr" and event.args[:2] == ("write", MSR_APIC_BASE):
            machine.msr_write(cpu, MSR_APIC_BASE, int(event.args[2]))
        elif past is None or event.args[0] == "restart":
            return False  # a signal ended KVM_RUN, perhaps before the guest ran at all
        else:
            past.passed(cpu)
            return False
        machine.log.take()
        if past is not None:
            past.passed(cpu)
        self.count["stimuli"] += 1
        return False

    def _inject(self, cpu: int, vector: int, past: _Past) -> None:
        """QEMU took the vector from its APIC since the CPU's thread was last seen."""
        lapic = self.machine.lapics[cpu]
        offered = self._offered(cpu)
        if self._taken.get(cpu) == vector:
            del self._taken[cpu]
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
                "its APIC has something else on offer",
                () if offered is None else (("kvm_inj_virq", ("IRQ", offered, True)),),
            )
        past.took(cpu, vector)


_KVM_EVENTS: Final = {
    "split": frozenset({"kvm_pio"}),
    "off": frozenset({"kvm_inj_virq", "kvm_pio", "kvm_msr", "kvm_userspace_exit", "kvm_mmio"}),
    "tcg": frozenset[str](),
}
"""What the chips of QEMU's need of KVM's events: ELCR is traced by nobody else."""


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


_EXPIRIES: Final = 16
"""So many are remembered: a periodic timer's merge while nobody takes its interrupt."""


class _Past:
    """What a CPU's APIC had on offer since its thread was last seen.

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

    def note(self, thread: int | None, events: list[Event]) -> None:
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
                self._again[cpu] |= delivered & self.offered[cpu]
            if (vector := lapic.pending()) is not None:
                self.offered[cpu] |= 1 << vector

    def passed(self, cpu: int) -> None:
        """The CPU's own thread was seen."""
        vector = self._lapics[cpu].pending()
        self.offered[cpu] = 0 if vector is None else 1 << vector
        self._again[cpu] = 0

    def took(self, cpu: int, vector: int) -> None:
        """An injection; what came again meanwhile may be pending again."""
        bit = 1 << vector
        self.injected[cpu] = vector
        self.perhaps[cpu] = self.perhaps[cpu] & ~bit | self._again[cpu] & bit


_PATIENCE: Final = 200


def _is_eoi(event: Event) -> bool:
    if event.name == "apic_mem_writel":
        return event.args[0] == EOI
    return event.name == "apic_register_write" and event.args[0] == EOI >> 4
