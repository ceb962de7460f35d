"""How the chips of one machine are connected: an adapter for every port of ``ports.py``.

This is where the irqchip modes differ by *wiring*: who hears an EOI, where an IOAPIC's message
goes, whom the PIC's INTR reaches.  Sources: Linux ``arch/x86/kvm/{lapic,ioapic,i8259,irq_comm}.c``,
``virt/kvm/eventfd.c``; QEMU ``hw/i386/x86.c`` / ``x86-cpu.c`` (``pic_irq_request``),
``hw/i386/kvm/ioapic.c``, ``hw/intc/ioapic.c`` (``ioapic_service``), ``target/i386/kvm/kvm.c``.
"""

from __future__ import annotations

from typing import Final

from userspace_chip.architecture import (
    APIC_WINDOW,
    APIC_WINDOW_BYTES,
    IOAPIC_PINS,
    RTC_PIN,
    Board,
)
from userspace_chip.chipset import Chipset
from userspace_chip.delivery import matches
from userspace_chip.hpet import Hpet
from userspace_chip.ioapic import rte_message
from userspace_chip.knobs import PicWiring
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_registers import LVT_LINT0
from userspace_chip.messages import DeliveryMode, LapicMessage, MsiMessage
from userspace_chip.ports import DestMap, Irqchip
from userspace_chip.routing import MsiRoute
from userspace_chip.vcpu import EVENT, IOAPIC_EOI, POLL, SCAN_IOAPIC, TPR_ACCESS, Vcpu

_RTE_DEST: Final = 0xFF << 56
_NMI_UNMASKED: Final = DeliveryMode.NMI << 8


class Timer:
    """One chip's timer in the machine's table of deadlines."""

    __slots__ = ("_key", "_machine")

    def __init__(self, machine: Chipset, key: str) -> None:
        self._machine = machine
        self._key = key

    def arm(self, deadline_ns: int) -> None:
        """Enter or replace the deadline, after all that were entered before."""
        deadlines = self._machine.deadlines
        deadlines.pop(self._key, None)
        deadlines[self._key] = deadline_ns

    def cancel(self) -> None:
        """Remove it."""
        self._machine.deadlines.pop(self._key, None)


class LapicWiring:
    """A local APIC whose CPU runs under KVM with the APIC in the kernel (on, split)."""

    __slots__ = ("_cpu", "_machine", "timer", "vcpu")

    vcpu: Vcpu
    """The CPU, as soon as the machine has it."""

    def __init__(self, machine: Chipset, cpu: int) -> None:
        self._machine = machine
        self._cpu = cpu
        self.timer = Timer(machine, f"lapic{cpu}")

    def send_ipi(self, message: LapicMessage) -> None:
        """From this CPU."""
        machine = self._machine
        machine.bus.deliver(message, machine.lapics[self._cpu])

    def eoi(self, vector: int, level: bool) -> None:
        """``kvm_ioapic_send_eoi``."""
        machine = self._machine
        state = self.vcpu.state
        if not state.handled_vectors >> vector & 1 and machine.profile.eoi.needs_handled_bitmap:
            return
        if state.stale_vector == vector:
            state.requests |= SCAN_IOAPIC
        if machine.split:
            state.ioapic_eoi = vector
            state.requests |= IOAPIC_EOI
            return
        machine.ioapics[0].eoi(
            vector,
            machine.now_ns,
            level=level,
            vcpu=self._cpu,
            suppress=machine.lapics[self._cpu].suppresses_eoi_broadcast,
        )

    def eoi_exits(self, vector: int) -> bool:
        """APICv's EOI exit bitmap."""
        return bool(self.vcpu.state.handled_vectors >> vector & 1)

    def apic_map_changed(self) -> None:
        """``kvm_recalculate_apic_map``."""
        self._machine.recalculate_bus()

    def request(self) -> None:
        """KVM_REQ_EVENT."""
        if self.vcpu.chain:
            self.vcpu.request()
        else:
            self.vcpu.state.requests |= EVENT

    def nmi(self) -> None:
        """Queue it."""
        self.vcpu.queue_nmi()

    def smi(self) -> bool:
        """Queue it."""
        return self.vcpu.queue_smi()

    def init(self) -> None:
        """Queue it."""
        self.vcpu.queue_init()

    def sipi(self, vector: int) -> None:
        """Queue it."""
        self.vcpu.queue_sipi()

    def tpr_accessed(self) -> None:
        """KVM_REQ_REPORT_TPR_ACCESS, where user space asked for it."""
        if self.vcpu.state.tpr_access_reporting:
            self.vcpu.state.requests |= TPR_ACCESS

    def extint(self) -> None:
        """KVM polls the PIC; nothing to do."""

    def unhalt(self) -> None:
        """``pv_unhalted``."""
        self.vcpu.unhalt()

    def pic_output(self) -> bool:
        """The PIC's INTR."""
        return self._machine.pic.output


