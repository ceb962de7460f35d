"""KVM's trace as stimuli of a :class:`Machine`, and the events that it predicts.

Stimuli are what no chip can foresee: lines, messages, register writes, the moment of an injection,
of a timer's expiry, of an EOI by shared memory.  All other events of KVM have to come out of the
machine, each thread's in its order.  All threads that are no CPU's count as one, because a trace
does not tell them apart: it is taken for granted that they do not run into each other.
docs/chips.md, "States and time", says what there is to know of KVM's order of tracing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final, Protocol, TypeAlias

from userspace_chip.architecture import (
    IOAPIC_BASES,
    MSR_APIC_BASE,
    MSR_KVM_PV_EOI,
    MSR_TSC_DEADLINE,
    PIC_PORTS,
)
from userspace_chip.errors import ChipError
from userspace_chip.events import KVM_EVENTS, Arg, Event, check_names
from userspace_chip.irqchip import Machine
from userspace_chip.kvm.layout import move
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_registers import ICR, LVTT, NAMES, TMCCT, TMICT, TPR
from userspace_chip.lapic_state import ONE_SHOT, PERIODIC
from userspace_chip.messages import (
    DELIVERY_MODE_NAMES,
    DELIVERY_MODES,
    DEST_MODE_NAMES,
    DEST_MODES,
    SHORTHAND_NAMES,
    TRIGGER_NAMES,
    TRIGGERS,
    LapicMessage,
    Trigger,
)
from userspace_chip.msi import encode
from userspace_chip.routing import RoutingTable
from userspace_chip.vcpu import (
    IOAPIC_EOI,
    NMI,
    SCAN_IOAPIC,
    TPR_ACCESS,
    Exit,
    MpState,
    VcpuState,
)

What: TypeAlias = tuple[str, tuple[Arg, ...]]
"""An event without its time: name and fields."""


class Upcoming(Protocol):
    """What comes after the current event, as far as it is looked at."""

    def all(self) -> Iterator[Event]:
        """The next events."""

    def of_vcpu(self, vcpu: int) -> Iterator[Event]:
        """The next events of KVM's in a vCPU's thread."""


_OFFSETS: Final = {name: offset for offset, name in NAMES.items()}
_NOT_REPEATED: Final = frozenset({"kvm_userspace_exit", "kvm_mmio", "kvm_pio", "kvm_msr"})
"""Stimuli whose own event the machine does not repeat."""
_EXITS: Final = frozenset({"kvm_mmio", "kvm_pio", "kvm_msr"})
"""The first event of an exit, whatever it is about."""
_PREDICTABLE: Final = KVM_EVENTS.keys() - _NOT_REPEATED
_MSRS: Final = frozenset({MSR_APIC_BASE, MSR_TSC_DEADLINE, MSR_KVM_PV_EOI})


class DisagreementError(Exception):
    """The machine and the recording differ; ``predicted`` is what should have come instead."""

    def __init__(self, why: str, predicted: tuple[What, ...] = ()) -> None:
        self.why = why
        self.predicted = predicted
        super().__init__(why)


def concerns_chips(event: Event, ioapics: int) -> bool:
    """Whether the chips of a machine with that many IOAPICs have to do with an event of KVM's.

    The local APIC's registers are seen as ``kvm_apic``, whatever way they were reached; the PIT's
    ports do not matter, because its expiries are stimuli themselves.
    """
    name, args = event.name, event.args
    if name == "kvm_pio":
        return args[1] in PIC_PORTS
    if name == "kvm_userspace_exit":
        return args[1] == Exit.IOAPIC_EOI
    if name == "kvm_mmio":
        address = int(args[2])
        return any(0 <= address - base <= 0xFFF for base in IOAPIC_BASES[:ioapics])
    if name == "kvm_msr":
        return args[1] in _MSRS and args[0] == "write"
    return name in _PREDICTABLE


def start_cpus(machine: Machine) -> None:
    """INIT and SIPI take effect in the CPU's own thread, which waits for nothing else."""
    for cpu in machine.vcpus:
        if cpu.state.init_pending or cpu.state.sipi_pending:
            cpu.accept_events()


