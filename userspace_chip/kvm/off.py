"""``off``, live: KVM runs the CPUs and nothing else; every chip is one of this package.

The local APIC serves its page, INIT and SIPI set the vCPU's registers, HLT waits in the vCPU's
thread, and what a CPU takes goes to KVM by ``KVM_INTERRUPT`` and ``KVM_NMI`` when it is ready.

Sources: QEMU 7.2 ``target/i386/kvm/kvm.c`` (``kvm_arch_pre_run``, ``kvm_arch_post_run``,
``kvm_arch_process_async_events``), ``hw/intc/apic.c``, ``target/i386/helper.c:do_cpu_sipi``; Linux
``arch/x86/kvm/x86.c`` (``kvm_vcpu_ready_for_interrupt_injection``,
``dm_request_for_irq_injection``); SDM volume 3A, "MP Initialization Protocol Algorithm for MP
Systems".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from userspace_chip.architecture import APIC_WINDOW, APIC_WINDOW_BYTES, Board
from userspace_chip.info_lapic import InfoLapic, format_lapic
from userspace_chip.info_pic import InfoPic
from userspace_chip.irqchip import Machine
from userspace_chip.kvm import abi, firmware
from userspace_chip.kvm.devices.bus import Ports, Windows
from userspace_chip.kvm.fds import VcpuFd
from userspace_chip.kvm.live import Kick, LiveLog, as_device, connect_chips, info_pic
from userspace_chip.kvm.local_msrs import LocalMsrs
from userspace_chip.profile import Profile
from userspace_chip.vcpu import NMI_VECTOR, POLL, MpState

_PAGE_SHIFT: Final = 12


@dataclass
class _Cpu:
    """A vCPU with the registers that a RESET gave it, which an INIT gives back."""

    vcpu: VcpuFd
    regs: abi.KvmRegs
    sregs: abi.KvmSregs


class OffIrqchip:
    """The mode ``off`` of a VM, which gets no irqchip at all."""

    def __init__(
        self,
        profile: Profile,
        cpus: int,
        kick: Kick,
        *,
        board: Board = "q35",
        time_of_day_s: int = 0,
    ) -> None:
        self.chips = Machine(profile, cpus, board=board, time_of_day_s=time_of_day_s, log=False)
        self.chips.log = LiveLog(self.chips)
        self._msrs = LocalMsrs(self.chips)
        self._kick = kick
        self._cpus: list[_Cpu] = []

    def connect(self, ports: Ports, windows: Windows) -> None:
        """Every chip's ports and windows, the local APICs' too."""
        chips = self.chips
        connect_chips(chips, ports, windows)
        memory = as_device(chips.mmio_read, chips.mmio_write)
        windows.add(APIC_WINDOW, APIC_WINDOW_BYTES, memory)

    # ------------------------------------------------------------------ CPUs

    def add_cpu(self, vcpu: VcpuFd) -> None:
        """Its local APIC as SeaBIOS leaves it; its registers are those of a RESET."""
        firmware.leave_lapic(vcpu.index, self.chips.lapics[vcpu.index].state)
        self._cpus.append(_Cpu(vcpu, vcpu.get_regs(), vcpu.get_sregs()))

    def signal_msi(self, address: int, data: int, cpu: int) -> object:
        """A store into the local APICs' window."""
        return self.chips.signal_msi(address, data, cpu=cpu)

    def before_run(self, cpu: int) -> bool:
        """INIT and SIPI, then what the CPU can take; False while it sleeps."""
        vcpu = self._cpus[cpu].vcpu
        run = vcpu.kvm_run
        model = self.chips.vcpus[cpu]
        is_init, waited = model.state.init_pending, model.state.mp_state is MpState.INIT_RECEIVED
        is_smi = model.state.smi_pending
        interruptible = bool(run.ready_for_interrupt_injection and run.if_flag)
        entry = self.chips.step(cpu, interruptible)
        if is_init:
            self._init(cpu)
            waited = True
        if entry.halted:
            return False
        if waited and cpu:
            self._start_up(cpu)
        if is_smi and not model.state.smi_pending:
            vcpu.smi()
        is_nmi = entry.vector == NMI_VECTOR and entry.info is not None and entry.info >> 8 & 7 == 2
        for _ in range(model.state.nmi_pending + is_nmi):
            vcpu.nmi()  # whether the guest can take it is KVM's to know
        model.state.nmi_pending = 0
        if entry.vector is not None and not is_nmi:
            vcpu.interrupt(entry.vector)
        run.request_interrupt_window = int(model.state.hard)
        run.cr8 = self.chips.lapics[cpu].cr8()
        return True

    def _init(self, cpu: int) -> None:
        """The registers of a RESET, but for the APIC's base address, which an INIT keeps."""
        own = self._cpus[cpu]
        own.vcpu.finish_exit()
        flags = abi.EventsFlag.NMI_PENDING | abi.EventsFlag.SHADOW
        own.vcpu.set_events(abi.KvmVcpuEvents(flags=flags))
        own.sregs.apic_base = self.chips.lapics[cpu].state.apic_base
        own.vcpu.set_sregs(own.sregs)
        own.vcpu.set_regs(own.regs)

    def _start_up(self, cpu: int) -> None:
        """Real mode at the page that the SIPI names."""
        vcpu = self._cpus[cpu].vcpu
        vector = self.chips.lapics[cpu].state.sipi_vector
        sregs, regs = vcpu.get_sregs(), vcpu.get_regs()
        sregs.cs.selector, sregs.cs.base = vector << 8, vector << _PAGE_SHIFT
        regs.rip = 0
        vcpu.set_sregs(sregs)
        vcpu.set_regs(regs)

    def external_nmi(self, cpu: int) -> None:
        """``apic_external_nmi``."""
        self.chips.inject_nmi(cpu)

    def lapic_text(self, cpu: int) -> str:
        """Of our local APIC."""
        lapic = self.chips.lapics[cpu]
        count = lapic.timer.current_count(self.chips.now_ns)
        return format_lapic(InfoLapic(cpu, lapic.state, current_count=count))

    def info_pic(self) -> InfoPic:
        """Of the chips in Python."""
        return info_pic(self.chips)

    def is_halted(self, cpu: int) -> bool:
        """Its thread does not run it."""
        return self.chips.vcpus[cpu].state.mp_state is not MpState.RUNNABLE

    def after_run(self, cpu: int) -> None:
        """``kvm_arch_post_run``: CR8 and the APIC's base address are the guest's to change."""
        run = self._cpus[cpu].vcpu.kvm_run
        lapic = self.chips.lapics[cpu]
        self.chips.log.vcpu = cpu
        if run.cr8 != lapic.cr8():
            lapic.set_cr8(run.cr8)
        if run.apic_base != lapic.state.apic_base:
            lapic.set_apic_base(run.apic_base)

    def handle(self, cpu: int, reason: abi.ExitReason) -> bool:
        """HLT, the interrupt window, a TPR that fell (``KVM_EXIT_SET_TPR``), an MSR."""
        if reason is abi.ExitReason.HLT:
            self.chips.halt(cpu)
        elif reason is abi.ExitReason.X86_RDMSR:
            self._msrs.read(self._cpus[cpu].vcpu)
        elif reason is abi.ExitReason.X86_WRMSR:
            self._msrs.write(self._cpus[cpu].vcpu)
        else:
            return reason in (abi.ExitReason.IRQ_WINDOW_OPEN, abi.ExitReason.SET_TPR)
        return True

    def settle(self) -> None:
        """CPUs in their guests that have something new to look at are kicked."""
        for model in self.chips.vcpus:
            state = model.state
            if (
                state.requests & POLL
                or state.init_pending
                or state.sipi_pending
                or state.nmi_queued
                or state.smi_pending
                or (state.hard and not state.window_requested)
            ):
                self._kick(model.vcpu_id)
