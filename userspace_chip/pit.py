"""The 8254 as an interrupt source, KVM's and QEMU's, as one state machine; see ``profile.pit``.

Datasheet: Intel 8254.  Linux: ``arch/x86/kvm/i8254.c`` of 6.1 to 6.18.  QEMU:
``hw/timer/i8254.c``, ``i8254_common.c``, ``hw/i386/kvm/i8254.c`` and ``hw/audio/pcspk.c`` of 7.2
and 10.0.

What differs is what reaches GSI 0:

* QEMU drives the wire with channel 0's OUT, edge by edge, in every mode.
* KVM pulses it once an expiry and has no wire.  With the lost-tick policy ``delay`` (reinject) an
  expiry waits until the guest has acknowledged the one before, and expiries that had to wait are
  delivered one by one after each acknowledgement; with ``discard`` every expiry pulses.

Channels 1 and 2 are registers that count; nothing listens to their OUT but port 0x61.  BCD is
stored and ignored by both.  Neither has the null-count bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

from userspace_chip.architecture import PIT_CONTROL, PIT_COUNTER_0, SPEAKER
from userspace_chip.errors import AccessError, StateError
from userspace_chip.knobs import Model
from userspace_chip.ports import PitPort
from userspace_chip.profile import Profile
from userspace_chip.snapshot import copy_state

NS_PER_S: Final = 1_000_000_000
QEMU_FREQUENCY_HZ: Final = 1193182
FULL_COUNT: Final = 0x10000
"""What a count of 0 means."""
NO_MODE: Final = 0xFF
"""KVM: the mode of a channel that was never programmed; its timer does not run."""

# rw_mode, read_state, write_state: which byte comes next
_LSB, _MSB, _WORD_LSB, _WORD_MSB = 1, 2, 3, 4

_ONE_SHOT_MODES: Final = (0, 1, 4)
_PERIODIC_MODES: Final = (2, 3)


@dataclass
class PitChannelState:
    """One counter: ``struct kvm_pit_channel_state``, ``PITChannelState``."""

    count: int = FULL_COUNT
    """The programmed count, 1..65536."""
    latched_count: int = 0
    count_latched: int = 0
    """Which byte of ``latched_count`` is read next; 0 for no latch."""
    status_latched: int = 0
    status: int = 0
    read_state: int = 0
    write_state: int = 0
    write_latch: int = 0
    rw_mode: int = 0
    mode: int = 3
    bcd: int = 0
    gate: int = 1
    count_load_time_ns: int = 0


@dataclass
class PitState:
    """Everything that the 8254 and port 0x61 remember."""

    channels: list[PitChannelState] = field(
        default_factory=lambda: [PitChannelState(gate=int(i != 2)) for i in range(3)]
    )
    deadline_ns: int | None = None
    """When channel 0 acts next: KVM's hrtimer, QEMU's next transition of OUT."""
    hpet_legacy: int = 0
    """The HPET has taken over channel 0's interrupt."""
    speaker_data: int = 0
    refresh_clock: int = 0
    """QEMU: port 0x61 bit 4, which toggles with every read."""
    # KVM
    expires_ns: int = 0
    """The hrtimer's expiry, kept when it is cancelled."""
    period_ns: int = 0
    is_periodic: int = 0
    reinject: int = 1
    """Lost-tick policy: 1 delay, 0 discard."""
    pending: int = 0
    """Expiries that wait for an acknowledgement, the delivered one included."""
    irq_ack: int = 1
    """The guest has acknowledged the last pulse."""
    work_at_ns: int | None = None
    """The worker is to pulse: since when."""


