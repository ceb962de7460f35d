"""The local APIC's timer: one-shot, periodic and TSC-deadline, as KVM and as QEMU count it.

Spec: SDM volume 3A, "Advanced Programmable Interrupt Controller (APIC)", sections "APIC Timer"
and "TSC-Deadline Mode" (edition 081, 2023).  Sources: Linux ``arch/x86/kvm/lapic.c``
(``start_apic_timer``, ``apic_timer_fn``, ``apic_get_tmcct``, ``update_target_expiration``), QEMU
``hw/intc/apic_common.c`` (``apic_next_timer``, ``apic_get_current_count``).

Not modelled: KVM's adaptive advance of TSC deadlines (host latency), the VMX preemption timer as a
second clock (it only changes *when* an expiry is noticed), and a TSC with an offset: the guest's
TSC is 0 at guest time 0.

A timer unit is one nanosecond in both (``APIC_BUS_CYCLE_NS``, QEMU_CLOCK_VIRTUAL).
"""

from __future__ import annotations

from userspace_chip.lapic_delivery import LapicDelivery
from userspace_chip.lapic_registers import LVT_TIMER, MASKED
from userspace_chip.lapic_state import ONE_SHOT, PERIODIC, TSC_DEADLINE


def divide_count(tdcr: int) -> int:
    """The divide value of a TDCR: 2, 4, 8 ... 128, and 1 for 0b1011."""
    return 1 << _shift(tdcr)


def _shift(tdcr: int) -> int:
    return ((tdcr & 3 | (tdcr & 8) >> 1) + 1) & 7


