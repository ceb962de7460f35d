"""QEMU's trace of its own chips as stimuli of a :class:`Machine`, and the events that it predicts.

The chips are QEMU's in ``tcg`` and ``off``, and but for the local APICs in ``split``.  QEMU touches
them under one lock (the BQL), so what a stimulus brings about is traced in one piece, in the thread
that brought it about: the machine predicts exactly the next events.

Stimuli are lines, messages, register accesses, expiries, and the moment at which a CPU takes an
interrupt (:mod:`harness.replay.acceptance`).  *What* a CPU takes, whom a message or an EOI reaches
and what an IOAPIC makes of it is predicted.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise, takewhile
from typing import Final

from harness.replay.acceptance import Taking
from harness.replay.kvm_stimuli import DisagreementError, Upcoming, What, start_cpus
from userspace_chip.architecture import (
    ELCR_PORTS,
    IOAPIC_BASES,
    IOAPIC_PINS,
    MASTER_COMMAND,
    MSR_APIC_BASE,
    SLAVE_COMMAND,
)
from userspace_chip.errors import ChipError
from userspace_chip.events import QEMU_EVENTS, Event, check_names
from userspace_chip.irqchip import Machine
from userspace_chip.lapic_registers import EOI, LVT_LINT0, LVT_TIMER, MASKED, TMCCT, TMICT
from userspace_chip.messages import DELIVERY_MODES, DEST_MODES, TRIGGERS, LapicMessage

_LEVEL: Final = 1 << 15
_REMOTE_IRR: Final = 1 << 14
_LINES: Final = frozenset({"pic_set_irq", "ioapic_set_irq"})
_NEVER_TRACED: Final = frozenset({"cpu_get_apic_base", "x86_gsi_interrupt", "x86_pic_interrupt"})
"""Events of QEMU's that the machine has and no case records."""
_CONTEXT: Final = frozenset(
    {"kvm_irqchip_add_msi_route", "kvm_irqchip_release_virq", "kvm_resample_fd_notify"}
)
COMPARED: Final = frozenset(QEMU_EVENTS) - _NEVER_TRACED - _CONTEXT - {"kvm_run_exit"}
"""What a machine predicts, or is given."""
_ANY_DEVICES: Final = frozenset({"kvm_irqchip_update_msi_route", "kvm_irqchip_commit_routes"})
"""What devices do with their own MSI routes, too."""


def _line(event: Event) -> tuple[int, int]:
    """The GSI and the level of ``pic_set_irq`` or ``ioapic_set_irq``."""
    *place, level = map(int, event.args)
    if event.name == "ioapic_set_irq":
        return place[0], level
    master, irq = place
    return irq + (0 if master else 8), level


