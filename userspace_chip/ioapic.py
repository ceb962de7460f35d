"""The IOAPIC, KVM's and QEMU's, as one state machine; what differs is in ``profile.ioapic``.

Datasheet: Intel 82093AA I/O APIC.  Linux: ``arch/x86/kvm/ioapic.c`` of 6.1 to 6.18.  QEMU:
``hw/intc/ioapic.c`` and ``ioapic_common.c`` of 7.2 and 10.0.

The two differ most in how a request is remembered:

========================  =====================================  ==============================
                          KVM                                    QEMU
========================  =====================================  ==============================
edge pin raised           ``irr`` set until the line is lowered  ``irr`` set for the one service
edge pin raised, masked   latched, and blocks further edges      forgotten
a request is serviced     for the one pin                        for all pins with ``irr`` set
remote IRR is set         by the result of the delivery          always
an EOI is for             every pin of that vector               level pins with remote IRR
========================  =====================================  ==============================

QEMU's ExtINT entries take their vector from an INTA cycle on the PIC every time they are *looked
at*: on service, masked or not, and in split whenever routes are updated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from userspace_chip.architecture import (
    APIC_WINDOW,
    EOIR,
    IOAPIC_PINS,
    IOAPICARB,
    IOAPICID,
    IOAPICVER,
    IOREDTBL,
    IOREGSEL,
    IOWIN,
    RTC_PIN,
)
from userspace_chip.bits import RO, Field, Register
from userspace_chip.errors import AccessError, PinRangeError, StateError, VectorRangeError
from userspace_chip.knobs import Model, RirrRule
from userspace_chip.messages import (
    DELIVERY_MODE_NAMES,
    DELIVERY_MODES,
    DEST_MODE_NAMES,
    DEST_MODES,
    TRIGGER_NAMES,
    TRIGGERS,
    DeliveryMode,
    LapicMessage,
    MsiMessage,
    Trigger,
)
from userspace_chip.ports import Emit, IoapicPort
from userspace_chip.profile import Profile
from userspace_chip.snapshot import copy_state

VERSION_WITH_EOIR: Final = 0x20

RTE: Final = Register(
    "RTE",
    64,
    Field("vector", 7, 0),
    Field("delivery_mode", 10, 8, enum=DeliveryMode),
    Field("dest_mode", 11, 11),
    Field("delivery_status", 12, 12, RO),
    Field("polarity", 13, 13),
    Field("remote_irr", 14, 14, RO),
    Field("trigger", 15, 15, enum=Trigger),
    Field("masked", 16, 16),
    Field("reserved", 55, 17),
    Field("dest", 63, 56),
    reset=1 << 16,
)
"""Redirection table entry.  Both implementations store the reserved bits (QEMU forwards 55:48)."""

_VECTOR: Final = RTE.vector.mask
_REMOTE_IRR: Final = RTE.remote_irr.mask
_LEVEL: Final = RTE.trigger.mask
_MASKED: Final = RTE.masked.mask
_BUSY: Final = _MASKED | _REMOTE_IRR
_EXTINT: Final = RTE.pack(delivery_mode=DeliveryMode.EXTINT)
_WRITE: Final = RTE.write_mask
_KEEP: Final = RTE.keep_mask
_LOW: Final = 0xFFFFFFFF
_ALL_PINS: Final = (1 << IOAPIC_PINS) - 1


@dataclass
class IoapicState:
    """Everything that an IOAPIC remembers.  ``rte``, ``lines``, ... have one item a pin."""

    ioregsel: int = 0
    id: int = 0
    rte: list[int] = field(default_factory=lambda: [RTE.reset] * IOAPIC_PINS)
    irr: int = 0
    """Requests, a bit a pin."""
    irr_delivered: int = 0
    """KVM: edge requests still in ``irr`` that have already been delivered."""
    lines: list[int] = field(default_factory=lambda: [0] * IOAPIC_PINS)
    """KVM: the sources that hold the pin high, a bit each.  QEMU: the level last presented."""
    raised: list[int] = field(default_factory=lambda: [0] * IOAPIC_PINS)
    """QEMU: 0 to 1 changes of each input, before the remap of pin 0 (``info irq``)."""
    eoi_count: list[int] = field(default_factory=lambda: [0] * IOAPIC_PINS)
    """Consecutive EOIs that found the line still high (storm throttle)."""
    delay_deadline_ns: int | None = None
    """When the throttled requests are serviced."""
    rtc_pending_eoi: int = 0
    """KVM: CPUs that still have to EOI the RTC's last edge."""
    rtc_dest_map: dict[int, int] = field(default_factory=dict)
    """KVM: vCPU -> vector with which it accepted the RTC's edge."""