class Pit:
    """The 8254.  Impossible inputs raise :class:`~userspace_chip.errors.ChipError`.

    ``now_ns`` is on one monotonic clock and never goes back.
    """

    def __init__(self, profile: Profile, port: PitPort, now_ns: int = 0) -> None:
        self.port = port
        self.knobs = profile.pit
        self.state = PitState()
        self._kvm = profile.pit.model is Model.KVM
        if self._kvm:
            self._create_kvm(now_ns)
        else:
            self.reset(now_ns)

    def _create_kvm(self, now_ns: int) -> None:
        """``kvm_create_pit``: no channel has a mode, so nothing runs."""
        self.state.reinject = int(self.knobs.reinject)
        for channel in self.state.channels:
            channel.mode = NO_MODE
            channel.count_load_time_ns = now_ns

    # --- state

    def save(self) -> PitState:
        """An independent copy of the state."""
        return copy_state(self.state)

    def load(self, state: PitState) -> None:
        """Take over a copy of ``state`` and arm the timer.

        :class:`StateError` where it is none of an 8254's.
        """
        if len(state.channels) != 3:
            raise StateError(f"PIT channels: {len(state.channels)}", "expected 3")
        for channel in state.channels:
            _check_channel(channel)
        self.state = copy_state(state)
        self._arm()

    def get_pit2(self) -> tuple[list[PitChannelState], int]:
        """``KVM_GET_PIT2``: copies of the channels, and whether the HPET has taken over."""
        return [copy_state(channel) for channel in self.state.channels], self.state.hpet_legacy

    def set_pit2(self, channels: list[PitChannelState], hpet_legacy: int, now_ns: int) -> None:
        """``KVM_SET_PIT2``: every count is loaded anew, so all phases begin now.

        Linux ``arch/x86/kvm/x86.c:kvm_vm_ioctl_set_pit2``.
        """
        if len(channels) != 3:
            raise StateError(f"PIT channels: {len(channels)}", "expected 3")
        for channel in channels:
            _check_channel(channel)
        state = self.state
        starts = hpet_legacy and not state.hpet_legacy
        state.channels = [copy_state(channel) for channel in channels]
        state.hpet_legacy = hpet_legacy
        for number, channel in enumerate(state.channels):
            channel.count = channel.count or FULL_COUNT
            if number:
                channel.count_load_time_ns = now_ns
            elif starts:
                self._stop()
            else:
                self._start_channel_0(now_ns)

    def reset(self, now_ns: int) -> None:
        """What QEMU does at machine reset (``pit_reset_common``): mode 3, count 65536.

        OUT is high then, but the wire is not driven before the first transition.
        """
        for number, channel in enumerate(self.state.channels):
            channel.mode = 3
            channel.gate = int(number != 2)
            channel.count_load_time_ns = now_ns
            channel.count = FULL_COUNT
        if self._kvm:
            channels, legacy = self.get_pit2()
            self.set_pit2(channels, legacy, now_ns)
        elif not self.state.hpet_legacy:
            self.state.deadline_ns = self._next_transition(self.state.channels[0], now_ns)
            self._arm()

    # --- time

    def expire(self, now_ns: int) -> None:
        """An armed deadline is reached."""
        state = self.state
        self._flush_work()
        while state.deadline_ns is not None and state.deadline_ns <= now_ns:
            if self.knobs.pulse_output:
                self._tick()
            else:
                self._drive(state.deadline_ns)
        self._arm()

    def _arm(self) -> None:
        deadlines = [t for t in (self.state.deadline_ns, self.state.work_at_ns) if t is not None]
        if deadlines:
            self.port.timer.arm(min(deadlines))
        else:
            self.port.timer.cancel()

    # --- KVM's channel 0

    def _tick(self) -> None:
        """``pit_timer_fn``, and the worker that it wakes."""
        state = self.state
        if state.reinject:
            state.pending += 1
        if state.is_periodic:
            # From the expiry, not from now: late callbacks catch up.
            state.expires_ns += state.period_ns
            state.deadline_ns = state.expires_ns
        else:
            state.deadline_ns = None
        self._pulse()

    def _flush_work(self) -> None:
        if self.state.work_at_ns is not None:
            self.state.work_at_ns = None
            self._pulse()

    def _pulse(self) -> None:
        """``pit_do_work``."""
        state = self.state
        if state.reinject:
            if not state.irq_ack:
                return
            state.irq_ack = 0
        self.port.set_irq(1)
        self.port.set_irq(0)
        self.port.nmi_watchdog()

    def ack(self, now_ns: int) -> None:
        """KVM: the guest acknowledged GSI 0 (``kvm_pit_ack_irq``).

        The next pulse, if a tick waits, is a worker's: it comes as a timer that is due at once,
        after whatever the guest's EOI still does.
        """
        state = self.state
        if not state.reinject:
            return
        state.irq_ack = 1
        if state.pending > 0:
            state.pending -= 1
            if state.pending > 0:
                state.work_at_ns = now_ns
                self._arm()

    def mask_changed(self, masked: bool, now_ns: int) -> None:
        """KVM: GSI 0 was masked or unmasked; unmasking forgets what waits."""
        if self.state.reinject and not masked:
            self._reset_reinject()

    def set_reinject(self, on: bool) -> None:
        """``KVM_REINJECT_CONTROL``: the lost-tick policy, delay (on) or discard."""
        if on and not self.state.reinject:
            self._reset_reinject()
        self.state.reinject = int(on)

    def _reset_reinject(self) -> None:
        self.state.pending = 0
        self.state.irq_ack = 1

    def _start_channel_0(self, now_ns: int) -> None:
        """KVM ``pit_load_count`` of channel 0, ``create_pit_timer``."""
        state, channel = self.state, self.state.channels[0]
        periodic = channel.mode in _PERIODIC_MODES
        if not periodic and channel.mode not in _ONE_SHOT_MODES:
            self._stop()
            return
        if state.hpet_legacy:
            return
        interval_ns = channel.count * NS_PER_S // self.knobs.frequency_hz
        state.is_periodic = int(periodic)
        # The minimum is for the period: the first expiry comes when the guest asked for it.
        state.period_ns = max(interval_ns, self.knobs.min_period_ns) if periodic else interval_ns
        self._flush_work()
        self._reset_reinject()
        state.expires_ns = state.deadline_ns = now_ns + interval_ns
        self._arm()

    def _stop(self) -> None:
        self.state.deadline_ns = None
        self._flush_work()
        self._arm()

    # --- QEMU's channel 0

    def _drive(self, at_ns: int) -> None:
        """``pit_irq_timer_update``: OUT as of ``at_ns`` to the wire, and when it changes next."""
        state, channel = self.state, self.state.channels[0]
        if state.hpet_legacy:
            return
        transition_ns = self._next_transition(channel, at_ns)
        self.port.set_irq(self._out(channel, self._elapsed(channel, at_ns)))
        state.deadline_ns = transition_ns
        self._arm()

    def _next_transition(self, channel: PitChannelState, at_ns: int) -> int | None:
        """``pit_get_next_transition_time``."""
        elapsed, count = self._elapsed(channel, at_ns), channel.count
        begin = elapsed - elapsed % count
        if channel.mode == 2:
            at_end = elapsed == begin and elapsed != 0
            ticks = begin + count + (0 if at_end else 1)
        elif channel.mode == 3:
            half = count + 1 >> 1
            ticks = begin + (half if elapsed - begin < half else count)
        elif elapsed < count:
            ticks = count
        elif channel.mode in (4, 5) and elapsed == count:
            ticks = count + 1
        else:
            return None
        return self._time_of(channel, ticks, at_ns)

    def _time_of(self, channel: PitChannelState, ticks: int, after_ns: int) -> int:
        """When ``ticks`` have passed since the count was loaded."""
        at_ns = channel.count_load_time_ns + ticks * NS_PER_S // self.knobs.frequency_hz
        return max(at_ns, after_ns + 1)  # both conversions round down

    @property
    def rises_next(self) -> bool:
        """Whether what comes next is a periodic tick of QEMU's channel 0."""
        channel, deadline_ns = self.state.channels[0], self.state.deadline_ns
        if self._kvm or deadline_ns is None or channel.mode not in (2, 3):
            return False
        return self._elapsed(channel, deadline_ns + 1) % channel.count == 0

    def lose_ticks(self, now_ns: int) -> None:
        """The ticks that are due by ``now_ns`` do not happen; no QEMU does this.

        It is for a live machine that is too slow for them, where :attr:`rises_next`.
        """
        channel = self.state.channels[0]
        ticks = (self._elapsed(channel, now_ns) // channel.count + 1) * channel.count
        self.state.deadline_ns = self._time_of(channel, ticks, now_ns)
        self._arm()

    def set_hpet_legacy(self, on: bool, now_ns: int) -> None:
        """The HPET took over channel 0's interrupt, or gave it back.

        KVM: QEMU writes the whole state back for it (``kvm_pit_irq_control``).
        """
        if self._kvm:
            channels, _ = self.get_pit2()
            self.set_pit2(channels, int(on), now_ns)
            return
        self.state.hpet_legacy = int(on)
        if on:
            self._stop()
        else:
            self._drive(now_ns)

    # --- counting

    def _elapsed(self, channel: PitChannelState, now_ns: int) -> int:
        """Input clocks since the count was loaded."""
        if self._kvm and channel is self.state.channels[0]:
            # KVM asks the timer how long it still has (__kpit_elapsed).
            if not self.state.period_ns:
                return 0
            elapsed_ns = self.state.period_ns - (self.state.expires_ns - now_ns)
        else:
            elapsed_ns = now_ns - channel.count_load_time_ns
        return elapsed_ns * self.knobs.frequency_hz // NS_PER_S

    def _counter(self, channel: PitChannelState, now_ns: int) -> int:
        """What the counting element reads, 0..65536 (``pit_get_count``)."""
        elapsed = self._elapsed(channel, now_ns)
        if channel.mode in (0, 1, 4, 5):
            return channel.count - elapsed & 0xFFFF
        if channel.mode == 3:
            return channel.count - 2 * elapsed % channel.count
        return channel.count - elapsed % channel.count

    def _out(self, channel: PitChannelState, elapsed: int) -> int:
        """OUT after that many input clocks."""
        return _out(channel, elapsed, self.knobs.mode1_out_after_terminal_count)

    # --- registers

    def read(self, port: int, now_ns: int, size: int = 1) -> int:
        """Read 0x40..0x43 or 0x61.

        KVM zero-extends the byte at ``port``; what reaches beyond 0x43 goes to user space, where
        no device is: all ones.  On QEMU every byte goes to its own port, those beyond 0x43 give
        0xff; at 0x61 every byte is another access to 0x61.
        """
        _check_access(port, size)
        if self._in_kernel(port):
            if port == SPEAKER:
                return self._read_speaker(now_ns)
            if port + size > PIT_CONTROL + 1:
                return (1 << 8 * size) - 1
            return self._read_counter(port, now_ns)
        value = 0
        for index in range(size):
            at = port + index
            if port == SPEAKER:
                byte = self._read_speaker(now_ns)
            else:
                byte = self._read_counter(at, now_ns) if at <= PIT_CONTROL else 0xFF
            value |= byte << 8 * index
        return value

    def write(self, port: int, value: int, now_ns: int, size: int = 1) -> None:
        """Write 0x40..0x43 or 0x61; KVM takes the low byte of what does not reach beyond 0x43."""
        _check_access(port, size)
        if value < 0 or value >> 8 * size:
            raise AccessError(f"write of {value:#x}", f"{size} bytes do not hold it")
        if self._in_kernel(port):
            size = 0 if port <= PIT_CONTROL < port + size - 1 else 1
        for index in range(size):
            at, byte = port + index, value >> 8 * index & 0xFF
            if port == SPEAKER:
                self._write_speaker(byte, now_ns)
            elif at < PIT_CONTROL:
                self._write_counter(at - PIT_COUNTER_0, byte, now_ns)
            elif at == PIT_CONTROL:
                self._write_control(byte, now_ns)

    def _in_kernel(self, port: int) -> bool:
        return self._kvm and (port != SPEAKER or self.knobs.speaker_in_kernel)

    def _read_counter(self, port: int, now_ns: int) -> int:
        if port == PIT_CONTROL:
            return 0
        channel = self.state.channels[port - PIT_COUNTER_0]
        if channel.status_latched:
            channel.status_latched = 0
            return channel.status
        if channel.count_latched:
            latch = channel.count_latched
            channel.count_latched = _MSB if latch == _WORD_LSB else 0
            return channel.latched_count >> 8 if latch == _MSB else channel.latched_count & 0xFF
        count = self._counter(channel, now_ns)
        state = channel.read_state
        if state in (_WORD_LSB, _WORD_MSB):
            channel.read_state = _WORD_MSB if state == _WORD_LSB else _WORD_LSB
        return (count >> 8 if state in (_MSB, _WORD_MSB) else count) & 0xFF

    def _write_counter(self, number: int, value: int, now_ns: int) -> None:
        channel = self.state.channels[number]
        if channel.write_state == _WORD_LSB:
            channel.write_latch = value
            channel.write_state = _WORD_MSB
            return
        if channel.write_state == _WORD_MSB:
            channel.write_state = _WORD_LSB
            value = channel.write_latch | value << 8
        elif channel.write_state == _MSB:
            value <<= 8
        channel.count = value or FULL_COUNT
        if not self._kvm:
            channel.count_load_time_ns = now_ns
            if number == 0:
                self._drive(now_ns)
        elif number:
            channel.count_load_time_ns = now_ns
        else:
            self._start_channel_0(now_ns)

    def _write_control(self, value: int, now_ns: int) -> None:
        select = value >> 6
        if select == 3:
            self._read_back(value, now_ns)
            return
        channel = self.state.channels[select]
        access = value >> 4 & 3
        if access == 0:
            self._latch_count(channel, now_ns)
            return
        channel.rw_mode = channel.read_state = channel.write_state = access
        channel.mode = value >> 1 & 7
        if channel.mode > 5 and self.knobs.fold_modes_6_7:
            channel.mode -= 4
        channel.bcd = value & 1
        # Neither model starts or stops anything here: the new mode counts from the next load,
        # but OUT and the counter are computed with it at once.

    def _read_back(self, value: int, now_ns: int) -> None:
        for number, channel in enumerate(self.state.channels):
            if not value & 2 << number:
                continue
            if not value & 0x20:
                self._latch_count(channel, now_ns)
            if not value & 0x10 and not channel.status_latched:
                out = self._out(channel, self._elapsed(channel, now_ns))
                status = out << 7 | channel.rw_mode << 4 | channel.mode << 1 | channel.bcd
                channel.status = status & 0xFF
                channel.status_latched = 1

    def _latch_count(self, channel: PitChannelState, now_ns: int) -> None:
        if not channel.count_latched:
            channel.latched_count = self._counter(channel, now_ns) & 0xFFFF
            channel.count_latched = channel.rw_mode

    # --- port 0x61: gate and OUT of channel 2

    def _read_speaker(self, now_ns: int) -> int:
        state, channel = self.state, self.state.channels[2]
        if self._in_kernel(SPEAKER):
            refresh = now_ns >> 14 & 1
            out = self._out(channel, self._elapsed(channel, now_ns))
        else:
            # QEMU's device, also beside KVM's PIT: with QEMU's frequency and OUT.
            state.refresh_clock ^= 1
            refresh = state.refresh_clock
            elapsed_ns = now_ns - channel.count_load_time_ns
            after_count = self.knobs.speaker_mode1_out_after_terminal_count
            out = _out(channel, elapsed_ns * QEMU_FREQUENCY_HZ // NS_PER_S, after_count)
        return channel.gate | state.speaker_data << 1 | refresh << 4 | out << 5

    def _write_speaker(self, value: int, now_ns: int) -> None:
        state, channel, gate = self.state, self.state.channels[2], value & 1
        state.speaker_data = value >> 1 & 1
        if channel.mode in (1, 2, 3, 5) and channel.gate < gate:
            channel.count_load_time_ns = now_ns
        channel.gate = gate
        if self._kvm and not self.knobs.speaker_in_kernel:
            # QEMU moves the gate by writing back the whole state, which restarts every count,
            # channel 0's too (kvm_pit_set_gate, kvm_pit_put).
            channels, legacy = self.get_pit2()
            self.set_pit2(channels, legacy, now_ns)


def _out(channel: PitChannelState, elapsed: int, mode1_after_count: bool) -> int:
    """``pit_get_out``."""
    mode, count = channel.mode, channel.count
    if mode == 1:
        return int(elapsed >= count if mode1_after_count else elapsed < count)
    if mode == 2:
        return int(elapsed % count == 0 and elapsed != 0)
    if mode == 3:
        return int(elapsed % count < (count + 1 >> 1))
    if mode in (4, 5):
        return int(elapsed == count)
    return int(elapsed >= count)


def _check_channel(channel: PitChannelState) -> None:
    for entry in fields(channel):
        value = getattr(channel, entry.name)
        limit = {"count": FULL_COUNT, "latched_count": 0xFFFF}.get(entry.name, 0xFF)
        if entry.name != "count_load_time_ns" and not 0 <= value <= limit:
            raise StateError(f"PIT {entry.name} = {value}", f"expected 0..{limit}")


def _check_access(port: int, size: int) -> None:
    if size not in (1, 2, 4):
        raise AccessError(f"access of {size} bytes", "port I/O does 1, 2 or 4")
    if not PIT_COUNTER_0 <= port <= PIT_CONTROL and port != SPEAKER:
        raise AccessError(f"port {port:#x}", "the PIT has 0x40..0x43 and 0x61")
