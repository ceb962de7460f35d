"""QEMU's chips: ``hw/intc/ioapic.c``, ``i8259.c`` and ``apic.c`` (7.2 and 10.0)."""

from __future__ import annotations

from harness.ledger.rules.base import Books
from harness.ledger.rules.state import (
    ACKNOWLEDGED,
    ASSERTED,
    BY_IPI,
    BY_LVT,
    BY_MSI,
    BY_PIN,
    DELIVERED,
    FAR_NS,
    HELD,
    INJECTED,
    LEVEL_DELIVERED,
    MASKED,
    NEAR_EVENTS,
    RAISED,
    SAME_ACCESS,
    SAME_TIME_NS,
    THROTTLED,
    Args,
    Cpu,
    Debt,
    Pin,
)
from userspace_chip import lapic_registers as lapic
from userspace_chip.architecture import EOIR, FIRST_VECTOR, IOAPIC_PINS, IOWIN
from userspace_chip.events import Event


class QemuIoapics(Books):
    """QEMU's IOAPIC and PIC."""

    def ioapic_mem_write(self, event: Event, args: Args) -> None:
        """A write to the IOAPIC's window, or to its EOI register."""
        address, select, size, value = args
        if size != 4:
            return
        if address & 0xFF == IOWIN:
            self._entry_written(select, value)
        elif address & 0xFF == EOIR:
            thread = self._thread(event[3])
            thread.eoi = self._index, value & 0xFF
            thread.register = self._index

    def ioapic_set_irq(self, event: Event, args: Args) -> None:
        """A line moves: what its entry says has to follow."""
        number, level = args
        if number >= IOAPIC_PINS:
            return
        pin = self._pins[number or 2]
        before, pin.lines = pin.lines, level
        self._check_expected(event)
        if not level:
            pin.streak = None
            # QEMU services a raised pin under its lock, before the line can change.
            service = pin.service
            if service is not None and not service.paid and not self._races(service):
                self._break(service)
            self._settle_service(pin)
            pin.asserted = False
            return
        row = pin.row
        if not before:
            row[RAISED] += 1
        if not pin.known or not self._checks_pins:
            return
        row[ASSERTED] += 1
        if pin.masked:
            row[MASKED] += 1
        elif not pin.level:
            row[DELIVERED] += 1
            self._expect(event, pin)
        elif pin.remote_irr is not None:
            row[HELD] += 1
        else:
            pin.asserted = True
            row[DELIVERED] += 1
            detail = "asserted, neither masked nor in service, and not delivered"
            pin.service = self._owe("lost", pin.subject, event, detail, FAR_NS)

    def _races(self, debt: Debt) -> bool:
        """Whether other threads may be ahead of what this event leads to.

        With split the EOI's exit is handled without QEMU's lock (QEMU 7.2
        ``target/i386/kvm/kvm.c``: kvm_arch_handle_exit): the line may fall before the pin is
        looked at again, which is then no loss.
        """
        return self._kvm_lapic and debt.event.name != "ioapic_set_irq"

    def _check_expected(self, event: Event) -> None:
        """QEMU delivers under its lock: what was announced is out before the next assertion."""
        rest = []
        for pin, debt in self._announced:
            is_recent = event[0] - debt.event.time_ns <= self._skew_ns
            if is_recent or (self._races(debt) and not self._is_due(debt)):
                rest.append((pin, debt))
            elif not debt.paid:
                self._break(debt)
        self._announced = rest

    def _expect(self, event: Event, pin: Pin) -> None:
        """The delivery of ``pin`` has to follow."""
        if not pin.fixed:
            return
        if event[0] - pin.driven <= SAME_TIME_NS:
            pin.driven = event[0] - 2 * SAME_TIME_NS
            return
        detail = "asserted, not masked, and no message followed"
        if len(self._announced) > IOAPIC_PINS:
            del self._announced[0]
        self._announced.append((pin, self._owe("lost", pin.subject, event, detail, FAR_NS)))

    def ioapic_set_remote_irr(self, event: Event, args: Args) -> None:
        """A level interrupt is delivered, for the first time or again."""
        if args[0] >= IOAPIC_PINS or not self._checks_pins:
            return
        pin = self._pins[args[0]]
        self._settle_service(pin)
        if pin.remote_irr is not None:
            return  # every pass over the pins prints it again
        self._set_remote_irr(pin, event, pin.vector)
        if pin.asserted:
            pin.row[LEVEL_DELIVERED] += 1
        else:
            self._redelivered(pin, event)
        pin.asserted = False
        self._expect(event, pin)

    def ioapic_eoi_broadcast(self, event: Event, args: Args) -> None:
        """An EOI reaches the IOAPIC; the pins of its vector have to be cleared."""
        vector = args[0]
        thread = self._thread(event[3])
        when, ended = thread.eoi
        cpu = self._own_cpu(event)
        if cpu is not None:
            self._broadcast(event, cpu, vector)
        else:
            for other in self._cpus.values():
                if other.broadcast is not None and other.broadcast[0] == vector:
                    self._broadcast(event, other, vector)
        if (
            cpu is not None
            and not self._tcg
            and (ended != vector or self._index - when > NEAR_EVENTS)
        ):
            detail = "broadcast, and no EOI of this vector came before"
            self._find("spurious", f"vector {vector}", event, detail)
        if not self._checks_pins:
            return
        for pin in self._pins:
            if pin.remote_irr is not None and pin.vector == vector and pin.level:
                detail = "EOI of its vector was broadcast, and remote IRR stays set"
                pin.clear = self._owe("stuck", pin.subject, event, detail, FAR_NS)

                def free(pin: Pin = pin) -> None:
                    pin.remote_irr = None

                pin.clear.broken = free

    def _broadcast(self, event: Event, cpu: Cpu, vector: int) -> None:
        if cpu.broadcast is not None and cpu.broadcast[0] == vector:
            cpu.broadcast[1].paid = True
            cpu.broadcast = None
        elif self._kvm_lapic and self._index - self._thread(event[3]).register > SAME_ACCESS:
            detail = "broadcast, and KVM did not leave for an EOI of this vector"
            cpu.untold = self._owe("spurious", f"vector {vector}", event, detail)
            if cpu.exit is not None:
                cpu.exit.paid, cpu.exit = True, None
        if not self._tcg:
            return
        if cpu.ended is None:
            if self._index - self._thread(event[3]).register > SAME_ACCESS:
                detail = "broadcast, and no EOI came before"
                self._find("spurious", f"vector {vector}", event, detail)
            return
        cpu.ended = None
        self._end_outstanding(event, self._index, cpu, vector)

    def ioapic_clear_remote_irr(self, event: Event, args: Args) -> None:
        """A pin's interrupt was ended; a line that is still high comes back."""
        number, _vector = args
        if number >= IOAPIC_PINS or not self._checks_pins:
            return
        pin = self._pins[number]
        if pin.clear is not None:
            pin.clear.paid, pin.clear = True, None
        elif pin.remote_irr is not None:
            detail = "remote IRR cleared, and no EOI of its vector was broadcast"
            self._find("spurious", pin.subject, event, detail)
        if pin.remote_irr is not None:
            pin.remote_irr = None
            pin.row[ACKNOWLEDGED] += 1
        if pin.lines and pin.level and not pin.masked:
            detail = "its line is still high after EOI, and it was not delivered again"
            pin.service = self._owe("lost", pin.subject, event, detail, FAR_NS)

    def ioapic_eoi_delayed_reassert(self, event: Event, args: Args) -> None:
        """QEMU's EOI rate limit put a pin's delivery off."""
        pin = self._pins[args[0]]
        pin.row[THROTTLED] += 1
        self._settle_service(pin)
        detail = "the IOAPIC put its delivery off: it comes back at once after each EOI"
        self._find("storm", pin.subject, event, detail)

    def pic_set_irq(self, event: Event, args: Args) -> None:
        """An input of the PIC was raised or lowered."""
        master, number, level = args
        number += 0 if master else 8
        bit = 1 << number
        if not level:
            self._pic_lines &= ~bit
            return
        if not self._pic_lines & bit:
            self._pic[number][RAISED] += 1
        self._pic_lines |= bit
        self._pic_latched |= bit

    def pic_interrupt(self, event: Event, args: Args) -> None:
        """The PIC gave its highest request to the CPU (INTA)."""
        number, vector = args
        bit = 1 << number
        if not self._pic_latched & bit and number & 7 != 7:
            detail = "given to the CPU, and was never raised"
            self._find("spurious", f"pic pin {number}", event, detail)
        self._pic_latched &= ~bit | self._pic_lines
        self._pic[number][INJECTED] += 1
        if len(self._pic_parked) > 16:
            del self._pic_parked[0]
        self._pic_parked.append(vector)


