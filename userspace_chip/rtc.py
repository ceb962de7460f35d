"""QEMU's MC146818 real-time clock as a state machine: time, registers A to D, IRQ 8.

Data sheet: Motorola MC146818A, "Registers", "Interrupts", "Update Cycle".  QEMU:
``hw/rtc/mc146818rtc.c`` of 7.2 and 10.0, which differ in years beyond 2262 only; 11.1 was compared
through a guest.  It is the same chip in every irqchip mode.

The time of day is an input, ``base_s``.  Time registers are computed when something asks for them.

What is not in the data sheet, and so in here:

* The line is raised anew at each interrupt while it is high, and lowered by a read of register C.
* The divider's reset stops updates and alarms; the periodic interrupt runs on.
* A machine reset does not stop the periodic interrupt: its next tick still sets PF.

Not modelled: the square-wave output, daylight saving, and what a PC's firmware keeps in the other
bytes, which are plain memory here; the wake-up from S3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from userspace_chip.architecture import RTC_DATA, RTC_INDEX
from userspace_chip.bits import RO, Field, Register
from userspace_chip.errors import AccessError, StateError
from userspace_chip.ports import RtcPort
from userspace_chip.profile import Profile
from userspace_chip.snapshot import copy_state

# --- registers, by index

SECONDS: Final = 0
SECONDS_ALARM: Final = 1
MINUTES: Final = 2
MINUTES_ALARM: Final = 3
HOURS: Final = 4
HOURS_ALARM: Final = 5
DAY_OF_WEEK: Final = 6
DAY_OF_MONTH: Final = 7
MONTH: Final = 8
YEAR: Final = 9
REGISTER_A: Final = 10
REGISTER_B: Final = 11
REGISTER_C: Final = 12
REGISTER_D: Final = 13
SHUTDOWN: Final = 0x0F
"""A PC's shutdown status, which a reset clears."""
CENTURY: Final = 0x32
PS2_CENTURY: Final = 0x37
"""Another index of the same byte."""

A: Final = Register("A", 8, Field("UIP", 7, 7, RO), Field("DV", 6, 4), Field("RS", 3, 0))
B: Final = Register(
    "B",
    8,
    Field("SET", 7, 7),
    Field("PIE", 6, 6),
    Field("AIE", 5, 5),
    Field("UIE", 4, 4),
    Field("SQWE", 3, 3),
    Field("DM", 2, 2),
    Field("24/12", 1, 1),
    Field("DSE", 0, 0),
)
C: Final = Register(
    "C",
    8,
    Field("IRQF", 7, 7, RO),
    Field("PF", 6, 6, RO),
    Field("AF", 5, 5, RO),
    Field("UF", 4, 4, RO),
)
D: Final = Register("D", 8, Field("VRT", 7, 7, RO))

_UIP: Final = A.UIP.mask
_SET: Final = B.SET.mask
_PIE: Final = B.PIE.mask
_AIE: Final = B.AIE.mask
_UIE: Final = B.UIE.mask
_SQWE: Final = B.SQWE.mask
_BINARY: Final = B.DM.mask
_24_HOURS: Final = B["24/12"].mask
_IRQF: Final = C.IRQF.mask
_PF: Final = C.PF.mask
_AF: Final = C.AF.mask
_UF: Final = C.UF.mask
_FLAGS: Final = _PF | _AF | _UF
_DIVIDER_RESET: Final = 0x60
"""DV 11x."""
_RUNS: Final = 0x20
"""DV up to 010."""
_PM: Final = 0x80
_ANY: Final = 0xC0
"""Don't care, in an alarm."""

ALARMS: Final = frozenset({SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM})
TIME: Final = frozenset(
    {SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DAY_OF_MONTH, MONTH, YEAR, CENTURY, PS2_CENTURY}
)
"""The registers that show the time of day."""

CLOCK_HZ: Final = 32768
NS_PER_S: Final = 1_000_000_000
_UIP_NS: Final = 8 * NS_PER_S // CLOCK_HZ
"""How long before an update UIP is set."""
_HALF_S_NS: Final = 500_000_000
_DAY_S: Final = 86400
_U64: Final = 0xFFFFFFFFFFFFFFFF
_BYTES: Final = 128
_MOST_PARTS: Final = 7
_OUT_OF_RESET: Final = ((REGISTER_A, 0x26), (REGISTER_B, 0x02), (REGISTER_D, 0x80))


