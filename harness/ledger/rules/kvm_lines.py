"""KVM's lines and routes: from kvm_set_irq to the message (Linux ``virt/kvm/irqchip.c``,
``arch/x86/kvm/ioapic.c``, ``i8259.c``, ``irq_comm.c``).
"""

from __future__ import annotations

from harness.ledger.rules.base import Books
from harness.ledger.rules.state import (
    ACKNOWLEDGED,
    ASSERTED,
    BY_MSI,
    BY_PIN,
    COALESCED,
    DELIVERED,
    FAR_NS,
    HELD,
    LEVEL_DELIVERED,
    MASKED,
    NEAR_EVENTS,
    PIC_CHIPS,
    RAISED,
    THROTTLED,
    Args,
    Message,
    Pin,
    Thread,
)
from userspace_chip.architecture import FIRST_VECTOR, IOAPIC_BASES, IOAPIC_PINS, IOREGSEL, IOWIN
from userspace_chip.events import Event


class KvmLines(Books):
    """The tracepoints of lines, IOAPIC, PIC and messages."""

    def kvm_set_irq(self, event: Event, args: Args) -> None:
        """A line moves (on), or a route is raised (split)."""
        gsi, level, source = args
        thread = self._thread(event[3])
        thread.gsi, thread.level = gsi, level
        thread.raising = bool(level)
        if self._in_kernel:
            if gsi < IOAPIC_PINS:
                pin = self._pins[gsi or 2]
                before, bit = pin.lines, 1 << source
                pin.lines = before | bit if level else before & ~bit
                if level and not before:
                    pin.row[RAISED] += 1
                if not pin.lines:
                    pin.streak = None
                    self._settle_service(pin)
        elif level:
            self._driven(event, thread, gsi)

    def _driven(self, event: Event, thread: Thread, gsi: int) -> None:
        """split: a route was raised, by QEMU's IOAPIC or by a device; its message follows."""
        detail = "its route was raised, and no message followed"
        pin = self._pins[gsi] if gsi < IOAPIC_PINS else None
        if pin is not None:
            for number, (expected, debt) in enumerate(self._announced):
                if expected is pin:
                    debt.paid = True
                    del self._announced[number]
                    break
            else:
                pin.driven = event[0]
        thread.route = self._owe("lost", f"gsi {gsi}", event, detail)
        if pin is None:
            thread.route.paid = True  # a device's route may be none
            self._debts.pop()

    def kvm_msi_set_irq(self, event: Event, args: Args) -> None:
        """A message is sent; the acceptances follow."""
        dst, vector, mode, dest_mode, _trigger, _hint = args
        thread = self._thread(event[3])
        route, thread.route = thread.route, None
        # A vCPU decodes all routes when it rebuilds its EOI map, and sends nothing.
        sent = route is not None or event[3] is None or self._in_kernel
        column = BY_MSI
        if route is not None:
            route.paid = True
            gsi = thread.gsi
            if gsi is not None and gsi < IOAPIC_PINS:
                column = BY_PIN
                self._check_route(event, self._pins[gsi], vector, dst)
        message = Message(self._index, dst, dest_mode == "logical", column)
        if sent:
            self._name(vector)
            if (
                mode in ("Fixed", "LowPrio")
                and vector >= FIRST_VECTOR
                and self._reaches_any(dst, dest_mode == "logical")
            ):
                detail = "the message was sent and no local APIC accepted it"
                message.debt = self._owe("lost", f"vector {vector}", event, detail)
        thread.messages[vector] = message

    def _check_route(self, event: Event, pin: Pin, vector: int, dst: int) -> None:
        if not (pin.known and self._checks_pins and pin.fixed and not pin.masked):
            return
        if vector != pin.vector or dst != pin.dst:
            self._find(
                "misrouted",
                pin.subject,
                event,
                f"its entry says vector {pin.vector} to {pin.dst:x}",
            )

    def kvm_ioapic_set_irq(self, event: Event, args: Args) -> None:
        """A pin was looked at, with its entry and what came of it."""
        number, dst, vector, mode, dest_mode, trigger, masked, coalesced = args
        pin = self._pins[number]
        thread = self._thread(event[3])
        self._learn(pin, args)
        thread.raising = taken = False
        if thread.open:
            taken = self._claim(thread, pin, dst, dest_mode == "logical")
        if thread.gsi is None or (thread.gsi or 2) != number or not thread.level:
            return
        row = pin.row
        row[ASSERTED] += 1
        level = trigger == "level"
        if masked:
            row[MASKED] += 1
        elif taken:
            row[DELIVERED] += 1
            if level:
                row[LEVEL_DELIVERED] += 1
                self._in_service(pin, event, vector)
        elif coalesced:
            row[COALESCED] += 1
        elif level and pin.remote_irr is not None:
            row[HELD] += 1
        elif (
            mode in ("Fixed", "LowPrio")
            and vector >= FIRST_VECTOR
            and self._reaches_any(dst, dest_mode == "logical")
        ):
            detail = "asserted, neither masked nor coalesced, and no local APIC accepted it"
            self._find("lost", pin.subject, event, detail)
        else:
            row[DELIVERED] += 1

    def _learn(self, pin: Pin, args: Args) -> None:
        _, dst, vector, mode, dest_mode, trigger, masked, _ = args
        pin.known, pin.vector, pin.dst, pin.masked = True, vector, dst, masked
        pin.mode = {"Fixed": 0, "LowPrio": 1}.get(mode, 7)
        pin.logical, pin.level = dest_mode == "logical", trigger == "level"
        if not masked:
            self._name(vector)
        if not pin.level:
            pin.remote_irr = None

    def _claim(self, thread: Thread, pin: Pin, dst: int, logical: bool) -> bool:
        """The acceptances that this pin has caused: the tracepoint comes after them."""
        rest, taken = [], 0
        for item in thread.open:
            number, vector, debt = item
            if debt.paid:
                continue
            if vector != pin.vector:
                rest.append(item)
                continue
            if pin.masked or taken >> number & 1:
                self._break(debt)
                continue
            taken |= 1 << number
            debt.paid = True
            cpu = self._cpu(number)
            cpu.row(vector)[BY_PIN] += 1
            if not self._reaches(dst, logical, cpu):
                detail = f"{pin.subject} sends it to {dst:x}"
                self._find("misrouted", debt.subject, debt.event, detail, debt.index)
        thread.open = rest
        return bool(taken)

    def _in_service(self, pin: Pin, event: Event, vector: int) -> None:
        if pin.remote_irr is not None:
            detail = "delivered again while its last interrupt is in service"
            self._find("stuck", pin.subject, event, detail)
        self._set_remote_irr(pin, event, vector)

    def kvm_ack_irq(self, event: Event, args: Args) -> None:
        """An EOI reached a pin, or the PIC an acknowledgement."""
        irqchip, number = args
        if irqchip != "IOAPIC":
            self._pic[number][ACKNOWLEDGED] += 1
            return
        pin = self._pins[number]
        thread = self._thread(event[3])
        when, vector = thread.eoi
        again, pin.acked = pin.acked == when, when
        if again or self._index - when > NEAR_EVENTS or (pin.known and vector != pin.vector):
            detail = "acknowledged without an EOI of its vector"
            self._find("spurious", pin.subject, event, detail)
        thread.service = self._index
        if pin.ack is not None:
            pin.ack.paid, pin.ack = True, None
        if pin.remote_irr is not None:
            pin.remote_irr = None
            pin.row[ACKNOWLEDGED] += 1
            if pin.lines and pin.level and not pin.masked:
                detail = "its line is still high after EOI, and it was not delivered again"
                pin.service = self._owe("lost", pin.subject, event, detail, FAR_NS)

    def kvm_ioapic_delayed_eoi_inj(self, event: Event, args: Args) -> None:
        """KVM's EOI rate limit put a pin's delivery off."""
        for pin in self._pins:
            if pin.vector == args[1] and pin.level and pin.lines:
                pin.throttled = True
                pin.row[THROTTLED] += 1
                self._settle_service(pin)
        detail = "the IOAPIC put its delivery off: it comes back at once after each EOI"
        self._find("storm", f"vector {args[1]}", event, detail)

    def kvm_mmio(self, event: Event, args: Args) -> None:
        """A write to the IOAPIC's window."""
        access, _length, gpa, value = args
        if access != "write" or gpa & ~0xFF != IOAPIC_BASES[0]:
            return
        if gpa & 0xFF == IOREGSEL:
            self._select = value & 0xFF
        elif gpa & 0xFF == IOWIN:
            self._thread(event[3]).service = self._index
            self._entry_written(self._select, value)

    def kvm_pic_set_irq(self, event: Event, args: Args) -> None:
        """An input of the PIC was raised or lowered."""
        chip, number, _trigger, masked, coalesced = args
        number += 8 * chip
        thread = self._thread(event[3])
        if thread.gsi != number:
            return
        bit = 1 << number
        if not thread.level:
            self._pic_lines &= ~bit
            return
        row = self._pic[number]
        row[ASSERTED] += 1
        if not self._pic_lines & bit:
            row[RAISED] += 1
        self._pic_lines |= bit
        self._pic_latched |= bit
        row[MASKED if masked else COALESCED if coalesced else DELIVERED] += 1

    def kvm_pio(self, event: Event, args: Args) -> None:
        """ICW2 sets the base of a PIC's vectors."""
        port = PIC_CHIPS.get(args[1])
        if port is None or args[0] != "write":
            return
        chip, address = port
        value = args[4]
        if address == 0:
            if value & 0x10:
                self._pic_next[chip] = 1
            return
        if self._pic_next[chip] == 1:
            self._pic_bases[chip] = value & 0xF8
        # ICW3 and ICW4 may follow; an IMR write in their place sets no base.
        self._pic_next[chip] = 0