class QemuStimuli:
    """Feeds QEMU's events to a machine; ``count`` says what was a stimulus and what predicted."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.count: Counter[str] = Counter()
        mode = machine.profile.mode
        self._kvm_events = _KVM_EVENTS[mode]
        self._compared = COMPARED if mode == "tcg" else COMPARED - {"cpu_set_apic_base"}
        self._lanes: dict[int | None, deque[What]] = {}
        """By thread, what was predicted and has not come yet; of one, but for EOIs in split."""
        self._thread: int | None = None
        """Whose stimulus is being taken."""
        self._eois: dict[int | None, int] = {}
        """split: by thread, the vector of an EOI that is on its way to the pins."""
        self._unlocked: set[int | None] = set()
        """split: the threads of EOIs that have come to the pins, and of what followed."""
        self._lingering: dict[int | None, int] = {}
        """split: by thread, a pin that goes low, and that an EOI still finds high."""
        self.taking = Taking(machine, self.count)
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
        return {thread: tuple(lane) for thread, lane in self._lanes.items() if lane}

    @property
    def _expected(self) -> deque[What]:
        return self._lanes.setdefault(self._thread, deque())

    def loaded(self) -> None:
        """The guest goes on in another QEMU: its own chips carry all of their state with them."""

    def feed(self, event: Event, ahead: Upcoming) -> bool:
        """Take an event that :meth:`concerns` it; True where it was predicted.

        :class:`DisagreementError` where it cannot be, or where something else has to happen first.
        """
        if event.source == "kvm":
            return self._feed_kvm(event)
        what = event.name, event.args
        if event.vcpu in self._eois:
            self._lower_before(event, ahead)
            self._end(event.vcpu)
        if event.vcpu in self._lingering:
            self._no_longer(event.vcpu)
        self._check_lock(event, what)
        self._thread = event.vcpu
        expected = self._expected
        if expected:
            if what != expected[0]:
                raise DisagreementError("something else has to happen first", tuple(expected))
            expected.popleft()
            self.count["predicted"] += 1
            return True
        self._unlocked.discard(event.vcpu)
        machine = self.machine
        machine.now_ns = max(event.time_ns, machine.now_ns)
        machine.log.vcpu = event.vcpu
        if event.name == "ioapic_eoi_broadcast" and self._holds(event):
            return False
        if self._lingers(event, ahead):
            return False
        try:
            _STIMULI.get(event.name, QemuStimuli._refuse)(self, event, ahead)
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

    def _check_lock(self, event: Event, what: What) -> None:
        """What follows a stimulus comes in one piece, unless it is an EOI's without the lock."""
        if self.machine.split and event.name == "ioapic_eoi_broadcast":
            return
        for thread, lane in self._lanes.items():
            if lane and thread != event.vcpu and not {thread, event.vcpu} & self._unlocked:
                why = "it comes in another thread" if what == lane[0] else None
                raise DisagreementError(why or "something else has to happen first", tuple(lane))

    def _collect(self) -> None:
        events = self.machine.log.take()
        self._expected.extend((e.name, e.args) for e in events if e.name in self._compared)
        self.taking.note(self._thread, events)

    def _refuse(self, event: Event, ahead: Upcoming) -> None:
        raise DisagreementError("the model did not predict it")

    # --- lines and messages

    def _pic_set_irq(self, event: Event, ahead: Upcoming) -> None:
        """The ISA lines go to the PIC first, then to the IOAPIC (``gsi_handler``)."""
        self.machine.set_gsi(*_line(event), cpu=event.vcpu)

    def _ioapic_set_irq(self, event: Event, ahead: Upcoming) -> None:
        pin, level = event.args
        if int(pin) < 16:
            raise DisagreementError("the PIC has not seen this line")
        self.machine.set_gsi(int(pin), int(level), cpu=event.vcpu)

    def _apic_deliver_irq(self, event: Event, ahead: Upcoming) -> None:
        """A device's message."""
        dest, dest_mode, mode, vector, trigger = map(int, event.args)
        message = LapicMessage(
            vector, DELIVERY_MODES[mode], DEST_MODES[dest_mode], dest, TRIGGERS[trigger]
        )
        self.machine.bus.deliver(message)

    def _apic_local_deliver(self, event: Event, ahead: Upcoming) -> None:
        """A timer's expiry.  Whose it is, is seen later where several are armed.

        Of LINT0 in a CPU's thread it is the CPU that acknowledges the PIC: the local APIC looks at
        the PIC's output once more first (``hw/intc/apic.c``: apic_get_interrupt, apic_check_pic).
        """
        if event.args[0] == LVT_LINT0 and event.vcpu is not None:
            self.taking.intack(event.vcpu)
            return
        if event.args[0] != LVT_TIMER:
            raise DisagreementError("the model did not predict it")
        armed = [name for name in self.machine.deadlines if name[:5] == "lapic"]
        if not armed:
            raise DisagreementError("no timer was armed")
        if len(armed) == 1:
            self.machine.expire(armed[0])
            return
        self.taking.expired({int(name[5:]) for name in armed})
        self._expected.append((event.name, event.args))

    def _ioapic_set_remote_irr(self, event: Event, ahead: Upcoming) -> None:
        """Unpredicted it is that of an interrupt which was held back after many in a row."""
        if "ioapic0" not in self.machine.deadlines:
            raise DisagreementError("the model did not predict it")
        self.machine.expire("ioapic0")

    def _ioapic_eoi_broadcast(self, event: Event, ahead: Upcoming) -> None:
        """In split KVM says which EOI concerns an IOAPIC."""
        if not self.machine.split:
            raise DisagreementError("the model did not predict it")
        self.machine.eoi_broadcast(int(event.args[0]))

    def _holds(self, event: Event) -> bool:
        """Whether an EOI waits for its thread's next event.

        In split it comes with an exit, which QEMU handles without its lock: other threads may
        change lines before it has come to a pin (``kvm_arch_handle_exit``: KVM_EXIT_IOAPIC_EOI).
        """
        if not self.machine.split:
            return False
        vector = int(event.args[0])
        in_service = _LEVEL | _REMOTE_IRR
        if all(
            rte & 0xFF != vector or rte & in_service != in_service
            for rte in self.machine.ioapics[0].state.rte
        ):
            return False
        self._eois[event.vcpu] = vector
        self.count["stimuli"] += 1
        return True

    def _behind(self, ahead: Upcoming) -> Iterator[Event]:
        return (e for e in ahead.all() if e.source == "qemu" and e.name in self._compared)

    def _lingers(self, event: Event, ahead: Upcoming) -> bool:
        """Whether a pin that goes low was still high when an EOI in another thread looked at it.

        That is traced before it is done.  It has been done when its thread is next heard of.
        """
        if not self.machine.split or event.name != "ioapic_set_irq" or event.args[1]:
            return False
        pin = int(event.args[0])
        if not self.machine.ioapics[0].state.rte[pin] & _REMOTE_IRR:
            return False  # no CPU's EOI can be on its way to it
        meanwhile = takewhile(lambda other: other.vcpu != event.vcpu, self._behind(ahead))
        ends = ("ioapic_clear_remote_irr", pin), ("ioapic_set_remote_irr", pin)
        if ends not in pairwise((e.name, e.args[0]) for e in meanwhile if e.args):
            return False
        self._lingering[event.vcpu] = pin
        self.count["stimuli"] += 1
        return True

    def _no_longer(self, thread: int | None) -> None:
        """A pin that lingered is low now; that it goes low is known already."""
        self._lower(thread, self._lingering.pop(thread))
        self._expected.popleft()

    def _lower(self, thread: int | None, pin: int) -> None:
        self._thread = self.machine.log.vcpu = thread
        self.machine.set_gsi(pin, 0, cpu=thread)
        self._collect()

    def _lower_before(self, event: Event, ahead: Upcoming) -> None:
        """The EOI's pin goes low in another thread, and the EOI finds it low.

        The EOI looks at the line after its event (``ioapic_eoi_broadcast``): where the line goes
        low next, or went low not long before, and nothing is delivered again, it was low already.
        """
        if event.name != "ioapic_clear_remote_irr":
            return
        pin = int(event.args[0])
        state = self.machine.ioapics[0].state
        if not state.irr >> pin & 1 or state.rte[pin] & MASKED:
            return
        behind = self._behind(ahead)
        following = own = next(behind, event)
        if following.vcpu != event.vcpu:
            own = next((other for other in behind if other.vcpu == event.vcpu), event)
        if (own.name, *own.args) == ("ioapic_set_remote_irr", pin):
            return
        for thread in [thread for thread, low in self._lingering.items() if low == pin]:
            self._no_longer(thread)
        if following is not own and following.name in _LINES and _line(following) == (pin, 0):
            self._lower(following.vcpu, pin)

    def _end(self, thread: int | None) -> None:
        """The EOI comes to the pins now; that it was on its way is known already."""
        self._thread = self.machine.log.vcpu = thread
        self.machine.eoi_broadcast(self._eois.pop(thread))
        self._collect()
        self._expected.popleft()
        self._unlocked.add(thread)

    def _kvm_irqchip_update_msi_route(self, event: Event, ahead: Upcoming) -> None:
        if int(event.args[0]) < IOAPIC_PINS:
            raise DisagreementError("the model did not predict it")

    def _kvm_irqchip_commit_routes(self, event: Event, ahead: Upcoming) -> None:
        """A device's."""

    # --- registers

    def _cpu(self, event: Event) -> int:
        if event.vcpu is None:
            raise DisagreementError("only a CPU can do that")
        return event.vcpu

    def _ioapic_mem_write(self, event: Event, ahead: Upcoming) -> None:
        address, _, size, value = map(int, event.args)
        self.machine.mmio_write(self._cpu(event), IOAPIC_BASES[0] + address, size, value)

    def _ioapic_mem_read(self, event: Event, ahead: Upcoming) -> None:
        address, _, size, _ = map(int, event.args)
        self.machine.mmio_read(self._cpu(event), IOAPIC_BASES[0] + address, size)

    def _pic_ioport_write(self, event: Event, ahead: Upcoming) -> None:
        master, address, value = map(int, event.args)
        self.machine.pio_write(
            self._cpu(event), (MASTER_COMMAND if master else SLAVE_COMMAND) + address, value
        )

    def _pic_ioport_read(self, event: Event, ahead: Upcoming) -> None:
        master, address, _ = map(int, event.args)
        self.machine.pio_read(
            self._cpu(event), (MASTER_COMMAND if master else SLAVE_COMMAND) + address
        )

    def _apic_mem_writel(self, event: Event, ahead: Upcoming) -> None:
        register, value = map(int, event.args)
        self._write_apic(self._cpu(event), register, value)

    def _apic_mem_readl(self, event: Event, ahead: Upcoming) -> None:
        self._read_apic(event, int(event.args[0]))

    def _apic_register_write(self, event: Event, ahead: Upcoming) -> None:
        index, value = map(int, event.args)
        self._write_apic(self._cpu(event), index << 4, value)

    def _apic_register_read(self, event: Event, ahead: Upcoming) -> None:
        self._read_apic(event, int(event.args[0]) << 4)

    def _write_apic(self, cpu: int, register: int, value: int) -> None:
        lapic = self.machine.lapics[cpu]
        if register == EOI:
            self.taking.check_eoi(cpu)
        elif register == TMICT:
            self.taking.restarted(cpu)
        if lapic.x2apic_mode:
            lapic.write_msr(register, value, self.machine.now_ns)
        else:
            lapic.write_mmio(register, 4, value, self.machine.now_ns)

    def _read_apic(self, event: Event, register: int) -> None:
        lapic = self.machine.lapics[self._cpu(event)]
        if register == TMCCT:  # the time of the trace is not that of the read
            self._expected.append((event.name, event.args))
        elif lapic.x2apic_mode:
            lapic.read_msr(register, self.machine.now_ns)
        else:
            lapic.read_mmio(register, 4, self.machine.now_ns)

    def _cpu_set_apic_base(self, event: Event, ahead: Upcoming) -> None:
        self.machine.msr_write(self._cpu(event), MSR_APIC_BASE, int(event.args[0]))

    # --- what CPUs take

    def _pic_interrupt(self, event: Event, ahead: Upcoming) -> None:
        """INTA: in split the IOAPIC's or QEMU's for KVM_INTERRUPT, else the CPU's own."""
        cpu = self._cpu(event)
        if self.machine.split:
            self.machine.pic.intack()
        else:
            self.taking.intack(cpu)

    def _hardware_int(self, event: Event, ahead: Upcoming) -> None:
        self.taking.take(int(event.args[0]), str(event.args[1]), ahead)

    def _feed_kvm(self, event: Event) -> bool:
        cpu, machine, args = event.vcpu, self.machine, event.args
        if cpu is None:
            return False
        machine.log.vcpu = cpu
        is_stimulus = True
        if event.name == "kvm_inj_virq" and args[0] == "IRQ":
            self.count["kvm_inj_virq"] += 1
            self.taking.inject(cpu, int(args[1]))
        elif event.name == "kvm_pio" and args[1] in ELCR_PORTS and args[0] == "write":
            machine.pio_write(cpu, int(args[1]), int(args[4]), int(args[2]))
        elif event.name == "kvm_msr" and args[:2] == ("write", MSR_APIC_BASE):
            machine.msr_write(cpu, MSR_APIC_BASE, int(args[2]))
        else:
            is_stimulus = False
        # A signal may have ended KVM_RUN before the guest ran at all; a read was completed by then.
        if event.name != "kvm_inj_virq" and args[0] not in {"restart", "read"}:
            self.taking.passed(cpu)
        machine.log.take()
        self.count["stimuli"] += is_stimulus
        return False


