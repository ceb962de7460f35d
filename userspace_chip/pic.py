"""The 8259 pair with its ELCR, KVM's and QEMU's, as one state machine; see ``profile.pic``.

Datasheet: Intel 8259A; the ELCR is that of the 82371 (PIIX) south bridges.  Linux:
``arch/x86/kvm/i8259.c`` of 6.1 to 6.18.  QEMU: ``hw/intc/i8259.c`` and ``i8259_common.c`` of 7.2
and 10.0.

Neither model does everything that the 8259A does: KVM stores special mask mode and single mode
without using them, QEMU has both; only QEMU 10 has ICW1's LTIM; neither has the 8080 call vectors,
buffered mode, or an ICW3 whose value matters.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

from userspace_chip.architecture import ELCR, ISA_LINES, MASTER_COMMAND, SLAVE_COMMAND
from userspace_chip.errors import AccessError, PinRangeError, StateError
from userspace_chip.knobs import Model
from userspace_chip.ports import Emit, Irqchip, PicPort
from userspace_chip.profile import Profile
from userspace_chip.snapshot import copy_state

CASCADE: Final = 2
"""The master's input to which the slave's output is wired."""
SPURIOUS: Final = 7

ELCR_MASKS: Final = (0xF8, 0xDE)
"""The inputs that may be level-triggered: not timer, keyboard, cascade, RTC, FPU."""

# Command port: which word a byte is.
_ICW1: Final = 0x10
_OCW3: Final = 0x08

# ICW1
_IC4: Final = 0x01
_SNGL: Final = 0x02
_LTIM: Final = 0x08

# OCW2 commands, bits 7:5
_ROTATE_AEOI_CLEAR, _EOI, _NOP, _SPECIFIC_EOI = range(4)
_ROTATE_AEOI_SET, _ROTATE_EOI, _SET_PRIORITY, _ROTATE_SPECIFIC_EOI = range(4, 8)

# init_state: which word the data port takes next
READY, WANT_ICW2, WANT_ICW3, WANT_ICW4 = range(4)


def _rank(mask: int, first: int) -> int:
    rotated = (mask >> first | mask << 8 - first) & 0xFF
    return (rotated & -rotated).bit_length() - 1 if rotated else 8


_RANKS: Final = tuple(tuple(_rank(mask, first) for mask in range(256)) for first in range(8))
"""[number of the input with the highest priority][mask]: rank of the best bit, 8 for none."""


@dataclass
class PicChipState:
    """One 8259: ``struct kvm_kpic_state``, and what QEMU has beyond it.  Bytes, not booleans."""

    last_irr: int = 0
    """The edge detector: levels last seen."""
    irr: int = 0
    imr: int = 0
    isr: int = 0
    priority_add: int = 0
    """Number of the input with the highest priority."""
    irq_base: int = 0
    read_reg_select: int = 0
    """The command port reads 0: IRR, 1: ISR."""
    poll: int = 0
    special_mask: int = 0
    init_state: int = READY
    auto_eoi: int = 0
    rotate_on_auto_eoi: int = 0
    special_fully_nested_mode: int = 0
    init4: int = 0
    """ICW1 announced an ICW4."""
    elcr: int = 0
    elcr_mask: int = 0
    single_mode: int = 0
    """QEMU: no slave, so no ICW3."""
    ltim: int = 0
    """QEMU 10: every input is level-triggered."""


@dataclass
class PicState:
    """Everything that the pair remembers."""

    chips: list[PicChipState] = field(
        default_factory=lambda: [PicChipState(elcr_mask=mask) for mask in ELCR_MASKS]
    )
    """Master, slave."""
    output: int = 0
    """The master's INTR wire as last driven."""
    lines: list[int] = field(default_factory=lambda: [0] * ISA_LINES)
    """KVM: the sources that hold each input high.  QEMU: the level last presented."""
    raised: list[int] = field(default_factory=lambda: [0] * ISA_LINES)
    """QEMU: 0 to 1 changes of each input (``info irq``)."""


