"""QEMU's HPET as a state machine: its registers, its timers, its lines; see ``profile.hpet``.

Specification: IA-PC HPET (High Precision Event Timers) 1.0a, 2.3 "Register Definitions".  QEMU:
``hw/timer/hpet.c`` of 7.2 and 10.0; it is the same chip in every irqchip mode, also beside KVM's
PIT.  11.1 was compared through a guest.

What is not in the specification, and so in here:

* Up to 10.0 there is one timer more than the capabilities say (QEMU compares with ``>``): it has
  registers and runs, but a reset, a stop of the counter and the status register pass it by.
* FSB delivery works also where the timer does not have the capability.
* A line that a timer holds high stays high where the guest changes its route.

Not modelled: more than one HPET, and what the firmware learns of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from userspace_chip.architecture import HPET_BYTES, RTC_PIN
from userspace_chip.bits import RES0, RO, Field, Register
from userspace_chip.errors import AccessError, PinRangeError, StateError
from userspace_chip.knobs import HpetArming
from userspace_chip.ports import HpetPort
from userspace_chip.profile import Profile
from userspace_chip.snapshot import copy_state

# --- registers: offsets and fields (2.3)

GCAP_ID: Final = 0x000
GEN_CONF: Final = 0x010
GINTR_STA: Final = 0x020
MAIN_CNT: Final = 0x0F0
TIMER_0: Final = 0x100
TIMER_BYTES: Final = 0x20
TN_CONF: Final = 0x00
TN_COMP: Final = 0x08
TN_FSB: Final = 0x10

CAPABILITIES: Final = Register(
    "GCAP_ID",
    64,
    Field("COUNTER_CLK_PERIOD", 63, 32, RO),
    Field("VENDOR_ID", 31, 16, RO),
    Field("LEG_RT_CAP", 15, 15, RO),
    Field("COUNT_SIZE_CAP", 13, 13, RO),
    Field("NUM_TIM_CAP", 12, 8, RO),
    Field("REV_ID", 7, 0, RO),
)
CONFIGURATION: Final = Register(
    "GEN_CONF",
    64,
    Field("reserved", 63, 2, RES0),
    Field("LEG_RT_CNF", 1, 1),
    Field("ENABLE_CNF", 0, 0),
)
TIMER_CONFIGURATION: Final = Register(
    "Tn_CONF_CAP",
    64,
    Field("INT_ROUTE_CAP", 63, 32, RO),
    Field("FSB_INT_DEL_CAP", 15, 15, RO),
    Field("FSB_EN_CNF", 14, 14),
    Field("INT_ROUTE_CNF", 13, 9),
    Field("32MODE_CNF", 8, 8),
    Field("VAL_SET_CNF", 6, 6),
    Field("SIZE_CAP", 5, 5, RO),
    Field("PER_INT_CAP", 4, 4, RO),
    Field("TYPE_CNF", 3, 3),
    Field("INT_ENB_CNF", 2, 2),
    Field("INT_TYPE_CNF", 1, 1),
)

_ENABLE: Final = CONFIGURATION.ENABLE_CNF.mask
_LEGACY: Final = CONFIGURATION.LEG_RT_CNF.mask
_FSB: Final = TIMER_CONFIGURATION.FSB_EN_CNF.mask
_ROUTE: Final = TIMER_CONFIGURATION.INT_ROUTE_CNF
_BITS_32: Final = TIMER_CONFIGURATION["32MODE_CNF"].mask
_SET_VALUE: Final = TIMER_CONFIGURATION.VAL_SET_CNF.mask
_PERIODIC: Final = TIMER_CONFIGURATION.TYPE_CNF.mask
_INTERRUPTS: Final = TIMER_CONFIGURATION.INT_ENB_CNF.mask
_LEVEL: Final = TIMER_CONFIGURATION.INT_TYPE_CNF.mask

_VENDOR: Final = 0x8086
_REVISION: Final = 1
_LEGACY_ROUTES: Final = (0, RTC_PIN)
"""Where timers 0 and 1 lead in legacy replacement mode; the board makes of GSI 0 what it does of
the PIT's."""
_FS_PER_NS: Final = 1_000_000
_U32: Final = 0xFFFFFFFF
_U64: Final = 0xFFFFFFFFFFFFFFFF
_NEVER_TICKS: Final = (1 << 62) - 1
"""In ns: a longer distance is not armed (``hpet_arm`` of 7.2)."""