_KVM_EVENTS: Final = {
    "split": frozenset({"kvm_pio"}),
    "off": frozenset({"kvm_inj_virq", "kvm_pio", "kvm_msr", "kvm_userspace_exit", "kvm_mmio"}),
    "tcg": frozenset[str](),
}
"""What the chips of QEMU's need of KVM's events: ELCR is traced there only."""


_STIMULI: Final[Mapping[str, Callable[[QemuStimuli, Event, Upcoming], None]]] = {
    "pic_set_irq": QemuStimuli._pic_set_irq,
    "ioapic_set_irq": QemuStimuli._ioapic_set_irq,
    "apic_deliver_irq": QemuStimuli._apic_deliver_irq,
    "apic_local_deliver": QemuStimuli._apic_local_deliver,
    "ioapic_set_remote_irr": QemuStimuli._ioapic_set_remote_irr,
    "ioapic_eoi_broadcast": QemuStimuli._ioapic_eoi_broadcast,
    "kvm_irqchip_update_msi_route": QemuStimuli._kvm_irqchip_update_msi_route,
    "kvm_irqchip_commit_routes": QemuStimuli._kvm_irqchip_commit_routes,
    "ioapic_mem_write": QemuStimuli._ioapic_mem_write,
    "ioapic_mem_read": QemuStimuli._ioapic_mem_read,
    "pic_ioport_write": QemuStimuli._pic_ioport_write,
    "pic_ioport_read": QemuStimuli._pic_ioport_read,
    "apic_mem_writel": QemuStimuli._apic_mem_writel,
    "apic_mem_readl": QemuStimuli._apic_mem_readl,
    "apic_register_write": QemuStimuli._apic_register_write,
    "apic_register_read": QemuStimuli._apic_register_read,
    "cpu_set_apic_base": QemuStimuli._cpu_set_apic_base,
    "pic_interrupt": QemuStimuli._pic_interrupt,
    "hardware_int": QemuStimuli._hardware_int,
}
"""By event: what drives the machine; all others can only be predicted."""
check_names(_STIMULI)
