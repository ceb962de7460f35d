"""Whatever is done to an 8254, of any profile, these hold."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from support.chip_ports import PitRecorder
from userspace_chip.knobs import Model
from userspace_chip.pit import FULL_COUNT, Pit
from userspace_chip.profile import profile, tune

PROFILES = [
    profile("on"),
    tune(profile("on"), pit__reinject=False),
    tune(profile("on"), pit__speaker_in_kernel=True),
    profile("tcg", qemu="7.2"),
    profile("tcg", qemu="10.0"),
]
MAX_STEP_NS = 3_000_000
PERIODIC = (2, 3)


class PitMachine(RuleBasedStateMachine):
    """Keeps KVM's account: every expiry has pulsed, waits for an EOI, or was forgotten."""

    @initialize(which=st.sampled_from(PROFILES))
    def start(self, which):
        self.which = which
        self.kvm = which.pit.model is Model.KVM
        self.now_ns = 0
        self.port = PitRecorder()
        self.pit = Pit(which, self.port)

    def pulses(self) -> int:
        return len(self.port.named("nmi_watchdog"))

    @rule(step_ns=st.integers(1, MAX_STEP_NS))
    def let_time_pass(self, step_ns):
        until_ns = self.now_ns + step_ns
        while (deadline_ns := self.port.timer.deadline_ns) is not None and deadline_ns <= until_ns:
            assert deadline_ns >= self.now_ns or self.pit.state.is_periodic
            self.now_ns = max(self.now_ns, deadline_ns)
            self.expire(deadline_ns)
        self.now_ns = until_ns

    def expire(self, deadline_ns):
        before, pulses = self.pit.save(), self.pulses()
        self.pit.expire(deadline_ns)
        after = self.pit.state
        assert after.deadline_ns is None or after.deadline_ns > deadline_ns or self.kvm
        if not self.kvm:
            return
        ticked = before.deadline_ns is not None and before.deadline_ns <= deadline_ns
        worked = before.work_at_ns is not None
        if not before.reinject:
            assert self.pulses() - pulses == ticked + worked
        else:
            assert after.pending == before.pending + ticked
            assert self.pulses() - pulses <= 1
            assert self.pulses() - pulses == (before.irq_ack if ticked or worked else 0)
        if ticked and before.is_periodic:
            assert after.deadline_ns == before.deadline_ns + before.period_ns
        elif ticked:
            assert after.deadline_ns is None

    @rule(
        channel=st.sampled_from([0, 0, 1, 2]),
        access=st.integers(1, 3),
        mode=st.integers(0, 7),
        count=st.one_of(st.integers(1, 300), st.integers(0, 0xFFFF)),
    )
    def program(self, channel, access, mode, count):
        self.pit.write(0x43, channel << 6 | access << 4 | mode << 1, self.now_ns)
        if access & 1:
            self.pit.write(0x40 + channel, count & 0xFF, self.now_ns)
        if access & 2:
            self.pit.write(0x40 + channel, count >> 8, self.now_ns)
        expected = count & {1: 0x00FF, 2: 0xFF00, 3: 0xFFFF}[access]
        assert self.pit.state.channels[channel].count == (expected or FULL_COUNT)

    @rule(port=st.integers(0x40, 0x43), value=st.integers(0, 255))
    def write(self, port, value):
        self.pit.write(port, value, self.now_ns)

    @rule(port=st.sampled_from([0x40, 0x41, 0x42, 0x43, 0x61]))
    def read(self, port):
        assert 0 <= self.pit.read(port, self.now_ns) <= 0xFF

    @rule(value=st.integers(0, 3))
    def speaker(self, value):
        self.pit.write(0x61, value, self.now_ns)
        assert self.pit.read(0x61, self.now_ns) & 3 == value

    @rule()
    def acknowledge(self):
        if self.kvm:
            before, pulses = self.pit.save(), self.pulses()
            self.pit.ack(self.now_ns)
            assert self.pulses() == pulses
            if before.reinject:
                assert self.pit.state.pending == max(before.pending - 1, 0)
                assert self.pit.state.irq_ack == 1

    @rule(masked=st.booleans())
    def mask(self, masked):
        if self.kvm:
            self.pit.mask_changed(masked, self.now_ns)

    @rule(on=st.booleans())
    def hpet(self, on):
        self.pit.set_hpet_legacy(on, self.now_ns)
        assert not on or self.pit.state.deadline_ns is None

    @rule()
    def reset(self):
        self.pit.reset(self.now_ns)
        assert [channel.mode for channel in self.pit.state.channels] == [3, 3, 3]

    @rule()
    def save_and_load(self):
        saved = self.pit.save()
        self.pit.load(saved)
        assert self.pit.save() == saved

    @invariant()
    def timer_and_state_agree(self):
        state = self.pit.state
        due = [t for t in (state.deadline_ns, state.work_at_ns) if t is not None]
        assert self.port.timer.deadline_ns == (min(due) if due else None)

    @invariant()
    def kvm_drives_whole_pulses(self):
        if self.kvm:
            assert self.port.levels == [1, 0] * self.pulses()

    @invariant()
    def kvm_has_a_tick_in_flight_exactly_while_it_is_not_acknowledged(self):
        state = self.pit.state
        if self.kvm and state.reinject and not state.irq_ack:
            assert state.pending > 0

    @invariant()
    def periodic_timer_keeps_running(self):
        state = self.pit.state
        if self.kvm and not state.hpet_legacy and state.deadline_ns is not None:
            assert state.deadline_ns == state.expires_ns
            assert not state.is_periodic or state.period_ns >= self.which.pit.min_period_ns

    @invariant()
    def counts_are_in_range(self):
        for channel in self.pit.state.channels:
            assert 1 <= channel.count <= FULL_COUNT
            assert channel.latched_count <= 0xFFFF


TestPit = PitMachine.TestCase
TestPit.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
