"""The CPU's side of interrupts: what is pending, what is injected at an entry, halt and wake-up.

Spec: SDM volume 3C, "VM Entries", table "Format of the VM-Entry Interruption-Information Field";
volume 3A, "Priority Among Concurrent Events" (edition 081, 2023).  Behaviour: Linux
``arch/x86/kvm/x86.c`` (``vcpu_enter_guest``, ``kvm_check_and_inject_events``, ``process_nmi``,
``vcpu_block``), ``irq.c``, QEMU ``target/i386/cpu.c:x86_cpu_pending_interrupt``,
``target/i386/kvm/kvm.c:kvm_arch_pre_run`` and ``hw/intc/apic.c:apic_get_interrupt``.

Not modelled: nested guests, SMM's inside, exceptions other than those that a caller queues,
virtual NMIs, the TPR threshold, the patching of TPR instructions, and everything that is no
interrupt.

A driver steps a CPU: :meth:`Vcpu.enter` is one VM entry (under TCG one look at the interrupt
lines), :meth:`Vcpu.exit` the exit after it, :meth:`Vcpu.halt` a HLT.  The guest's state (IF,
STI and MOV-SS shadows) is the driver's: it says ``interruptible``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, NamedTuple, Protocol

from userspace_chip.errors import VectorRangeError
from userspace_chip.knobs import Model, PicWiring
from userspace_chip.lapic import Lapic
from userspace_chip.ports import Emit
from userspace_chip.profile import Profile
from userspace_chip.snapshot import copy_state


class MpState(Enum):
    """KVM_MP_STATE_*."""

    RUNNABLE = "runnable"
    HALTED = "halted"
    UNINITIALIZED = "uninitialized"
    """An AP that has not seen INIT."""
    INIT_RECEIVED = "wait-for-SIPI"


class Exit(IntEnum):
    """KVM_EXIT_*: why an entry went to user space instead of to the guest."""

    IRQ_WINDOW_OPEN = 7
    TPR_ACCESS = 12
    IOAPIC_EOI = 26


class IntrType(IntEnum):
    """Bits 10:8 of the VM-entry interruption-information field."""

    EXTERNAL_INTERRUPT = 0
    NMI = 2
    HARDWARE_EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4
    SOFTWARE_EXCEPTION = 6


NMI_VECTOR: Final = 2


def intr_info(vector: int, kind: IntrType, *, error_code: bool = False) -> int:
    """The VM-entry interruption-information field: valid, error code valid, type, vector."""
    return 1 << 31 | error_code << 11 | kind << 8 | vector


class Entry(NamedTuple):
    """What one entry did.

    ``info`` is the VM-entry interruption-information field, None where nothing was injected by
    software; ``vector`` what the guest takes (also where APICv or TCG delivers it); ``exit``
    why the entry did not reach the guest; ``halted`` that the CPU sleeps on; ``error_code``
    that of an exception, 32 bits. ``by_user``: the vector came by KVM_INTERRUPT, so that QEMU
    has no say until the guest leaves.
    """

    vector: int | None = None
    info: int | None = None
    irq_window: bool = False
    nmi_window: bool = False
    exit: Exit | None = None
    halted: bool = False
    error_code: int | None = None
    by_user: bool = False


_NOTHING: Final = Entry()
_ASLEEP: Final = Entry(halted=True)

_GENERAL_PROTECTION: Final = 13
_NO_VECTOR: Final = Entry(
    _GENERAL_PROTECTION,
    intr_info(_GENERAL_PROTECTION, IntrType.HARDWARE_EXCEPTION, error_code=True),
    error_code=0xFFFFFFFA,
)
"""TCG's bug: INTR is up, but LINT0 was masked meanwhile, so that no vector is found (-1).  It is
taken all the same, as a selector of the IDT: -1 * 8 + 2 (QEMU ``do_interrupt_protected``)."""

EVENT: Final = 1
SCAN_IOAPIC: Final = 2
IOAPIC_EOI: Final = 4
NMI: Final = 8
SMI: Final = 16
POLL: Final = 32
TPR_ACCESS: Final = 64
"""Requests: KVM_REQ_*; POLL is QEMU's CPU_INTERRUPT_POLL."""


