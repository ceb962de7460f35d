"""One machine's interrupt controllers: every chip of a profile, wired, with its stimuli.

A :class:`Machine` has no clock and no guest.  Whoever drives it (the scenario model, the live VMM,
the replay of a recorded trace) calls the stimuli, one at a time, and reads results and events:

=======================================  =====================================================
a device changes a line                  :meth:`Machine.set_gsi` (through QEMU's board),
                                         :meth:`Machine.irq_line` (the bare KVM_IRQ_LINE_STATUS)
a device or irqfd sends a message        :meth:`Machine.signal_msi`, :meth:`Machine.irqfd`
a CPU touches a register                 :meth:`Machine.mmio_write`, ``mmio_read``, ``pio_*``,
                                         ``msr_*``, :meth:`Machine.eoi`
time passes                              :meth:`Machine.advance`, or :meth:`Machine.expire` for
                                         one named timer
a CPU enters its guest, leaves, sleeps   :meth:`Machine.enter`, :meth:`Machine.step` (one pass),
                                         :meth:`Machine.exit`, :meth:`Machine.halt`
user space reconfigures KVM              :meth:`Machine.set_routes`, ``interrupt``, ``nmi``
=======================================  =====================================================

Events come in the order in which KVM and QEMU trace them, with the model as their source, in
``machine.log.events``; ``machine.log.enable(False)`` makes everything faster.

Sources of the wiring itself: ``wiring.py``; of QEMU's board: ``hw/i386/x86.c`` /
``x86-common.c:gsi_handler``, ``hw/i386/kvm/{i8259,ioapic}.c``, ``hw/i386/microvm.c``.

Not modelled: IOMMUs, Xen, and for ``microvm`` in ``on`` the user-space PIC whose output goes
nowhere.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from userspace_chip.architecture import (
    APIC_WINDOW,
    APIC_WINDOW_BYTES,
    HPET_BASE,
    HPET_BYTES,
    HYPERV_APIC_MSRS,
    IOAPIC_BASES,
    IOAPIC_PAGE_BYTES,
    IOAPIC_PINS,
    LAPIC_PAGE_BYTES,
    MASTER_COMMAND,
    MASTER_DATA,
    MSR_APIC_BASE,
    MSR_KVM_PV_EOI,
    MSR_TSC_DEADLINE,
    MSR_X2APIC,
    PIC_PORTS,
    PIT_CONTROL,
    PIT_COUNTER_0,
    PIT_PORTS,
    RTC_DATA,
    RTC_INDEX,
    RTC_PORTS,
    SLAVE_COMMAND,
    SLAVE_DATA,
    Board,
)
from userspace_chip.chipset import Chipset, EventLog
from userspace_chip.delivery import KvmBus, apic_bus
from userspace_chip.errors import AccessError, PinRangeError, StateError
from userspace_chip.hpet import HpetState
from userspace_chip.ioapic import Ioapic, IoapicState
from userspace_chip.knobs import Model
from userspace_chip.lapic import Lapic
from userspace_chip.lapic_registers import EOI, LVT_LINT0, LVT_LINT1, MASKED
from userspace_chip.lapic_state import LapicState
from userspace_chip.messages import DELIVERY_MODES, TRIGGERS, LapicMessage, MsiMessage
from userspace_chip.pic import Pic, PicState
from userspace_chip.pit import Pit, PitState
from userspace_chip.ports import Source
from userspace_chip.profile import Profile, profile
from userspace_chip.routing import (
    DEFAULT_TABLES,
    MsiRoute,
    Route,
    Router,
    RoutingTable,
    kernel_default,
)
from userspace_chip.rtc import Rtc, RtcState
from userspace_chip.snapshot import from_json, head, to_json
from userspace_chip.vcpu import Entry, Exit, Vcpu, VcpuState
from userspace_chip.wiring import (
    IoapicWiring,
    LapicWiring,
    PicPins,
    PitWiring,
    QemuLapicWiring,
    RouterWiring,
    RtcWiring,
    VcpuWiring,
    hpet_of,
)

_PORT_REGIONS: Final = {
    MASTER_COMMAND: MASTER_COMMAND,
    MASTER_DATA: MASTER_COMMAND,
    SLAVE_COMMAND: SLAVE_COMMAND,
    SLAVE_DATA: SLAVE_COMMAND,
    **dict.fromkeys(range(PIT_COUNTER_0, PIT_CONTROL + 1), PIT_COUNTER_0),
    RTC_DATA: RTC_INDEX,
}
"""Where the region of a port begins, of those with more than one port."""
_PV_IPI_RESERVED: Final = 0xC0800
"""Of the ICR in KVM_HC_SEND_IPI: destination mode and shorthand."""


def is_aligned_port(port: int, size: int) -> bool:
    """Whether an access of ``size`` bytes is aligned within the region of ``port``."""
    return (port - _PORT_REGIONS.get(port, port)) % size == 0


@dataclass
class MachineState:
    """Everything that a machine remembers; chips by place, deadlines by timer name."""

    now_ns: int
    deadlines: dict[str, int]
    lapics: list[LapicState]
    vcpus: list[VcpuState]
    ioapics: list[IoapicState]
    pic: PicState
    pit: PitState
    hpet: HpetState | None
    rtc: RtcState
    routes: tuple[Route, ...]


class Machine(Chipset):
    """The interrupt controllers of one machine with ``cpus`` CPUs.

    ``board``: ``pc`` or ``q35``, whose HPETs say that they reach other GSIs, or ``microvm``, which
    has none but a second IOAPIC for GSI 24..47.  ``hpet``: False for ``hpet=off``.
    ``time_of_day_s``: what the RTC says at first, in seconds since 1970.
    ``routes`` replaces the GSI routing table that the profile's QEMU would install.
    ``reset``: as QEMU's first machine reset leaves it; False: as the ioctls that create it do.
    ``chain`` also logs the requests, kicks and entries for which there is no tracepoint.
    Chips are there as ``lapics``, ``vcpus``, ``ioapics``, ``pic``, ``pit``, ``hpet`` and ``rtc``.
    """

    def __init__(
        self,
        profile: Profile,
        cpus: int = 1,
        *,
        board: Board = "pc",
        hpet: bool = True,
        time_of_day_s: int = 0,
        routes: RoutingTable | None = None,
        log: bool = True,
        chain: bool = False,
        reset: bool = True,
        tsc_khz: int = 1_000_000,
        physical_bits: int = 40,
    ) -> None:
        if not 1 <= cpus <= 255:
            raise PinRangeError(f"{cpus} CPUs", "a machine has 1 to 255")
        self.profile = profile
        self.on = profile.mode == "on"
        self.split = profile.mode == "split"
        self.now_ns = 0
        self.deadlines = {}
        self.resamplers = set()
        self.resampled = []
        self.log = EventLog(self)
        self.staged = {}
        self.lapics = []
        self.vcpus = []
        self.bus = apic_bus(profile, self.lapics)
        self._build_cpus(cpus, chain, tsc_khz, physical_bits)
        self.ioapics = [
            Ioapic(self._ioapic_profile(index), IoapicWiring(self, index))
            for index in range(2 if board == "microvm" else 1)
        ]
        self.pic = Pic(profile, PicPins(self))
        if routes is None:
            microvm_on = self.on and board == "microvm"
            table = DEFAULT_TABLES[profile.route.default_routes]
            routes = kernel_default() if microvm_on else table()
        self.router = Router(routes, RouterWiring(self), ids_32bit=profile.delivery.ids_32bit)
        self.request_scan()
        self.pit = Pit(profile, PitWiring(self))
        self.hpet = hpet_of(self, board) if hpet else None
        self.rtc = Rtc(profile, RtcWiring(self), time_of_day_s)
        if reset:
            self.reset()
        self.log.enable(log)

    def _build_cpus(self, cpus: int, chain: bool, tsc_khz: int, physical_bits: int) -> None:
        kind = LapicWiring if self.profile.lapic.model is Model.KVM else QemuLapicWiring
        outside = VcpuWiring(self)
        for cpu in range(cpus):
            wiring = kind(self, cpu)
            lapic = Lapic(self.profile, wiring, cpu, tsc_khz=tsc_khz, physical_bits=physical_bits)
            wiring.vcpu = Vcpu(self.profile, outside, lapic, chain=chain)
            self.vcpus.append(wiring.vcpu)
            self.lapics.append(lapic)
        self.bus.recalculate()

    def _ioapic_profile(self, index: int) -> Profile:
        """The second IOAPIC is QEMU's in every mode; in on nothing forwards EOIs to it."""
        if index == 0 or not self.on:
            return self.profile
        return replace(self.profile, ioapic=profile("split", qemu=self.profile.qemu).ioapic)

    # ------------------------------------------------------------------ devices

    def irq_line(
        self, gsi: int, level: int, source: int = Source.USER, *, cpu: int | None = None
    ) -> int:
        """KVM_IRQ_LINE_STATUS: the result of :meth:`Router.set_irq`."""
        self.log.vcpu = cpu
        return self.router.set_irq(gsi, level, source)

    def signal_msi(self, address: int, data: int, *, cpu: int | None = None) -> int:
        """A device's message: KVM_SIGNAL_MSI, or a store into QEMU's window (off, tcg).

        -1 no CPU matched (errno EPERM), 0 dropped, n accepted by n.
        """
        self.log.vcpu = cpu
        message = MsiMessage(address, data)
        if self.profile.kvm_lapic:
            return self.router.send_msi(message)
        return self.store_msi(message)

    def pv_ipi(self, cpu: int, bitmap: int, first: int, icr: int) -> int:
        """A CPU makes the hypercall KVM_HC_SEND_IPI; what it returns, an errno below 0.

        Source: Linux ``arch/x86/kvm/lapic.c:kvm_pv_send_ipi``.  :class:`StateError` without KVM's
        local APICs.
        """
        self.log.vcpu = cpu
        if not isinstance(self.bus, KvmBus):
            raise StateError("KVM_HC_SEND_IPI", "the local APICs are QEMU's")
        if icr & _PV_IPI_RESERVED:
            return -errno.EINVAL
        message = LapicMessage(
            icr & 0xFF,
            DELIVERY_MODES[icr >> 8 & 7],
            trigger=TRIGGERS[icr >> 15 & 1],
            level=bool(icr & 0x4000),
        )
        count = self.bus.multi_ipi(message, bitmap, first)
        return -errno.EOPNOTSUPP if count is None else count

    def irqfd(self, gsi: int) -> None:
        """An eventfd on a GSI is written (``irqfd_wakeup``): one MSI route is fast, others wait."""
        self.log.vcpu = None
        routes = self.router.table.of(gsi)
        if len(routes) == 1 and isinstance(routes[0], MsiRoute):
            assert isinstance(self.bus, KvmBus)
            if self.bus.deliver_fast(self.router.decode(routes[0].message)) is not None:
                return
        self.router.set_irq(gsi, 1, Source.USER, False)
        self.router.set_irq(gsi, 0, Source.USER, False)

    def irqfd_resample(self, gsi: int) -> None:
        """An eventfd with a resampler is written: the line stays high until the guest's EOI.

        The kick at EOI is an entry in ``resampled``.
        """
        self.log.vcpu = None
        self.resamplers.add(gsi)
        self.router.set_irq(gsi, 1, Source.RESAMPLER, False)

    # ------------------------------------------------------------------ registers

    def mmio_read(self, cpu: int, address: int, size: int) -> int:
        """A CPU reads ``size`` bytes; :class:`AccessError` where no chip is."""
        self.log.vcpu = cpu
        lapic = self.lapics[cpu]
        base = lapic.base_address if self.profile.kvm_lapic else APIC_WINDOW
        if base <= address < base + LAPIC_PAGE_BYTES:
            return lapic.read_mmio(address - base, size, self.now_ns)
        index, offset = self._ioapic_at(address)
        if index is not None:
            reach = self.ioapics[index].knobs.range_bytes
            return self.ioapics[index].read(offset, size) if offset < reach else 0
        if APIC_WINDOW <= address < APIC_WINDOW + APIC_WINDOW_BYTES:
            if self.profile.kvm_lapic:
                return (1 << 8 * size) - 1  # hw/i386/kvm/apic.c:kvm_apic_mem_read
            return lapic.read_mmio(address & 0xFFF, size, self.now_ns)
        if self.hpet is not None and HPET_BASE <= address < HPET_BASE + HPET_BYTES:
            return self.hpet_read(self.hpet, address - HPET_BASE, size)
        raise AccessError(f"read at {address:#x}", "there is no interrupt controller")

    def mmio_write(self, cpu: int, address: int, size: int, value: int) -> None:
        """A CPU writes ``size`` bytes; :class:`AccessError` where no chip is."""
        self.log.vcpu = cpu
        lapic = self.lapics[cpu]
        base = lapic.base_address if self.profile.kvm_lapic else APIC_WINDOW
        offset = address - base
        if 0 <= offset < LAPIC_PAGE_BYTES and (
            offset >> 4 or not self.profile.lapic.page0_store_is_msi
        ):
            lapic.write_mmio(offset, size, value, self.now_ns)
            return
        index, offset = self._ioapic_at(address)
        if index is not None:
            if offset < self.ioapics[index].knobs.range_bytes:
                self.ioapics[index].write(offset, size, value, self.now_ns)
            return
        if self.hpet is not None and HPET_BASE <= address < HPET_BASE + HPET_BYTES:
            self.hpet_write(self.hpet, address - HPET_BASE, size, value)
            return
        if not APIC_WINDOW <= address < APIC_WINDOW + APIC_WINDOW_BYTES:
            raise AccessError(f"write at {address:#x}", "there is no interrupt controller")
        if size >= 4:
            self.signal_msi(address - APIC_WINDOW, value & 0xFFFFFFFF, cpu=cpu)

    def _ioapic_at(self, address: int) -> tuple[int | None, int]:
        for index in range(len(self.ioapics)):
            offset = address - IOAPIC_BASES[index]
            if 0 <= offset < IOAPIC_PAGE_BYTES:
                return index, offset
        return None, 0

    def pio_read(self, cpu: int, port: int, size: int = 1) -> int:
        """IN from the PICs, ELCR, PIT or RTC; :class:`AccessError` at another port."""
        self.log.vcpu = cpu
        if self._misaligned(port, size):
            return 0
        if port in PIC_PORTS:
            return self.pic.read(port, size)
        if port in PIT_PORTS:
            return self.pit.read(port, self.now_ns, size)
        if port in RTC_PORTS:
            return self.rtc.read(port, size, self.now_ns)
        raise AccessError(f"IN from port {port:#x}", "there is no interrupt controller")

    def pio_write(self, cpu: int, port: int, value: int, size: int = 1) -> None:
        """OUT to the PICs, ELCR, PIT or RTC; :class:`AccessError` at another port."""
        self.log.vcpu = cpu
        if self._misaligned(port, size):
            return
        if port in PIC_PORTS:
            self.pic.write(port, value, size)
        elif port in PIT_PORTS:
            self.pit.write(port, value, self.now_ns, size)
        elif port in RTC_PORTS:
            self.rtc.write(port, value, size, self.now_ns)
        else:
            raise AccessError(f"OUT to port {port:#x}", "there is no interrupt controller")

    def _misaligned(self, port: int, size: int) -> bool:
        """TCG: no device answers what is not aligned within its region of ports.

        QEMU's ``memory_access_valid`` by way of ``helper_inw`` (``address_space_lduw``); what KVM
        leaves to user space is split into bytes before (``flatview_read_continue``).
        """
        return not self.profile.kvm_vcpu and not is_aligned_port(port, size)

    def msr_read(self, cpu: int, msr: int) -> int | None:
        """RDMSR; None is #GP.  :class:`AccessError` for an MSR of no interrupt controller."""
        self.log.vcpu = cpu
        lapic = self.lapics[cpu]
        value: int | None
        if MSR_X2APIC <= msr < MSR_X2APIC + 0x100:
            value = lapic.read_msr((msr - MSR_X2APIC) << 4, self.now_ns)
        elif msr == MSR_APIC_BASE:
            value = lapic.state.apic_base
            if not self.profile.kvm_lapic and self.log.enabled:
                self.log("cpu_get_apic_base", value)
        elif msr == MSR_TSC_DEADLINE:
            value = lapic.tsc_deadline()
        elif msr in HYPERV_APIC_MSRS:
            register = HYPERV_APIC_MSRS[msr]
            value = lapic.read_whole(register, self.now_ns) if self.profile.kvm_lapic else None
        elif msr == MSR_KVM_PV_EOI:
            value = int(self.vcpus[cpu].state.pv_eoi_enabled)
        else:
            raise AccessError(f"RDMSR {msr:#x}", "it belongs to no interrupt controller")
        self._trace_msr("read", msr, value or 0, value is None)
        return value

    def msr_write(self, cpu: int, msr: int, value: int) -> bool:
        """WRMSR; False is #GP.  :class:`AccessError` for an MSR of no interrupt controller."""
        self.log.vcpu = cpu
        lapic = self.lapics[cpu]
        ok = True
        if MSR_X2APIC <= msr < MSR_X2APIC + 0x100:
            ok = lapic.write_msr((msr - MSR_X2APIC) << 4, value, self.now_ns)
        elif msr == MSR_APIC_BASE:
            ok = lapic.set_apic_base(value)
        elif msr == MSR_TSC_DEADLINE:
            lapic.set_tsc_deadline(value, self.now_ns)
        elif msr in HYPERV_APIC_MSRS:
            register = HYPERV_APIC_MSRS[msr]
            ok = self.profile.kvm_lapic and lapic.write_whole(register, value, self.now_ns)
        elif msr == MSR_KVM_PV_EOI and self.profile.kvm_lapic:
            self.vcpus[cpu].state.pv_eoi_enabled = bool(value & 1)
        else:
            raise AccessError(f"WRMSR {msr:#x}", "it belongs to no interrupt controller")
        self._trace_msr("write", msr, value, not ok)
        return ok

    def _trace_msr(self, access: str, msr: int, value: int, gp: bool) -> None:
        if self.log.enabled and self.profile.kvm_vcpu:
            self.log("kvm_msr", access, msr, value, gp)

    def eoi(self, cpu: int) -> None:
        """The guest ends its interrupt, by MMIO or MSR as the APIC's mode wants it."""
        lapic = self.lapics[cpu]
        if lapic.x2apic_mode:
            self.msr_write(cpu, MSR_X2APIC + (EOI >> 4), 0)
        else:
            self.log.vcpu = cpu
            lapic.write_mmio(EOI, 4, 0, self.now_ns)

    def set_cr8(self, cpu: int, value: int) -> None:
        """MOV to CR8."""
        self.log.vcpu = cpu
        self.lapics[cpu].set_cr8(value)

    # ------------------------------------------------------------------ CPUs

    def step(self, cpu: int, interruptible: bool = True, nmi_allowed: bool = True) -> Entry:
        """One VM entry of one CPU, or one exit to user space instead (:attr:`Entry.exit`).

        The driver answers an exit with :meth:`handle_exit`.
        """
        self.log.vcpu = cpu
        vcpu = self.vcpus[cpu]
        entry = vcpu.enter(interruptible, nmi_allowed)
        if vcpu.chain and self.log.enabled and vcpu.state.in_guest:
            self.log("vcpu_enter", entry.info or 0)
        return entry

    def enter(self, cpu: int, interruptible: bool = True, nmi_allowed: bool = True) -> Entry:
        """Enter the guest of one CPU; exits to user space on the way are handled as QEMU does."""
        entry = self.step(cpu, interruptible, nmi_allowed)
        while entry.exit is not None:
            self.handle_exit(cpu, entry.exit)
            entry = self.step(cpu, interruptible, nmi_allowed)
        return entry

    def handle_exit(self, cpu: int, reason: Exit) -> None:
        """QEMU's answer to an exit (``kvm_arch_handle_exit``)."""
        self.log.vcpu = cpu
        if self.log.enabled:
            self.log("kvm_run_exit", cpu, int(reason))
        state = self.vcpus[cpu].state
        if reason is Exit.IOAPIC_EOI and state.ioapic_eoi is not None:
            vector, state.ioapic_eoi = state.ioapic_eoi, None
            self.eoi_broadcast(vector)
        elif reason is Exit.TPR_ACCESS:
            self.vcpus[cpu].synchronized()

    def exit(self, cpu: int, *, reinject: bool = False, pv_eoi: bool = False) -> None:
        """VM exit of one CPU; see :meth:`Vcpu.exit`.  :meth:`enter` does it where needed."""
        self.log.vcpu = cpu
        self.vcpus[cpu].exit(reinject=reinject, pv_eoi=pv_eoi)

    def halt(self, cpu: int) -> None:
        """HLT."""
        self.vcpus[cpu].halt()

    def interrupt(self, cpu: int, vector: int) -> int:
        """KVM_INTERRUPT; see :meth:`Vcpu.interrupt`."""
        return self.vcpus[cpu].interrupt(vector)

    def nmi(self, cpu: int) -> None:
        """KVM_NMI."""
        self.vcpus[cpu].queue_nmi()

    def run_vapic_rom(self) -> None:
        """The firmware runs the option ROM of QEMU's kvmvapic, as it does at every start.

        From then on each access of TPR is an exit, where KVM has the local APICs: QEMU looks
        whether it can patch the instruction (``hw/i386/kvmvapic.c:vapic_report_tpr_access``).  It
        cannot below 0x80000000; patching is not modelled.
        """
        for vcpu in self.vcpus:
            vcpu.state.tpr_access_reporting = self.profile.lapic.tpr_access_exits

    def inject_nmi(self, cpu: int) -> None:
        """The monitor's ``nmi``: LVT1 (``do_inject_external_nmi``, ``apic_external_nmi``)."""
        lapic = self.lapics[cpu]
        if not self.profile.kvm_lapic:
            lapic.local_deliver(LVT_LINT1)
        elif lapic.state.lvt[LVT_LINT1] & 0x10700 == 0x400:
            self.nmi(cpu)

    # ------------------------------------------------------------------ KVM's configuration

    def set_routes(self, routes: Iterable[Route]) -> None:
        """KVM_SET_GSI_ROUTING; :class:`~userspace_chip.errors.RouteError` for what it refuses."""
        self.router.table = RoutingTable(routes, split=self.split)
        if self.split:
            self.request_scan()

    def add_msi_route(self, message: MsiMessage, *, device: str = "N/A", vector: int = 0) -> int:
        """QEMU ``kvm_irqchip_add_msi_route``: a route on the lowest free GSI from 24 up."""
        table = self.router.table
        gsi = next(
            gsi for gsi in range(IOAPIC_PINS, table.size + IOAPIC_PINS + 1) if not table.of(gsi)
        )
        if self.log.enabled:
            self.log("kvm_irqchip_add_msi_route", device, vector, gsi)
        self.staged[gsi] = message
        self.commit_routes()
        return gsi

    # ------------------------------------------------------------------ state

    def reset(self) -> None:
        """Machine reset, as QEMU does it; split's routes stay.

        QEMU then writes its own reset state of the APICs into KVM: all LVTs masked.
        """
        self.log.vcpu = None
        for lapic, vcpu in zip(self.lapics, self.vcpus, strict=True):
            lapic.reset()
            vcpu.reset()
            if self.profile.kvm_lapic:
                lapic.state.lvt[LVT_LINT0] = MASKED
        if self.hpet is not None:
            self.hpet.reset(self.now_ns)
        self.rtc.reset(self.now_ns)
        for ioapic in self.ioapics:
            ioapic.reset()
        self.pic.reset()
        self.pit.reset(self.now_ns)
        self.request_scan()

    def save(self) -> MachineState:
        """An independent copy of everything; events are not part of it."""
        return MachineState(
            now_ns=self.now_ns,
            deadlines=dict(self.deadlines),
            lapics=[chip.save() for chip in self.lapics],
            vcpus=[chip.save() for chip in self.vcpus],
            ioapics=[chip.save() for chip in self.ioapics],
            pic=self.pic.save(),
            pit=self.pit.save(),
            hpet=None if self.hpet is None else self.hpet.save(),
            rtc=self.rtc.save(),
            routes=self.router.table.routes,
        )

    def load(self, state: MachineState) -> None:
        """Take a saved state over; :class:`StateError` where it is of another machine."""
        if (state.hpet is None) != (self.hpet is None):
            raise StateError("machine state", "only one of both machines has an HPET")
        shape = (len(state.lapics), len(state.vcpus), len(state.ioapics))
        if shape != (len(self.lapics), len(self.vcpus), len(self.ioapics)):
            raise StateError(
                f"machine state of {shape[0]} CPUs and {shape[2]} IOAPICs",
                f"this machine has {len(self.lapics)} and {len(self.ioapics)}",
            )
        self.now_ns = state.now_ns
        self.staged = {}
        if state.routes != self.router.table.routes:
            self.router.table = RoutingTable(state.routes, split=self.split)
        for lapic, lapic_state in zip(self.lapics, state.lapics, strict=True):
            lapic.take(lapic_state)
        self.lapics[0].port.apic_map_changed()
        for ioapic, ioapic_state in zip(self.ioapics, state.ioapics, strict=True):
            ioapic.load(ioapic_state)
        self.pic.load(state.pic)
        self.pit.load(state.pit)
        if self.hpet is not None and state.hpet is not None:
            self.hpet.load(state.hpet)
        self.rtc.load(state.rtc)
        for vcpu, vcpu_state in zip(self.vcpus, state.vcpus, strict=True):
            vcpu.load(vcpu_state)
        self.deadlines = dict(state.deadlines)

    def to_json(self) -> str:
        """:meth:`save` as JSON text, with the profile that it belongs to."""
        mode, qemu, linux = self.profile.mode, self.profile.qemu, self.profile.linux
        return to_json(self.save(), mode=mode, qemu=qemu, linux=linux)

    def from_json(self, text: str) -> None:
        """Load what :meth:`to_json` wrote; :class:`StateError` where it is another machine's."""
        state = from_json(MachineState, text)
        mine = (self.profile.mode, self.profile.qemu, self.profile.linux)
        theirs = tuple(head(text).get(key) for key in ("mode", "qemu", "linux"))
        if mine != theirs:
            raise StateError(f"snapshot of a machine {theirs}", f"this one is {mine}")
        self.load(state)
