"""What a vCPU takes.

With KVM it is ``kvm_inj_virq``, whoever has the local APIC (``arch/x86/kvm/x86.c``), with TCG
``hardware_int`` (``target/i386/tcg/sysemu/seg_helper.c``: x86_cpu_exec_interrupt).
"""

from __future__ import annotations

from harness.ledger.rules.base import Books
from harness.ledger.rules.state import BY_LVT, INJECTED, MERGED, REINJECTED, STRIKES, Args, Cpu
from userspace_chip.events import Event


class Injections(Books):
    """From IRR to ISR, and again where an exit broke the delivery off."""

    def kvm_inj_virq(self, event: Event, args: Args) -> None:
        """An entry into the guest with an interrupt: taken, or injected again."""
        kind, vector, again = args
        if kind != "IRQ" or self._hardware:
            return
        cpu = self._own_cpu(event)
        if cpu is None:
            return
        bit = 1 << vector
        progress, cpu.progress = cpu.progress, False
        if progress and not self._kvm_lapic:
            self._check_ended(event, cpu, vector, bit)
        # With the chips in QEMU every injection is KVM_INTERRUPT's, and printed as re-injected.
        if cpu.isr & bit if not self._kvm_lapic else again:
            self._reinjected(event, cpu, vector)
        elif cpu.irr & bit:
            self._take(event, cpu, vector, bit)
        elif cpu.maybe & bit and not self._kvm_lapic:
            # It came while QEMU was just taking the one before it, which shows only now.
            cpu.maybe &= ~bit
            cpu.row(vector)[MERGED] -= 1
            self._take(event, cpu, vector, bit)
        elif cpu.loose & bit:
            self._accept(event, cpu, vector, BY_LVT, level=False)
            self._take(event, cpu, vector, bit)
        elif not self._kvm_lapic and vector == cpu.spurious:
            self._warn("spurious vectors were injected")
        elif not self._from_pic(cpu, vector):
            self._inject_spurious(event, cpu, vector)

    def hardware_int(self, event: Event, args: Args) -> None:
        """TCG's, which does not say whose it is; what has gone away meanwhile is printed as -1."""
        vector = args[0]
        if self._smp > 1 or vector > 0xFF:
            return
        cpu = self._cpus[0]
        if self._tcg:
            self._see_taken(cpu)
        cpu.progress, cpu.maybe = True, 0  # one lock: nothing is under way, nothing breaks it off
        if vector in self._pic_parked:  # even where the local APIC has the same one pending
            self._from_pic(cpu, vector)
            return
        cpu.parked = None
        self.kvm_inj_virq(event, ("IRQ", vector, False))

    def _see_taken(self, cpu: Cpu) -> None:
        """The first interrupt that is seen taken: from here on IRR and ISR are distinguished."""
        self._tcg = False
        for vector, count in cpu.outstanding.items():
            if count:
                cpu.irr |= 1 << vector
                cpu.row(vector)[MERGED] += count - 1
        cpu.outstanding.clear()

    def _check_ended(self, event: Event, cpu: Cpu, vector: int, bit: int) -> None:
        """off: a re-injection comes before the guest does anything else; TCG has none."""
        cpu.parked = None
        if cpu.isr & bit:
            detail = "injected again though it is in service: its EOI is missing"
            self._find("stuck", cpu.subject(vector), event, detail)
            cpu.isr &= ~bit

    def guest_access(self, event: Event, args: Args) -> None:
        """off: the guest went on, so that the next injection is no repetition."""
        number = event[3]
        if number is not None:
            self._cpu(number).progress = True

    def _reinjected(self, event: Event, cpu: Cpu, vector: int) -> None:
        if cpu.isr >> vector & 1:
            cpu.row(vector)[REINJECTED] += 1
        elif cpu.parked != vector:
            detail = "re-injected, and was never injected"
            self._find("spurious", cpu.subject(vector), event, detail)

    def _take(self, event: Event, cpu: Cpu, vector: int, bit: int) -> None:
        """From IRR to ISR (SDM 3A, Interrupt Acceptance for Fixed Interrupts)."""
        top = cpu.isr.bit_length() - 1
        if top >> 4 >= vector >> 4:
            detail = f"vector {vector} was injected though it is in service: its EOI is missing"
            self._find("stuck", cpu.subject(top), event, detail)
            cpu.isr &= ~(1 << top)
        if cpu.irr >> (vector + 1):
            self._passed_over(event, cpu, vector)
        elif cpu.strikes:
            cpu.strikes.clear()
        cpu.irr &= ~bit
        cpu.isr |= bit
        cpu.parked = None
        cpu.row(vector)[INJECTED] += 1
        self._taken_total += 1
        cpu.since[vector] = self._index, event, self._taken_total
        self._observer.taken(cpu, vector)
        if cpu.synic and (vector, True) in cpu.synic.values():
            # Linux 6.12 lapic.c: kvm_apic_ack_interrupt.  It never comes to ISR.
            self._ended(event, cpu, vector)
            cpu.parked = vector

    def _passed_over(self, event: Event, cpu: Cpu, vector: int) -> None:
        """A pending vector of a higher class lets a lower one go first: it is not there."""
        highest = cpu.irr.bit_length() - 1
        if highest >> 4 <= vector >> 4:
            return
        count, index, first = cpu.strikes.get(highest, (0, self._index, event))
        if count + 1 < STRIKES:
            cpu.strikes[highest] = count + 1, index, first
            return
        detail = f"accepted, and passed over by vector {vector} and others: it vanished from IRR"
        self._find("lost", cpu.subject(highest), first, detail, index)
        cpu.irr &= ~(1 << highest)
        cpu.strikes.clear()

    def _from_pic(self, cpu: Cpu, vector: int) -> bool:
        """Whether the PIC gave this vector (ExtINT); it has no IRR or ISR in the local APIC."""
        if not self._in_kernel:
            if vector in self._pic_parked:
                self._pic_parked.remove(vector)
                cpu.parked = vector
                return True
            return cpu.parked == vector and not self._kvm_lapic
        for chip, base in enumerate(self._pic_bases):
            if base is not None and base <= vector < base + 8:
                number = vector - base
                bit = 1 << number + 8 * chip
                if not self._pic_latched & bit and number != 7:
                    return False
                self._pic_latched &= ~bit | self._pic_lines
                self._pic[number + 8 * chip][INJECTED] += 1
                cpu.parked = vector
                self._observer.pic_taken(cpu, number)
                return True
        return False

    def _inject_spurious(self, event: Event, cpu: Cpu, vector: int) -> None:
        detail = "injected, and was never accepted"
        cpu.early[vector] = self._owe("spurious", cpu.subject(vector), event, detail)
        cpu.isr |= 1 << vector
        cpu.row(vector)[INJECTED] += 1
