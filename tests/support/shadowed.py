"""A live run in ``on`` whose KVM does what the model does, with an exit after each step."""

from __future__ import annotations

from userspace_chip.architecture import APIC_WINDOW, IOAPIC_BASES, IOREDTBL
from userspace_chip.events import KVM_EVENTS, Event
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import firmware, layout, shown
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_registers import EOI
from userspace_chip.ports import Irqchip
from userspace_chip.profile import profile
from userspace_chip.vcpu import TPR_ACCESS

SUBJECT = profile("on", qemu="7.2", linux="6.1")
PIN, VECTOR, LEVEL = 4, 0x51, 1 << 15


class Recording:
    """A live run whose KVM does what the model does."""

    def __init__(self, subject=SUBJECT):
        self.machine = Machine(subject, 1)
        self.machine.run_vapic_rom()
        firmware.leave(self.machine)
        self.events = []
        self._changes = shown.Changes()

    def _add(self, source, name, vcpu, args):
        self.events.append(Event(len(self.events) * 1000, source, name, vcpu, args))

    def _take(self):
        for event in self.machine.log.take():
            if event.name in KVM_EVENTS:
                self._add("kvm", event.name, event.vcpu, event.args)

    def write_ioapic(self, register, value):
        for offset, word in ((0, register), (0x10, value)):
            address = IOAPIC_BASES[0] + offset
            self._add("kvm", "kvm_mmio", 0, ("write", 4, address, word))
            self.machine.mmio_write(0, address, 4, word)
            self._take()

    def line(self, level, cpu=0):
        self.machine.irq_line(PIN, level, cpu=cpu)
        self._take()

    def enter(self):
        self.machine.log.vcpu = 0
        self.machine.step(0)
        self._take()

    def write_pic(self, port, value):
        self._add("kvm", "kvm_pio", 0, ("write", port, 1, 1, value, False))
        self.machine.pio_write(0, port, value)
        self._take()

    def read_pic(self, port):
        value = self.machine.pio_read(0, port)
        self._take()
        self._add("kvm", "kvm_pio", 0, ("read", port, 1, 1, value, False))
        return value

    def go_on_after_a_storm(self):
        """The IOAPIC's delayed work, in a thread of the kernel's."""
        self.machine.log.vcpu = None
        self.machine.expire("ioapic0")
        self._take()

    def take_nmi(self):
        """Of which nothing is traced."""
        self.machine.step(0)
        self.machine.exit(0)

    def eoi(self):
        self.write_lapic(EOI, 0)

    def write_lapic(self, register, value):
        self.machine.mmio_write(0, APIC_WINDOW + register, 4, value)
        self._take()

    def read_lapic(self, register):
        value = self.machine.mmio_read(0, APIC_WINDOW + register, 4)
        self._take()
        return value

    def answer_tpr_access(self):
        """User space, after the exit at an access of TPR."""
        vcpu = self.machine.vcpus[0]
        vcpu.state.requests &= ~TPR_ACCESS
        vcpu.synchronized()

    def touch(self, address):
        """A store where the machine has no chip: an exit of its own."""
        self._add("kvm", "kvm_mmio", 0, ("write", 4, address, 1))

    def exit(self):
        """To user space, where the chips are shown."""
        machine = self.machine
        lapic = machine.lapics[0]
        images = [
            layout.pic_to_kvm(pic, machine.pic.get_irqchip(pic))
            for pic in (Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE)
        ]
        images.append(layout.ioapic_to_kvm(machine.ioapics[0].get_irqchip()))
        page = layout.lapic_to_kvm(lapic.state, version=lapic.version)
        self._add("qemu", "kvm_chips", 0, (0, self._changes.of(0, page, images)))


def level_taken():
    """A level-triggered interrupt, taken and ended: four exits."""
    made = Recording()
    made.exit()
    made.write_ioapic(IOREDTBL + 2 * PIN, VECTOR | LEVEL)
    made.exit()
    made.line(1)
    made.enter()
    made.exit()
    made.line(0)
    made.eoi()
    made.exit()
    return made


_eoi = Lapic.eoi


def eoi_clears_tmr(self):
    """In place of :meth:`Lapic.eoi`: no tracepoint shows it, and a handler reads TMR before."""
    vector = _eoi(self)
    if vector is not None:
        self.state.tmr &= ~(1 << vector)
    return vector