class Pic:
    """The pair.  Impossible inputs raise :class:`~userspace_chip.errors.ChipError`."""

    def __init__(self, profile: Profile, port: PicPort, emit: Emit | None = None) -> None:
        self.state = PicState()
        self.emit = emit
        self.port = port
        self.knobs = profile.pic
        self._kvm = profile.pic.model is Model.KVM

    # --- state

    def save(self) -> PicState:
        """An independent copy of the state."""
        return copy_state(self.state)

    def load(self, state: PicState) -> None:
        """Take over a copy of ``state``; :class:`StateError` where it is none of a pair's."""
        if len(state.chips) != 2:
            raise StateError(f"PIC chips: {len(state.chips)}", "expected master and slave")
        for chip in state.chips:
            _check_chip(chip)
        for name in ("lines", "raised"):
            values = getattr(state, name)
            if len(values) != ISA_LINES or min(values) < 0:
                raise StateError(f"PIC {name}: {values}", f"expected {ISA_LINES} numbers from 0")
        self.state = copy_state(state)

    def get_irqchip(self, chip: Irqchip) -> PicChipState:
        """One chip as ``KVM_GET_IRQCHIP`` shows it (``struct kvm_pic_state``): a copy."""
        return copy_state(self.state.chips[_chip_number(chip)])

    def set_irqchip(self, chip: Irqchip, image: PicChipState) -> None:
        """One chip as ``KVM_SET_IRQCHIP`` takes it; the outputs follow.

        Linux ``arch/x86/kvm/x86.c:kvm_vm_ioctl_set_irqchip``.
        """
        _check_chip(image)
        self.state.chips[_chip_number(chip)] = copy_state(image)
        self._update(self.state.chips[0])

    def reset(self) -> None:
        """What QEMU does at machine reset: ``pic_reset``; in on then KVM_SET_IRQCHIP.

        The slave, which is younger, comes first on its bus: the other way round its requests
        would leave the master's cascade latch set.
        """
        for number in (1, 0):
            mask = ELCR_MASKS[number]
            if self._kvm:
                self.set_irqchip(Irqchip(number), PicChipState(elcr_mask=mask))
            else:
                self.state.chips[number] = PicChipState(elcr_mask=mask)
                self._update(self.state.chips[number])

    # --- inputs and outputs

    def set_irq(self, pin: int, level: int, source: int = 0) -> int:
        """Drive input ``pin`` (0..15; 8..15 are the slave's).

        KVM: the result is -1 masked, 0 coalesced, 1 otherwise; ``source`` (0..63) says who drives
        the line.  QEMU: 1.
        """
        if not 0 <= pin < ISA_LINES:
            raise PinRangeError(f"PIC input {pin}", f"inputs are 0..{ISA_LINES - 1}")
        chip, irq = self.state.chips[pin >> 3], pin & 7
        if not self.knobs.source_bitmap:
            return self._present(chip, irq, level)
        if not 0 <= source <= 63:
            raise PinRangeError(f"interrupt source {source}", "source ids are 0..63")
        lines = self.state.lines
        lines[pin] = lines[pin] | 1 << source if level else lines[pin] & ~(1 << source)
        result = self._latch(chip, irq, lines[pin] != 0)
        self._update(chip)
        if self.emit is not None:
            trigger = "level" if chip.elcr >> irq & 1 else "edge"
            masked = bool(chip.imr >> irq & 1)
            self.emit("kvm_pic_set_irq", pin >> 3, irq, trigger, masked, result == 0)
        return result

    def clear_source(self, source: int) -> None:
        """KVM: forget a source's lines (``kvm_pic_clear_all``, when its id is freed)."""
        self.state.lines = [line & ~(1 << source) for line in self.state.lines]

    @property
    def output(self) -> bool:
        """Whether INTR asks for an INTA cycle.

        KVM: the wire as last driven (``pic_irq_request``).  QEMU: computed anew
        (``pic_get_output``), so it can differ from the wire after OCW3 or ELCR writes.
        """
        if self._kvm:
            return self.state.output != 0
        return self._wanted(self.state.chips[0]) is not None

    def intack(self) -> int:
        """An INTA cycle: the vector (``kvm_pic_read_irq``, ``pic_read_irq``)."""
        master, slave = self.state.chips
        if self._kvm:
            self.state.output = 0
        irq = self._wanted(master)
        if irq is None:
            number, vector = SPURIOUS, master.irq_base + SPURIOUS
        elif irq != CASCADE:
            self._acknowledge(master, irq)
            number, vector = irq, master.irq_base + irq
        else:
            # KVM's master goes first: its cascade input is free again when the slave updates.
            if not self.knobs.slave_acked_first:
                self._acknowledge(master, irq)
            slave_irq = self._wanted(slave)
            if slave_irq is None:
                slave_irq = SPURIOUS
            else:
                self._acknowledge(slave, slave_irq)
            if self.knobs.slave_acked_first:
                self._acknowledge(master, irq)
            number, vector = slave_irq + 8, slave.irq_base + slave_irq
        if self._kvm:
            self._update(master)
        elif self.emit is not None:
            self.emit("pic_interrupt", number, vector)
        return vector & 0xFF

    def _present(self, chip: PicChipState, irq: int, level: int) -> int:
        """QEMU ``pic_set_irq``: a level arrives at one chip's input."""
        master = chip is self.state.chips[0]
        if self.emit is not None:
            self.emit("pic_set_irq", int(master), irq, level)
        pin = irq if master else irq + 8
        if self.state.lines[pin] != level:
            self.state.lines[pin] = level
            if level == 1:
                self.state.raised[pin] += 1
        self._latch(chip, irq, level != 0)
        self._update(chip)
        return 1

    def _latch(self, chip: PicChipState, irq: int, level: bool) -> int:
        """The edge detector and request latch; the result as of KVM's ``set_irq``."""
        bit = 1 << irq
        result = 1
        if level:
            if self._is_level(chip, irq) or not chip.last_irr & bit:
                result = int(not chip.irr & bit)
                chip.irr |= bit
            chip.last_irr |= bit
        else:
            chip.last_irr &= ~bit
            if self._is_level(chip, irq):
                chip.irr &= ~bit
        return -1 if chip.imr & bit else result

    @staticmethod
    def _is_level(chip: PicChipState, irq: int) -> bool:
        return chip.ltim != 0 or chip.elcr >> irq & 1 != 0

    def _wanted(self, chip: PicChipState) -> int | None:
        """The input that the chip requests service for (``pic_get_irq``)."""
        ranks = _RANKS[chip.priority_add & 7]
        rank = ranks[chip.irr & ~chip.imr]
        if rank == 8:
            return None
        in_service = chip.isr
        if chip.special_mask and self.knobs.special_mask:
            in_service &= ~chip.imr
        if chip.special_fully_nested_mode and chip is self.state.chips[0]:
            in_service &= ~(1 << CASCADE)
        if rank >= ranks[in_service]:
            return None
        return rank + chip.priority_add & 7

    def _update(self, chip: PicChipState) -> None:
        """Drive the outputs anew after a change of ``chip``."""
        master, slave = self.state.chips
        irq = self._wanted(slave if self._kvm else chip)
        if self.knobs.slave_wire_pulses:
            if irq is not None:
                self._latch(master, CASCADE, level=True)
                self._latch(master, CASCADE, level=False)
            irq = self._wanted(master)
        else:
            if irq is not None and self.emit is not None:
                number = int(chip is master)
                self.emit("pic_update_irq", number, chip.imr, chip.irr, chip.priority_add)
            if chip is slave:
                self._present(master, CASCADE, int(irq is not None))
                return
        # The machine may want to know whether this is a change: output is still the old level.
        self.port.intr(irq is not None)
        self.state.output = int(irq is not None)

    def _acknowledge(self, chip: PicChipState, irq: int) -> None:
        """``pic_intack``: the request becomes an interrupt in service."""
        bit = 1 << irq
        if self.knobs.auto_eoi_touches_isr or not chip.auto_eoi:
            chip.isr |= bit
        if not self._is_level(chip, irq):
            chip.irr &= ~bit
        if chip.auto_eoi:
            if chip.rotate_on_auto_eoi:
                chip.priority_add = irq + 1 & 7
            if self.knobs.auto_eoi_touches_isr:
                self._clear_isr(chip, irq)
        if not self._kvm:
            self._update(chip)

    def _clear_isr(self, chip: PicChipState, irq: int) -> None:
        chip.isr &= ~(1 << irq)
        if self.knobs.acks_notified:
            if chip is self.state.chips[0]:
                self.port.ack(Irqchip.PIC_MASTER, irq)
            else:
                self.port.ack(Irqchip.PIC_SLAVE, irq + 8)

    # --- ports

    def read(self, port: int, size: int = 1) -> int:
        """Read ``size`` bytes (1, 2, 4) from 0x20, 0x21, 0xa0, 0xa1, 0x4d0 or 0x4d1.

        KVM answers a word at an even port with 0.  What reaches beyond the pair of ports goes to
        user space, to regions that have no operations and read 0 (``hw/i386/kvm/i8259.c``); what
        follows an odd port there has no owner.  QEMU's memory core gives every byte to the region
        in which the access began: beyond the command port they all read the data port, beyond an
        ELCR that ELCR.  What follows the data port has no owner and reads 0xff.
        """
        _check_access(port, size)
        if self._kvm and size > 1:
            return (1 << 8 * size) - 0x100 if port & 1 and port & ~1 != ELCR else 0
        value = 0
        for index in range(size):
            if port & ~1 == ELCR:
                byte = self.state.chips[port & 1].elcr
            elif port & 1 and index:
                byte = 0xFF
            else:
                byte = self._read_register(port >> 7, (port & 1) + index)
            value |= byte << 8 * index
        return value

    def write(self, port: int, value: int, size: int = 1) -> None:
        """Write ``size`` bytes, as they are read; KVM ignores anything but a byte."""
        _check_access(port, size)
        if value < 0 or value >> 8 * size:
            raise AccessError(f"write of {value:#x}", f"{size} bytes do not hold it")
        if self._kvm and size > 1:
            return
        for index in range(size):
            byte = value >> 8 * index & 0xFF
            if port & ~1 == ELCR:
                # No re-evaluation: the new trigger mode counts from the next change of a line.
                chip = self.state.chips[port & 1]
                chip.elcr = byte & chip.elcr_mask
            elif not port & 1 or not index:
                self._write_register(port >> 7, (port & 1) + index, byte)

    def _read_register(self, number: int, address: int) -> int:
        chip = self.state.chips[number]
        if chip.poll:
            value = self._poll(chip) if self.knobs.poll_is_inta else self._poll_kvm(chip)
            chip.poll = 0
        elif address:
            value = chip.imr
        else:
            value = chip.isr if chip.read_reg_select else chip.irr
        if not self._kvm and self.emit is not None:
            self.emit("pic_ioport_read", 1 - number, address, value)
        return value

    def _poll(self, chip: PicChipState) -> int:
        """QEMU: a poll is an INTA cycle of this chip alone."""
        irq = self._wanted(chip)
        if irq is None:
            return self.knobs.poll_idle
        self._acknowledge(chip, irq)
        return irq | 0x80

    def _poll_kvm(self, chip: PicChipState) -> int:
        """KVM ``pic_poll_read``: a poll takes the request away, as if it had been EOI'd too."""
        master = self.state.chips[0]
        irq = self._wanted(chip)
        if irq is None:
            self._update(chip)
            return self.knobs.poll_idle
        if chip is not master:
            master.isr &= ~(1 << CASCADE)
            master.irr &= ~(1 << CASCADE)
        chip.irr &= ~(1 << irq)
        self._clear_isr(chip, irq)
        if chip is not master or irq != CASCADE:
            self._update(chip)
        return irq | (0x80 if self.knobs.poll_sets_bit7 else 0)

    def _write_register(self, number: int, address: int, value: int) -> None:
        chip = self.state.chips[number]
        if not self._kvm and self.emit is not None:
            self.emit("pic_ioport_write", 1 - number, address, value)
        if address:
            self._write_data(chip, value)
        elif value & _ICW1:
            self._write_icw1(chip, value)
        elif value & _OCW3:
            if value & 0x04:
                chip.poll = 1
            if value & 0x02:
                chip.read_reg_select = value & 1
            if value & 0x40:
                chip.special_mask = value >> 5 & 1
        else:
            self._write_ocw2(chip, value >> 5, value & 7)

    def _write_icw1(self, chip: PicChipState, value: int) -> None:
        if self.knobs.icw1_keeps_isr:
            self._icw1_kvm(chip, value)
            return
        number = int(chip is self.state.chips[1])
        self.state.chips[number] = fresh = PicChipState(
            irr=chip.irr & chip.elcr, elcr=chip.elcr, elcr_mask=chip.elcr_mask, ltim=chip.ltim
        )
        self._update(fresh)
        fresh.init_state = WANT_ICW2
        fresh.init4 = value & _IC4
        fresh.single_mode = int(value & _SNGL != 0 and self.knobs.single_mode)
        fresh.ltim = int(value & _LTIM != 0 and self.knobs.ltim)

    def _icw1_kvm(self, chip: PicChipState, value: int) -> None:
        """``kvm_pic_reset``: base, ISR, poll and rotate-on-AEOI stay; the output is not updated."""
        dropped = chip.irr & ~chip.elcr
        chip.init4 = value & _IC4
        chip.last_irr = 0
        chip.irr &= chip.elcr
        chip.imr = chip.priority_add = chip.special_mask = chip.read_reg_select = 0
        if not chip.init4:
            chip.special_fully_nested_mode = chip.auto_eoi = 0
        chip.init_state = WANT_ICW2
        if dropped and self.port.accepts_pic_intr():
            for irq in range(8):
                if dropped >> irq & 1:
                    self._clear_isr(chip, irq)

    def _write_ocw2(self, chip: PicChipState, command: int, irq: int) -> None:
        if command in (_ROTATE_AEOI_CLEAR, _ROTATE_AEOI_SET):
            chip.rotate_on_auto_eoi = command >> 2
            return
        if command == _NOP:
            return
        if command == _SET_PRIORITY:
            chip.priority_add = irq + 1 & 7
            self._update(chip)
            return
        if command in (_EOI, _ROTATE_EOI):
            rank = _RANKS[chip.priority_add & 7][chip.isr]
            if rank == 8:
                return
            irq = rank + chip.priority_add & 7
        if command in (_ROTATE_EOI, _ROTATE_SPECIFIC_EOI):
            chip.priority_add = irq + 1 & 7
        self._clear_isr(chip, irq)
        self._update(chip)

    def _write_data(self, chip: PicChipState, value: int) -> None:
        state = chip.init_state
        if state == READY:
            changed = chip.imr ^ value
            chip.imr = value
            if self._kvm and changed:
                self._notify_mask(chip, changed)
            self._update(chip)
        elif state == WANT_ICW2:
            chip.irq_base = value & 0xF8
            chip.init_state = WANT_ICW3
            if chip.single_mode:
                chip.init_state = WANT_ICW4 if chip.init4 else READY
        elif state == WANT_ICW3:
            chip.init_state = WANT_ICW4 if chip.init4 else READY
        elif state == WANT_ICW4:
            chip.special_fully_nested_mode = value >> 4 & 1
            chip.auto_eoi = value >> 1 & 1
            chip.init_state = READY

    def _notify_mask(self, chip: PicChipState, changed: int) -> None:
        number = Irqchip(int(chip is self.state.chips[1]))
        for irq in range(8):
            if changed >> irq & 1:
                self.port.mask_changed(number, irq, bool(chip.imr >> irq & 1))


def _check_chip(chip: PicChipState) -> None:
    for entry in fields(chip):
        value = getattr(chip, entry.name)
        if not 0 <= value <= 0xFF:
            raise StateError(f"PIC {entry.name} = {value}", "a chip's state is made of bytes")


def _chip_number(chip: Irqchip) -> int:
    if chip not in (Irqchip.PIC_MASTER, Irqchip.PIC_SLAVE):
        raise PinRangeError(f"irqchip {chip}", "the PICs are 0 and 1")
    return int(chip)


def _check_access(port: int, size: int) -> None:
    if size not in (1, 2, 4):
        raise AccessError(f"access of {size} bytes", "port I/O does 1, 2 or 4")
    if port & ~1 not in (MASTER_COMMAND, SLAVE_COMMAND, ELCR):
        raise AccessError(f"port {port:#x}", "the PIC has 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1")
