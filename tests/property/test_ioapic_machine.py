"""Whatever is done to an IOAPIC, of any profile, these hold."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.chip_ports import IoapicRecorder
from userspace_chip.architecture import IOAPIC_PINS, IOREDTBL, IOREGSEL, IOWIN, RTC_PIN
from userspace_chip.ioapic import RTE, Ioapic, rte_message
from userspace_chip.knobs import Model
from userspace_chip.messages import LapicMessage, MsiMessage
from userspace_chip.ports import DestMap
from userspace_chip.profile import profile

PROFILES = [
    *(profile("on", linux=linux) for linux in ("6.1", "6.12", "6.18")),
    *(profile("split", qemu=qemu) for qemu in ("7.2", "10.0")),
    *(profile("tcg", qemu=qemu) for qemu in ("7.2", "10.0")),
]
VECTORS = [0x31, 0x41, 0x51]
LEVEL, MASKED, REMOTE_IRR = RTE.trigger.mask, RTE.masked.mask, RTE.remote_irr.mask

# Few pins, so that they meet; the RTC's, and the two ends.
PINS_USED = [0, 2, 5, RTC_PIN, 23]
pins = st.sampled_from(PINS_USED)
low_halves = st.builds(
    lambda vector, mode, level, masked: vector | mode << 8 | level << 15 | masked << 16,
    st.sampled_from(VECTORS),
    st.sampled_from([0, 0, 1, 4, 7]),
    st.booleans(),
    st.sampled_from([False, False, True]),
)


class Port(IoapicRecorder):
    """Checks every delivery where it happens."""

    chip: Ioapic

    def deliver(self, message: LapicMessage, dest_map: DestMap | None = None) -> int:
        senders = [
            e for e in self.chip.state.rte if rte_message(e & ~(MASKED | REMOTE_IRR)) == message
        ]
        assert any(not entry & MASKED for entry in senders), "delivered from a masked pin"
        return super().deliver(message, dest_map)

    def send_msi(self, pin: int, message: MsiMessage, level: bool) -> None:
        assert not self.chip.state.rte[pin] & MASKED, "delivered from a masked pin"
        assert level == bool(self.chip.state.rte[pin] & LEVEL)
        super().send_msi(pin, message, level)


class IoapicMachine(RuleBasedStateMachine):
    @initialize(
        which=st.sampled_from(PROFILES), entries=st.lists(low_halves, min_size=5, max_size=5)
    )
    def start(self, which, entries):
        self.port = Port(takers={0: 0})
        self.chip = self.port.chip = Ioapic(which, self.port, self.port.emit)
        self.kvm = which.ioapic.model is Model.KVM
        self.now_ns = 0
        self.dropped = 0
        """Pins whose last delivery nobody took, a bit each: KVM leaves them pending."""
        for pin, entry in zip(PINS_USED, entries, strict=True):
            self.write_entry(pin, high=False, low=entry, dest=0)

    def deliveries(self) -> int:
        return len(self.port.named("deliver", "send_msi"))

    @rule(pin=pins, level=st.integers(0, 1), source=st.sampled_from([0, 0, 1, 2]))
    def drive(self, pin, level, source):
        state = self.chip.state
        target = 2 if pin == 0 and not self.kvm else pin
        entry, requested, before = state.rte[target], state.irr >> target & 1, self.deliveries()
        in_rtc_service = pin == RTC_PIN and state.rtc_pending_eoi > 0
        result = self.chip.set_irq(pin, level, source=source)
        sent = self.deliveries() - before
        if self.kvm:
            high = state.lines[pin] != 0
            self.account(entry, high, requested, in_rtc_service, result, sent)
        else:
            assert result == 1
            if not entry & LEVEL:
                assert sent >= (level and not entry & MASKED)
        self.note_dropped(target)

    def account(self, entry, high, requested, in_rtc_service, result, sent):
        """KVM: every call is delivered, coalesced, or refused because masked or in service."""
        assert sent in (0, 1)
        if not high:
            assert (result, sent) == (1, 0)
        elif in_rtc_service or (not entry & LEVEL and requested):
            assert (result, sent) == (0, 0)
        elif entry & MASKED or (entry & LEVEL and entry & REMOTE_IRR):
            assert (result, sent) == (-1, 0)
        else:
            assert (result, sent) == (self.port.result, 1)

    def note_dropped(self, *serviced):
        """After a service of these pins, or of any."""
        bits = sum(1 << pin for pin in serviced or range(IOAPIC_PINS))
        if self.port.result == 0:
            self.dropped |= bits
        elif serviced:
            self.dropped &= ~bits

    @rule(pin=pins, high=st.booleans(), low=low_halves, dest=st.integers(0, 0xFFFFFFFF))
    def write_entry(self, pin, high, low, dest):
        self.chip.write(IOREGSEL, 4, IOREDTBL + 2 * pin + high, self.now_ns)
        value = dest if high else low
        self.chip.write(IOWIN, 4, value, self.now_ns)
        stored = self.chip.state.rte[pin] >> (32 if high else 0) & 0xFFFFFFFF
        assert (stored ^ value) & (0xFFFFFFFF if high else ~(REMOTE_IRR | 1 << 12)) == 0
        self.note_dropped(pin)

    @rule(vector=st.sampled_from(VECTORS), vcpu=st.integers(0, 1), level=st.booleans())
    def eoi(self, vector, vcpu, level):
        self.now_ns += 1_000
        self.chip.eoi(vector, self.now_ns, level=level, vcpu=vcpu)
        self.note_dropped()

    @rule(pin=pins, lowered=st.booleans(), vcpu=st.integers(0, 1))
    def interrupt_and_eoi(self, pin, lowered, vcpu):
        self.drive(pin, 1, source=0)
        if lowered:
            self.drive(pin, 0, source=0)
        target = 2 if pin == 0 and not self.kvm else pin
        self.eoi(self.chip.state.rte[target] & 0xFF, vcpu, level=True)

    @rule(result=st.sampled_from([-1, 0, 1, 2]))
    def change_what_the_cpus_say(self, result):
        self.port.result = result
        if result <= 0:
            self.port.takers = {}
        else:
            self.port.takers = dict.fromkeys(range(result), self.chip.state.rte[RTC_PIN] & 0xFF)

    @rule(pin=pins, count=st.sampled_from([9_998, 9_999]))
    def be_nearly_a_storm(self, pin, count):
        self.chip.state.eoi_count[pin] = count

    @precondition(lambda self: self.chip.state.delay_deadline_ns is not None)
    @rule()
    def wait_out_the_delay(self):
        self.now_ns = max(self.now_ns, self.chip.state.delay_deadline_ns)
        self.chip.expire(self.now_ns)
        self.note_dropped()

    @rule()
    def reset(self):
        self.chip.reset()
        assert self.chip.state.irr == 0

    @rule()
    def save_and_load(self):
        saved = self.chip.save()
        self.chip.load(saved)
        assert self.chip.save() == saved

    @invariant()
    def remote_irr_is_on_level_pins_only(self):
        for entry in self.chip.state.rte:
            assert entry & LEVEL or not entry & REMOTE_IRR

    @invariant()
    def no_request_of_a_pin_that_may_send_is_left_behind(self):
        state = self.chip.state
        if state.delay_deadline_ns is not None:
            return
        for pin, entry in enumerate(state.rte):
            if not state.irr >> pin & 1 or entry & MASKED:
                continue
            if self.kvm and (not entry & LEVEL or self.dropped >> pin & 1):
                continue  # a latched edge, or a request that no CPU took
            assert entry & REMOTE_IRR

    @invariant()
    def kvm_requests_come_from_lines_that_are_high(self):
        if self.kvm:
            for pin in range(IOAPIC_PINS):
                assert self.chip.state.lines[pin] or not self.chip.state.irr >> pin & 1

    @invariant()
    def throttle_counters_stay_below_the_limit(self):
        assert max(self.chip.state.eoi_count) < self.chip.knobs.storm_limit

    @invariant()
    def only_kvm_waits_for_the_rtcs_eoi(self):
        waiting = self.chip.state.rtc_pending_eoi
        assert waiting >= 0
        assert self.kvm or not waiting

    @invariant()
    def timer_and_state_agree(self):
        deadline_ns = self.chip.state.delay_deadline_ns
        assert deadline_ns is None or self.port.timer.deadline_ns == deadline_ns


TestIoapic = IoapicMachine.TestCase
TestIoapic.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
