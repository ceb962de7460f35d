"""KVM's local APICs: acceptance, its cause, and EOI (Linux ``arch/x86/kvm/lapic.c``)."""

from __future__ import annotations

from harness.ledger.ledger import Kind
from harness.ledger.rules import synic
from harness.ledger.rules.base import Books
from harness.ledger.rules.state import (
    ACCEPTED,
    BY_IPI,
    BY_LVT,
    BY_PIN,
    BY_SYNIC,
    FAR_NS,
    KVM_LVTS,
    NEAR_EVENTS,
    SAME_TIME_NS,
    Args,
    Cpu,
    Message,
    Pin,
    Thread,
)
from userspace_chip.architecture import MSR_APIC_BASE, MSR_TSC_DEADLINE
from userspace_chip.events import Event
from userspace_chip.vcpu import Exit


class KvmLapics(Books):
    """The tracepoints of the local APICs."""

    def kvm_apic_ipi(self, event: Event, args: Args) -> None:
        """A message of an IPI, whose acceptances follow."""
        dst, vector, mode, dest_mode, _level, _trigger, shorthand = args
        logical = dest_mode == "logical" if shorthand == "dst" else None
        if mode in ("Fixed", "LowPrio"):
            self._name(vector)
        self._thread(event[3]).messages[vector] = Message(self._index, dst, logical, BY_IPI)

    def kvm_apic_accept_irq(self, event: Event, args: Args) -> None:
        """IRR: what caused it, and whether it merged with one that was pending."""
        number, vector, mode, trigger = args
        cpu = self._cpu(number)
        if mode not in ("Fixed", "LowPrio"):
            if mode == "INIT":
                self._reset(cpu)
            return
        row = cpu.row(vector)
        row[ACCEPTED] += 1
        self._observer.accepted(cpu, vector)
        self._find_cause(event, cpu, vector, row)
        self._request(event, cpu, vector, row, trigger == "level")

    def _find_cause(self, event: Event, cpu: Cpu, vector: int, row: list[int]) -> None:
        thread = self._thread(event[3])
        message = thread.messages.get(vector)
        misled = False
        if (
            message is not None
            and self._index - message.index <= NEAR_EVENTS
            and not message.taken >> cpu.number & 1
        ):
            if self._reaches(message.dst, message.logical, cpu):
                self._take_message(message, cpu, row)
                return
            misled = True
        if self._from_lvt(cpu, vector):
            row[BY_LVT] += 1
            return
        if cpu.synic and any(source.vector == vector for source in cpu.synic.values()):
            row[BY_SYNIC] += 1
            return
        # Between kvm_set_irq and kvm_ioapic_set_irq the cause is the line.
        if (
            self._in_kernel
            and not thread.raising
            and self._from_service(event, thread, cpu, vector, row)
        ):
            return
        if misled and message is not None:
            self._take_message(message, cpu, row)
            detail = f"the message was for {message.dst:x}"
            self._find("misrouted", cpu.subject(vector), event, detail)
            return
        if event[3] is not None and event[3] != cpu.number and not thread.raising:
            # KVM's hypercall for IPIs (Linux lapic.c:kvm_pv_send_ipi) has no event of its own.
            self._warn("acceptances from other vCPUs without an IPI's event: taken for IPIs")
            row[BY_IPI] += 1
            return
        known = self._named >> vector & 1
        detail = (
            "accepted, and no message was sent"
            if known
            else "accepted, and nothing has this vector"
        )
        kind: Kind = "spurious" if known else "misrouted"
        debt = self._owe(kind, cpu.subject(vector), event, detail)
        if self._in_kernel:
            thread.open = [item for item in thread.open if not item[2].paid]
            thread.open.append((cpu.number, vector, debt))

    def _take_message(self, message: Message, cpu: Cpu, row: list[int]) -> None:
        message.taken |= 1 << cpu.number
        row[message.column] += 1
        if message.debt is not None:
            message.debt.paid = True

    def _from_lvt(self, cpu: Cpu, vector: int) -> bool:
        for register, own in cpu.lvts.items():
            if own == vector:
                if register != "APIC_LVTT" or cpu.periodic:
                    return True
                if cpu.armed:
                    cpu.armed -= 1
                    return True
        return False

    def _from_service(
        self, event: Event, thread: Thread, cpu: Cpu, vector: int, row: list[int]
    ) -> bool:
        """on: a pin whose line is still high was serviced again, which has no tracepoint."""
        near = self._index - thread.service <= NEAR_EVENTS
        for pin in self._pins:
            if pin.vector != vector or not pin.lines or not (near or pin.throttled):
                continue
            if pin.masked or (pin.level and pin.remote_irr is not None):
                continue
            if not self._reaches(pin.dst, pin.logical, cpu):
                continue
            if not pin.level and not near:
                continue
            row[BY_PIN] += 1
            pin.throttled = False
            if pin.level:
                self._settle_service(pin)
                self._redelivered(pin, event)
                self._set_remote_irr(pin, event, vector)
            return True
        return False

    def kvm_apicv_accept_irq(self, event: Event, args: Args) -> None:
        """Hardware delivers from here on: IRR and ISR are not observable."""
        self._hardware = True

    def kvm_apic(self, event: Event, args: Args) -> None:
        """What the books need of a local APIC's registers."""
        access, register, value = args
        if access != "write":
            return
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        if register == "APIC_TMICT":
            cpu.count = value
            cpu.armed = int(value != 0)
        elif register in KVM_LVTS:
            self._lvt(cpu, register, value, timer=register == "APIC_LVTT")
        elif register == "APIC_ID":
            cpu.id = value >> 24
        elif register == "APIC_SPIV":
            cpu.enabled = bool(value & 0x100)
        elif register == "APIC_LDR":
            cpu.ldr = value
        elif register == "APIC_DFR":
            cpu.dfr_flat = value >> 28 == 0xF

    def kvm_msr(self, event: Event, args: Args) -> None:
        """The TSC deadline arms a timer; the base selects x2APIC."""
        access, register, value = args[:3]
        if access != "write":
            return
        is_synic = synic.is_source(register)
        if not is_synic and register not in (MSR_TSC_DEADLINE, MSR_APIC_BASE):
            return
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        if is_synic:
            self._synic(cpu, register, value)
        elif register == MSR_TSC_DEADLINE:
            cpu.armed = int(value != 0)
        else:
            cpu.x2apic = bool(value >> 10 & 1)

    def _synic(self, cpu: Cpu, msr: int, value: int) -> None:
        if (source := synic.source(msr, value)) is None:
            cpu.synic.pop(msr, None)
        else:
            cpu.synic[msr] = source
            self._name(source.vector)

    def kvm_eoi(self, event: Event, args: Args) -> None:
        """Out of ISR; the pins that it is due to have to follow."""
        number, vector = args
        thread = self._thread(event[3])
        thread.eoi = self._index, vector
        if vector < 0 or self._hardware:
            return
        if event[3] is not None and event[3] != number:
            self._warn("local APIC ids that are not the vCPUs' numbers")
        cpu = self._cpu(number)
        self._ended(event, cpu, vector)
        # Another CPU may have an edge of the same vector: its EOI goes to no pin.
        was_level = cpu.level >> vector & 1
        for pin in self._pins:
            if was_level and pin.remote_irr == vector:
                self._await_ack(event, cpu, pin, vector)

    def _await_ack(self, event: Event, cpu: Cpu, pin: Pin, vector: int) -> None:
        def free() -> None:
            pin.remote_irr = None

        if self._in_kernel:
            if pin.vector == vector:
                detail = "EOI of its vector did not come to the pin: remote IRR stays set"
                pin.ack = self._owe("stuck", pin.subject, event, detail)
                pin.ack.broken = free
        else:
            if cpu.exit is not None and not cpu.exit.paid:
                self._break(cpu.exit)
            detail = f"EOI of level vector {vector} did not reach QEMU: remote IRR stays set"
            cpu.exit = self._owe("stuck", pin.subject, event, detail, FAR_NS)
            cpu.exit.broken = free

    def kvm_pv_eoi(self, event: Event, args: Args) -> None:
        """An EOI through memory: ``kvm_eoi`` came just before it."""
        thread = self._thread(event[3])
        when, vector = thread.eoi
        thread.eoi = when, -1
        if vector != args[1] or self._index - when > NEAR_EVENTS:
            detail = "ended through memory (PV EOI), and its EOI is missing"
            self._find("spurious", f"vector {args[1]} cpu{args[0]}", event, detail)

    def kvm_userspace_exit(self, event: Event, args: Args) -> None:
        """split: KVM leaves for QEMU's IOAPIC to see an EOI."""
        if args[1] != Exit.IOAPIC_EOI:
            return
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        if cpu.exit is not None:
            cpu.exit.paid, cpu.exit = True, None
        early, cpu.untold = cpu.untold, None
        if early is not None and event[0] - early.event.time_ns <= SAME_TIME_NS:
            early.paid = True
            return
        vector = self._thread(event[3]).eoi[1]
        detail = f"KVM left for the EOI of vector {vector}, and no broadcast followed"
        cpu.broadcast = vector, self._owe("stuck", f"vector {vector}", event, detail, FAR_NS)
