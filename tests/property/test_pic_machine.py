"""Whatever is done to a pair of 8259s, of any profile, these hold."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.chip_ports import PicRecorder
from userspace_chip.knobs import Model
from userspace_chip.pic import CASCADE, Pic
from userspace_chip.profile import profile

PROFILES = [
    *(profile("on", linux=linux) for linux in ("6.1", "6.12", "6.18")),
    *(profile("tcg", qemu=qemu) for qemu in ("7.2", "10.0")),
]
BASES = (0x40, 0x80)
COMMAND = (0x20, 0xA0)
POLL = 0x0C

chips = st.integers(0, 1)
pins = st.integers(0, 15).filter(lambda pin: pin != CASCADE)
few_pins = st.lists(pins, min_size=1, max_size=3)


class PicMachine(RuleBasedStateMachine):
    """Keeps the account of every edge: latched = acknowledged + polled + dropped + pending."""

    @initialize(which=st.sampled_from(PROFILES), elcr=st.tuples(*[st.integers(0, 255)] * 2))
    def start(self, which, elcr):
        self.kvm = which.pic.model is Model.KVM
        self.pic_knobs = which.pic
        self.port = PicRecorder()
        self.pic = Pic(which, self.port, self.port.emit)
        self.latched = [0] * 16
        self.taken = [0] * 16
        for chip, value in enumerate(elcr):
            self.pic.write(0x4D0 + chip, value)
            self.initialise(chip, nested=False, auto_eoi=False)

    def is_level(self, pin: int) -> bool:
        return self.pic.state.chips[pin >> 3].elcr >> (pin & 7) & 1 != 0

    def request(self, pin: int) -> int:
        return self.pic.state.chips[pin >> 3].irr >> (pin & 7) & 1

    @rule(chip=chips, nested=st.booleans(), auto_eoi=st.booleans())
    def initialise(self, chip, nested, auto_eoi):
        pending = [pin for pin in range(8 * chip, 8 * chip + 8) if self.request(pin)]
        command = COMMAND[chip]
        self.pic.write(command, 0x11)
        for pin in pending:
            if not self.is_level(pin):
                assert not self.request(pin)
                self.taken[pin] += 1
            else:
                assert self.request(pin)
        for word in (BASES[chip], 0x04, 1 | nested << 4 | auto_eoi << 1):
            self.pic.write(command + 1, word)

    @rule(pin=pins, level=st.integers(0, 1))
    def drive(self, pin, level):
        chip = self.pic.state.chips[pin >> 3]
        was_high, requested = chip.last_irr >> (pin & 7) & 1, self.request(pin)
        masked = chip.imr >> (pin & 7) & 1
        result = self.pic.set_irq(pin, level)
        if self.is_level(pin):
            assert self.request(pin) == level
            fresh = level and not requested
        else:
            fresh = level and not was_high and not requested
            self.latched[pin] += fresh
            assert self.request(pin) == (requested or fresh)
        if not self.kvm:
            assert result == 1
        elif masked:
            assert result == -1
        elif level and (self.is_level(pin) or not was_high):
            assert result == (1 if fresh else 0)
        else:
            assert result == 1

    @rule(pin=pins)
    def pulse(self, pin):
        self.drive(pin, 0)
        self.drive(pin, 1)
        self.drive(pin, 0)

    def wanted(self, number: int) -> int | None:
        """The input that an 8259A would acknowledge, from the datasheet's words."""
        chip = self.pic.state.chips[number]
        serving = chip.isr
        if chip.special_mask and self.pic_knobs.special_mask:
            serving &= ~chip.imr
        if chip.special_fully_nested_mode and number == 0:
            serving &= ~(1 << CASCADE)
        for rank in range(8):
            irq = (chip.priority_add + rank) & 7
            if serving >> irq & 1:
                return None
            if chip.irr & ~chip.imr & 1 << irq:
                return irq
        return None

    @rule(raised=few_pins)
    def acknowledge(self, raised):
        for pin in raised:
            self.pulse(pin)
        inputs = [self.wanted(0), self.wanted(1)]
        before = self.pic.save()
        vector = self.pic.intack()
        if inputs[0] is None:
            assert vector == BASES[0] + 7
            assert [c.isr for c in self.pic.state.chips] == [c.isr for c in before.chips]
            return
        number = int(inputs[0] == CASCADE)
        if inputs[number] is None:
            assert vector == BASES[1] + 7
            return
        assert vector == BASES[number] + inputs[number]
        pin = 8 * number + inputs[number]
        if not self.is_level(pin):
            assert not self.request(pin)
            self.taken[pin] += 1
        chip = self.pic.state.chips[number]
        in_service = chip.isr >> inputs[number] & 1
        was_in_service = before.chips[number].isr >> inputs[number] & 1
        assert in_service == (not chip.auto_eoi or (was_in_service and not self.kvm))

    @rule(
        chip=chips, command=st.sampled_from([0x20, 0x60, 0xA0, 0xC0, 0xE0]), irq=st.integers(0, 7)
    )
    def operation_word_2(self, chip, command, irq):
        in_service = self.pic.state.chips[chip].isr
        self.pic.write(COMMAND[chip], command | irq)
        after = self.pic.state.chips[chip].isr
        assert after & ~in_service == 0
        assert (in_service ^ after).bit_count() <= 1

    @rule(chip=chips, rotate=st.booleans())
    def rotate_on_auto_eoi(self, chip, rotate):
        self.pic.write(COMMAND[chip], 0x80 if rotate else 0)

    @rule(chip=chips, special=st.booleans())
    def special_mask(self, chip, special):
        self.pic.write(COMMAND[chip], 0x68 if special else 0x48)

    @rule(chip=chips, mask=st.sampled_from([0x00, 0x08, 0x0F, 0x55, 0xF0, 0xFF]))
    def mask(self, chip, mask):
        self.pic.write(COMMAND[chip] + 1, mask)
        assert self.pic.read(COMMAND[chip] + 1) == mask

    @rule(chip=chips, port=st.integers(0, 1), raised=few_pins)
    def poll(self, chip, port, raised):
        for pin in raised:
            self.pulse(pin)
        before = self.pic.state.chips[chip].irr
        self.pic.write(COMMAND[chip], POLL)
        value = self.pic.read(COMMAND[chip] + port)
        if value == self.pic_knobs.poll_idle and not value & 0x80 and not self.polled(chip, before):
            return
        irq = value & 7
        pin = 8 * chip + irq
        assert before >> irq & 1
        if self.is_level(pin):
            assert self.request(pin) == (0 if self.kvm else 1)
        elif pin != CASCADE:
            assert not self.request(pin)
            self.taken[pin] += 1

    def polled(self, chip: int, before: int) -> bool:
        """KVM 6.1 has no bit 7, so that IRQ 7 looks like nothing: see whether it went away."""
        return not self.pic_knobs.poll_sets_bit7 and bool(
            before >> 7 & 1 and not self.pic.state.chips[chip].irr >> 7 & 1
        )

    @rule()
    def save_and_load(self):
        saved = self.pic.save()
        self.pic.load(saved)
        assert self.pic.save() == saved

    @invariant()
    def every_edge_is_accounted_for(self):
        for pin in range(16):
            if pin != CASCADE and not self.is_level(pin):
                assert self.latched[pin] == self.taken[pin] + self.request(pin)

    @invariant()
    def qemu_output_is_what_the_datasheet_says(self):
        if not self.kvm:
            assert self.pic.output == (self.wanted(0) is not None)

    @invariant()
    def registers_are_bytes(self):
        for chip in self.pic.state.chips:
            assert max(chip.irr, chip.isr, chip.imr, chip.last_irr) <= 0xFF
            assert chip.priority_add <= 7


TestPic = PicMachine.TestCase
TestPic.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