@dataclass
class HpetTimerState:
    """One timer: ``struct HPETTimer``."""

    config: int = 0
    comparator: int = 0
    fsb: int = 0
    """FSB interrupt route: the address in the upper half, the data in the lower."""
    period: int = 0
    """What the comparator of a periodic timer is increased by."""
    extended: int = 0
    """QEMU 10.0: the comparator as one of the counter's 64 bits."""
    wraps: int = 0
    """The next expiry of a 32-bit one-shot timer is that of the counter's wrap."""
    last_ns: int = 0
    """QEMU 10.0: what was armed last."""
    deadline_ns: int | None = None


@dataclass
class HpetState:
    """Everything that the HPET remembers."""

    timers: list[HpetTimerState] = field(default_factory=list)
    """With the one too many, where it is."""
    config: int = 0
    status: int = 0
    counter: int = 0
    """The main counter, while it stands still."""
    offset_ns: int = 0
    """Counter time minus time, modulo 2**64, while it runs."""
    rtc_level: int = 0
    """The RTC's line, which legacy replacement mode cuts off."""


class Hpet:
    """The HPET.  Impossible inputs raise :class:`~userspace_chip.errors.ChipError`.

    ``now_ns`` is on one monotonic clock and never goes back.  It begins as :meth:`reset` leaves it.
    ``capable_routes``: what the board says of its GSIs, where it is not q35.
    """

    def __init__(self, profile: Profile, port: HpetPort, capable_routes: int | None = None) -> None:
        self.port = port
        self.knobs = knobs = profile.hpet
        self.slip_ns = 0
        """How much later than the counter's start its timers are armed; none, but in reality."""
        self.tick_ns = knobs.period_fs // _FS_PER_NS
        self.capabilities = CAPABILITIES.pack(
            COUNTER_CLK_PERIOD=knobs.period_fs,
            VENDOR_ID=_VENDOR,
            LEG_RT_CAP=1,
            COUNT_SIZE_CAP=1,
            NUM_TIM_CAP=knobs.timers - 1,
            REV_ID=_REVISION,
        )
        self._config_at_reset = TIMER_CONFIGURATION.pack(
            INT_ROUTE_CAP=knobs.capable_routes if capable_routes is None else capable_routes,
            FSB_INT_DEL_CAP=int(knobs.fsb),
            SIZE_CAP=1,
            PER_INT_CAP=1,
        )
        timers = knobs.timers + knobs.one_too_many
        self.state = HpetState([HpetTimerState() for _ in range(timers)])
        for timer in self.state.timers[: knobs.timers]:
            timer.comparator, timer.config = _U64, self._config_at_reset

    # --- state

    def save(self) -> HpetState:
        """An independent copy of the state."""
        return copy_state(self.state)

    def load(self, state: HpetState) -> None:
        """Take over a copy of ``state`` and arm its timers.

        :class:`StateError` where it is of another HPET.
        """
        if len(state.timers) != len(self.state.timers):
            raise StateError(
                f"HPET timers: {len(state.timers)}", f"expected {len(self.state.timers)}"
            )
        self.state = copy_state(state)
        for number, timer in enumerate(self.state.timers):
            self._set_deadline(number, timer.deadline_ns)

    def reset(self, now_ns: int) -> None:
        """``hpet_reset``: FSB routes and the timer too many stay as they are."""
        state = self.state
        for number, timer in enumerate(state.timers[: self.knobs.timers]):
            self._stop(number)
            timer.comparator, timer.config = _U64, self._config_at_reset
            timer.period = timer.wraps = 0
        self.port.enable_pit(True, now_ns)
        state.counter = state.offset_ns = state.config = state.rtc_level = 0

    @property
    def legacy(self) -> bool:
        """Whether timers 0 and 1 have replaced the PIT and the RTC."""
        return bool(self.state.config & _LEGACY)

    # --- the lines that legacy replacement mode cuts off (hpet_handle_legacy_irq)

    def set_pit(self, level: int) -> None:
        """The PIT drives its output."""
        if not self.legacy:
            self.port.set_irq(_LEGACY_ROUTES[0], level)

    def set_rtc(self, level: int) -> int:
        """The RTC drives its output; what the line's drive gave."""
        self.state.rtc_level = level
        return 0 if self.legacy else self.port.set_irq(_LEGACY_ROUTES[1], level)

    # --- registers

    def read(self, offset: int, size: int, now_ns: int) -> int:
        """Read ``size`` bytes; 0 where there is no register, or none of that size."""
        if not self._reaches(offset, size):
            return 0
        value = self._register(offset & ~7, now_ns)
        return value >> 8 * (offset & 4) & (1 << 8 * size) - 1

    def _register(self, offset: int, now_ns: int) -> int:
        """One of 64 bits."""
        if offset >= TIMER_0:
            number, register = divmod(offset - TIMER_0, TIMER_BYTES)
            if number >= len(self.state.timers):
                return 0
            timer = self.state.timers[number]
            return {TN_CONF: timer.config, TN_COMP: timer.comparator, TN_FSB: timer.fsb}.get(
                register, 0
            )
        if offset == GCAP_ID:
            return self.capabilities
        if offset == GEN_CONF:
            return self.state.config
        if offset == GINTR_STA:
            return self.state.status
        if offset == MAIN_CNT:
            return self._ticks(now_ns) if self._running else self.state.counter
        return 0

    def write(self, offset: int, size: int, value: int, now_ns: int) -> None:
        """Write ``size`` bytes; ignored where there is no register, or none of that size."""
        if value < 0 or value >> 8 * size:
            raise AccessError(f"write of {value:#x}", f"{size} bytes do not hold it")
        if not self._reaches(offset, size):
            return
        shift = 8 * (offset & 4)
        mask = ((1 << 8 * size) - 1) << shift
        register, value = offset & ~7, value << shift
        if register >= TIMER_0:
            number, register = divmod(register - TIMER_0, TIMER_BYTES)
            if number >= len(self.state.timers):
                return
            if register == TN_CONF:
                self._write_timer_config(number, value, mask, now_ns)
            elif register == TN_COMP:
                self._write_comparator(number, value, mask, now_ns)
            elif register == TN_FSB:
                timer = self.state.timers[number]
                timer.fsb = timer.fsb & ~mask | value
        elif register == GEN_CONF:
            self._write_config(self.state.config & ~mask | value, now_ns)
        elif register == GINTR_STA:
            cleared = value & self.state.status
            for number in range(self.knobs.timers):
                if cleared >> number & 1:
                    self._signal(number, False)
        elif register == MAIN_CNT:
            # QEMU forgets it at once where the counter runs: a stop sets it anew.
            self.state.counter = self.state.counter & ~mask | value

    def _reaches(self, offset: int, size: int) -> bool:
        """``memory_access_valid``: whether the access is one of the chip's."""
        if not 0 <= offset < HPET_BYTES:
            raise AccessError(f"HPET offset {offset:#x}", f"it has {HPET_BYTES:#x} bytes")
        if size not in (1, 2, 4, 8):
            raise AccessError(f"access of {size} bytes", "memory accesses have 1, 2, 4 or 8")
        return size in self.knobs.access_sizes and offset % size == 0

    def _write_config(self, value: int, now_ns: int) -> None:
        state = self.state
        old, state.config = state.config, CONFIGURATION.write(state.config, value)
        rises, falls = state.config & ~old, old & ~state.config
        if rises & _ENABLE:
            state.offset_ns = state.counter * self.tick_ns - now_ns & _U64
            for number, timer in enumerate(state.timers[: self.knobs.timers]):
                self._started(number, timer, now_ns)
        elif falls & _ENABLE:
            state.counter = self._ticks(now_ns)
            for number in range(self.knobs.timers):
                self._stop(number)
        if rises & _LEGACY:
            self.port.enable_pit(False, now_ns)
            for route in _LEGACY_ROUTES:
                self.port.set_irq(route, 0)
        elif falls & _LEGACY:
            self.port.set_irq(_LEGACY_ROUTES[0], 0)
            self.port.enable_pit(True, now_ns)
            self.port.set_irq(_LEGACY_ROUTES[1], state.rtc_level)

    def _started(self, number: int, timer: HpetTimerState, now_ns: int) -> None:
        """The counter starts."""
        if self.knobs.keeps_status and timer.config & _INTERRUPTS:
            self._signal_again(number)
        if timer.comparator != _U64 or not self.knobs.rests_at_reset_comparator:
            self._start(number, now_ns + self.slip_ns)

    def _write_timer_config(self, number: int, value: int, mask: int, now_ns: int) -> None:
        knobs, timer = self.knobs, self.state.timers[number]
        if mask == _U32 << 32 and not knobs.config_arms:
            return
        old = timer.config
        new = TIMER_CONFIGURATION.write(old, old & ~mask | value)
        if knobs.lowers_on_fsb and new & ~old & _FSB:
            self._signal(number, False)
        if knobs.lowers_on_edge and old & ~new & _LEVEL:
            self._signal(number, False)
        timer.config = new
        if knobs.keeps_status and new & ~old & _INTERRUPTS:
            self._signal_again(number)
        if new & _BITS_32:
            timer.comparator &= _U32
            timer.period &= _U32
        if self._running and (knobs.config_arms or new & ~old & _INTERRUPTS):
            self._start(number, now_ns)
        elif not knobs.config_arms and old & ~new & _INTERRUPTS:
            self._stop(number)

    def _write_comparator(self, number: int, value: int, mask: int, now_ns: int) -> None:
        knobs, timer = self.knobs, self.state.timers[number]
        if timer.config & _BITS_32 and knobs.clears_upper_comparator:
            if mask == _U32 << 32:
                return
            value, mask = value & _U32, _U64
        periodic = timer.config & _PERIODIC
        sets_comparator = not periodic or timer.config & _SET_VALUE
        if sets_comparator:
            timer.comparator = timer.comparator & ~mask | value
        # 7.2 takes the upper half either for the comparator or for the period.
        upper = mask == _U32 << 32 and knobs.half_period
        if periodic and not (upper and sets_comparator):
            if knobs.half_period and timer.config & _BITS_32:
                value &= (_U32 >> 1) << (32 if upper else 0)
            timer.period = timer.period & ~mask | value
        timer.config &= ~_SET_VALUE
        if self._running:
            self._start(number, now_ns)

    # --- time

    @property
    def _running(self) -> bool:
        return bool(self.state.config & _ENABLE)

    def _ticks(self, now_ns: int) -> int:
        """The main counter."""
        return (now_ns + self.state.offset_ns & _U64) // self.tick_ns

    def expire(self, number: int, now_ns: int) -> None:
        """A timer's deadline is reached (``hpet_timer``)."""
        if not 0 <= number < len(self.state.timers):
            raise PinRangeError(f"HPET timer {number}", f"it has {len(self.state.timers)}")
        timer = self.state.timers[number]
        self._set_deadline(number, None)
        ticks = self._ticks(now_ns)
        periodic = timer.config & _PERIODIC
        if periodic and timer.period:
            self._next_period(timer, ticks)
            self._arm(number, ticks, now_ns)
        elif timer.wraps and (self._extends or (timer.config & _BITS_32 and not periodic)):
            self._arm(number, ticks, now_ns)
            timer.wraps = 0
        self._signal(number, True)

    def _next_period(self, timer: HpetTimerState, ticks: int) -> None:
        """To the first multiple of the period that is not past."""
        short = timer.config & _BITS_32
        if self._extends:
            timer.extended = _not_past(timer.extended, timer.period, ticks, 64)
            timer.comparator = timer.extended & (_U32 if short else _U64)
        else:
            bits = 32 if short else 64
            timer.comparator = _not_past(timer.comparator, timer.period, ticks, bits)

    @property
    def _extends(self) -> bool:
        return self.knobs.arming is HpetArming.AT_COMPARATOR

    def _start(self, number: int, now_ns: int) -> None:
        """``hpet_set_timer``: to the comparator, or in 32-bit one-shot mode first to the wrap."""
        timer, ticks = self.state.timers[number], self._ticks(now_ns)
        timer.wraps = 0
        short = timer.config & _BITS_32
        once = short and not timer.config & _PERIODIC
        if self._extends:
            timer.extended = _extend(timer.comparator, ticks) if short else timer.comparator
            wrap = (ticks | _U32) + 1
            if once and timer.extended > wrap:
                timer.wraps = 1
                self._arm_at(number, wrap)
                return
        elif once and _U32 - (ticks & _U32) < self._distance(timer, ticks):
            timer.wraps = 1
            self._arm_after(number, _U32 - (ticks & _U32), now_ns)
            return
        self._arm(number, ticks, now_ns)

    def _arm(self, number: int, ticks: int, now_ns: int) -> None:
        """For the comparator."""
        timer = self.state.timers[number]
        if self._extends:
            self._arm_at(number, timer.extended)
        else:
            self._arm_after(number, self._distance(timer, ticks), now_ns)

    def _distance(self, timer: HpetTimerState, ticks: int) -> int:
        """From the counter to the comparator; one tick where that is past."""
        bits = 32 if timer.config & _BITS_32 else 64
        return max(_signed(timer.comparator - ticks, bits), 1)

    def _arm_after(self, number: int, ticks: int, now_ns: int) -> None:
        """``hpet_arm`` of 7.2."""
        if ticks < _NEVER_TICKS // self.tick_ns:
            self._set_deadline(number, now_ns + ticks * self.tick_ns)
        else:
            self._set_deadline(number, None)

    def _arm_at(self, number: int, tick: int) -> None:
        """``hpet_arm`` of 10.0; what does not fit into 63 bits of ns is past.

        Such a timer goes before all that are armed (``timer_mod_ns_locked`` looks for its place
        with a negative time): at the counter's start they expire in the opposite order.
        """
        timer = self.state.timers[number]
        at_ns = tick * self.tick_ns - self.state.offset_ns & _U64
        least_ns = self.knobs.min_interval_ns
        if timer.config & _PERIODIC and (at_ns - timer.last_ns & _U64) < least_ns:
            at_ns = timer.last_ns + least_ns & _U64
        timer.last_ns = at_ns
        self._set_deadline(number, at_ns if at_ns < 1 << 63 else -1 - number)

    def _stop(self, number: int) -> None:
        """``hpet_del_timer``."""
        self._set_deadline(number, None)
        if self.knobs.keeps_status:
            self._signal_again(number)
        else:
            self._signal(number, False)

    def _set_deadline(self, number: int, at_ns: int | None) -> None:
        self.state.timers[number].deadline_ns = at_ns
        timer = self.port.timer(number)
        if at_ns is None:
            timer.cancel()
        else:
            timer.arm(at_ns)

    # --- interrupts

    def _signal_again(self, number: int) -> None:
        """A timer whose status is set drives its line, high or low, as its bits say now."""
        if self.state.status >> number & 1:
            self._signal(number, True)

    def _signal(self, number: int, expired: bool) -> None:
        """``update_irq``."""
        state, timer, bit = self.state, self.state.timers[number], 1 << number
        config = timer.config
        live = expired and bool(config & _INTERRUPTS) and self._running
        if self.knobs.keeps_status or not (live and config & _FSB):
            sets = expired if self.knobs.keeps_status else live
            state.status = state.status & ~bit | (bit if sets and config & _LEVEL else 0)
        route = _LEGACY_ROUTES[number] if number < 2 and self.legacy else _ROUTE.get(config)
        if not live:
            if not config & _FSB:
                self.port.set_irq(route, 0)
        elif config & _FSB:
            self.port.store(timer.fsb >> 32, timer.fsb & _U32)
        else:
            self.port.set_irq(route, 1)
            if not config & _LEVEL:
                self.port.set_irq(route, 0)


def _signed(value: int, bits: int) -> int:
    """The number that the low ``bits`` of ``value`` are in two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def _extend(comparator: int, ticks: int) -> int:
    """The first count from ``ticks`` on whose low half is the comparator's."""
    at = ticks & ~_U32 | comparator & _U32
    return at if at >= ticks else at + (1 << 32)


def _not_past(comparator: int, period: int, ticks: int, bits: int) -> int:
    """``comparator`` plus as many periods as it takes until it is not before ``ticks``."""
    behind = -_signed(comparator - ticks, bits)
    step = _signed(period, bits)
    if behind <= 0 or not step:
        return comparator
    # A period that is negative as a signed number goes back until the difference wraps.
    steps = -(-behind // step) if step > 0 else ((1 << bits - 1) - behind) // -step + 1
    return comparator + period * steps & (1 << bits) - 1