class QemuLapicWiring(LapicWiring):
    """A local APIC in QEMU (off, tcg)."""

    __slots__ = ()

    def eoi(self, vector: int, level: bool) -> None:
        """``ioapic_eoi_broadcast``, synchronously."""
        self._machine.eoi_broadcast(vector)

    def apic_map_changed(self) -> None:
        """QEMU has no map."""

    def request(self) -> None:
        """``apic_update_irq``: the CPU looks at its APIC before the next instruction."""
        if self.vcpu.chain:
            self.vcpu.request(POLL)
        else:
            self.vcpu.state.requests |= POLL

    def extint(self) -> None:
        """CPU_INTERRUPT_HARD."""
        self.vcpu.state.hard = True


class IoapicWiring:
    """An IOAPIC: KVM's (on), or QEMU's over MSI routes (split) or the MSI window (off, tcg)."""

    __slots__ = ("_machine", "timer")

    def __init__(self, machine: Chipset, index: int) -> None:
        self._machine = machine
        self.timer = Timer(machine, f"ioapic{index}")

    def deliver(self, message: LapicMessage, dest_map: DestMap | None = None) -> int:
        """On the APIC bus."""
        return self._machine.bus.deliver(message, None, dest_map)

    def ack(self, pin: int) -> None:
        """``kvm_notify_acked_irq``."""
        self._machine.notify_ack(Irqchip.IOAPIC, pin, pin)

    def mask_changed(self, pin: int, masked: bool) -> None:
        """``kvm_fire_mask_notifiers``."""
        self._machine.notify_mask(Irqchip.IOAPIC, pin, masked)

    def rte_written(self, pin: int, old: int, new: int) -> None:
        """KVM: the CPUs that the entry addresses, or addressed, rescan; all if it is not fixed."""
        machine = self._machine
        if not machine.on:
            return
        if new >> 8 & 7 != DeliveryMode.FIXED:
            machine.request_scan()
            return
        message = rte_message(new & ~(1 << 14 | 1 << 16))
        lapics = list(machine.bus.targets(message))
        if (old ^ new) & (_RTE_DEST | 1 << 11):
            # The old destination is looked up in the new destination mode.
            lapics += machine.bus.targets(message._replace(dest=old >> 56))
        machine.request_scan(lapics)

    def has_resampler(self, pin: int) -> bool:
        """An irqfd with KVM_IRQFD_FLAG_RESAMPLE on the pin's GSI."""
        return self._machine.router.table.gsi_of(Irqchip.IOAPIC, pin) in self._machine.resamplers

    def resample(self, pin: int) -> None:
        """Kick it."""
        gsi = self._machine.router.table.gsi_of(Irqchip.IOAPIC, pin)
        if gsi is not None:
            self._machine.resampled.append(gsi)

    def pending_eoi(self, vcpu: int, vector: int) -> bool:
        """``kvm_apic_pending_eoi``."""
        return self._machine.lapics[vcpu].pending_eoi(vector)

    def matching(self, message: LapicMessage) -> list[int]:
        """``kvm_apic_match_dest`` for every CPU, enabled or not."""
        return [lapic.vcpu_id for lapic in self._machine.lapics if self._matches(lapic, message)]

    def _matches(self, lapic: Lapic, message: LapicMessage) -> bool:
        quirk = self._machine.profile.delivery.broadcast_quirk
        return matches(lapic, message.dest, message.dest_mode, broadcast_quirk=quirk)

    def send_msi(self, pin: int, message: MsiMessage, level: bool) -> None:
        """QEMU's service of a pin."""
        machine = self._machine
        if machine.split:
            # Through the route, which may say something else than the entry.
            machine.router.set_irq(pin, 1)
            if not level:
                machine.router.set_irq(pin, 0)
        elif machine.on:
            machine.router.send_msi(message)
        else:
            machine.store_msi(message)

    def update_route(self, pin: int, message: MsiMessage) -> None:
        """``kvm_irqchip_update_msi_route``."""
        self._machine.stage_route(pin, message)

    def commit_routes(self) -> None:
        """``kvm_irqchip_commit_routes``."""
        self._machine.commit_routes()

    def intack(self) -> int:
        """INTA cycle."""
        return self._machine.pic.intack()

    def eoi_broadcast(self, vector: int, now_ns: int) -> None:
        """The EOI register."""
        self._machine.eoi_broadcast(vector)