@dataclass(frozen=True)
class KvmIoapicImage:
    """What ``KVM_GET_IRQCHIP`` shows and ``KVM_SET_IRQCHIP`` takes (``kvm_ioapic_state``)."""

    ioregsel: int
    id: int
    irr: int
    rte: tuple[int, ...]


@lru_cache(maxsize=1024)
def rte_message(entry: int) -> LapicMessage:
    """The message that KVM's IOAPIC builds from an RTE (``ioapic_service``)."""
    return LapicMessage(
        vector=entry & _VECTOR,
        delivery_mode=DELIVERY_MODES[entry >> 8 & 7],
        dest_mode=DEST_MODES[entry >> 11 & 1],
        dest=entry >> 56,
        trigger=TRIGGERS[entry >> 15 & 1],
    )


@lru_cache(maxsize=1024)
def rte_msi(entry: int) -> MsiMessage:
    """The MSI that QEMU's IOAPIC builds from an RTE (``ioapic_entry_parse``).

    Bits 63:48 become address bits 19:4: the interrupt remapping format's index.
    """
    return MsiMessage(
        address=APIC_WINDOW | (entry >> 48) << 4 | (entry >> 11 & 1) << 2,
        data=entry & (_VECTOR | RTE.delivery_mode.mask | _LEVEL),
    )


@lru_cache(maxsize=1024)
def _rte_words(entry: int) -> tuple[int, int, str, str, str, bool]:
    """The RTE's fields as the kernel's tracepoints print them."""
    return (
        entry >> 56,
        entry & _VECTOR,
        DELIVERY_MODE_NAMES[entry >> 8 & 7],
        DEST_MODE_NAMES[entry >> 11 & 1],
        TRIGGER_NAMES[entry >> 15 & 1],
        bool(entry & _MASKED),
    )