@dataclass(slots=True)
class VcpuState:
    """What one CPU remembers beside its local APIC."""

    mp_state: MpState = MpState.RUNNABLE
    requests: int = 0
    in_guest: bool = False
    init_pending: bool = False
    sipi_pending: bool = False
    unhalted: bool = False
    nmi_queued: int = 0
    nmi_pending: int = 0
    nmi_injected: bool = False
    smi_pending: bool = False
    exception: int | None = None
    exception_error_code: bool = False
    exception_injected: bool = False
    interrupt: int | None = None
    """``interrupt.nr`` while ``interrupt.injected``: on its way into the guest."""
    external_vector: int | None = None
    """split: ``pending_external_vector``, parked by KVM_INTERRUPT."""
    handled_vectors: int = 0
    """``ioapic_handled_vectors``: whose EOIs concern an IOAPIC."""
    stale_vector: int | None = None
    """6.18: ``highest_stale_pending_ioapic_eoi``."""
    ioapic_eoi: int | None = None
    """split: the EOI that goes to user space at the next entry."""
    hard: bool = False
    """QEMU: CPU_INTERRUPT_HARD."""
    tpr_access_reporting: bool = False
    """KVM_TPR_ACCESS_REPORTING; an INIT leaves it on."""
    window_requested: bool = False
    """split, off: ``request_interrupt_window``, while INTR waits for the CPU to be ready."""
    irq_window: bool = False
    """An interrupt waits for the guest to become interruptible."""
    nmi_window: bool = False
    pv_eoi_enabled: bool = False
    """The guest has set MSR 0x4b564d04."""
    pv_eoi_pending: bool = False
    injections: int = 0
    """``irq_injections`` of query-stats."""
    nmi_injections: int = 0


class VcpuPort(Protocol):
    """What a CPU needs of its machine."""

    @property
    def now_ns(self) -> int:
        """Guest time."""

    def pic_output(self) -> bool:
        """Level of the PIC's INTR wire."""

    def intack(self) -> int:
        """INTA cycle on the PIC: the vector."""

    def scan_ioapic(self, vcpu: int) -> tuple[int, int | None]:
        """Rebuild the EOI exit bitmap: the vectors, and 6.18's highest stale one."""