class KvmTimer:
    """``struct kvm_timer`` driven by a software hrtimer."""

    __slots__ = ("_keeps_masked", "_lapic", "_min_period_ns", "_mode_mask", "_tsc_khz")

    def __init__(self, lapic: LapicDelivery, *, tsc_khz: int) -> None:
        self._lapic = lapic
        self._min_period_ns = lapic.profile.lapic.timer_min_period_ns
        self._keeps_masked = lapic.profile.lapic.masked_expiry_kept
        self._mode_mask = PERIODIC | (TSC_DEADLINE if lapic.profile.lapic.tsc_deadline else 0)
        self._tsc_khz = tsc_khz

    def lvtt_written(self, now_ns: int) -> None:
        """``apic_update_lvtt``: entering or leaving TSC-deadline mode forgets the count."""
        state = self._lapic.state
        timer = state.timer
        mode = state.lvt[LVT_TIMER] & self._mode_mask
        if timer.mode == mode:
            return
        if (timer.mode == TSC_DEADLINE) != (mode == TSC_DEADLINE):
            self.cancel()
            state.tmict = 0
            timer.period_ns = 0
            timer.tsc_deadline = 0
        timer.mode = mode
        self._limit_period()

    def tmict_written(self, value: int, now_ns: int) -> None:
        """Start counting; ignored in TSC-deadline mode."""
        if self._lapic.state.timer.mode == TSC_DEADLINE:
            return
        self.cancel()
        self._lapic.state.tmict = value
        self.start(now_ns)

    def tdcr_written(self, value: int, now_ns: int) -> None:
        """``update_target_expiration``: what remains of the count is stretched or shrunk."""
        state = self._lapic.state
        timer = state.timer
        old = divide_count(state.tdcr)
        state.tdcr = value & 0xB
        new = divide_count(state.tdcr)
        if new == old or not timer.period_ns:
            return
        self._disarm()
        timer.period_ns = state.tmict * new
        self._limit_period()
        remaining = max(timer.target_ns - now_ns, 0)
        stretched = remaining * new // old
        timer.tsc_deadline += self._cycles(stretched) - self._cycles(remaining)
        timer.target_ns = now_ns + stretched
        self._restart(now_ns)

    def tsc_deadline_written(self, value: int, now_ns: int) -> None:
        """``kvm_set_lapic_tscdeadline_msr``: ignored in the other modes."""
        timer = self._lapic.state.timer
        if timer.mode != TSC_DEADLINE:
            return
        self._disarm()
        timer.tsc_deadline = value
        self.start(now_ns)

    def current_count(self, now_ns: int) -> int:
        """TMCCT."""
        state = self._lapic.state
        timer = state.timer
        if timer.mode == TSC_DEADLINE or not state.tmict or not timer.period_ns:
            return 0
        remaining = max(timer.target_ns - now_ns, 0)
        return remaining % timer.period_ns // divide_count(state.tdcr)

    def start(self, now_ns: int, count: int | None = None) -> None:
        """``__start_apic_timer``; ``count`` is the TMCCT that a restored state had."""
        state = self._lapic.state
        timer = state.timer
        timer.pending = False
        if timer.mode in (PERIODIC, ONE_SHOT):
            timer.period_ns = state.tmict * divide_count(state.tdcr)
            if not timer.period_ns:
                timer.tsc_deadline = 0
                return
            self._limit_period()
            deadline = self._first_deadline(count)
            timer.tsc_deadline = self._cycles(now_ns) + self._cycles(deadline)
            timer.target_ns = now_ns + deadline
        self._restart(now_ns)

    def _first_deadline(self, count: int | None) -> int:
        timer = self._lapic.state.timer
        if count is None:
            return timer.period_ns
        deadline = count * divide_count(self._lapic.state.tdcr)
        if deadline <= 0:
            return timer.period_ns if timer.mode == PERIODIC else 0
        return min(deadline, timer.period_ns)

    def expire(self, now_ns: int) -> None:
        """The hrtimer's callback (``apic_timer_fn``)."""
        timer = self._lapic.state.timer
        timer.armed_ns = None
        self._expired(kick=True)
        if timer.mode == PERIODIC and timer.period_ns:
            self._advance(now_ns)
            self._arm(timer.target_ns)

    def deliver_pending(self, now_ns: int) -> None:
        """``kvm_inject_pending_timer_irqs``: an expiry reaches IRR, if LVTT lets it."""
        lapic = self._lapic
        state = lapic.state
        if state.timer.pending and lapic.enabled and not state.lvt[LVT_TIMER] & MASKED:
            self._inject()
            state.timer.pending = False

    def cancel(self) -> None:
        """``cancel_apic_timer``: also forgets an expiry that was not delivered."""
        self._disarm()
        self._lapic.state.timer.pending = False

    def stop(self) -> None:
        """``hrtimer_cancel`` at reset."""
        self._disarm()

    def _inject(self) -> None:
        lapic = self._lapic
        timer = lapic.state.timer
        lapic.local_deliver(LVT_TIMER)
        if timer.mode == TSC_DEADLINE:
            timer.tsc_deadline = 0
        elif timer.mode == ONE_SHOT:
            timer.tsc_deadline = 0
            timer.target_ns = 0

    def _expired(self, *, kick: bool) -> None:
        timer = self._lapic.state.timer
        if timer.pending:
            return
        if not kick and self._lapic.profile.lapic.apicv:
            self._inject()
            return
        masked = self._lapic.state.lvt[LVT_TIMER] & MASKED
        timer.pending = not masked or self._keeps_masked

    def _restart(self, now_ns: int) -> None:
        timer = self._lapic.state.timer
        if timer.mode != PERIODIC and timer.pending:
            return
        if timer.mode == TSC_DEADLINE:
            self._start_tsc_deadline(now_ns)
        elif timer.mode in (PERIODIC, ONE_SHOT) and timer.period_ns:
            if now_ns > timer.target_ns:
                self._expired(kick=False)
                if timer.mode == ONE_SHOT:
                    return
                self._advance(now_ns)
            self._arm(timer.target_ns)

    def _start_tsc_deadline(self, now_ns: int) -> None:
        timer = self._lapic.state.timer
        if not timer.tsc_deadline:
            return
        tsc = self._cycles(now_ns)
        if timer.tsc_deadline > tsc:
            self._arm(now_ns + (timer.tsc_deadline - tsc) * 1_000_000 // self._tsc_khz)
        else:
            self._expired(kick=False)

    def _advance(self, now_ns: int) -> None:
        """Missed periods are dropped: a deadline in the past becomes now."""
        timer = self._lapic.state.timer
        timer.target_ns = max(timer.target_ns + timer.period_ns, now_ns)
        timer.tsc_deadline = self._cycles(now_ns) + self._cycles(timer.target_ns - now_ns)

    def _limit_period(self) -> None:
        timer = self._lapic.state.timer
        if timer.mode == PERIODIC and timer.period_ns:
            timer.period_ns = max(timer.period_ns, self._min_period_ns)

    def _cycles(self, time_ns: int) -> int:
        return time_ns * self._tsc_khz // 1_000_000

    def _arm(self, deadline_ns: int) -> None:
        self._lapic.state.timer.armed_ns = deadline_ns
        self._lapic.port.timer.arm(deadline_ns)

    def _disarm(self) -> None:
        timer = self._lapic.state.timer
        if timer.armed_ns is not None:
            timer.armed_ns = None
            self._lapic.port.timer.cancel()


class QemuTimer:
    """``hw/intc/apic_common.c``: a period is TMICT + 1 ticks of the virtual clock.

    A masked LVTT stops the host's timer but not the count: an expiry while masked is lost.

    QEMU has no TSC-deadline mode; with the knob there is one, of a TSC whose tick is ``tsc_khz``,
    by SDM volume 3A, "TSC-Deadline Mode": a change of mode disarms it, and an expiry, also a
    masked one, clears the MSR.
    """

    __slots__ = ("_extra_tick", "_has_deadline", "_keeps_masked", "_lapic", "_tsc_khz")

    def __init__(self, lapic: LapicDelivery, *, tsc_khz: int) -> None:
        self._lapic = lapic
        self._has_deadline = lapic.profile.lapic.tsc_deadline
        self._tsc_khz = tsc_khz
        self._extra_tick = int(lapic.profile.lapic.timer_plus_one_tick)
        self._keeps_masked = lapic.profile.lapic.masked_expiry_kept

    def lvtt_written(self, now_ns: int) -> None:
        """``apic_timer_update``."""
        state = self._lapic.state
        timer = state.timer
        mode = state.lvt[LVT_TIMER] & TSC_DEADLINE if self._has_deadline else ONE_SHOT
        if mode != timer.mode:
            timer.mode, timer.tsc_deadline, state.tmict = mode, 0, 0
        self._update(now_ns)

    def tmict_written(self, value: int, now_ns: int) -> None:
        """Load the count; ignored in TSC-deadline mode."""
        state = self._lapic.state
        if state.timer.mode == TSC_DEADLINE:
            return
        state.tmict = value
        state.timer.load_ns = now_ns
        self._update(now_ns)

    def tdcr_written(self, value: int, now_ns: int) -> None:
        """Changes the running count's unit without arming the timer anew."""
        state = self._lapic.state
        state.tdcr = value & 0xB
        state.timer.shift = _shift(state.tdcr)

    def tsc_deadline_written(self, value: int, now_ns: int) -> None:
        """Arm; 0 disarms.  Ignored in the other modes."""
        timer = self._lapic.state.timer
        if timer.mode == TSC_DEADLINE:
            timer.tsc_deadline = value
            self._update(now_ns)

    def current_count(self, now_ns: int) -> int:
        """TMCCT: a one-shot reads 0 one tick before it fires."""
        state = self._lapic.state
        ticks = (now_ns - state.timer.load_ns) >> state.timer.shift
        if state.lvt[LVT_TIMER] & PERIODIC:
            return state.tmict - ticks % max(state.tmict + self._extra_tick, 1)
        return max(state.tmict - ticks, 0)

    def expire(self, now_ns: int) -> None:
        """``apic_timer``: deliver through LVTT, then arm the next period."""
        timer = self._lapic.state.timer
        due_ns = now_ns if timer.armed_ns is None else timer.armed_ns
        timer.armed_ns = None
        self._lapic.local_deliver(LVT_TIMER)
        timer.tsc_deadline = 0
        self._update(due_ns)

    def deliver_pending(self, now_ns: int) -> None:
        """Nothing is ever pending: an expiry is delivered at once or lost."""

    def stop(self) -> None:
        """``timer_del`` at reset."""
        self._arm(None)

    def _update(self, now_ns: int) -> None:
        state = self._lapic.state
        timer = state.timer
        lvtt = state.lvt[LVT_TIMER]
        if timer.mode == TSC_DEADLINE:
            ticks = timer.tsc_deadline - now_ns * self._tsc_khz // 1_000_000
            after_ns = max(ticks, 0) * 1_000_000 // self._tsc_khz
            self._arm(now_ns + after_ns if timer.tsc_deadline else None)
            return
        ticks = (now_ns - timer.load_ns) >> timer.shift
        period = state.tmict + self._extra_tick
        if lvtt & MASKED and not self._keeps_masked:
            due = None
        elif lvtt & PERIODIC:
            due = (ticks // period + 1) * period if state.tmict else None
        else:
            due = period if ticks < state.tmict else None
        self._arm(None if due is None else timer.load_ns + (due << timer.shift))

    def _arm(self, deadline_ns: int | None) -> None:
        timer = self._lapic.state.timer
        if deadline_ns is not None:
            timer.armed_ns = deadline_ns
            self._lapic.port.timer.arm(deadline_ns)
        elif timer.armed_ns is not None:
            timer.armed_ns = None
            self._lapic.port.timer.cancel()