class QemuLapics(Books):
    """QEMU's local APICs."""

    def apic_deliver_irq(self, event: Event, args: Args) -> None:
        """A message arrives: a pin's that was announced, or a device's."""
        dst, logical, mode, vector, trigger = args
        thread = self._thread(event[3])
        # With two IOAPICs nothing is announced, and a message is known by its vector.
        of_pin = not self._checks_pins and self._wired >> vector & 1
        column = BY_PIN if of_pin else BY_MSI
        if self._announced:
            pin, debt = self._announced.pop(0)
            if not debt.paid:
                debt.paid = True
                column = BY_PIN
                if vector != pin.vector or dst != pin.dst or bool(logical) != pin.logical:
                    detail = f"its entry says vector {pin.vector} to {pin.dst:x}"
                    self._find("misrouted", pin.subject, event, detail)
                thread.sent = self._index, event[4]
        elif thread.sent == (self._index - 1, event[4]):
            detail = "sent twice for one assertion"
            self._find("spurious", f"vector {vector}", event, detail)
        self._name(vector)
        if mode > 1:
            return
        for cpu in tuple(self._cpus.values()):
            if self._reaches(dst, bool(logical), cpu):
                self._accept(event, cpu, vector, column, bool(trigger))
                if mode == 1:
                    return

    def apic_local_deliver(self, event: Event, args: Args) -> None:
        """An LVT entry fires."""
        lvt, mode = args
        if mode != 0:
            return
        if event[3] is None and self._smp > 1:
            # A timer runs in QEMU's main thread, and the event does not say whose it is.
            for other in self._cpus.values():
                if lvt in other.lvts:
                    other.loose |= 1 << other.lvts[lvt]
            return
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        vector = cpu.lvts.get(lvt)
        if vector is not None:  # a masked one is printed, too
            self._accept(event, cpu, vector, BY_LVT, level=False)

    def cpu_set_apic_base(self, event: Event, args: Args) -> None:
        """The base selects x2APIC."""
        cpu = self._own_cpu(event)
        if cpu is not None:
            cpu.x2apic = bool(args[0] >> 10 & 1)

    def apic_mem_writel(self, event: Event, args: Args) -> None:
        """A write to a local APIC's page."""
        self._register_written(event, args[0] >> 4, args[1])

    def apic_register_write(self, event: Event, args: Args) -> None:
        """A write to a local APIC's register, by page (QEMU 10.0) or MSR."""
        self._register_written(event, args[0], args[1])

    def _register_written(self, event: Event, index: int, value: int) -> None:
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        cpu.progress = True
        register = index << 4
        if register == lapic.EOI:
            self._qemu_eoi(event, cpu)
        elif register == lapic.ID:
            cpu.id = value >> 24
        elif register == lapic.SPIV:
            cpu.spurious = value & 0xFF
        elif register == lapic.LDR:
            cpu.ldr = value
        elif register == lapic.DFR:
            cpu.dfr_flat = value >> 28 & 0xF == 0xF
        elif register == lapic.ICR2:
            cpu.icr_high = value
        elif register == lapic.ICR:
            self._qemu_ipi(event, cpu, value)
        elif register in lapic.LVT_OFFSETS:
            self._lvt(cpu, lapic.LVTS[register], value, timer=False)

    def _qemu_ipi(self, event: Event, cpu: Cpu, value: int) -> None:
        """ICR (SDM 3A, Interrupt Command Register): fixed IPIs have no trace event of their own."""
        if value >> 8 & 7 > 1:
            if value >> 8 & 7 == 5 and value >> 14 & 1:
                for other in self._targets(cpu, value):
                    self._reset(other)
            return
        self._name(value & 0xFF)
        for other in self._targets(cpu, value):
            self._accept(event, other, value & 0xFF, BY_IPI, level=False)

    def _targets(self, cpu: Cpu, value: int) -> list[Cpu]:
        """The CPUs that ICR's ``value`` names."""
        shorthand = value >> 18 & 3
        if shorthand == 1:
            return [cpu]
        if shorthand:
            return [other for other in self._cpus.values() if shorthand == 2 or other is not cpu]
        dst = value >> 32 if cpu.x2apic else cpu.icr_high >> 24
        logical = bool(value >> 11 & 1)
        found = [other for other in self._cpus.values() if self._reaches(dst, logical, other)]
        return found[:1] if value >> 8 & 7 == 1 else found

    def _qemu_eoi(self, event: Event, cpu: Cpu) -> None:
        thread = self._thread(event[3])
        if self._tcg:
            thread.eoi = self._index, -1
            self._settle(cpu)
            cpu.ended = self._index, event
            return
        vector = cpu.isr.bit_length() - 1
        thread.eoi = self._index, vector
        if vector < 0:
            if cpu.parked is not None:  # with LINT0 fixed the PIC's interrupt is ended, too
                cpu.parked = None
                return
            pending = (cpu.irr >> FIRST_VECTOR << FIRST_VECTOR).bit_length() - 1
            if pending < 0:
                self._warn("EOI with nothing in service")
                return
            vector = pending
        self._ended(event, cpu, vector)
        if cpu.level >> vector & 1:
            detail = f"EOI of level vector {vector}, and no broadcast followed"
            cpu.broadcast = vector, self._owe("stuck", f"vector {vector}", event, detail, FAR_NS)
