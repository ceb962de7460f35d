"""The ports through which a chip reaches its neighbours: all that a chip knows of the world.

A chip is a pure state machine.  It is built as ``Chip(profile, port)``, holds one comparable
dataclass in ``chip.state``, and has

``chip.save()``       an independent copy of the state (``snapshot.copy_state``)
``chip.load(state)``  the opposite; :class:`~userspace_chip.errors.StateError` for nonsense
``chip.emit``         where its events go (:class:`Emit`), or None for no events at all

Its methods are the pins and registers.  Where time matters they take ``now_ns``, nanoseconds on
one monotonic guest clock; a timer that a chip has armed comes back as a call of ``expire(now_ns)``.
Effects are synchronous calls of the port, because the caller needs their result: KVM's IOAPIC
sets remote IRR by what :meth:`IoapicPort.deliver` returns.

One protocol a chip; ``irqchip.py`` implements them all, tests implement the one they need.  An
implementation (KVM's chip or QEMU's) uses only the half of a port that the original has.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

from userspace_chip.events import Arg
from userspace_chip.messages import LapicMessage, MsiMessage


class Irqchip(IntEnum):
    """KVM's numbers of the in-kernel chips (``KVM_IRQCHIP_*``, uapi ``asm/kvm.h``)."""

    PIC_MASTER = 0
    PIC_SLAVE = 1
    IOAPIC = 2


class Source(IntEnum):
    """KVM's interrupt source ids (``include/linux/kvm_host.h``): who holds a line high."""

    USER = 0
    RESAMPLER = 1
    PIT = 2


class Emit(Protocol):
    """Takes an event: the fields in the order of ``events.EVENT_TYPES[name].fields``.

    The receiver adds time, source and vCPU.  Where no events are wanted a chip has None, and asks:
    a function that does nothing in its place makes a machine without a log 11 to 18 % slower, for
    the fields that are computed in vain, and one with a log no faster.
    """

    def __call__(self, name: str, *args: Arg) -> None:
        """One event."""


DestMap = dict[int, int]
"""vCPU -> vector that it accepted: KVM's ``struct dest_map``, filled by a delivery on request."""


class TimerPort(Protocol):
    """A one-shot timer that belongs to one chip."""

    def arm(self, deadline_ns: int) -> None:
        """Ask for ``expire(now_ns)`` at ``deadline_ns``; replaces an earlier deadline."""

    def cancel(self) -> None:
        """Forget the deadline, if there is one."""


class LapicPort(Protocol):
    """What one local APIC needs of its machine."""

    @property
    def timer(self) -> TimerPort:
        """The APIC timer."""

    def send_ipi(self, message: LapicMessage) -> None:
        """An ICR write or self-IPI: deliver from this CPU (KVM ignores the result of IPIs)."""

    def eoi(self, vector: int, level: bool) -> None:
        """Vector left service; ``level`` is its TMR bit.  The machine tells the IOAPICs."""

    def eoi_exits(self, vector: int) -> bool:
        """APICv: whether the EOI of ``vector`` leaves the guest (the EOI exit bitmap)."""

    def apic_map_changed(self) -> None:
        """Id, LDR, DFR, mode or enable state changed: KVM's map and EOI exit bitmaps are stale."""

    def request(self) -> None:
        """Something may be injectable now: KVM_REQ_EVENT and kick (CPU_INTERRUPT_HARD/POLL)."""

    def nmi(self) -> None:
        """Pend an NMI on this CPU."""

    def smi(self) -> bool:
        """Pend an SMI; False where the machine has no SMM."""

    def init(self) -> None:
        """Pend an INIT."""

    def sipi(self, vector: int) -> None:
        """Pend a start-up IPI."""

    def tpr_accessed(self) -> None:
        """KVM: the guest read or wrote TPR, other than by CR8 (``report_tpr_access``)."""

    def extint(self) -> None:
        """QEMU: LINT0 in ExtINT mode raised this CPU's INTR (CPU_INTERRUPT_HARD)."""

    def unhalt(self) -> None:
        """KVM's paravirtual kick (delivery mode 3)."""

    def pic_output(self) -> bool:
        """Level of the PIC's INTR wire as this CPU's LINT0 sees it."""