class PicPins:
    """The 8259 pair's INTR and notifiers."""

    __slots__ = ("_machine",)

    def __init__(self, machine: Chipset) -> None:
        self._machine = machine

    def intr(self, level: bool) -> None:
        """The INTR wire, after every update."""
        machine = self._machine
        wiring = machine.profile.pic.to_cpu
        if wiring is PicWiring.LINT0_EXTINT:
            self._wake_first(level)
            return
        if machine.log.enabled:
            machine.log("x86_pic_interrupt", 0, int(level))
        direct = wiring is PicWiring.FIRST_CPU or (
            wiring is PicWiring.LINT0_OR_FIRST_CPU and not machine.lapics[0].hw_enabled
        )
        if direct:
            machine.vcpus[0].state.hard = level
            return
        for lapic in machine.lapics:
            if lapic.accepts_pic_intr():
                lapic.pic_intr(level)

    def _wake_first(self, level: bool) -> None:
        """``pic_irq_request`` and ``pic_unlock``: the first CPU that would take it looks."""
        machine = self._machine
        rises_only = machine.profile.pic.wake_only_on_rise
        if machine.pic.state.output or (rises_only and not level):
            return
        for lapic in machine.lapics:
            if lapic.accepts_pic_intr():
                machine.vcpus[lapic.vcpu_id].request()
                return

    def ack(self, chip: Irqchip, pin: int) -> None:
        """``kvm_notify_acked_irq``; the slave's pins are 8..15 in the trace, 0..7 in routes."""
        self._machine.notify_ack(chip, pin, pin & 7)

    def mask_changed(self, chip: Irqchip, pin: int, masked: bool) -> None:
        """``kvm_fire_mask_notifiers``."""
        self._machine.notify_mask(chip, pin, masked)

    def accepts_pic_intr(self) -> bool:
        """Any CPU."""
        return any(lapic.accepts_pic_intr() for lapic in self._machine.lapics)


class PitWiring:
    """The 8254's channel 0, whose line goes through the HPET where it is QEMU's."""

    __slots__ = ("_machine", "timer")

    def __init__(self, machine: Chipset) -> None:
        self._machine = machine
        self.timer = Timer(machine, "pit")

    def set_irq(self, level: int) -> None:
        """KVM: GSI 0 with a source of its own; QEMU: the ISA line."""
        machine = self._machine
        if machine.on:
            machine.router.set_irq(0, level, machine.profile.pit.source_id, False)
        elif machine.hpet is not None:
            machine.hpet.set_pit(level)
        else:
            machine.set_gsi(0, level, cpu=machine.log.vcpu)

    def nmi_watchdog(self) -> None:
        """LVT0 of every CPU, where any has it in NMI mode."""
        lapics = self._machine.lapics
        if any(lapic.state.lvt[LVT_LINT0] & 0x10700 == _NMI_UNMASKED for lapic in lapics):
            for lapic in lapics:
                lapic.local_deliver(LVT_LINT0)


class HpetWiring:
    """The HPET: ``pc_basic_device_init`` connects it to every GSI of the first IOAPIC."""

    __slots__ = ("_machine", "_timers")

    def __init__(self, machine: Chipset) -> None:
        self._machine = machine
        knobs = machine.profile.hpet
        self._timers = [
            Timer(machine, f"hpet{number}") for number in range(knobs.timers + knobs.one_too_many)
        ]

    def timer(self, number: int) -> Timer:
        """In the machine's table."""
        return self._timers[number]

    def set_irq(self, route: int, level: int) -> int:
        """A GSI; QEMU has 32 outputs and connects 24."""
        if route >= IOAPIC_PINS:
            return 0
        return self._machine.set_gsi(route, level, cpu=self._machine.log.vcpu)

    def store(self, address: int, data: int) -> None:
        """A message, if it is one; what else is in memory is not the model's."""
        if APIC_WINDOW <= address < APIC_WINDOW + APIC_WINDOW_BYTES:
            machine, message = self._machine, MsiMessage(address, data)
            if machine.profile.kvm_lapic:
                machine.router.send_msi(message)
            else:
                machine.store_msi(message)

    def enable_pit(self, on: bool, now_ns: int) -> None:
        """``pit_irq_control``, ``kvm_pit_irq_control``."""
        self._machine.pit.set_hpet_legacy(not on, now_ns)


_PC_ROUTES: Final = 1 << 2
"""INT_ROUTE_CAP of the HPET (``hw/i386/pc.c:pc_basic_device_init``); q35's is the profile's."""


def hpet_of(machine: Chipset, board: Board) -> Hpet | None:
    """The HPET that a board has; microvm has none."""
    if board == "microvm":
        return None
    return Hpet(machine.profile, HpetWiring(machine), _PC_ROUTES if board == "pc" else None)