class Ioapic:
    """One IOAPIC.  Impossible inputs raise :class:`~userspace_chip.errors.ChipError`."""

    def __init__(self, profile: Profile, port: IoapicPort, emit: Emit | None = None) -> None:
        self.state = IoapicState()
        self.emit = emit
        self.port = port
        self.knobs = profile.ioapic
        self._kvm = profile.ioapic.model is Model.KVM
        self._apicv = profile.lapic.apicv
        self._split = profile.route.msi_routes > 0
        self._routes_before_service = profile.route.update_before_service
        self._routes_after_any_write = profile.route.update_on_any_mmio
        self._eoi_register = profile.ioapic.eoi_register and (
            profile.ioapic.version == VERSION_WITH_EOIR
        )

    # --- state

    def save(self) -> IoapicState:
        """An independent copy of the state."""
        return copy_state(self.state)

    def load(self, state: IoapicState) -> None:
        """Take over a copy of ``state`` and arm the timer.

        :class:`StateError` where it is none of an IOAPIC's.
        """
        for name in ("rte", "lines", "raised", "eoi_count"):
            values = getattr(state, name)
            if len(values) != IOAPIC_PINS or min(values) < 0:
                raise StateError(
                    f"IOAPIC {name}: {values}", f"expected {IOAPIC_PINS} numbers from 0"
                )
        if max(state.rte) >> RTE.width:
            raise StateError(f"IOAPIC rte: {max(state.rte):#x}", "an entry has 64 bits")
        for name in ("irr", "irr_delivered"):
            if not 0 <= getattr(state, name) <= _ALL_PINS:
                raise StateError(
                    f"IOAPIC {name}: {getattr(state, name):#x}", f"there are {IOAPIC_PINS} pins"
                )
        if state.rtc_pending_eoi < 0:
            raise StateError(f"IOAPIC rtc_pending_eoi: {state.rtc_pending_eoi}", "it is a count")
        self.state = copy_state(state)
        if state.delay_deadline_ns is None:
            self.port.timer.cancel()
        else:
            self.port.timer.arm(state.delay_deadline_ns)

    def reset(self) -> None:
        """What QEMU does at machine reset (``ioapic_reset_common``, then KVM_SET_IRQCHIP in on).

        Lines, storm counters, a pending delay and the routes stay as they are.
        """
        if self._kvm:
            self.set_irqchip(KvmIoapicImage(0, 0, 0, (RTE.reset,) * IOAPIC_PINS))
            return
        state = self.state
        state.ioregsel = state.id = state.irr = 0
        state.rte = [RTE.reset] * IOAPIC_PINS

    def get_irqchip(self) -> KvmIoapicImage:
        """``kvm_get_ioapic``: delivered edges do not show in ``irr``."""
        state = self.state
        return KvmIoapicImage(
            state.ioregsel, state.id, state.irr & ~state.irr_delivered, tuple(state.rte)
        )

    def set_irqchip(self, image: KvmIoapicImage) -> None:
        """``kvm_set_ioapic``: the image's requests are raised anew; lines and counters stay."""
        if len(image.rte) != IOAPIC_PINS:
            raise StateError(
                f"IOAPIC rte: {len(image.rte)} entries", f"there are {IOAPIC_PINS} pins"
            )
        state = self.state
        state.ioregsel, state.id, state.rte = image.ioregsel, image.id, list(image.rte)
        state.irr = state.irr_delivered = 0
        state.rtc_pending_eoi = 0
        state.rtc_dest_map.clear()
        for pin in range(IOAPIC_PINS):
            if image.irr >> pin & 1:
                self._set_level(pin, level=True, line_status=True)
        self._rtc_restore()

    # --- inputs

    def set_irq(self, pin: int, level: int, source: int = 0, line_status: bool = True) -> int:
        """Drive input ``pin`` (0..23).

        KVM: ``source`` (0..63) says who drives it, ``line_status`` whether the caller asked for
        the result, which is -1 masked or in service, 0 coalesced or dropped, n accepted by n.
        QEMU: the result is always 1.
        """
        if not 0 <= pin < IOAPIC_PINS:
            raise PinRangeError(f"IOAPIC pin {pin}", f"pins are 0..{IOAPIC_PINS - 1}")
        lines = self.state.lines
        if self.knobs.source_bitmap:
            if not 0 <= source <= 63:
                raise PinRangeError(f"interrupt source {source}", "source ids are 0..63")
            held = lines[pin] | 1 << source if level else lines[pin] & ~(1 << source)
            lines[pin] = held
            return self._set_level(pin, held != 0, line_status)
        if self.emit is not None:
            self.emit("ioapic_set_irq", pin, level)
        if lines[pin] != level:
            lines[pin] = level
            if level == 1:
                self.state.raised[pin] += 1
        if pin == 0 and self.knobs.pin0_remap:
            pin = 2
        return self._set_level(pin, level != 0, line_status)

    def clear_source(self, source: int) -> None:
        """KVM: forget a source's lines (``kvm_ioapic_clear_all``, when its id is freed)."""
        self.state.lines = [line & ~(1 << source) for line in self.state.lines]

    def _set_level(self, pin: int, level: bool, line_status: bool) -> int:
        entry = self.state.rte[pin]
        result = self._raise(pin, entry, line_status) if level else self._lower(pin, entry)
        if self._kvm and self.emit is not None:
            self.emit("kvm_ioapic_set_irq", pin, *_rte_words(entry), result == 0)
        return result

    def _lower(self, pin: int, entry: int) -> int:
        if entry & _LEVEL or self.knobs.lower_clears_edge:
            self.state.irr &= ~(1 << pin)
        return 1

    def _raise(self, pin: int, entry: int, line_status: bool) -> int:
        state, bit, edge = self.state, 1 << pin, not entry & _LEVEL
        if edge and self._apicv:
            self._rtc_catch_up(pin)
        if pin == RTC_PIN and line_status and self.knobs.rtc_tracking and state.rtc_pending_eoi > 0:
            return 0
        if edge and entry & _MASKED and not self.knobs.edge_latch_when_masked:
            return 1
        pending = state.irr & bit
        state.irr |= bit
        if edge:
            state.irr_delivered &= ~bit
            if pending and self.knobs.edge_needs_low_before_rearm:
                return 0
        if self.knobs.service_all_pins:
            if edge or not entry & _REMOTE_IRR:
                self._service_all()
            return 1
        return self._service_pin(pin, line_status)

    # --- service

    def _service_pin(self, pin: int, line_status: bool = False) -> int:
        """KVM ``ioapic_service``: deliver one pin's request; the result as of ``set_irq``."""
        state = self.state
        entry = state.rte[pin]
        level = entry & _LEVEL
        if entry & (_BUSY if level else _MASKED):
            return -1
        if not level:
            state.irr_delivered |= 1 << pin
        message = rte_message(entry & ~_BUSY)
        if pin == RTC_PIN and line_status and self.knobs.rtc_tracking:
            result = self.port.deliver(message, state.rtc_dest_map)
            state.rtc_pending_eoi = max(result, 0)
        else:
            result = self.port.deliver(message)
        if level and (result or self.knobs.rirr_set_rule is RirrRule.ALWAYS):
            state.rte[pin] |= _REMOTE_IRR
        return result

    def _service_all(self) -> None:
        """QEMU ``ioapic_service``: one pass over all pins with a request."""
        state, rte = self.state, self.state.rte
        pending = state.irr
        while pending:
            bit = pending & -pending
            pending ^= bit
            pin = bit.bit_length() - 1
            entry = rte[pin]
            message = self._parse(entry)
            if entry & _MASKED:
                continue
            if not entry & _LEVEL:
                state.irr &= ~bit
                self.port.send_msi(pin, message, False)
                continue
            if self.emit is not None:
                self.emit("ioapic_set_remote_irr", pin)
            rte[pin] = entry | _REMOTE_IRR
            if not entry & _REMOTE_IRR:
                self.port.send_msi(pin, message, True)

    def _parse(self, entry: int) -> MsiMessage:
        message = rte_msi(entry & ~_BUSY)
        if entry & _EXTINT == _EXTINT and self.knobs.extint_inta_at_parse:
            return MsiMessage(message.address, message.data & ~_VECTOR | self.port.intack())
        return message

    def update_routes(self) -> None:
        """split: rewrite the MSI routes of all unmasked pins (``ioapic_update_kvm_routes``).

        The chip does it on writes; the machine calls it after migration and when an IOMMU
        invalidates its interrupt entries.  Masked pins keep stale routes.
        """
        if not self._split:
            return
        for pin, entry in enumerate(self.state.rte):
            if not entry & _MASKED:
                self.port.update_route(pin, self._parse(entry))
            elif entry & _EXTINT == _EXTINT:
                self._parse(entry)  # which may acknowledge the PIC
        self.port.commit_routes()

    # --- end of interrupt

    def eoi(
        self,
        vector: int,
        now_ns: int,
        *,
        level: bool = True,
        vcpu: int = 0,
        suppress: bool = False,
    ) -> None:
        """An EOI for ``vector`` (0..255) has reached this IOAPIC.

        KVM: ``level`` is the local APIC's TMR bit, ``vcpu`` who wrote the EOI, ``suppress`` its
        SPIV bit 12 (``kvm_ioapic_update_eoi``).  QEMU looks at ``vector`` only; the machine emits
        ``ioapic_eoi_broadcast`` and calls every IOAPIC (``ioapic_eoi_broadcast``).
        """
        if not 0 <= vector <= 0xFF:
            raise VectorRangeError(f"EOI of vector {vector}", "vectors are 0..255")
        if self.knobs.rtc_tracking:
            self._rtc_eoi(vcpu, vector)
        # A service pass may change entries further on: iterate over the live list.
        for pin, entry in enumerate(self.state.rte):
            if entry & _VECTOR != vector:
                continue
            if self._kvm:
                self.port.ack(pin)
                if not level or suppress:
                    continue
                entry = self.state.rte[pin]  # an ack notifier may have changed it
            else:
                if self.knobs.eoi_requires_rte_level and not entry & _LEVEL:
                    continue
                self.port.resample(pin)
                if not entry & _REMOTE_IRR:
                    continue
                if self.emit is not None:
                    self.emit("ioapic_clear_remote_irr", pin, vector)
            self.state.rte[pin] = entry & ~_REMOTE_IRR
            self._after_eoi(pin, entry, now_ns)

    def _after_eoi(self, pin: int, entry: int, now_ns: int) -> None:
        """Service the pin again, later if it has been too often in a row (a storm)."""
        state = self.state
        if entry & _MASKED or not state.irr >> pin & 1:
            state.eoi_count[pin] = 0
            return
        state.eoi_count[pin] += 1
        if state.eoi_count[pin] < self.knobs.storm_limit:
            if self.knobs.service_all_pins:
                self._service_all()
            else:
                self._service_pin(pin)
            return
        state.eoi_count[pin] = 0
        deadline_ns = now_ns + self.knobs.storm_delay_ns
        if state.delay_deadline_ns is None or deadline_ns < state.delay_deadline_ns:
            state.delay_deadline_ns = deadline_ns
            self.port.timer.arm(deadline_ns)
        if self.emit is not None:
            if self._kvm:
                self.emit("kvm_ioapic_delayed_eoi_inj", *_rte_words(entry))
            else:
                self.emit("ioapic_eoi_delayed_reassert", pin)

    def expire(self, now_ns: int) -> None:
        """The storm throttle's delay is over.

        KVM ``kvm_ioapic_eoi_inject_work``, QEMU ``delayed_ioapic_service_cb``.
        """
        self.state.delay_deadline_ns = None
        if self.knobs.service_all_pins:
            self._service_all()
            return
        for pin, entry in enumerate(self.state.rte):
            if entry & _LEVEL and not entry & _REMOTE_IRR and self.state.irr >> pin & 1:
                self._service_pin(pin)

    # --- the RTC's pin: KVM tracks who still has to EOI its last edge

    def _rtc_eoi(self, vcpu: int, vector: int) -> None:
        state = self.state
        if state.rtc_dest_map.get(vcpu) == vector:
            del state.rtc_dest_map[vcpu]
            state.rtc_pending_eoi -= 1
            if state.rtc_pending_eoi < 0:
                self._rtc_restore()

    def _rtc_catch_up(self, pin: int) -> None:
        """AVIC does not trap the EOI of an edge: look it up (``ioapic_lazy_update_eoi``)."""
        message = rte_message(self.state.rte[pin] & ~_BUSY)
        for vcpu in self.port.matching(message):
            if not self.port.pending_eoi(vcpu, message.vector):
                self._rtc_eoi(vcpu, message.vector)
                return

    def _rtc_restore(self) -> None:
        """``kvm_rtc_eoi_tracking_restore_all``."""
        self.state.rtc_pending_eoi = 0
        self.state.rtc_dest_map.clear()
        for vcpu in self.port.matching(rte_message(self.state.rte[RTC_PIN] & ~_BUSY)):
            self._rtc_restore_one(vcpu)

    def lapic_restored(self, vcpu: int) -> None:
        """``KVM_SET_LAPIC`` on ``vcpu`` (``kvm_rtc_eoi_tracking_restore_one``)."""
        if vcpu in self.port.matching(rte_message(self.state.rte[RTC_PIN] & ~_BUSY)):
            self._rtc_restore_one(vcpu)

    def _rtc_restore_one(self, vcpu: int) -> None:
        state = self.state
        vector = state.rte[RTC_PIN] & _VECTOR
        pending = self.port.pending_eoi(vcpu, vector)
        if pending and vcpu not in state.rtc_dest_map:
            state.rtc_dest_map[vcpu] = vector
            state.rtc_pending_eoi += 1
        elif not pending and vcpu in state.rtc_dest_map:
            del state.rtc_dest_map[vcpu]
            state.rtc_pending_eoi -= 1

    # --- registers

    def read(self, offset: int, size: int) -> int:
        """MMIO read of ``size`` bytes (1, 2, 4, 8) at ``offset`` from the base address.

        What is not a register, or not of a size that a register takes, reads 0.
        """
        self._check_access(offset, size)
        if self._kvm:
            return self._read_direct(offset, size) & (1 << 8 * size) - 1
        value = shift = 0
        for at, length in _bus_accesses(offset, size):
            value |= self._read_traced(at, length) << shift
            shift += 8 * length
        return value

    def write(self, offset: int, size: int, value: int, now_ns: int) -> None:
        """MMIO write; what is not a register, or not of the right size, ignores it."""
        self._check_access(offset, size)
        if value < 0 or value >> 8 * size:
            raise AccessError(f"write of {value:#x}", f"{size} bytes do not hold it")
        if self._kvm:
            self._write_direct(offset, size, value & _LOW, now_ns)
            return
        shift = 0
        for at, length in _bus_accesses(offset, size):
            part = value >> shift & (1 << 8 * length) - 1
            shift += 8 * length
            if self.emit is not None:
                reg = at & self.knobs.decode_mask
                self.emit("ioapic_mem_write", reg, self.state.ioregsel, length, part)
            self._write_direct(at, length, part, now_ns)
            if self._routes_after_any_write:
                self.update_routes()

    def _check_access(self, offset: int, size: int) -> None:
        if size not in (1, 2, 4, 8):
            raise AccessError(f"access of {size} bytes", "the bus does 1, 2, 4 or 8")
        if not 0 <= offset < self.knobs.range_bytes:
            raise AccessError(
                f"offset {offset:#x}", f"the IOAPIC decodes {self.knobs.range_bytes:#x} bytes"
            )

    def _read_traced(self, offset: int, size: int) -> int:
        value = self._read_direct(offset, size)
        if self.emit is not None:
            reg = offset & self.knobs.decode_mask
            self.emit("ioapic_mem_read", reg, self.state.ioregsel, size, value)
        return value & (1 << 8 * size) - 1

    def _read_direct(self, offset: int, size: int) -> int:
        reg = offset & self.knobs.decode_mask
        if reg == IOREGSEL:
            return self.state.ioregsel
        if reg == IOWIN and size in self.knobs.window_sizes:
            return self._read_indirect(self.state.ioregsel)
        return 0

    def _read_indirect(self, index: int) -> int:
        if index in (IOAPICID, IOAPICARB):
            return (self.state.id & 0xF) << 24
        if index == IOAPICVER:
            return self.knobs.version | (IOAPIC_PINS - 1) << 16
        pin = (index - IOREDTBL) >> 1
        if 0 <= pin < IOAPIC_PINS:
            return self.state.rte[pin] >> (32 if index & 1 else 0) & _LOW
        return self.knobs.unmapped_read

    def _write_direct(self, offset: int, size: int, value: int, now_ns: int) -> None:
        reg = offset & self.knobs.decode_mask
        if reg == IOREGSEL:
            self.state.ioregsel = value & 0xFF
        elif reg == IOWIN and size in self.knobs.window_sizes:
            self._write_indirect(self.state.ioregsel, value)
        elif reg == EOIR and size == 4 and self._eoi_register:
            # All 32 bits are compared: a value above 255 is no pin's vector.
            self.port.eoi_broadcast(value, now_ns)

    def _write_indirect(self, index: int, value: int) -> None:
        if index == IOAPICID:
            self.state.id = value >> 24 & 0xF
            return
        pin = (index - IOREDTBL) >> 1
        if 0 <= pin < IOAPIC_PINS:
            old = self.state.rte[pin]
            new = old & _LOW | value << 32 if index & 1 else old >> 32 << 32 | value
            self._write_rte(pin, old, new & _WRITE | old & _KEEP)

    def _write_rte(self, pin: int, old: int, new: int) -> None:
        # Both clear remote IRR with trigger edge: that is how Linux does an explicit EOI on an
        # IOAPIC without an EOI register (ioapic_write_indirect, ioapic_fix_edge_remote_irr).
        if not new & _LEVEL:
            new &= ~_REMOTE_IRR
        self.state.rte[pin] = new
        if self.knobs.storm_reset_on_rte_write:
            self.state.eoi_count[pin] = 0
        if self.knobs.service_all_pins:
            if self._routes_before_service:
                self.update_routes()
            self._service_all()
        else:
            if (old ^ new) & _MASKED:
                self.port.mask_changed(pin, bool(new & _MASKED))
            self._service_written(pin)
        self.port.rte_written(pin, old, new)

    def _service_written(self, pin: int) -> None:
        """KVM: a pending level request goes out when its entry allows it."""
        entry, bit = self.state.rte[pin], 1 << pin
        if not entry & _LEVEL or entry & _BUSY or not self.state.irr & bit:
            return
        if self.knobs.resampler_on_unmask and self.port.has_resampler(pin):
            # The line may be low by now: the resampler raises it again if it is not.
            self.state.irr &= ~bit
            self.port.resample(pin)
        else:
            self._service_pin(pin)

    # --- what a debugger shows

    @property
    def remote_irr(self) -> int:
        """The level pins in service, a bit each, as ``info pic`` lists them."""
        both = _LEVEL | _REMOTE_IRR
        return sum(1 << pin for pin, e in enumerate(self.state.rte) if e & both == both)


def _bus_accesses(offset: int, size: int) -> list[tuple[int, int]]:
    """How QEMU's memory core cuts an access: naturally aligned pieces of at most 4 bytes.

    QEMU ``softmmu/physmem.c:memory_access_size``, for a region without access rules of its own.
    """
    pieces: list[tuple[int, int]] = []
    while size:
        aligned = offset & -offset or 4
        length = 1 << min(aligned, size, 4).bit_length() - 1
        pieces.append((offset, length))
        offset += length
        size -= length
    return pieces