class IoapicPort(Protocol):
    """What one IOAPIC needs of its machine.  ``pin`` is this chip's pin, 0..23."""

    @property
    def timer(self) -> TimerPort:
        """The storm throttle's delayed work."""

    # KVM's chip
    def deliver(self, message: LapicMessage, dest_map: DestMap | None = None) -> int:
        """``kvm_irq_delivery_to_apic``: -1 no CPU matched, 0 dropped, n accepted by n CPUs.

        With ``dest_map`` the CPUs that accepted are recorded in it (RTC tracking).
        """

    def ack(self, pin: int) -> None:
        """``kvm_notify_acked_irq``: the machine emits ``kvm_ack_irq`` and runs the notifiers."""

    def mask_changed(self, pin: int, masked: bool) -> None:
        """``kvm_fire_mask_notifiers``: called when the mask bit of an RTE changed."""

    def rte_written(self, pin: int, old: int, new: int) -> None:
        """After the half of an RTE is stored: who must rescan its EOI exit bitmap?"""

    def has_resampler(self, pin: int) -> bool:
        """Whether an irqfd resampler listens on the pin's GSI (Linux 6.12 unmask rule)."""

    def resample(self, pin: int) -> None:
        """Kick that resampler (KVM: instead of injecting on unmask; QEMU: resamplefd on EOI)."""

    def pending_eoi(self, vcpu: int, vector: int) -> bool:
        """Whether ``vector`` is in IRR or ISR of ``vcpu`` (restores the RTC's pending EOIs)."""

    def matching(self, message: LapicMessage) -> list[int]:
        """The vCPUs that ``message`` addresses (``kvm_apic_match_dest``; restores the RTC map)."""

    # QEMU's chip
    def send_msi(self, pin: int, message: MsiMessage, level: bool) -> None:
        """Service of a pin.  split: ``kvm_set_irq(pin, 1)`` and for an edge ``(pin, 0)``, through
        the route whatever ``message`` says; off/tcg: store ``message`` into the MSI window.
        """

    def update_route(self, pin: int, message: MsiMessage) -> None:
        """split: rewrite MSI route ``pin`` (called for unmasked pins only)."""

    def commit_routes(self) -> None:
        """split: KVM_SET_GSI_ROUTING with all updates so far (also where there were none)."""

    def intack(self) -> int:
        """An INTA cycle on the PIC, for an ExtINT RTE: the vector."""

    def eoi_broadcast(self, vector: int, now_ns: int) -> None:
        """The EOI register was written (any 32 bits): the machine emits ``ioapic_eoi_broadcast``
        and, for a vector up to 255, calls ``Ioapic.eoi`` of every IOAPIC, this one too.
        """


class PicPort(Protocol):
    """What the 8259 pair needs of its machine."""

    def intr(self, level: bool) -> None:
        """The master's INTR output after an update (KVM ``pic_irq_request``; called each time)."""

    def ack(self, chip: Irqchip, pin: int) -> None:
        """``kvm_notify_acked_irq``: an ISR bit was cleared; slave pins are given as 8..15 (KVM)."""

    def mask_changed(self, chip: Irqchip, pin: int, masked: bool) -> None:
        """``kvm_fire_mask_notifiers``: an IMR bit changed; pin is 0..7 of ``chip`` (KVM)."""

    def accepts_pic_intr(self) -> bool:
        """Whether any vCPU's LINT0 accepts PIC interrupts (``kvm_apic_accept_pic_intr``)."""


class PitPort(Protocol):
    """What the 8254's channel 0 needs of its machine."""

    @property
    def timer(self) -> TimerPort:
        """Channel 0's timer."""

    def set_irq(self, level: int) -> None:
        """Drive GSI 0 (KVM: source :attr:`Source.PIT`, called with 1 then 0 for a pulse)."""

    def nmi_watchdog(self) -> None:
        """KVM: after a pulse, LVT0 of every vCPU is delivered where any has LVT0 in NMI mode."""


class HpetPort(Protocol):
    """What the HPET needs of its machine."""

    def timer(self, number: int) -> TimerPort:
        """The timer of one comparator."""

    def set_irq(self, route: int, level: int) -> int:
        """Drive GSI ``route``, 0..31; those from 24 up are not connected.

        What KVM said, as for :meth:`RtcPort.set_irq`.
        """

    def store(self, address: int, data: int) -> None:
        """FSB delivery: a 32-bit store, into the MSI window if the guest means an interrupt."""

    def enable_pit(self, on: bool, now_ns: int) -> None:
        """Legacy replacement mode takes over the PIT's interrupt, or gives it back."""


class RtcPort(Protocol):
    """What the RTC needs of its machine."""

    @property
    def periodic(self) -> TimerPort:
        """The periodic interrupt's timer."""

    @property
    def update(self) -> TimerPort:
        """The timer of the update-ended and alarm interrupts; armed where one is enabled."""

    @property
    def coalesced(self) -> TimerPort:
        """The timer of ticks that are delivered late (``driftfix=slew``)."""

    def set_irq(self, level: int) -> int:
        """Drive the line.  The number of CPUs that took it, as far as QEMU learns it; else 0."""
