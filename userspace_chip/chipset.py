"""The chips of one machine, and what one of them brings about at another.

:class:`~userspace_chip.irqchip.Machine` builds them and adds the stimuli from outside; the ports of
the chips (``wiring.py``) end here.

Sources: Linux ``arch/x86/kvm/irq_comm.c``, ``virt/kvm/{irqchip,eventfd}.c``; QEMU
``hw/i386/x86.c`` / ``x86-common.c:gsi_handler``, ``hw/intc/{apic,ioapic}.c``,
``target/i386/kvm/kvm.c``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from userspace_chip import msi
from userspace_chip.architecture import APIC_WINDOW_BYTES, IOAPIC_PINS, ISA_LINES
from userspace_chip.delivery import ApicBus
from userspace_chip.errors import PinRangeError, StateError
from userspace_chip.events import Arg, Event
from userspace_chip.hpet import Hpet
from userspace_chip.ioapic import Ioapic
from userspace_chip.knobs import Model
from userspace_chip.lapic import Lapic
from userspace_chip.messages import MsiMessage
from userspace_chip.pic import Pic
from userspace_chip.pit import Pit
from userspace_chip.ports import Emit, Irqchip, Source
from userspace_chip.profile import Profile
from userspace_chip.routing import IrqchipRoute, MsiRoute, Router
from userspace_chip.rtc import Rtc
from userspace_chip.vcpu import SCAN_IOAPIC, Vcpu

CHIP_NAMES: Final = {
    Irqchip.PIC_MASTER: "PIC master",
    Irqchip.PIC_SLAVE: "PIC slave",
    Irqchip.IOAPIC: "IOAPIC",
}
"""``kvm_irqchips`` of the ``kvm_ack_irq`` tracepoint."""


class Emitter(Protocol):
    """A chip, as the log sees it."""

    emit: Emit | None


class EventLog:
    """Collects the chips' events; what happened when and in whose thread is the machine's."""

    __slots__ = ("_chipset", "enabled", "events", "vcpu")

    def __init__(self, chipset: Chipset) -> None:
        self._chipset = chipset
        self.events: list[Event] = []
        self.vcpu: int | None = None
        self.enabled = False

    def __call__(self, name: str, *args: Arg) -> None:
        """One event; see :class:`~userspace_chip.ports.Emit`."""
        self.events.append(_new(Event, (self._chipset.now_ns, "model", name, self.vcpu, args)))

    def enable(self, on: bool) -> None:
        """Switch all events on or off."""
        self.enabled = on
        emit: Emit | None = self if on else None
        for chip in self._chipset.chips:
            chip.emit = emit

    def take(self) -> list[Event]:
        """The events so far, which are then forgotten."""
        events, self.events = self.events, []
        return events


_new = tuple.__new__
_RTC_TIMERS: Final = (Rtc.expire_periodic, Rtc.expire_update, Rtc.expire_coalesced)


class Chipset:
    """The interrupt controllers of one machine, with its time."""

    profile: Profile
    on: bool
    """The mode, which is asked for at every access."""
    split: bool
    now_ns: int
    """Guest time."""
    deadlines: dict[str, int]
    """When a timer expires, by its name: ``lapicN``, ``ioapicN``, ``pit``, ``hpetN``, and ``rtc0``
    to ``rtc2`` for the periodic interrupt, update and alarm, and coalesced ticks."""
    resamplers: set[int]
    """The GSIs with an irqfd resampler (KVM_IRQFD_FLAG_RESAMPLE)."""
    resampled: list[int]
    """GSIs whose irqfd resampler was kicked: the device looks at its line again."""
    log: EventLog
    lapics: list[Lapic]
    vcpus: list[Vcpu]
    bus: ApicBus
    ioapics: list[Ioapic]
    pic: Pic
    router: Router
    pit: Pit
    hpet: Hpet | None = None
    """None on microvm, and with ``hpet=off``."""
    rtc: Rtc
    staged: dict[int, MsiMessage]
    """MSI routes that QEMU changed and has not committed, by GSI."""

    @property
    def chips(self) -> list[Emitter]:
        """Everything that emits events."""
        return [*self.lapics, *self.vcpus, *self.ioapics, self.pic, self.router, self.bus]

    def set_gsi(self, gsi: int, level: int, *, cpu: int | None = None) -> int:
        """A device drives the board's GSI (``gsi_handler``), in the thread of ``cpu`` if any.

        In on QEMU calls KVM for both chips of an ISA line, and KVM fans out each call; the result
        is the sum of what KVM said, the number that QEMU's RTC sees.  QEMU's own chips report
        nothing: 0.  :class:`PinRangeError` for a GSI that the board does not have.
        """
        if not 0 <= gsi < IOAPIC_PINS * len(self.ioapics):
            raise PinRangeError(f"GSI {gsi}", f"the board has {IOAPIC_PINS * len(self.ioapics)}")
        self.log.vcpu = cpu
        if self.log.enabled:
            self.log("x86_gsi_interrupt", gsi, level)
        if gsi >= IOAPIC_PINS:
            self.ioapics[1].set_irq(gsi - IOAPIC_PINS, level)
            return 0
        if self.on:
            doubled = gsi < ISA_LINES and self.profile.route.isa_lines_doubled
            return sum(self.router.set_irq(gsi, level) for _ in range(2 if doubled else 1))
        if gsi < ISA_LINES:
            self.pic.set_irq(gsi, level)
        self.ioapics[0].set_irq(gsi, level)
        return 0

    def hpet_read(self, hpet: Hpet, offset: int, size: int) -> int:
        """A CPU reads ``size`` bytes of the HPET's window."""
        value = 0
        for at, part in self._hpet_parts(offset, size):
            value |= hpet.read(offset + at, part, self.now_ns) << 8 * at
        return value

    def hpet_write(self, hpet: Hpet, offset: int, size: int, value: int) -> None:
        """A CPU writes ``size`` bytes of the HPET's window."""
        for at, part in self._hpet_parts(offset, size):
            piece = value >> 8 * at & (1 << 8 * part) - 1
            hpet.write(offset + at, part, piece, self.now_ns)

    def _hpet_parts(self, offset: int, size: int) -> list[tuple[int, int]]:
        """(offset, bytes) of what QEMU makes of an access of ``size`` bytes to the HPET.

        It is split into aligned parts of what the device takes (``memory_access_size``), also under
        TCG, because the HPET does not fill its page; there one impossible part makes all so
        (``subpage_accepts``).
        """
        sizes = self.profile.hpet.access_sizes
        parts, at = [], 0
        while at < size:
            rest = size - at
            aligned = (offset + at) & -(offset + at) or rest
            part = min(max(sizes), rest, aligned)
            parts.append((at, part))
            at += part
        if not self.profile.kvm_vcpu and any(part not in sizes for _, part in parts):
            return []
        return parts

    def store_msi(self, message: MsiMessage) -> int:
        """QEMU ``apic_mem_write``: a message, or by mistake a register of the CPU's own APIC."""
        offset = message.address & APIC_WINDOW_BYTES - 1
        if offset > 0xFFF or not offset >> 4:
            ids_32bit = self.profile.delivery.x2apic_ids
            decoded = msi.decode_qemu(message, ids_32bit=ids_32bit)
            return self.bus.deliver(decoded)
        if self.log.vcpu is not None:
            self.lapics[self.log.vcpu].write_mmio(offset, 4, message.data, self.now_ns)
        return 0

    def stage_route(self, gsi: int, message: MsiMessage) -> None:
        """``kvm_irqchip_update_msi_route``: takes effect at the commit."""
        if self.log.enabled:
            self.log("kvm_irqchip_update_msi_route", gsi)
        self.staged[gsi] = message

    def commit_routes(self) -> None:
        """``kvm_irqchip_commit_routes``: KVM takes the table over, and every CPU rescans it."""
        if self.log.enabled:
            self.log("kvm_irqchip_commit_routes")
        table = self.router.table
        changes = {
            gsi: message
            for gsi, message in self.staged.items()
            if table.of(gsi) != [MsiRoute(gsi, message)]
        }
        self.staged = {}
        if changes:
            self.router.table = table.with_messages(changes)
        if self.split:
            self.request_scan()

    def recalculate_bus(self) -> None:
        """The APIC map is stale: recompute it; EOI exit bitmaps follow."""
        self.bus.recalculate()
        self.request_scan()

    def request_scan(self, lapics: Iterable[Lapic] | None = None) -> None:
        """KVM_REQ_SCAN_IOAPIC for the CPUs of ``lapics``, by default for all."""
        if not self.profile.kvm_lapic:
            return
        for lapic in self.lapics if lapics is None else lapics:
            self.vcpus[lapic.vcpu_id].state.requests |= SCAN_IOAPIC

    def eoi_broadcast(self, vector: int) -> None:
        """QEMU ``ioapic_eoi_broadcast``: all IOAPICs of QEMU's."""
        if self.log.enabled:
            self.log("ioapic_eoi_broadcast", vector)
        if vector > 0xFF:
            return
        for ioapic in self.ioapics:
            if ioapic.knobs.model is Model.QEMU:
                ioapic.eoi(vector, self.now_ns)

    def advance(self, now_ns: int) -> None:
        """Let time pass up to ``now_ns``: armed timers expire in the order of their deadlines.

        Of two with the same one that which was armed first, as QEMU and Linux have it.
        """
        self.log.vcpu = None
        while self.deadlines and min(self.deadlines.values()) <= now_ns:
            name = min(self.deadlines, key=self.deadlines.__getitem__)
            self.now_ns = max(self.now_ns, self.deadlines[name])
            self.expire(name)
        self.now_ns = max(self.now_ns, now_ns)

    def expire(self, name: str) -> None:
        """A timer of :attr:`deadlines` is due, now, armed or not."""
        self.deadlines.pop(name, None)
        kind = name.rstrip("0123456789")
        index = int(name[len(kind) :] or 0)
        if kind == "lapic":
            self.lapics[index].expire(self.now_ns)
        elif kind == "ioapic":
            self.ioapics[index].expire(self.now_ns)
        elif kind == "pit":
            self.pit.expire(self.now_ns)
        elif kind == "hpet" and self.hpet is not None:
            self.hpet.expire(index, self.now_ns)
        elif kind == "rtc":
            _RTC_TIMERS[index](self.rtc, self.now_ns)
        else:
            raise StateError(f"timer {name!r}", None, "lapicN, ioapicN, pit, hpetN or rtcN")

    def pins_with_ack_notifier(self) -> set[int]:
        """IOAPIC pins of which ``kvm_irq_has_notifier`` is true: the PIT's, and resamplers'."""
        gsis = {0, *self.resamplers} if self.pit.state.reinject else self.resamplers
        return {
            route.pin
            for gsi in gsis
            for route in self.router.table.of(gsi)
            if isinstance(route, IrqchipRoute) and route.chip is Irqchip.IOAPIC
        }

    def notify_ack(self, chip: Irqchip, traced_pin: int, pin: int) -> None:
        """``kvm_notify_acked_irq``."""
        if self.log.enabled:
            self.log("kvm_ack_irq", CHIP_NAMES[chip], traced_pin)
        gsi = self.router.table.gsi_of(chip, pin)
        if gsi == 0 and self.pit.state.reinject:
            self.pit.ack(self.now_ns)
        if gsi is not None and gsi in self.resamplers:
            self.router.set_irq(gsi, 0, Source.RESAMPLER, False)
            self.resampled.append(gsi)

    def notify_mask(self, chip: Irqchip, pin: int, masked: bool) -> None:
        """``kvm_fire_mask_notifiers``: the PIT listens for GSI 0."""
        if self.router.table.gsi_of(chip, pin) == 0:
            self.pit.mask_changed(masked, self.now_ns)