def _take_nmis(state: VcpuState) -> None:
    """NMIs and SMIs have no event, but come before any interrupt: those so far were injected."""
    state.nmi_queued = state.nmi_pending = 0
    state.nmi_injected = state.smi_pending = False
    state.requests &= ~NMI


class Stimuli:
    """Feeds events to a machine; ``count`` says what was a stimulus and what was predicted."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.count: Counter[str] = Counter()
        self._expected: dict[int | None, deque[What]] = {
            vcpu: deque() for vcpu in (None, *range(len(machine.vcpus)))
        }
        self._in_flight: dict[int, RoutingTable] = {}
        """In split, by the CPU that writes an entry: the routes as they were before."""
        self._polled: dict[int, int] = {}
        """By the CPU that polls a PIC: what it read, until that is traced."""
        self._left_periodic: set[int] = set()
        """The CPUs whose timer left periodic mode while it ran, and was not started again."""
        machine.log.take()

    @property
    def outstanding(self) -> dict[int | None, tuple[What, ...]]:
        """By thread, what was predicted and has not come yet."""
        return {vcpu: tuple(rest) for vcpu, rest in self._expected.items() if rest}

    @property
    def names(self) -> frozenset[str]:
        """The events that may concern it."""
        return frozenset(KVM_EVENTS)

    def concerns(self, event: Event) -> bool:
        """Whether an event is compared, a stimulus, or shows that a CPU was in its guest."""
        if event.source != "kvm":
            return False
        is_exit = self.machine.on and event.name in _EXITS and bool(self.count)
        return is_exit or concerns_chips(event, len(self.machine.ioapics))

    def feed(self, event: Event, ahead: Upcoming) -> bool:
        """Take an event that :meth:`concerns` it; True where it was predicted.

        :class:`DisagreementError` where it cannot be, or where something else has to happen first.
        """
        expected = self._expected[event.vcpu]
        what = event[2], event[4]
        if event.vcpu is not None and not expected:
            self._answer_tpr_access(event.vcpu)
        if self.machine.on and event.name in _EXITS:
            if event.vcpu is not None and not expected:
                self._was_in_guest(event.vcpu)
            if not concerns_chips(event, len(self.machine.ioapics)):
                return True
        if self._in_flight and event.vcpu is not None:
            self._in_flight.pop(event.vcpu, None)
        if expected:
            if what != expected[0]:
                raise DisagreementError("something else has to happen first", tuple(expected))
            expected.popleft()
            self.count["predicted"] += 1
            return True
        self.machine.log.vcpu = event.vcpu
        try:
            if event.name == "kvm_msi_set_irq" and self._is_scan(event, ahead):
                self._scan(event, ahead)
            elif event.name == "kvm_ack_irq":
                self._acknowledge(event, ahead)
            else:
                _STIMULI.get(event.name, Stimuli._refuse)(self, event)
        except (ChipError, ValueError) as error:
            raise DisagreementError(f"the chips cannot take it: {error}") from error
        self._collect()
        start_cpus(self.machine)
        self.count["stimuli"] += 1
        if event.name not in _NOT_REPEATED:
            if not expected or what != expected[0]:
                raise DisagreementError("the model expects something else", tuple(expected))
            expected.popleft()
        return False

    def loaded(self) -> None:
        """The guest goes on in another QEMU."""
        move(self.machine)
        self._left_periodic.clear()

    def _answer_tpr_access(self, cpu: int) -> None:
        """A CPU goes on: user space has answered its exit at an access of TPR, if there was one."""
        vcpu = self.machine.vcpus[cpu]
        if vcpu.state.requests & TPR_ACCESS:
            vcpu.state.requests &= ~TPR_ACCESS
            vcpu.synchronized()

    def _was_in_guest(self, cpu: int) -> None:
        """An exit: before it there was an entry, which did the scan that was asked for.

        In split a scan is seen.  When it is done matters where its vector is just pending.
        """
        state = self.machine.vcpus[cpu].state
        if state.requests & SCAN_IOAPIC:
            state.requests &= ~SCAN_IOAPIC
            self.machine.vcpus[cpu].scan_ioapic()

    def _collect(self) -> None:
        for event in self.machine.log.take():
            if event.name in _PREDICTABLE:
                self._expected[event.vcpu].append((event.name, event.args))

    def _refuse(self, event: Event) -> None:
        raise DisagreementError("the model did not predict it")

    # --- lines and messages

    def _kvm_set_irq(self, event: Event) -> None:
        gsi, level, source = event.args
        self.machine.router.set_irq(int(gsi), int(level), int(source), source == 0)

    def _kvm_msi_set_irq(self, event: Event) -> None:
        dst, vector, mode, dest_mode, trigger, rh = event.args
        message = LapicMessage(
            int(vector),
            DELIVERY_MODES[DELIVERY_MODE_NAMES.index(str(mode))],
            DEST_MODES[DEST_MODE_NAMES.index(str(dest_mode))],
            int(dst),
            TRIGGERS[TRIGGER_NAMES.index(str(trigger))],
            rh=bool(rh),
        )
        self.machine.signal_msi(*encode(message), cpu=event.vcpu)

    def _is_scan(self, event: Event, ahead: Upcoming) -> bool:
        """A CPU that decodes one route after another rescans, also for a device's new route."""
        if event.vcpu is None or not self.machine.split:
            return False
        if self.machine.vcpus[event.vcpu].state.requests & SCAN_IOAPIC:
            return True
        second = next(ahead.of_vcpu(event.vcpu), None)
        return second is not None and second.name == event.name

    def _scan(self, event: Event, ahead: Upcoming) -> None:
        """A rescan sees the routes of before or after a write that another CPU has in flight.

        That write is traced when it leaves KVM; QEMU's KVM_SET_GSI_ROUTING, somewhere between it
        and the next event of that thread, is not.  The new routes make KVM ask for a scan again.
        """
        assert event.vcpu is not None
        cpu, router = self.machine.vcpus[event.vcpu], self.machine.router
        self._collect()
        latest = router.table
        for table in (latest, *self._in_flight.values()):
            router.table = table
            cpu.scan_ioapic()
            decoded = [found.args for found in self.machine.log.events]
            rest = islice(ahead.of_vcpu(event.vcpu), len(decoded) - 1) if self._in_flight else ()
            if [event.args, *(found.args for found in rest)] == decoded or not self._in_flight:
                break
            self.machine.log.take()
        else:
            table = router.table = latest
            cpu.scan_ioapic()
        if table is latest:
            cpu.state.requests &= ~SCAN_IOAPIC
        router.table = latest
        self.count["scans"] += 1

    # --- registers

    def _kvm_apic(self, event: Event) -> None:
        access, name, value = event.args
        offset = _OFFSETS.get(str(name)) or int(str(name), 16)
        lapic = self._lapic(event)
        now_ns = self.machine.now_ns
        if access == "write":
            was_periodic = lapic.state.timer.mode == PERIODIC
            if lapic.x2apic_mode:
                lapic.write_msr(offset, int(value), now_ns)
            else:
                lapic.write_mmio(offset, 4, int(value), now_ns)
            self._note_timer(event.vcpu or 0, offset, was_periodic)
        elif offset == TMCCT:  # no clock here
            self._expected[event.vcpu].append((event.name, event.args))
        else:
            if offset == TPR:
                self._take_cr8(event.vcpu or 0, int(value))
            if lapic.x2apic_mode:
                lapic.read_msr(offset, now_ns)
            else:
                lapic.read_mmio(offset, 4, now_ns)

    def _take_cr8(self, cpu: int, tpr: int) -> None:
        """A guest that reads another class of priority than it wrote last has moved to CR8.

        Nothing traces the MOV where it is not intercepted; this exit itself makes it known to KVM
        (Linux 6.1 ``arch/x86/kvm/svm/svm.c:sync_cr8_to_lapic``).  CR8 has no lower bits.
        """
        if tpr & 0xF == 0 and tpr >> 4 != self.machine.lapics[cpu].cr8():
            self.machine.set_cr8(cpu, tpr >> 4)

    def _note_timer(self, cpu: int, offset: int, was_periodic: bool) -> None:
        """A timer that leaves periodic mode may expire twice more.

        A tick that KVM has noted is not taken back, and the next one is on its way (Linux 6.12
        ``lapic.c``: apic_update_lvtt, apic_timer_fn); the trace shows only the deliveries.
        """
        mode = self.machine.lapics[cpu].state.timer.mode
        if offset == LVTT and was_periodic and mode == ONE_SHOT:
            self._left_periodic.add(cpu)
        elif offset == TMICT or mode not in (PERIODIC, ONE_SHOT):
            self._left_periodic.discard(cpu)

    def _kvm_apic_ipi(self, event: Event) -> None:
        """In x2APIC mode the write of ICR is traced after what it does."""
        dst, vector, mode, dest_mode, level, trigger, shorthand = event.args
        icr = (
            int(dst) << 32
            | SHORTHAND_NAMES.index(str(shorthand)) << 18
            | TRIGGER_NAMES.index(str(trigger)) << 15
            | (level == "assert") << 14
            | DEST_MODE_NAMES.index(str(dest_mode)) << 11
            | DELIVERY_MODE_NAMES.index(str(mode)) << 8
            | int(vector)
        )
        self._lapic(event).write_msr(ICR, icr, self.machine.now_ns)

    def _kvm_mmio(self, event: Event) -> None:
        kind, length, gpa, value = event.args
        cpu = event.vcpu or 0
        if kind == "write":
            before = self.machine.router.table
            self.machine.mmio_write(cpu, int(gpa), int(length), int(value))
            if self.machine.router.table is not before:
                self._in_flight[cpu] = before
        elif kind == "read":
            self._same(self.machine.mmio_read(cpu, int(gpa), int(length)), value)

    def _kvm_pio(self, event: Event) -> None:
        access, port, size, _, value, _ = event.args
        cpu = event.vcpu or 0
        if self.machine.split:
            return  # QEMU's PIC: its lines are no events of KVM's
        if access == "write":
            self.machine.pio_write(cpu, int(port), int(value), int(size))
        elif cpu in self._polled:
            self._same(self._polled.pop(cpu), value)
        else:
            self._same(self.machine.pio_read(cpu, int(port), int(size)), value)

    def _kvm_msr(self, event: Event) -> None:
        _, msr, value, faulted = event.args
        taken = self.machine.msr_write(event.vcpu or 0, int(msr), int(value))
        if taken == faulted:
            raise DisagreementError("the model takes it" if taken else "the model answers #GP")

    def _same(self, found: int, value: Arg) -> None:
        if found != value:
            raise DisagreementError(f"the model reads {found:#x}")

    # --- the CPU's side

    def _acknowledge(self, event: Event, ahead: Upcoming) -> None:
        """Without an EOI it is an INTA cycle: a PIC that ends it by itself, or that is polled.

        What has it done is traced next: an injection, or the read of the PIC.
        """
        cpu = event.vcpu
        if cpu is None or not self.machine.on:
            self._refuse(event)
            return
        cause = next((e for e in ahead.of_vcpu(cpu) if e.name != event.name), None)
        if cause is not None and cause.name == "kvm_pio":
            self._polled[cpu] = self.machine.pio_read(cpu, int(cause.args[1]), int(cause.args[2]))
            return
        self.machine.vcpus[cpu].state.mp_state = MpState.RUNNABLE
        self._inject(cpu)

    def _kvm_inj_virq(self, event: Event) -> None:
        kind, vector, reinjected = event.args
        cpu = event.vcpu or 0
        if kind != "IRQ":  # software interrupts are no chip's business
            self._expected[event.vcpu].append((event.name, event.args))
            return
        vcpu = self.machine.vcpus[cpu]
        vcpu.state.mp_state = MpState.RUNNABLE
        if vcpu.state.requests & IOAPIC_EOI:
            raise DisagreementError("an exit for an EOI was due")
        if reinjected:
            self.machine.exit(cpu, reinject=True)
        elif self.machine.split and self._lapic(event).pending() != vector:
            self.machine.interrupt(cpu, int(vector))  # from QEMU's PIC
        self._inject(cpu)

    def _inject(self, cpu: int) -> None:
        """Enter the guest with what there is to inject."""
        vcpu = self.machine.vcpus[cpu]
        _take_nmis(vcpu.state)
        # In split a rescan is seen, so one that another thread asks for comes when it is seen.
        scan = vcpu.state.requests & SCAN_IOAPIC if self.machine.split else 0
        vcpu.state.requests &= ~scan
        self.machine.step(cpu)
        vcpu.state.requests |= scan

    def _kvm_eoi(self, event: Event) -> None:
        """Without a write of the register it is one by shared memory."""
        self.machine.exit(event.vcpu or 0, pv_eoi=True)

    def _kvm_apic_accept_irq(self, event: Event) -> None:
        """Without a message it is the timer's, or the IOAPIC's after a storm of EOIs."""
        apic_id, is_level = int(event.args[0]), event.args[3] == TRIGGER_NAMES[Trigger.LEVEL]
        if is_level and "ioapic0" in self.machine.deadlines:
            self.machine.expire("ioapic0")
            return
        timer = f"lapic{apic_id}"
        if timer in self.machine.deadlines:
            self.machine.expire(timer)
        elif apic_id in self._left_periodic:
            # The acceptance before was that of the tick which had been noted: this is the last.
            self._left_periodic.discard(apic_id)
            self.machine.expire(timer)
        else:
            raise DisagreementError("no message was sent, and no timer was armed")
        self.machine.log.vcpu = event.vcpu
        self.machine.lapics[apic_id].timer.deliver_pending(self.machine.now_ns)

    def _kvm_userspace_exit(self, event: Event) -> None:
        """KVM_EXIT_IOAPIC_EOI; what QEMU does then comes as lines."""
        state = self.machine.vcpus[event.vcpu or 0].state
        vector = state.ioapic_eoi
        due = state.requests & IOAPIC_EOI and vector is not None
        if not due or not state.handled_vectors >> (vector or 0) & 1:
            raise DisagreementError("no exit for an EOI was due")
        state.requests &= ~IOAPIC_EOI
        self.count["EOI exits"] += 1

    def _lapic(self, event: Event) -> Lapic:
        return self.machine.lapics[event.vcpu or 0]


_STIMULI: Final[Mapping[str, Callable[[Stimuli, Event], None]]] = {
    "kvm_set_irq": Stimuli._kvm_set_irq,
    "kvm_msi_set_irq": Stimuli._kvm_msi_set_irq,
    "kvm_apic": Stimuli._kvm_apic,
    "kvm_apic_ipi": Stimuli._kvm_apic_ipi,
    "kvm_mmio": Stimuli._kvm_mmio,
    "kvm_pio": Stimuli._kvm_pio,
    "kvm_msr": Stimuli._kvm_msr,
    "kvm_inj_virq": Stimuli._kvm_inj_virq,
    "kvm_eoi": Stimuli._kvm_eoi,
    "kvm_apic_accept_irq": Stimuli._kvm_apic_accept_irq,
    "kvm_userspace_exit": Stimuli._kvm_userspace_exit,
}
"""By event: what drives the machine; all others can only be predicted."""
check_names(_STIMULI)