class Vcpu:
    """One CPU: KVM's if the profile runs under KVM with its local APIC, else QEMU's."""

    def __init__(
        self,
        profile: Profile,
        port: VcpuPort,
        lapic: Lapic,
        *,
        emit: Emit | None = None,
        chain: bool = False,
    ) -> None:
        self.profile = profile
        self.lapic = lapic
        self.emit = emit
        self.chain = chain
        self._port = port
        self._kvm = profile.lapic.model is Model.KVM
        self._apicv = profile.lapic.apicv
        self._pic_user_space = profile.pic.to_cpu is PicWiring.FIRST_CPU
        in_qemu = self._enter_off if profile.kvm_vcpu else self._enter_qemu
        self.enter = self._enter_kvm if self._kvm else in_qemu
        self.state = VcpuState()
        self.reset()

    # ------------------------------------------------------------------ state

    @property
    def vcpu_id(self) -> int:
        """The CPU's number."""
        return self.lapic.vcpu_id

    def save(self) -> VcpuState:
        """An independent copy of the state."""
        return copy_state(self.state)

    def load(self, state: VcpuState) -> None:
        """Take ``state`` over."""
        self.state = copy_state(state)

    def reset(self) -> None:
        """RESET: the first CPU runs, the others wait."""
        bsp = self.vcpu_id == 0
        self.state = VcpuState(mp_state=MpState.RUNNABLE if bsp else MpState.UNINITIALIZED)
        if not self._kvm and not bsp:
            self.state.mp_state = MpState.INIT_RECEIVED

    # ------------------------------------------------------------------ requests

    def request(self, request: int = EVENT) -> None:
        """``kvm_make_request`` and kick."""
        self.state.requests |= request
        if self.chain and self.emit is not None:
            self.emit("vcpu_request", _REQUEST_NAMES[request])
            if self.state.in_guest:
                self.emit("vcpu_kick")

    def queue_nmi(self) -> None:
        """An NMI (KVM_NMI, LINT1, a message).

        off: first a bit of QEMU's (CPU_INTERRUPT_NMI), which becomes KVM's at the next exit; or
        a count (``cpu.nmi_counted``).
        """
        if self._kvm:
            self.state.nmi_queued += 1
            self.request(NMI)
        elif self.profile.kvm_vcpu:
            earlier = self.state.nmi_queued if self.profile.cpu.nmi_counted else 0
            self.state.nmi_queued = earlier + 1
        else:
            self.state.nmi_pending = 1

    def nmi_unblocked(self) -> None:
        """The guest's first IRET after an NMI: from here on ``nmi_allowed`` is true again."""
        if self.profile.cpu.nmi_iret_exits:
            self.request()

    def queue_smi(self) -> bool:
        """An SMI; whether there is an SMM to take it."""
        if not self.profile.lapic.smi_accepted:
            return False
        self.state.smi_pending = True
        self.request(EVENT if self._kvm else POLL)
        return True

    def queue_init(self) -> None:
        """INIT: KVM forgets a SIPI that waited."""
        self.state.init_pending = True
        if self._kvm:
            self.state.sipi_pending = False
            self.request()

    def queue_sipi(self) -> None:
        """SIPI; the vector is the local APIC's."""
        self.state.sipi_pending = True
        if self._kvm:
            self.request()

    def unhalt(self) -> None:
        """KVM's paravirtual kick."""
        self.state.unhalted = True
        self.request()

    def queue_exception(self, vector: int, *, error_code: bool = False) -> None:
        """An exception that KVM injects: before NMIs and interrupts."""
        self.state.exception = vector
        self.state.exception_error_code = error_code
        self.request()

    def interrupt(self, vector: int) -> int:
        """KVM_INTERRUPT: 0, or -17 (EEXIST: one is parked), -6 (ENXIO: the PIC is in the kernel).

        It does not look at LINT0.  :class:`VectorRangeError` above 255 (KVM: EINVAL).
        """
        if not 0 <= vector <= 255:
            raise VectorRangeError(f"KVM_INTERRUPT {vector}", "vectors are 0..255")
        if not self._kvm:
            self.state.interrupt = vector
        elif not self._pic_user_space:
            return -6
        elif self.state.external_vector is not None:
            return -17
        else:
            self.state.external_vector = vector
        self.request()
        return 0

    def halt(self) -> None:
        """HLT; :meth:`enter` wakes the CPU when there is a reason."""
        self.state.mp_state = MpState.HALTED

    def is_quiet(self) -> bool:
        """Whether an entry would change nothing, whatever the guest's state is."""
        state = self.state
        return self._kvm and not (
            state.requests
            or state.in_guest is False
            or state.irq_window
            or state.nmi_window
            or state.hard
            or state.nmi_injected
            or state.interrupt is not None
            or state.exception is not None
            or state.pv_eoi_enabled
            or state.mp_state is not MpState.RUNNABLE
            or self._apicv
            or self.lapic.state.timer.pending
        )

    def rests(self) -> bool:
        """Whether nothing has come to the CPU that it has not looked at."""
        if self._kvm:
            return self.is_quiet()
        state = self.state
        return not (
            state.requests
            or state.hard
            or state.nmi_pending
            or state.nmi_queued
            or state.smi_pending
            or state.init_pending
            or state.sipi_pending
        )

    # ------------------------------------------------------------------ KVM

    def has_extint(self) -> bool:
        """``kvm_cpu_has_extint``."""
        if not self.lapic.accepts_pic_intr():
            return False
        if self._pic_user_space:
            return self.state.external_vector is not None
        return self._port.pic_output()

    def has_injectable(self) -> bool:
        """``kvm_cpu_has_injectable_intr``: with APICv the local APIC's are hardware's."""
        return self.has_extint() or (not self._apicv and self.lapic.pending() is not None)

    def pre_run(self, interruptible: bool = True) -> None:
        """QEMU ``kvm_arch_pre_run`` in split: CPU 0's INTR line becomes a KVM_INTERRUPT.

        The PIC is acknowledged here, whether or not the CPU ever takes the vector.
        """
        state = self.state
        accepts = not self.has_extint() and self.lapic.accepts_pic_intr()
        if not (interruptible and accepts and state.interrupt is None):
            state.window_requested = True
            return
        if state.window_requested:
            state.window_requested = False
            self._trace_exit(Exit.IRQ_WINDOW_OPEN)
        state.hard = False
        self.interrupt(self._port.intack())

    def _trace_exit(self, reason: Exit) -> None:
        if self.emit is not None:
            self.emit("kvm_userspace_exit", f"KVM_EXIT_{reason.name}", int(reason))

    def _enter_kvm(self, interruptible: bool = True, nmi_allowed: bool = True) -> Entry:
        """One pass of ``vcpu_run``: what the entry injected, or why there was none."""
        state = self.state
        if state.in_guest:
            self.exit()
        if (state.irq_window and interruptible) or (state.nmi_window and nmi_allowed):
            # The window exit comes when the guest can take it, not with the next exit.
            state.irq_window = state.nmi_window = False
            state.requests |= EVENT
        if self._pic_user_space and state.hard:
            self.pre_run(interruptible)
        if self.lapic.state.timer.pending:
            self.lapic.timer.deliver_pending(self._port.now_ns)
        if state.mp_state is not MpState.RUNNABLE:
            if not self._wake(interruptible, nmi_allowed):
                return _ASLEEP
            state = self.state
        requests = state.requests
        if requests & ~EVENT:
            exit_reason = self._rare_requests(requests, nmi_allowed)
            if exit_reason is not None:
                return Entry(exit=exit_reason)
            requests = state.requests
        if not requests & EVENT:
            if self._apicv and interruptible:
                return self._enter_apicv(_NOTHING)
            state.in_guest = True
            return _NOTHING
        state.requests = requests & ~EVENT
        if state.init_pending or state.sipi_pending:
            self.accept_events()
            state = self.state
            if state.mp_state is MpState.INIT_RECEIVED:
                return _ASLEEP
        entry = self._inject(interruptible, nmi_allowed)
        if state.pv_eoi_enabled and self.lapic.enabled:
            self._arm_pv_eoi()
        state.in_guest = True
        # An exit that was asked for comes, whatever there is to inject by then: no one takes it
        # back (svm_enable_irq_window, svm_clear_vintr; vmx.c handle_interrupt_window, 6.12).
        state.irq_window |= entry.irq_window
        state.nmi_window = entry.nmi_window
        return self._enter_apicv(entry) if self._apicv and interruptible else entry

    def _rare_requests(self, requests: int, nmi_allowed: bool) -> Exit | None:
        """The requests before EVENT, in ``vcpu_enter_guest``'s order."""
        state = self.state
        if requests & TPR_ACCESS:
            state.requests = requests & ~TPR_ACCESS
            self._trace_exit(Exit.TPR_ACCESS)
            return Exit.TPR_ACCESS
        if requests & NMI:
            limit = 2 if nmi_allowed and not state.nmi_injected else 1
            state.nmi_pending = min(state.nmi_pending + state.nmi_queued, limit)
            state.nmi_queued = 0
            requests = requests & ~NMI | EVENT
        if requests & IOAPIC_EOI:
            requests &= ~IOAPIC_EOI
            vector = state.ioapic_eoi
            # The bitmap is looked at as it is, before a rescan that may be due.
            if vector is not None and state.handled_vectors >> vector & 1:
                state.requests = requests
                self._trace_exit(Exit.IOAPIC_EOI)
                return Exit.IOAPIC_EOI
        if requests & SCAN_IOAPIC:
            requests &= ~SCAN_IOAPIC
            self.scan_ioapic()
        state.requests = requests
        return None

    def synchronized(self) -> None:
        """QEMU has looked at the registers (``cpu_synchronize_state``) and puts them back.

        ``kvm_put_sregs`` has TPR as CR8, without its bits 3:0; and every KVM_SET_* ends with a
        look at what may be injected, the PIC's output included.
        """
        self.lapic.set_cr8(self.lapic.cr8())
        self.request()

    def scan_ioapic(self) -> None:
        """``vcpu_scan_ioapic``."""
        if self.lapic.hw_enabled:
            found = self._port.scan_ioapic(self.vcpu_id)
            self.state.handled_vectors, self.state.stale_vector = found

    def _inject(self, interruptible: bool, nmi_allowed: bool) -> Entry:
        """``kvm_check_and_inject_events``."""
        state = self.state
        if state.exception is None and not state.nmi_injected and state.interrupt is None:
            if not (state.nmi_pending or state.smi_pending):
                return self._inject_interrupt(interruptible)
            first = _NOTHING
        else:
            first = self._reinject()
        can_inject = first.info is None
        if state.smi_pending and can_inject:
            state.smi_pending = False
            can_inject = False
        if state.nmi_pending and can_inject and nmi_allowed:
            state.nmi_pending -= 1
            state.nmi_injected = True
            state.nmi_injections += 1
            first = Entry(NMI_VECTOR, intr_info(NMI_VECTOR, IntrType.NMI))
            can_inject = False
        nmi_window = bool(state.nmi_pending)
        if can_inject:
            return self._inject_interrupt(interruptible)._replace(nmi_window=nmi_window)
        waiting = self.has_injectable()
        if waiting:
            state.requests |= EVENT  # -EBUSY: an immediate exit, then another pass
        return first._replace(irq_window=waiting, nmi_window=nmi_window)

    def _reinject(self) -> Entry:
        """What a previous entry could not finish comes first, then a new exception."""
        state = self.state
        if state.exception is not None and not state.nmi_injected and state.interrupt is None:
            state.exception_injected = True
        if state.exception_injected and state.exception is not None:
            kind = IntrType.HARDWARE_EXCEPTION
            info = intr_info(state.exception, kind, error_code=state.exception_error_code)
            return Entry(state.exception, info)
        if state.nmi_injected:
            return Entry(NMI_VECTOR, intr_info(NMI_VECTOR, IntrType.NMI))
        assert state.interrupt is not None
        return self._inject_vector(state.interrupt, reinjected=True)

    def _inject_interrupt(self, interruptible: bool) -> Entry:
        state = self.state
        lapic = self.lapic
        extint = self.has_extint()
        vector = None if self._apicv or extint else lapic.pending()
        if not extint and vector is None:
            return _NOTHING
        if not interruptible:
            return Entry(irq_window=True)
        if extint:
            vector = self._get_extint()
        else:
            assert vector is not None
            lapic.ack(vector)
        state.interrupt = vector
        entry = self._inject_vector(vector, reinjected=False)
        if extint and self._pic_user_space:
            entry = entry._replace(by_user=True)
        # Only a PIC interrupt leaves another one injectable: PPR holds the rest back.
        return entry._replace(irq_window=True) if extint and self.has_injectable() else entry

    def _get_extint(self) -> int:
        vector = self.state.external_vector
        if vector is None:
            return self._port.intack()
        self.state.external_vector = None
        return vector

    def _inject_vector(self, vector: int, *, reinjected: bool) -> Entry:
        self.state.injections += 1
        if self.emit is not None:
            self.emit("kvm_inj_virq", "IRQ", vector, reinjected)
        return Entry(vector, 1 << 31 | vector)

    def _enter_apicv(self, entry: Entry) -> Entry:
        """Virtual-interrupt delivery: the hardware takes the vector, nothing is traced."""
        self.state.in_guest = True
        if entry.info is not None:
            return entry
        vector = self.lapic.pending()
        if vector is None:
            return entry
        self.lapic.ack(vector)
        return entry._replace(vector=vector)

    def exit(self, *, reinject: bool = False, pv_eoi: bool = False) -> None:
        """VM exit.

        ``reinject``: the injected event did not reach the guest (IDT-vectoring information).
        ``pv_eoi``: the guest cleared its PV EOI flag instead of writing EOI.
        """
        state = self.state
        state.in_guest = False
        if state.pv_eoi_pending:
            state.pv_eoi_pending = False
            if pv_eoi:
                self._eoi_by_flag()
        if reinject:
            state.requests |= EVENT
            return
        state.interrupt = None
        if state.nmi_injected:
            state.nmi_injected = False
        if state.exception_injected:
            state.exception = None
            state.exception_injected = False

    def _arm_pv_eoi(self) -> None:
        """``apic_sync_pv_eoi_to_guest``: only for one interrupt that no IOAPIC waits for."""
        apic = self.lapic.state
        vector = apic.isr_cache
        if apic.irr_pending or vector is None or self._apicv:
            return
        if not self.state.handled_vectors >> vector & 1:
            self.state.pv_eoi_pending = True

    def _eoi_by_flag(self) -> None:
        vector = self.lapic.eoi()
        if self.emit is not None:
            self.emit("kvm_pv_eoi", self.vcpu_id, -1 if vector is None else vector)

    def runnable(self, interruptible: bool = True, nmi_allowed: bool = True) -> bool:
        """``kvm_vcpu_has_events``: whether a halted CPU wakes up."""
        state = self.state
        return bool(
            state.init_pending
            or state.sipi_pending
            or state.unhalted
            or state.exception is not None
            or state.requests & NMI
            or (state.nmi_pending and nmi_allowed)
            or state.smi_pending
            or (interruptible and (self.has_extint() or self.lapic.pending() is not None))
        )

    def _wake(self, interruptible: bool, nmi_allowed: bool) -> bool:
        """``vcpu_block``: False where the CPU stays asleep."""
        state = self.state
        if not self.runnable(interruptible, nmi_allowed):
            return False
        self.accept_events()
        state = self.state
        if state.mp_state is MpState.HALTED:
            state.unhalted = False
            state.mp_state = MpState.RUNNABLE
            state.requests |= EVENT
        return state.mp_state is MpState.RUNNABLE

    def accept_events(self) -> None:
        """``kvm_apic_accept_events``: INIT, then SIPI, which only a CPU after INIT takes.

        An entry does it, a wake-up, and KVM_GET_MP_STATE.
        """
        state = self.state
        if state.init_pending:
            sipi = state.sipi_pending
            bsp = self.vcpu_id == 0
            self.lapic.reset(init=True)
            self.state = state = VcpuState(
                mp_state=MpState.RUNNABLE if bsp else MpState.INIT_RECEIVED,
                sipi_pending=sipi,
                requests=state.requests | (EVENT if sipi else 0),
                tpr_access_reporting=state.tpr_access_reporting,
                unhalted=state.unhalted,
                injections=state.injections,
                nmi_injections=state.nmi_injections,
            )
            self._started()
        if state.sipi_pending:
            state.sipi_pending = False
            if state.mp_state is MpState.INIT_RECEIVED:
                state.mp_state = MpState.RUNNABLE
                self._started()

    def _started(self) -> None:
        """``kvm_set_mp_state`` (Linux 6.15 on, ``arch/x86/kvm/x86.h``)."""
        if self.state.mp_state is MpState.RUNNABLE and self.profile.cpu.start_ends_kick:
            self.state.unhalted = False

    # ------------------------------------------------------------------ QEMU

    def poll(self) -> None:
        """``apic_update_irq``: the INTR line follows the local APIC, and the PIC through it."""
        state = self.state
        state.requests &= ~POLL
        if self.lapic.pending() is not None:
            state.hard = True
        elif not self.lapic.accepts_pic_intr() or not self._port.pic_output():
            state.hard = False

    def _begin_qemu(self, interruptible: bool) -> bool:
        """INIT and SIPI, then whether it runs (``kvm_arch_process_async_events``; TCG alike)."""
        if self.state.in_guest:
            self.exit()
        if self.state.requests & POLL:
            self.poll()
        if self.state.init_pending or self.state.sipi_pending:
            self.accept_events()
            if self.state.requests & POLL:
                self.poll()
        state = self.state
        if state.mp_state is MpState.HALTED:
            nmi = state.nmi_pending or state.nmi_queued
            if nmi or state.smi_pending or (state.hard and interruptible):
                state.mp_state = MpState.RUNNABLE
        state.in_guest = state.mp_state is MpState.RUNNABLE
        return state.in_guest

    def _enter_qemu(self, interruptible: bool = True, nmi_allowed: bool = True) -> Entry:
        """TCG: one look at the interrupt lines (``x86_cpu_pending_interrupt``)."""
        if not self._begin_qemu(interruptible):
            return _ASLEEP
        state = self.state
        if state.smi_pending:
            state.smi_pending = False
            return _NOTHING
        if state.nmi_pending and nmi_allowed:
            return self._inject_nmi()
        return self._inject_qemu(interruptible)

    def _enter_off(self, interruptible: bool = True, nmi_allowed: bool = True) -> Entry:
        """off: one KVM_RUN, with what QEMU does before and after it.

        An NMI that KVM has comes as soon as the guest can take it, without an exit to QEMU, but
        after an injection that is under way, and one for which the window opens at that time: by
        the IRET of the NMI before it, say.  Every exit writes KVM's CR8 back, which is TPR bits
        7:4, and looks at INTR anew (QEMU 7.2 ``target/i386/kvm/kvm.c:kvm_arch_pre_run``,
        ``kvm_arch_post_run``, ``cpu_set_apic_tpr``; Linux 6.1 ``x86.c:process_nmi``).
        """
        injectable = self.state.hard and interruptible
        if self.state.nmi_pending and nmi_allowed and not injectable:
            return self._inject_nmi()
        if not self._begin_qemu(interruptible):
            return _ASLEEP
        state = self.state
        if state.nmi_queued:
            limit = 2 if nmi_allowed else 1
            state.nmi_pending = min(state.nmi_pending + state.nmi_queued, limit)
            state.nmi_queued = 0
        if state.smi_pending:
            state.smi_pending = False
            entry = _NOTHING
        else:
            entry = self._inject_qemu(interruptible)
            if entry.vector is None and state.nmi_pending and nmi_allowed:
                entry = self._inject_nmi()
        self.lapic.set_cr8(self.lapic.cr8())
        self.poll()
        return entry

    def _inject_nmi(self) -> Entry:
        """One of those that wait."""
        self.state.nmi_pending -= 1
        self.state.nmi_injections += 1
        return Entry(NMI_VECTOR, intr_info(NMI_VECTOR, IntrType.NMI))

    def _inject_qemu(self, interruptible: bool) -> Entry:
        """Where the INTR line is high: the CPU takes it, or a window is asked for.

        off: what is injected goes through KVM_INTERRUPT, so KVM traces it as reinjected.
        """
        state = self.state
        kvm = self.profile.kvm_vcpu
        if not (state.hard and interruptible):
            state.window_requested = state.hard
            return Entry(irq_window=True) if state.hard else _NOTHING
        if state.window_requested and kvm:
            self._trace_exit(Exit.IRQ_WINDOW_OPEN)
        state.hard = False
        vector = self._get_pic_interrupt()
        if state.requests & POLL:
            self.poll()
        state.window_requested = state.hard
        if vector is None:
            return _NOTHING if kvm else _NO_VECTOR
        state.injections += 1
        if kvm and self.emit is not None:
            self.emit("kvm_inj_virq", "IRQ", vector, True)
        info = intr_info(vector, IntrType.EXTERNAL_INTERRUPT)
        return Entry(vector, info, irq_window=state.hard, by_user=kvm)

    def _get_pic_interrupt(self) -> int | None:
        """``cpu_get_pic_interrupt``: the local APIC's vector, its spurious one, or the PIC's."""
        lapic = self.lapic
        vector = lapic.pending()
        blocked = vector is None and lapic.blocked()
        if (vector is not None or blocked) and not lapic.check_pic():
            if vector is None:
                return lapic.state.spiv & 0xFF
            lapic.ack(vector)
            return vector
        if not lapic.accepts_pic_intr():
            return None
        return self._port.intack()


_REQUEST_NAMES: Final = {
    EVENT: "KVM_REQ_EVENT",
    SCAN_IOAPIC: "KVM_REQ_SCAN_IOAPIC",
    IOAPIC_EOI: "KVM_REQ_IOAPIC_EOI_EXIT",
    NMI: "KVM_REQ_NMI",
    SMI: "KVM_REQ_SMI",
    POLL: "CPU_INTERRUPT_POLL",
    TPR_ACCESS: "KVM_REQ_REPORT_TPR_ACCESS",
}