@dataclass
class RtcState:
    """Everything that the clock remembers."""

    memory: list[int] = field(default_factory=lambda: [0] * _BYTES)
    """The registers, and the other bytes."""
    index: int = 0
    base_s: int = 0
    """The time of day at ``base_ns``, in seconds since 1970."""
    base_ns: int = 0
    offset_ns: int = 0
    """By how much the second is ahead."""
    period: int = 0
    """Of the periodic interrupt, in ticks of 32768 Hz; 0 where it is off."""
    periodic_ns: int = 0
    """When it comes, or came last."""
    periodic_armed: int = 0
    update_ns: int | None = None
    """When the next update or alarm is looked at."""
    alarm_ns: int = 0
    coalesced: int = 0
    """Ticks that no CPU took and that are to come later."""
    reinjected: int = 0
    """How many of them followed a read of register C."""
    coalesced_ns: int | None = None


class _Time(NamedTuple):
    year: int
    month: int
    day: int
    weekday: int
    """Sunday is 0."""
    hour: int
    minute: int
    second: int


class Rtc:
    """The real-time clock.  Impossible inputs raise :class:`~userspace_chip.errors.ChipError`.

    ``now_ns`` is on one monotonic clock and never goes back.  ``base_s``: the time of day at
    ``now_ns``, in seconds since 1970.
    """

    def __init__(self, profile: Profile, port: RtcPort, base_s: int = 0, now_ns: int = 0) -> None:
        self.port = port
        self.knobs = profile.rtc
        self._in_bytes = profile.kvm_vcpu
        self.state = RtcState(base_s=base_s, base_ns=now_ns)
        for index, value in _OUT_OF_RESET:
            self.state.memory[index] = value
        self._show(_of_seconds(base_s))
        self._look_for_update(now_ns)

    # --- state

    def save(self) -> RtcState:
        """An independent copy of the state."""
        return copy_state(self.state)

    def load(self, state: RtcState) -> None:
        """Take over a copy of ``state`` and arm its timers; :class:`StateError` for nonsense."""
        try:
            memory = bytes(state.memory)
        except ValueError:
            memory = b""
        if len(memory) != _BYTES:
            raise StateError("RTC memory", f"expected {_BYTES} bytes")
        self.state = copy_state(state)
        if self.state.periodic_armed:
            self.port.periodic.arm(self.state.periodic_ns)
        else:
            self.port.periodic.cancel()
        if self.state.coalesced_ns is None:
            self.port.coalesced.cancel()
        else:
            self.port.coalesced.arm(self.state.coalesced_ns)
        self._arm_update()

    def reset(self, now_ns: int) -> None:
        """Machine reset: time and alarm stay, and so does a periodic tick that is armed."""
        self._catch_up(now_ns)
        memory = self.state.memory
        memory[SHUTDOWN] = 0
        memory[REGISTER_B] &= ~(_PIE | _AIE | _SQWE)
        memory[REGISTER_C] = 0
        self._look_for_update(now_ns)
        if self.knobs.slew:
            self.state.coalesced = self.state.reinjected = 0
        self.port.set_irq(0)

    # --- ports

    def read(self, port: int, size: int, now_ns: int) -> int:
        """IN from 0x70 or 0x71."""
        value = 0
        for at in range(size):
            value |= self._read_byte(self._decoded(port, at), now_ns) << 8 * at
        return value

    def write(self, port: int, value: int, size: int, now_ns: int) -> None:
        """OUT to 0x70 or 0x71."""
        if value < 0 or value >> 8 * size:
            raise AccessError(f"write of {value:#x}", f"{size} bytes do not hold it")
        for at in range(size):
            byte, place = value >> 8 * at & 0xFF, self._decoded(port, at)
            if place == RTC_INDEX:
                self.state.index = byte & 0x7F
            elif place == RTC_DATA:
                self._catch_up(now_ns)
                self._write_register(byte, now_ns)

    def _decoded(self, port: int, at: int) -> int | None:
        """Which of the two ports the byte ``at`` of an access is of, if any.

        TCG gives all bytes of an access to the region of the first one, which decodes a bit.
        """
        if port not in (RTC_INDEX, RTC_DATA):
            raise AccessError(f"port {port:#x}", "the RTC has 0x70 and 0x71")
        if self._in_bytes and port + at > RTC_DATA:
            return None
        return RTC_DATA if port + at & 1 else RTC_INDEX

    def _read_byte(self, port: int | None, now_ns: int) -> int:
        if port != RTC_DATA:
            return 0xFF
        self._catch_up(now_ns)
        state = self.state
        if state.index == PS2_CENTURY:
            state.index = CENTURY
        index = state.index
        if index in TIME and self._running:
            self._update_time(now_ns)
        if index == REGISTER_A and self._updates(now_ns):
            return state.memory[index] | _UIP
        if index == REGISTER_C:
            return self._acknowledge(now_ns)
        return state.memory[index]

    def _acknowledge(self, now_ns: int) -> int:
        """A read of register C clears it and lowers the line."""
        state, memory = self.state, self.state.memory
        value = memory[REGISTER_C]
        self.port.set_irq(0)
        memory[REGISTER_C] = 0
        if value & (_UF | _AF):
            self._look_for_update(now_ns)
        may = state.reinjected < self.knobs.reinject_on_ack
        if state.coalesced and memory[REGISTER_B] & _PIE and may:
            state.reinjected += 1
            memory[REGISTER_C] |= _IRQF | _PF
            if self.port.set_irq(1):
                state.coalesced -= 1
        return value

    def _write_register(self, value: int, now_ns: int) -> None:
        state = self.state
        if state.index == PS2_CENTURY:
            state.index = CENTURY
        index = state.index
        if index in (REGISTER_C, REGISTER_D):
            return
        if index == REGISTER_A:
            self._write_a(value, now_ns)
        elif index == REGISTER_B:
            self._write_b(value, now_ns)
        else:
            state.memory[index] = value
            if index in TIME and self._running:
                self._set_time(now_ns)
                self._look_for_update(now_ns)
            elif index in ALARMS:
                self._look_for_update(now_ns)

    def _write_a(self, value: int, now_ns: int) -> None:
        state, memory = self.state, self.state.memory
        old, old_period = memory[REGISTER_A], self._ticks()
        if value & _DIVIDER_RESET == _DIVIDER_RESET:
            if self._running:
                self._update_time(now_ns)
            old &= ~_UIP
        elif old & _DIVIDER_RESET == _DIVIDER_RESET and value & A.DV.mask <= _RUNS:
            # The first update is half a second later (data sheet, "Divider Control").
            if not memory[REGISTER_B] & _SET:
                state.offset_ns = _HALF_S_NS
                self._set_time(now_ns)
            old &= ~_UIP
        memory[REGISTER_A] = A.write(old, value)
        if (memory[REGISTER_A] ^ old) & A.RS.mask:
            self._start_periodic(now_ns, old_period, changed=True)
        self._look_for_update(now_ns)

    def _write_b(self, value: int, now_ns: int) -> None:
        state, memory = self.state, self.state.memory
        old, old_period = memory[REGISTER_B], self._ticks()
        if value & _SET:
            if self._running:
                self._update_time(now_ns)
            memory[REGISTER_A] &= ~_UIP
            value &= ~_UIE
        elif old & _SET and memory[REGISTER_A] & A.DV.mask <= _RUNS:
            state.offset_ns = self._since_second(now_ns)
            self._set_time(now_ns)
        if value & memory[REGISTER_C] & _FLAGS:
            memory[REGISTER_C] |= _IRQF
            self.port.set_irq(1)
        else:
            memory[REGISTER_C] &= ~_IRQF
            self.port.set_irq(0)
        memory[REGISTER_B] = value
        if (old ^ value) & _PIE:
            self._start_periodic(now_ns, old_period, changed=True)
        self._look_for_update(now_ns)

    # --- the periodic interrupt

    def _ticks(self) -> int:
        """The period that A and B say, in ticks; 0 where it is off (data sheet, table 5)."""
        memory = self.state.memory
        rate = memory[REGISTER_A] & A.RS.mask
        if not rate or not memory[REGISTER_B] & _PIE:
            return 0
        return 1 << (rate + 6 if rate <= 2 else rate - 1)

    def _start_periodic(self, now_ns: int, old_period: int, *, changed: bool) -> None:
        """``periodic_timer_update``: ticks are those of one clock, whatever the period was."""
        state = self.state
        state.period = period = self._ticks()
        if not period:
            state.coalesced = state.periodic_armed = 0
            self.port.periodic.cancel()
            return
        clock = _to_ticks(now_ns)
        lost = 0
        if old_period and changed:
            lost = clock - (_to_ticks(state.periodic_ns) - old_period)
        if self.knobs.slew:
            lost += state.coalesced * old_period
            before, (state.coalesced, lost) = state.coalesced, divmod(lost, period)
            if (before, old_period) != (state.coalesced, period):
                self._arm_coalesced(now_ns)
        else:
            lost = min(lost, period)
        state.periodic_ns = _to_ns(clock + period - lost) + 1
        state.periodic_armed = 1
        self.port.periodic.arm(state.periodic_ns)

    def expire_periodic(self, now_ns: int) -> None:
        """The periodic interrupt's deadline is reached (``rtc_periodic_timer``)."""
        state, memory = self.state, self.state.memory
        state.periodic_armed = 0
        self._start_periodic(state.periodic_ns, state.period, changed=False)
        memory[REGISTER_C] |= _PF
        if not memory[REGISTER_B] & _PIE:
            return
        memory[REGISTER_C] |= _IRQF
        if self.knobs.slew and state.reinjected >= self.knobs.reinject_on_ack:
            state.reinjected = 0
        if not self.port.set_irq(1) and self.knobs.slew:
            state.coalesced += 1
            self._arm_coalesced(now_ns)

    def expire_coalesced(self, now_ns: int) -> None:
        """A tick that was coalesced is due (``rtc_coalesced_timer``)."""
        state = self.state
        if state.coalesced:
            state.memory[REGISTER_C] |= _IRQF | _PF
            if self.port.set_irq(1):
                state.coalesced -= 1
        self._arm_coalesced(now_ns)

    def _arm_coalesced(self, now_ns: int) -> None:
        """A period is divided into two to eight parts."""
        state = self.state
        if not state.coalesced:
            state.coalesced_ns = None
            self.port.coalesced.cancel()
            return
        parts = min(state.coalesced, _MOST_PARTS) + 1
        state.coalesced_ns = now_ns + _to_ns(state.period // parts)
        self.port.coalesced.arm(state.coalesced_ns)

    # --- updates and alarms

    def _catch_up(self, now_ns: int) -> None:
        """Updates that brought no interrupt, up to now; nothing outside could see them."""
        while self.state.update_ns is not None and self.state.update_ns < now_ns:
            self._update(self.state.update_ns)

    def expire_update(self, now_ns: int) -> None:
        """An update's or the alarm's deadline is reached."""
        self._update(now_ns)

    def _update(self, now_ns: int) -> None:
        """``rtc_update_timer``."""
        state, memory = self.state, self.state.memory
        state.update_ns = None
        self._update_time(now_ns)
        memory[REGISTER_A] &= ~_UIP
        flags = _UF | (_AF if now_ns >= state.alarm_ns else 0)
        rises = flags & ~memory[REGISTER_C]
        memory[REGISTER_C] |= flags
        if rises & memory[REGISTER_B]:
            memory[REGISTER_C] |= _IRQF
            self.port.set_irq(1)
        self._look_for_update(now_ns)

    def _look_for_update(self, now_ns: int) -> None:
        """``check_update_timer``: at the next second, or where UF is set already at the alarm."""
        state, memory = self.state, self.state.memory
        state.update_ns = self._next_update(now_ns, memory)
        self._arm_update()

    def _next_update(self, now_ns: int, memory: list[int]) -> int | None:
        if memory[REGISTER_A] & _DIVIDER_RESET == _DIVIDER_RESET:
            return None
        state = self.state
        next_ns = now_ns + NS_PER_S - self._since_second(now_ns)
        state.alarm_ns = next_ns + (self._until_alarm_s(now_ns) - 1) * NS_PER_S
        if memory[REGISTER_A] & _UIP or not memory[REGISTER_C] & _UF:
            return next_ns
        if memory[REGISTER_B] & _SET or memory[REGISTER_C] & _AF:
            return None
        return state.alarm_ns

    def _arm_update(self) -> None:
        state = self.state
        if state.update_ns is None or not state.memory[REGISTER_B] & (_UIE | _AIE):
            self.port.update.cancel()
        else:
            self.port.update.arm(state.update_ns)

    def _updates(self, now_ns: int) -> bool:
        """UIP: 244 us before an update; it stays until that is done."""
        state = self.state
        if not self._running:
            return False
        if state.update_ns is not None and now_ns >= state.update_ns - _UIP_NS:
            state.memory[REGISTER_A] |= _UIP
            return True
        return self._since_second(now_ns) >= NS_PER_S - _UIP_NS

    def _until_alarm_s(self, now_ns: int) -> int:
        """Seconds to the next alarm, 1 to 86400 (``get_next_alarm``)."""
        self._update_time(now_ns)
        memory = self.state.memory
        hour = self._number(memory[HOURS_ALARM])
        alarm = (
            None if hour is None else self._hour(hour, memory[HOURS]),
            self._number(memory[MINUTES_ALARM]),
            self._number(memory[SECONDS_ALARM]),
        )
        shown = [self._number(memory[at]) for at in (HOURS, MINUTES, SECONDS)]
        hour, minute, second = (-1 if number is None else number for number in shown)
        return _seconds_until(alarm, (self._hour(hour & 0xFF, memory[HOURS]), minute, second))

    def _hour(self, hour: int, shown: int) -> int:
        """Of 12 hours: whether it is afternoon is taken from the time, also for the alarm."""
        if self.state.memory[REGISTER_B] & _24_HOURS:
            return hour
        return hour % 12 + (12 if shown & _PM else 0)

    # --- the time of day

    @property
    def _running(self) -> bool:
        memory = self.state.memory
        return not memory[REGISTER_B] & _SET and memory[REGISTER_A] & A.DV.mask <= _RUNS

    def _ns(self, now_ns: int) -> int:
        """Ns since ``base_s``, or since 1970 in 64 bits (``get_guest_rtc_ns``)."""
        state = self.state
        since = now_ns - state.base_ns + state.offset_ns
        return state.base_s * NS_PER_S + since & _U64 if self.knobs.ns_since_1970 else since

    def _since_second(self, now_ns: int) -> int:
        """Ns since the last second."""
        return self._ns(now_ns) % NS_PER_S

    def _update_time(self, now_ns: int) -> None:
        """``rtc_update_time``."""
        if self.state.memory[REGISTER_B] & _SET:
            return
        ns = self._ns(now_ns)
        if not self.knobs.ns_since_1970:
            self._show(_of_seconds(self.state.base_s + ns // NS_PER_S))
        elif ns >> 63:
            self._show(_of_seconds(-(((1 << 64) - ns) // NS_PER_S)))
        else:
            self._show(_of_seconds(ns // NS_PER_S))

    def _show(self, time: _Time) -> None:
        """``rtc_set_cmos``."""
        memory = self.state.memory
        hour = time.hour
        if not memory[REGISTER_B] & _24_HOURS:
            hour = hour % 12 or 12
        memory[SECONDS] = self._digits(time.second)
        memory[MINUTES] = self._digits(time.minute)
        memory[HOURS] = self._digits(hour)
        if not memory[REGISTER_B] & _24_HOURS and time.hour >= 12:
            memory[HOURS] |= _PM
        memory[DAY_OF_WEEK] = self._digits(time.weekday + 1)
        memory[DAY_OF_MONTH] = self._digits(time.day)
        memory[MONTH] = self._digits(time.month)
        memory[YEAR] = self._digits(time.year % 100)
        memory[CENTURY] = self._digits(time.year // 100)

    def _set_time(self, now_ns: int) -> None:
        """``rtc_set_time``: the registers say what time it is."""
        memory = self.state.memory

        def number(index: int, mask: int = 0xFF) -> int:
            value = self._number(memory[index] & mask)
            return -1 if value is None else value

        hour = number(HOURS, 0x7F)
        if not memory[REGISTER_B] & _24_HOURS:
            hour = _remainder(hour, 12) + (12 if memory[HOURS] & _PM else 0)
        year = number(YEAR) + 100 * number(CENTURY)
        days = _days(year, number(MONTH), number(DAY_OF_MONTH))
        seconds = number(SECONDS)
        self.state.base_s = days * _DAY_S + 3600 * hour + 60 * number(MINUTES) + seconds
        self.state.base_ns = now_ns

    def _digits(self, number: int) -> int:
        """Binary, or BCD."""
        if self.state.memory[REGISTER_B] & _BINARY:
            return number & 0xFF
        return number // 10 << 4 & 0xF0 | number % 10

    def _number(self, value: int) -> int | None:
        """The opposite; None for don't care."""
        if value & _ANY == _ANY:
            return None
        if self.state.memory[REGISTER_B] & _BINARY:
            return value
        return (value >> 4) * 10 + (value & 0xF)


def _seconds_until(
    alarm: tuple[int | None, int | None, int | None], now: tuple[int, int, int]
) -> int:
    """From ``now`` to the alarm (hours, minutes, seconds; None: any), as QEMU has it.

    Where all that counts is equal now it is a day, also where an hour or a minute would do.
    """
    hour, minute, second = alarm
    any_hour = hour is None
    if hour is None:
        hour = now[0]
    if hour == now[0]:
        if minute is None:
            minute = now[1]
            if second is None:
                second = now[2] + 1
            elif now[2] > second:
                minute += 1
            if not any_hour:  # round within the hour
                minute, second = (minute + 1, 0) if second == 60 else (minute, second)
                minute %= 60
        elif minute == now[1]:
            if second is None:
                second = now[2] + 1
            elif any_hour and now[2] > second:
                hour += 1
            if not any_hour:  # round within the minute
                second %= 60
            elif second == 60:
                hour, second = hour + 1, 0
        elif any_hour and now[1] > minute:
            hour += 1
    minute, second = minute or 0, second or 0
    if second == 60:
        minute, second = minute + 1, 0
    if minute == 60:
        hour, minute = hour + 1, 0
    seconds = 3600 * (hour % 24 - now[0]) + 60 * (minute - now[1]) + second - now[2]
    return seconds if seconds > 0 else seconds + _DAY_S


_DAYS_TO_1970: Final = 719468
"""From 1 March of the year 0."""
_DAYS_OF_400_YEARS: Final = 146097


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970 in the Gregorian calendar; months count from March, so that leap days end it.

    Months and days beyond the calendar's count on.
    """
    if month < 3:
        year, month = year - 1, month + 12
    leap_days = year // 4 - year // 100 + year // 400
    return 365 * year + leap_days + (153 * (month - 3) + 2) // 5 + day - 1 - _DAYS_TO_1970


def _of_seconds(seconds: int) -> _Time:
    """Seconds since 1970 as date and time."""
    days, second = divmod(seconds, _DAY_S)
    era, day = divmod(days + _DAYS_TO_1970, _DAYS_OF_400_YEARS)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    january = month >= 10
    return _Time(
        year=400 * era + year + january,
        month=month - 9 if january else month + 3,
        day=day + 1,
        weekday=(days + 4) % 7,
        hour=second // 3600,
        minute=second // 60 % 60,
        second=second % 60,
    )


def _to_ticks(ns: int) -> int:
    return ns * CLOCK_HZ // NS_PER_S


def _to_ns(ticks: int) -> int:
    return ticks * NS_PER_S // CLOCK_HZ


def _remainder(number: int, by: int) -> int:
    """C's: it has the sign of ``number``."""
    return number % by if number >= 0 else -(-number % by)