class RtcWiring:
    """The RTC, whose line goes through the HPET where there is one."""

    __slots__ = ("_machine", "coalesced", "periodic", "update")

    def __init__(self, machine: Chipset) -> None:
        self._machine = machine
        self.periodic = Timer(machine, "rtc0")
        self.update = Timer(machine, "rtc1")
        self.coalesced = Timer(machine, "rtc2")

    def set_irq(self, level: int) -> int:
        """``kvm_get_irq_delivered``: split loses what KVM says; QEMU's APICs count new vectors."""
        machine = self._machine
        before = [lapic.state.irr for lapic in machine.lapics]
        if machine.hpet is None:
            taken = machine.set_gsi(RTC_PIN, level, cpu=machine.log.vcpu)
        else:
            taken = machine.hpet.set_rtc(level)
        if machine.profile.kvm_lapic:
            return max(taken, 0)
        after = (lapic.state.irr for lapic in machine.lapics)
        return sum((new & ~old).bit_count() for old, new in zip(before, after, strict=True))


class RouterWiring:
    """Where GSI routes lead."""

    __slots__ = ("_machine",)

    def __init__(self, machine: Chipset) -> None:
        self._machine = machine

    def set_pic(self, pin: int, level: int, source: int) -> int:
        """The in-kernel pair."""
        return self._machine.pic.set_irq(pin, level, source)

    def set_ioapic(self, pin: int, level: int, source: int, line_status: bool) -> int:
        """The in-kernel IOAPIC."""
        return self._machine.ioapics[0].set_irq(pin, level, source, line_status)

    def deliver(self, message: LapicMessage) -> int:
        """The APIC bus."""
        return self._machine.bus.deliver(message)


class VcpuWiring:
    """The CPUs' view of the machine."""

    __slots__ = ("_machine",)

    def __init__(self, machine: Chipset) -> None:
        self._machine = machine

    @property
    def now_ns(self) -> int:
        """Guest time."""
        return self._machine.now_ns

    def pic_output(self) -> bool:
        """INTR."""
        return self._machine.pic.output

    def intack(self) -> int:
        """INTA cycle."""
        return self._machine.pic.intack()

    def scan_ioapic(self, vcpu: int) -> tuple[int, int | None]:
        """The vectors whose EOI concerns an IOAPIC."""
        scan = _Scan(self._machine, vcpu)
        if self._machine.split:
            self._scan_routes(scan)
        else:
            self._scan_ioapic(scan)
        return scan.handled, scan.stale

    def _scan_routes(self, scan: _Scan) -> None:
        """``kvm_scan_ioapic_routes``: decodes, and so traces, every reserved route."""
        router = self._machine.router
        pins = min(router.table.size, self._machine.profile.route.msi_routes)
        for gsi in range(pins):
            for route in router.table.of(gsi):
                if isinstance(route, MsiRoute):
                    message = router.decode(route.message)
                    if message.trigger:
                        scan.add(message)

    def _scan_ioapic(self, scan: _Scan) -> None:
        """``kvm_ioapic_scan_entry``: level pins, pins with an ack notifier, and the RTC's."""
        machine = self._machine
        ioapic = machine.ioapics[0].state
        vector = ioapic.rtc_dest_map.get(scan.lapic.vcpu_id)
        if vector is not None:
            scan.handled |= 1 << vector
        with_notifier = machine.pins_with_ack_notifier()
        for pin, entry in enumerate(ioapic.rte):
            if entry >> 15 & 1 or pin == RTC_PIN or pin in with_notifier:
                scan.add(rte_message(entry & ~(1 << 14 | 1 << 16)))


class _Scan:
    """One pass over the entries that may want a CPU's EOIs."""

    __slots__ = ("_knobs", "_quirk", "handled", "lapic", "stale")

    def __init__(self, machine: Chipset, vcpu: int) -> None:
        self._knobs = machine.profile.eoi
        self._quirk = machine.profile.delivery.broadcast_quirk
        self.lapic = machine.lapics[vcpu]
        self.handled = 0
        self.stale: int | None = None

    def add(self, message: LapicMessage) -> None:
        """``kvm_scan_ioapic_irq`` of 6.18; earlier ones do not remember stale vectors."""
        vector = message.vector
        if matches(self.lapic, message.dest, message.dest_mode, broadcast_quirk=self._quirk):
            self.handled |= 1 << vector
        elif self._knobs.scan_includes_pending and self.lapic.pending_eoi(vector):
            self.handled |= 1 << vector
            if self._knobs.scan_tracks_stale and vector > (self.stale or -1):
                self.stale = vector
