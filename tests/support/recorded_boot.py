"""A recorded boot is fed to a :class:`Machine`, and every event must be one that it predicted.

Stimuli are what no chip can foresee: lines, messages, register writes, the moment of an injection,
of a timer's expiry, of an EOI by shared memory.  All other events have to come out of the machine,
each thread's in the recorded order of its stimuli.
"""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from userspace_chip.events import Arg, event_type
from userspace_chip.irqchip import Machine
from userspace_chip.lapic_registers import NAMES, TMCCT
from userspace_chip.lapic_timer import LVT_TIMER
from userspace_chip.messages import (
    DELIVERY_MODE_NAMES,
    DELIVERY_MODES,
    DEST_MODE_NAMES,
    DEST_MODES,
    SHORTHAND_NAMES,
    TRIGGER_NAMES,
    TRIGGERS,
    LapicMessage,
)
from userspace_chip.msi import encode
from userspace_chip.vcpu import IOAPIC_EOI, SCAN_IOAPIC, MpState

BOOTS = Path(__file__).parent.parent / "golden" / "chips"

_OFFSETS = {name: offset for offset, name in NAMES.items()}
_PREDICTED = {"kvm_userspace_exit", "kvm_mmio", "kvm_pio", "kvm_msr"}
"""Stimuli whose own event the machine does not repeat."""


class Recorded(NamedTuple):
    """One line of a recording."""

    number: int
    vcpu: int | None
    name: str
    text: str

    @property
    def args(self) -> tuple[Arg, ...]:
        return event_type(self.name).parse(self.text)


class DisagreementError(AssertionError):
    """The machine and the recording differ."""


def recorded(name: str) -> list[Recorded]:
    """The events of ``boot-<name>.txt.gz``."""
    events = []
    with gzip.open(BOOTS / f"boot-{name}.txt.gz", "rt") as lines:
        for number, line in enumerate(lines, 1):
            vcpu, event, text = line.rstrip("\n").split(" ", 2)
            events.append(
                Recorded(number, None if vcpu == "-" else int(vcpu), event.rstrip(":"), text)
            )
    return events


class Replay:
    """Feeds events to a machine; ``count`` says what was a stimulus and what was predicted."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.count: Counter[str] = Counter()
        self._expected: dict[int | None, list[tuple[str, str]]] = defaultdict(list)
        machine.log.take()

    def run(self, events: list[Recorded]) -> None:
        """All of it; :class:`DisagreementError` at the first difference."""
        following = _following(events)
        for event in events:
            if self._was_predicted(event):
                self.count["predicted"] += 1
                continue
            stimulus: Callable[[Recorded], None] = getattr(self, f"_{event.name}", self._refuse)
            if event.name == "kvm_msi_set_irq" and self._is_scan(event, following[event.number]):
                stimulus = self._scan
            self._all_came(event)
            self.machine.log.vcpu = event.vcpu
            stimulus(event)
            self._collect()
            self._start_cpus()
            self.count["stimuli"] += 1
            if event.name not in _PREDICTED and not self._was_predicted(event):
                raise DisagreementError(f"{event}: expected {self._expected[event.vcpu][:5]}")
        for vcpu, rest in self._expected.items():
            if rest:
                raise DisagreementError(f"at the end, vCPU {vcpu}: {rest[:5]} never came")

    def _collect(self) -> None:
        for event in self.machine.log.take():
            if event.name.startswith("kvm_") and event.name not in _PREDICTED:
                self._expected[event.vcpu].append((event.name, event.text))

    def _was_predicted(self, event: Recorded) -> bool:
        expected = self._expected[event.vcpu]
        if (event.name, event.text) not in expected:
            return False
        expected.remove((event.name, event.text))
        return True

    def _all_came(self, event: Recorded) -> None:
        rest = [e for e in self._expected[event.vcpu] if not e[0].startswith("kvm_irqchip")]
        self._expected[event.vcpu].clear()
        if rest and rest[0][0] != "kvm_run_exit":
            raise DisagreementError(f"before {event}: {rest[:5]} never came")

    def _refuse(self, event: Recorded) -> None:
        raise DisagreementError(f"{event} was not predicted")

    def _start_cpus(self) -> None:
        """INIT and SIPI take effect in the CPU's own thread, which waits for nothing else."""
        for cpu in self.machine.vcpus:
            if cpu.state.init_pending or cpu.state.sipi_pending:
                cpu.accept_events()

    # --- lines and messages

    def _kvm_set_irq(self, event: Recorded) -> None:
        gsi, level, source = event.args
        self.machine.router.set_irq(int(gsi), int(level), int(source), source == 0)

    def _kvm_msi_set_irq(self, event: Recorded) -> None:
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

    def _is_scan(self, event: Recorded, following: str | None) -> bool:
        """A CPU that decodes one route after another rescans, also for a device's new route."""
        if event.vcpu is None or not self.machine.split:
            return False
        requested = self.machine.vcpus[event.vcpu].state.requests & SCAN_IOAPIC
        return bool(requested) or following == event.name

    def _scan(self, event: Recorded) -> None:
        assert event.vcpu is not None
        cpu = self.machine.vcpus[event.vcpu]
        cpu.state.requests &= ~SCAN_IOAPIC
        cpu.scan_ioapic()
        self.count["scans"] += 1

    # --- registers

    def _kvm_apic(self, event: Recorded) -> None:
        access, name, value = event.args
        offset = _OFFSETS.get(str(name)) or int(str(name), 16)
        lapic = self._lapic(event)
        now_ns = self.machine.now_ns
        if access == "write" and lapic.x2apic_mode:
            lapic.write_msr(offset, int(value), now_ns)
        elif access == "write":
            lapic.write_mmio(offset, 4, int(value), now_ns)
        elif offset == TMCCT:  # no clock here
            self._expected[event.vcpu].append((event.name, event.text))
        elif lapic.x2apic_mode:
            lapic.read_msr(offset, now_ns)
        else:
            lapic.read_mmio(offset, 4, now_ns)

    def _kvm_apic_ipi(self, event: Recorded) -> None:
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
        self._lapic(event).write_msr(0x300, icr, self.machine.now_ns)

    def _kvm_mmio(self, event: Recorded) -> None:
        kind, length, gpa, value = event.args
        cpu = event.vcpu or 0
        if kind == "write":
            self.machine.mmio_write(cpu, int(gpa), int(length), int(value))
        elif kind == "read":
            self._same(event, self.machine.mmio_read(cpu, int(gpa), int(length)), value)

    def _kvm_pio(self, event: Recorded) -> None:
        access, port, size, _, value, _ = event.args
        cpu = event.vcpu or 0
        if self.machine.split:
            return  # QEMU's PIC: its lines are not part of the recording
        if access == "write":
            self.machine.pio_write(cpu, int(port), int(value), int(size))
        else:
            self._same(event, self.machine.pio_read(cpu, int(port), int(size)), value)

    def _kvm_msr(self, event: Recorded) -> None:
        _, msr, value, _ = event.args
        self.machine.msr_write(event.vcpu or 0, int(msr), int(value))

    def _same(self, event: Recorded, found: int, value: Arg) -> None:
        if found != value:
            raise DisagreementError(f"{event}: the machine reads {found:#x}")

    # --- the CPU's side

    def _kvm_inj_virq(self, event: Recorded) -> None:
        kind, vector, reinjected = event.args
        cpu = event.vcpu or 0
        if kind != "IRQ":  # software interrupts are no chip's business
            self._expected[event.vcpu].append((event.name, event.text))
            return
        vcpu = self.machine.vcpus[cpu]
        vcpu.state.mp_state = MpState.RUNNABLE
        if vcpu.state.requests & IOAPIC_EOI:
            raise DisagreementError(f"{event}: an exit for an EOI was due")
        if reinjected:
            self.machine.exit(cpu, reinject=True)
        elif self.machine.split and self._lapic(event).pending() != vector:
            self.machine.interrupt(cpu, int(vector))  # from QEMU's PIC
        # In split a rescan is seen, so one that another thread asks for comes when it is seen.
        scan = vcpu.state.requests & SCAN_IOAPIC if self.machine.split else 0
        vcpu.state.requests &= ~scan
        self.machine.step(cpu)
        vcpu.state.requests |= scan

    def _kvm_eoi(self, event: Recorded) -> None:
        """Without a write of the register it is one by shared memory."""
        self.machine.exit(event.vcpu or 0, pv_eoi=True)

    def _kvm_apic_accept_irq(self, event: Recorded) -> None:
        """Without a message it is the timer's."""
        self._lapic(event).local_deliver(LVT_TIMER)

    def _kvm_userspace_exit(self, event: Recorded) -> None:
        """KVM_EXIT_IOAPIC_EOI; what QEMU does then comes as lines."""
        state = self.machine.vcpus[event.vcpu or 0].state
        vector = state.ioapic_eoi
        due = state.requests & IOAPIC_EOI and vector is not None
        if not due or not state.handled_vectors >> (vector or 0) & 1:
            raise DisagreementError(f"{event}: no exit for an EOI was due")
        state.requests &= ~IOAPIC_EOI
        self.count["EOI exits"] += 1

    def _lapic(self, event: Recorded):
        return self.machine.lapics[event.vcpu or 0]


def _following(events: list[Recorded]) -> dict[int, str | None]:
    """For each line the next event's name in the same thread."""
    latest: dict[int | None, str] = {}
    found: dict[int, str | None] = {}
    for event in reversed(events):
        found[event.number] = latest.get(event.vcpu)
        latest[event.vcpu] = event.name
    return found
